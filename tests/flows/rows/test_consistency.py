"""Shares of a platform's plays, from a log to what readers are given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.model.fields import SHARES
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.replay import replay
from flows.settings import Settings

T0 = 1_764_000_000_000
KNOWN = {"listener_id": "l", "consent": True}

Line = dict[str, Any]


def several(event: str, number: int, **more: Any) -> list[Line]:
    return [{"event": event, "play_id": f"p{n}"} | more for n in range(number)]


@pytest.mark.parametrize(
    ("lines", "shares"),
    [
        (  # impressions are the plays
            [
                *several("impression", 2, **KNOWN),
                *several("impression", 2, play_id=None),
                *several("start", 2, **KNOWN),
                *several("start", 1, play_id=None, **KNOWN),
                *several("complete", 1),
            ],
            ["0.75", "0.25", "0.25", "0.25", "0.25", "0.5", "0.666667"],
        ),
        (  # starts are the plays, all of them with a play id
            [*several("start", 4), *several("start", 1, play_id="known", **KNOWN)],
            ["1", "0", "0", "0", "0", "0.2", "1"],
        ),
        (several("start", 4, play_id=None, **KNOWN), ["1", "0", "0", "0", "0", None, "0"]),
        (
            [*several("start", 3, play_id=None, **KNOWN), *several("impression", 3, play_id=None, **KNOWN)],
            ["1", "0", "0", "0", "0", "1", "0"],
        ),
    ],
    ids=["impressions", "starts", "starts without a play id", "as many impressions"],
)
def test_the_shares_of_a_platform_are_of_its_plays(
    lines: list[Line],
    shares: list[str | None],
    settings_of: Callable[..., Settings],
    client: Client,
    tmp_path: Path,
) -> None:
    log, settings = tmp_path / "log.ndjson", settings_of()
    same = {"ts": T0, "placement_id": "a", "platform": "web"}
    events = [{"event_id": f"e{n}"} | same | one for n, one in enumerate(lines)]
    log.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    replay([str(log)], settings, b"a key of sixteen bytes or more")
    row = client.hgetall(f"{settings.namespace}:platform:{{web}}")
    for window in ("1d", "flight"):
        assert [row.get(f"{window}.{name}") for name in SHARES] == shares
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []
