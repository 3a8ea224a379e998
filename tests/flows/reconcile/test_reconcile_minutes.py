"""The oracle and the fields of final minutes: each is compared, and one of no class is a difference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from flows.cli.reconcile_settings import rules
from flows.reconcile.fields import MINUTE
from flows.reconcile.recomputation import recompute
from flows.reconcile.replay_files import minute_differences
from flows.reconcile.truth import Recomputation
from flows.replay import replay
from flows.settings.fields import Settings

T0, KEY = 1_764_000_000_000, b"a key of sixteen bytes or more"
LISTENER = {"listener_id": "l", "consent": True}
VALUES = ("2.5", 9_999_999_999_999)
"""The micros of the second are beyond 2^53: it is told as text."""


@pytest.fixture
def replayed(settings_of: Callable[..., Settings], tmp_path: Path) -> tuple[Recomputation, Path]:
    """The truth of a log, and the minutes of its replay."""
    log, settings = tmp_path / "log.ndjson", settings_of()
    plays = [("impression", n) for n in range(3)] + [("start", n) for n in range(3)] + [("complete", 1)]
    lines: list[dict[str, Any]] = [
        {"event": event, "ts": T0 + n * 30_000, "placement_id": "p", "play_id": f"{n}", **LISTENER}
        for event, n in plays
    ]
    for value in VALUES:
        order = {"type": "purchase", "order_id": f"{value}", "value": value, "currency": "GBP"}
        lines.append({"event": "conversion", "ts": T0 + 90_000, "conversion": order, **LISTENER})
    log.write_text("".join(json.dumps({"event_id": f"e{n}"} | one) + "\n" for n, one in enumerate(lines)))
    replay([str(log)], settings, KEY, out=tmp_path / "out")
    return recompute([log], rules(settings)), tmp_path / "out" / "minutes.ndjson"


def differing_fields(found: tuple[Recomputation, Path], **spoiled: Any) -> set[str]:
    truth, file = found
    lines = [json.loads(line) | spoiled for line in file.read_text().splitlines()]
    file.with_name("spoiled.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {one.metric for one in minute_differences(truth, file.with_name("spoiled.ndjson"))}


def test_a_replays_minutes_equal_the_oracles(
    replayed: tuple[Recomputation, Path],
) -> None:
    assert differing_fields(replayed) == set()
    minutes = [json.loads(line) for line in replayed[1].read_text().splitlines()]
    assert set().union(*minutes) <= MINUTE.keys()
    assert any(type(one["conversion_value"]) is str for one in minutes)


SPOILED: Final = [
    *(("completion_rate", value) for value in (0.123, None, "zz", True)),
    *(("completions_per_impression", value) for value in (0.123, None, "zz")),
    *(("rev", value) for value in (-5, None, "zz", 1.5)),
    *(("as_of_ms", value) for value in (-5, None, "zz", True)),
    *(("methodology", value) for value in (5, None, "")),
    *(("nonsense", 7), ("impressions", "zz"), ("impressions", True), ("starts", [])),
]


def test_each_field_of_a_minute_is_compared(replayed: tuple[Recomputation, Path]) -> None:
    for field, value in SPOILED:
        assert field in differing_fields(replayed, **{field: value}), (field, value)
