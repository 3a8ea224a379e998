"""The chaos run in its short form, and that it barks: `make chaos` is the long one, with Apache Kafka."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import chaos_bidder
from benchmarks.chaos_bidder import Bidder
from benchmarks.chaos_monitor import Monitor
from benchmarks.chaos_source import NOT_OURS, REJECTED, Ad, Due, Place, against_the_topic
from benchmarks.chaos_verdict import against_the_answers

ROOT = Path(__file__).resolve().parents[1]


def chaos(seed: int, bug: str | None = None) -> tuple[int, str]:
    """Exit code and what was said."""
    environment = os.environ if bug is None else {**os.environ, "CHAOS_BUG": bug}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "--short", "--seed", str(seed)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    return done.returncode, done.stdout + done.stderr


def number(name: str, said: str) -> int:
    found = re.search(rf"^{name}: ([\d,]+)", said, re.MULTILINE)
    assert found is not None, said
    return int(found[1].replace(",", ""))


def test_nothing_is_lost_counted_twice_or_seen_to_fall_whatever_dies() -> None:
    code, said = chaos(seed=1)

    assert code == 0, said
    assert number("events", said) > 9000
    assert number("kills", said) >= 3
    assert number("collectors", said) > 1000
    assert "collector killed" in said
    assert re.search(r"archive writer killed [1-9]", said)
    assert "source killed" in said
    assert number("source", said.replace("source: read ", "source: ")) > 500
    assert number("backward steps seen", said) == number("differences", said) == 0
    assert number("read through the client", said) > 10_000
    assert " 0 of them usable" not in said


def test_it_barks_when_messages_are_skipped() -> None:
    code, said = chaos(seed=2, bug="skipped")

    assert code == 1, said
    assert number("differences", said) > 0


def test_a_flow_with_a_lost_shard_refuses_to_start() -> None:
    code, said = chaos(seed=2, bug="forgotten")

    assert code == 1, said
    assert "the flow refuses its recovery store" in said


def test_chaos_detects_a_source_storing_its_position_early() -> None:
    code, said = chaos(seed=3, bug="stored-early")

    assert code == 1, said
    assert "the source has read" in said
    assert "1 messages of the source's topic are 0 events" in said


# Answers of the doors

ANSWERED = {f"e{n}": ("door-1", "starts") for n in range(3)} | {"i0": ("door-2", "impressions")}
STORED = dict.fromkeys(ANSWERED, 1) | {"e0": 2, "never-answered": 1}
ROWS = {"door-1": {"flight.starts": "3"}, "door-2": {"flight.impressions": "1"}}


def test_an_event_answered_and_counted_once_is_valid() -> None:
    assert against_the_answers(ANSWERED, STORED, ROWS.__getitem__) == []


@pytest.mark.parametrize("told", ["2", "4", None])
def test_an_answered_event_not_counted_once_is_detected(told: str | None) -> None:
    row = {} if told is None else {"flight.starts": told}
    (said,) = against_the_answers(ANSWERED, STORED, (ROWS | {"door-1": row}).__getitem__)
    assert said == f"door-1 starts: 3 were answered as stored, {told} are counted"


def test_an_answered_event_missing_from_the_log_is_detected() -> None:
    lost = {key: times for key, times in STORED.items() if key != "i0"}
    (said,) = against_the_answers(ANSWERED, lost, ROWS.__getitem__)
    assert said == "i0 was answered as stored, and is not in the log"


# Messages of the source's topic

START, CLICK = Ad("p", "start", "play"), Ad("p", "click", "")
SENT: dict[Place, Due] = {(0, 0): START, (0, 1): CLICK, (1, 0): CLICK, (1, 1): NOT_OURS, (1, 2): REJECTED}
EVENTS = {START: Counter(a=2), CLICK: Counter(b=1, c=1)}
COUNTED = {"flight.starts": "1", "flight.clicks": "2"}


def account(
    events: dict[Ad, Counter[str]] = EVENTS,
    rejected: frozenset[Place] = frozenset({(1, 2)}),
    row: dict[str, str] = COUNTED,
) -> list[str]:
    ledger, found = against_the_topic(SENT, events, rejected, len(SENT), {"p": row}.__getitem__)
    assert ledger.stored_again == sum(times.total() - len(times) for times in events.values())
    return found


def test_a_sources_duplicate_under_one_id_is_valid() -> None:
    assert account() == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"events": {START: Counter(a=1), CLICK: Counter(b=2)}}, "p click : 2 messages of"),
        ({"events": EVENTS | {START: Counter(a=1, d=1)}}, "p start play: 1 messages of"),
        ({"events": EVENTS | {Ad("p", "start", "nobody's"): Counter(e=1)}}, "nobody's: 0 messages of"),
        ({"rejected": frozenset()}, "their-events/1/2 has no dead letter"),
        ({"rejected": frozenset({(1, 2), (1, 1)})}, "their-events/1/1 has a dead letter, and is none"),
        ({"row": COUNTED | {"flight.starts": "2"}}, "p starts: 1 were sent to the source, 2 are counted"),
    ],
)
def test_lost_and_doubled_and_renamed_events_are_detected(wrong: dict[str, Any], said: str) -> None:
    assert said in "\n".join(account(**wrong))


def test_a_gap_in_a_sources_reads_is_detected() -> None:
    _, found = against_the_topic(SENT, EVENTS, {(1, 2)}, len(SENT) - 1, {"p": COUNTED}.__getitem__)
    assert found == ["the source has read 4, and accounts for 5"]


# The monitor by itself

ROW = {
    "generation": "1",
    "fence": "2",
    "rev": "7",
    "as_of_ms": "1764000060000",
    "final_through_ms": "1764000000000",
    **{f"{window}.impressions": "8" for window in ("5m", "1h", "1d", "flight")},
    **{f"{window}.starts": "4" for window in ("5m", "1h", "1d", "flight")},
    **{f"{window}.completes": "0" for window in ("5m", "1h", "1d", "flight")},
    **{f"{window}.completion_rate": "0" for window in ("5m", "1h", "1d", "flight")},
    **{f"{window}.completions_per_impression": "0" for window in ("5m", "1h", "1d", "flight")},
}


def seen(*rows: dict[str, str]) -> list[str]:
    """The findings of the monitor on a row with these readings, one after the other."""
    monitor = Monitor()
    return [
        f"{one['what']} {one.get('field', '')}".strip() for row in rows for one in monitor.check("row", row)
    ]


def test_a_growing_row_is_valid() -> None:
    assert seen(ROW, ROW, ROW | {"rev": "8", "1h.impressions": "9", "flight.impressions": "9"}) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"flight.clicks": "1"}, "backward flight.clicks"),
        ({"1d.clicks": "1", "flight.clicks": "1"}, "backward 1d.clicks"),
        ({"rev": "8"}, "backward version"),
        ({"fence": "3", "rev": "1"}, "backward version"),
    ],
)
def test_a_falling_count_or_version_is_detected(change: dict[str, str], said: str) -> None:
    assert said in seen(ROW | change, ROW)


def test_a_days_count_may_fall_on_the_next_day() -> None:
    tomorrow = str(int(ROW["as_of_ms"]) + 86_400_000)
    clicked = ROW | {"1d.clicks": "1", "flight.clicks": "1"}
    assert seen(clicked, clicked | {"rev": "8", "as_of_ms": tomorrow, "1d.clicks": "0"}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"flight.completes": "1"},
        {"1h.completion_rate": "0.5"},
        {"flight.midpoints": "5"},
        {"5m.impressions": "9"},
        {"final_through_ms": "1764000120000"},
    ],
)
def test_a_torn_row_is_detected(change: dict[str, str]) -> None:
    assert "torn" in seen(ROW | change)


@pytest.mark.parametrize("times", [1, 3])
def test_a_row_may_vanish_once_per_emptied_redis(times: int) -> None:
    assert seen(ROW, {}) == ["vanished"]
    monitor = Monitor()
    said = list(monitor.check("row", ROW))
    monitor.emptied(times)
    for row in (ROW, {}, {}) * times:
        said += monitor.check("row", row)
    assert not said
    for row in (ROW, {}):
        said += monitor.check("row", row)
    assert [one["what"] for one in said] == ["vanished"]


def test_a_row_returning_smaller_is_detected() -> None:
    monitor = Monitor()
    list(monitor.check("row", ROW | {"flight.clicks": "1"}))
    monitor.emptied(1)
    assert not list(monitor.check("row", {}))
    assert [one["field"] for one in monitor.check("row", ROW)] == ["flight.clicks"]


# The bidder next to the flow


class Client(dict[str, Any]):
    """Rows that are what a test says."""

    def shows(self, rev: int, usable: bool = True, **fields: Any) -> None:
        told = {"delivery.state": "under", "delivery.judged": 1, "flight.blocked_impressions": 0, **fields}
        self["a"] = Row(told, version=(1, 1, rev), usable=usable)


class Row(dict[str, Any]):
    def __init__(self, fields: dict[str, Any], **attributes: Any) -> None:
        super().__init__(fields)
        self.version = attributes["version"]
        self.reason = None if attributes["usable"] else "stale"


@pytest.fixture
def bidder() -> Bidder:
    bidder = Bidder("redis://127.0.0.1:1/0", "audiopixel:v1")
    bidder.client = Client()  # type: ignore[assignment]
    return bidder


def bidder_findings(bidder: Bidder, rev: int = 1) -> list[str]:
    row = {"generation": "1", "fence": "1", "rev": str(rev)}
    return [
        one["what"] for one in bidder.check({"audiopixel:v1:placement:{a}": row, "audiopixel:v1:meta": row})
    ]


def test_a_client_equal_to_redis_is_valid(bidder: Bidder) -> None:
    for rev in (1, 2, 2, 3):
        bidder.client.shows(rev)
        assert bidder_findings(bidder, rev) == []
    assert (bidder.reads, bidder.usable) == (4, 4)


def test_a_falling_version_in_the_client_is_detected(bidder: Bidder) -> None:
    bidder.client.shows(2)
    assert bidder_findings(bidder, 2) == []
    bidder.client.shows(1, usable=False)
    assert bidder_findings(bidder, 2) == ["client backward"]


@pytest.mark.parametrize(
    "fields",
    [{"delivery.state": "unknown_before"}, {"delivery.judged": 0}, {"flight.blocked_impressions": 1}],
)
def test_a_usable_row_against_the_rules_is_detected(bidder: Bidder, fields: dict[str, Any]) -> None:
    bidder.client.shows(1, **fields)
    assert bidder_findings(bidder) == ["client usable"]
    bidder.client.shows(1, usable=False, **fields)
    assert bidder_findings(bidder) == []


def test_a_long_outdated_usable_row_is_detected(bidder: Bidder, monkeypatch: pytest.MonkeyPatch) -> None:
    bidder.client.shows(1)
    assert bidder_findings(bidder, 2) == []
    monkeypatch.setattr(chaos_bidder, "SLACK_S", -chaos_bidder.STALE_S)
    assert bidder_findings(bidder, 2) == ["client behind"]
    bidder.client.shows(1, usable=False)
    assert bidder_findings(bidder, 2) == []
