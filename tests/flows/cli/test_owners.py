"""Plans that the exporter follows, also after the wall clock was set back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis_support import eventually

from flows.cli.exporter import disputed_of
from flows.cli.owners import owners_of
from flows.settings import Settings, load

HEAD = "placement_id,campaign_id,advertiser,start,end,booked,timezone\n"


def put(path: Path, advertiser: str) -> None:
    path.write_text(f"{HEAD}p,c,{advertiser},2026-11-01T00:00:00,2026-12-30T00:00:00,1000,UTC\n")


def owner(settings: Settings) -> Callable[[], str | None]:
    owners = owners_of(settings)
    assert owners is not None

    def advertiser() -> str | None:
        owners.refresh()
        return owners.placements["p"].advertiser

    return advertiser


def compared(settings: Settings) -> Callable[[], str | None]:
    disputed = disputed_of(settings)
    assert disputed is not None
    return lambda: disputed.plans()["p"].advertiser


@pytest.mark.parametrize("follow", [owner, compared], ids=["owners", "waterfalls"])
def test_plans_are_followed_when_the_wall_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: Callable[[Settings], Callable[[], str | None]]
) -> None:
    monkeypatch.setattr("connectors.redis.connect", lambda *_, **__: None)
    plans, theirs = tmp_path / "plans.csv", tmp_path / "theirs.csv"
    put(plans, "acme")
    theirs.write_text("placement_id,day,impressions\np,flight,5\n")
    told = follow(load(plans=str(plans), theirs=str(theirs)))
    assert told() == "acme"
    wall_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() - 3_600 * 10**9)
    put(plans, "rival")
    eventually(lambda: told() == "rival")
