"""The oracle and what the log alone does not tell: who was forgotten, and which lines were refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.redis.client import Client
from flows.cli.reconcile_settings import denied, rules
from flows.errors import AudiopixelError
from flows.intake.erasure import deny
from flows.reconcile.comparison import compare
from flows.reconcile.recomputation import recompute
from flows.reconcile.report import summary
from flows.replay import replay
from flows.settings.fields import Settings

T0 = 1_764_000_000_000
KEY = b"a key of sixteen bytes or more"


def pixel(number: int, event: str = "impression", at_ms: int = 0, **more: Any) -> bytes:
    known = {"event_id": f"{event}{number}", "event": event, "ts": T0 + at_ms, "received_at": T0 + at_ms}
    who = {"listener_id": f"l{number}", "consent": True, "campaign_id": "c"}
    return json.dumps({**known, **who, **more}).encode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    lines = [pixel(n, placement_id="p", at_ms=n) for n in range(8)]
    for n in range(8):
        bought = {"type": "purchase", "order_id": f"o{n}", "value": "2.50", "currency": "GBP"}
        lines.append(pixel(n, "conversion", 60_000, conversion=bought))
    file = tmp_path / "log.ndjson"
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    return file


@pytest.mark.parametrize("before", [True, False])
def test_an_erasure_at_any_time_is_no_difference(
    before: bool, log: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of(listener_key=KEY.decode())
    if before:
        deny(settings, ["l1", "l2"])
    replay([str(log)], settings, KEY)
    if not before:
        deny(settings, ["l1", "l2"])
    row = f"{settings.namespace}:placement:{{p}}"
    assert client.hget(row, "flight.reach") == ("6" if before else "8")

    truth = recompute([log], rules(settings), denied=denied(settings, client))
    comparison = compare(truth, client, settings.namespace)
    assert comparison.differences == []
    assert truth.erased == 4
    assert bool(comparison.erased_fields) == (not before)
    assert "4 pixels are of listeners on the deny-list" in summary(comparison, truth)

    client.hset(row, mapping={"flight.reach": "5", "flight.impressions": "7"})
    found = {one.metric for one in compare(truth, client, settings.namespace).differences}
    assert found >= {"flight.reach", "flight.impressions"}


@pytest.mark.parametrize("household", ["home", "l1"])
def test_only_a_forgotten_persons_listens_leave_the_household(
    household: str, tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    """Also where a sender has one text for both."""
    bought = {"type": "purchase", "order_id": "o"}
    lines = [
        pixel(1, placement_id="hers", household_id=household, at_ms=1000),
        pixel(2, placement_id="his", household_id=household),
        pixel(3, "conversion", 60_000, household_id=household, conversion=bought),
        pixel(1, "conversion", 60_000, household_id=household, conversion=bought | {"order_id": "hers"}),
    ]
    file = tmp_path / "log.ndjson"
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    settings = settings_of(listener_key=KEY.decode())
    deny(settings, ["l1"])
    replay([str(file)], settings, KEY, out=tmp_path / "out")
    truth = recompute([file], rules(settings), denied=denied(settings, client))
    comparison = compare(truth, client, settings.namespace)
    assert (comparison.differences, comparison.erased_fields) == ([], 0)
    decided = [json.loads(line) for line in (tmp_path / "out" / "credits.ndjson").read_text().splitlines()]
    found = {one["order_id"]: [credit["placement_id"] for credit in one["credits"]] for one in decided}
    assert found == {"o": ["his"], "hers": []}


def test_only_a_row_missing_too_early_is_a_difference(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, file, day = settings_of(), tmp_path / "days.ndjson", 86_400_000
    times = [("old", 0), *(("new", hours * day // 24) for hours in range(96))]
    lines = [pixel(n, at_ms=at_ms, placement_id=name) for n, (name, at_ms) in enumerate(times)]
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    replay([str(file)], settings, KEY)
    truth = recompute([file], rules(settings))
    assert not client.exists(f"{settings.namespace}:placement:{{old}}")
    assert compare(truth, client, settings.namespace).differences == []
    client.delete(f"{settings.namespace}:placement:{{new}}")
    assert {one.id for one in compare(truth, client, settings.namespace).differences} == {"new"}


@pytest.mark.parametrize(
    "letter",
    [
        ("other.ndjson", 1, "impression", T0),
        ("LOG", 99, "impression", T0),
        ("LOG", 2, "start", T0 + 1),
        ("LOG", 2, "impression", T0),
    ],
)
def test_the_letters_of_another_log_are_refused(log: Path, letter: tuple[str, int, str, int]) -> None:
    mine = (str(log) if letter[0] == "LOG" else letter[0], *letter[1:])
    with pytest.raises(AudiopixelError, match="letters of another log"):
        recompute([log], too_late=[mine])
    right = recompute([log], too_late=[(str(log), 2, "impression", T0 + 1)])
    assert right.totals["rejected.too_late"] == 1
