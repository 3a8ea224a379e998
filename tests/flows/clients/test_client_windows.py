"""The three windows of the IAB: the guidelines' worked example, and their definition over any history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import permutations
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.clients import ClientShard
from flows.clients.store import ClientStore
from flows.model.client_counts import (
    COLUMNS,
    COLUMNS_PER_KIND,
    COMBO_SHIFT,
    KIND_SHIFT,
    KINDS,
    PROVISIONAL,
    WINDOWS,
    ClientBatch,
    ClientCounts,
)
from flows.model.dimensions import Dimensions
from flows.model.ticks import Cut
from flows.state import interner
from flows.state.runs import SPILL_ROWS

LONDON: Final = ZoneInfo("Europe/London")
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
MONDAY: Final = int(datetime(2026, 11, 2, tzinfo=LONDON).timestamp() * 1000)
EXAMPLE: Final = (22 * HOUR, 27 * HOUR, 46 * HOUR + 15 * MINUTE, 71 * HOUR + 15 * MINUTE)
"""Monday 22:00, Tuesday 03:00 and 22:15, Wednesday 23:15."""
COUNTED: Final = {"calendar": 3, "first_touch": 3, "last_touch": 2}
"""1101, 1011 and 1001 of them."""
Event = tuple[int, int, int, int, int]
"""Key, ms, tie, kind, placement."""


def day_of(minute: int) -> int:
    return datetime.fromtimestamp(minute * 60, LONDON).toordinal()


def named(placement: int) -> Dimensions:
    return (f"p{placement}", None, None, None, None, None, None)


def batch(number: int, now_ms: int, events: Sequence[Event], ended: bool = False) -> ClientBatch:
    names = sorted({event[4] for event in events})
    rows = [
        (key, ts, names.index(placement) << COMBO_SHIFT | kind << KIND_SHIFT | tie)
        for key, ts, tie, kind, placement in events
    ]
    sent = np.array(rows, np.uint64).reshape(-1, 3)
    return ClientBatch(0, 0, Cut(number, now_ms, ended, ()), list(map(named, names)), sent)


class Line:
    """A client shard, and the sums of what it sends."""

    def __init__(self, lateness_ms: int, recovery: Path | None = None) -> None:
        self.lateness_ms, self.recovery = lateness_ms, recovery
        self.shard = self._new()
        self.sums: Counter[tuple[str | None, int, str]] = Counter()
        self.number = 0

    def _new(self) -> ClientShard:
        return ClientShard(0, 1, self.lateness_ms, day_of, self.recovery)

    def cut(self, now_ms: int, events: Sequence[Event], ended: bool = False) -> ClientCounts:
        sent = batch(self.number, now_ms, events, ended)
        self.number += 1
        counts = self.shard.apply(sent.cut, [sent])
        for combo, minute, column, amount in zip(
            counts.combos.tolist(), counts.minutes.tolist(), counts.columns.tolist(), counts.amounts.tolist(),
            strict=True,
        ):  # fmt: skip
            self.sums[counts.names[combo][0], minute, COLUMNS[column]] += amount
            assert amount > 0 or column % COLUMNS_PER_KIND >= PROVISIONAL, "what is final fell"
        return counts

    def restart(self) -> None:
        state = self.shard.snapshot()
        self.shard = self._new()
        self.shard.restore(state)

    @property
    def found(self) -> dict[tuple[str | None, int, str], int]:
        return {key: amount for key, amount in self.sums.items() if amount}


def by_definition(events: Sequence[Event]) -> dict[tuple[str | None, int, str], int]:
    """Each window by its words: over all events of a key, in the order of time."""
    counts: Counter[tuple[str | None, int, str]] = Counter()
    for key in {event[0] for event in events}:
        own = sorted((event for event in events if event[0] == key), key=lambda one: (*one[1:3], one[4]))
        began: int | None = None
        for place, (_, ts, _, kind, placement) in enumerate(own):
            before = [one[1] for one in own[:place]]
            day = day_of(ts // MINUTE)
            counted = []
            if all(day_of(one // MINUTE) != day for one in before):
                counted.append("calendar")
            if began is None or ts - began >= DAY:
                counted.append("first_touch")
                began = ts
            if all(ts - one >= DAY for one in before):
                counted.append("last_touch")
            for window in counted:
                counts[f"p{placement}", ts // MINUTE, f"{KINDS[kind]}_{window}"] += 1
    return dict(counts)


def totals(found: dict[tuple[str | None, int, str], int]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for (_, _, column), amount in found.items():
        sums[column] += amount
    return dict(sums)


@pytest.mark.parametrize("order", list(permutations(range(4))))
@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_the_worked_example_in_every_order_of_arrival(order: tuple[int, ...], kind: int) -> None:
    line = Line(lateness_ms=4 * DAY)
    for number, place in enumerate(order):
        line.cut(MONDAY + number * MINUTE, [(7, MONDAY + EXAMPLE[place], place, kind, place)])
    line.cut(MONDAY + 4 * DAY, [], ended=True)
    which = {
        window: [
            line.sums[f"p{place}", (MONDAY + EXAMPLE[place]) // MINUTE, f"{KINDS[kind]}_{window}"]
            for place in range(4)
        ]
        for window in WINDOWS
    }
    assert which == {
        "calendar": [1, 1, 0, 1],
        "first_touch": [1, 0, 1, 1],
        "last_touch": [1, 0, 0, 1],
    }
    assert totals(line.found) == {f"{KINDS[kind]}_{window}": count for window, count in COUNTED.items()}


def test_exactly_a_day_later_counts_and_a_millisecond_less_does_not() -> None:
    for after, counts in ((DAY, 2), (DAY - 1, 1)):
        line = Line(lateness_ms=0)
        line.cut(MONDAY, [(7, MONDAY, 0, 0, 0), (7, MONDAY + after, 1, 0, 0)])
        line.cut(MONDAY + 2 * DAY, [], ended=True)
        found = totals(line.found)
        assert (found["downloads_first_touch"], found["downloads_last_touch"]) == (counts, counts)


def test_a_calendar_day_of_25_hours_is_one_day() -> None:
    begins = int(datetime(2026, 10, 25, tzinfo=LONDON).timestamp() * 1000)  # summer time ends in it
    line = Line(lateness_ms=0)
    line.cut(begins, [(7, begins, 0, 0, 0)])
    line.cut(begins + 24 * HOUR, [])
    line.cut(begins + 24 * HOUR + 30 * MINUTE, [(7, begins + 24 * HOUR + 30 * MINUTE, 0, 0, 0)])
    line.cut(begins + 26 * HOUR, [(7, begins + 25 * HOUR, 0, 0, 0)], ended=True)
    found = totals(line.found)
    assert (found["downloads_calendar"], found["downloads_last_touch"]) == (2, 2)


def test_an_estimate_counts_until_the_final_count_replaces_it() -> None:
    line = Line(lateness_ms=10 * MINUTE)
    line.cut(MONDAY, [(7, MONDAY + HOUR, 0, 1, 0)])
    line.cut(MONDAY + HOUR + MINUTE, [])
    assert totals(line.found) == {f"deliveries_{window}_provisional": 1 for window in WINDOWS}
    line.cut(MONDAY + HOUR + MINUTE + 500, [(7, MONDAY + HOUR - 5 * MINUTE, 0, 1, 1)])
    assert {key[0] for key in line.found} == {"p0"}, "an estimate moves with the minute"
    line.cut(MONDAY + HOUR + 2 * MINUTE, [])
    assert {key[0] for key in line.found} == {"p1"}, "the earlier one counts, and the estimate fell"
    line.cut(MONDAY + HOUR + 12 * MINUTE, [])
    assert totals(line.found) == {f"deliveries_{window}": 1 for window in WINDOWS}


histories = st.lists(
    st.tuples(
        st.integers(1, 3),  # key
        st.one_of(
            st.integers(0, 5 * DAY),
            st.sampled_from([0, DAY - 1, DAY, 2 * DAY, 3 * DAY - 1, 3 * DAY]),
        ),
        st.integers(0, 2),  # tie
        st.integers(0, 1),
        st.integers(0, 2),
    ),
    max_size=24,
)


@given(histories, st.data())
def test_any_arrival_and_restart_match_the_specification(history: list[Event], data: Any) -> None:
    begun = int(datetime(2026, 10, 23, tzinfo=LONDON).timestamp() * 1000)
    # A key is of one kind.
    events = [(key * 2 + kind, begun + ts, tie, kind, place) for key, ts, tie, kind, place in history]
    lateness = data.draw(st.sampled_from([0, 10 * MINUTE, 2 * DAY]))
    line, left = Line(lateness), data.draw(st.permutations(events))
    now_ms = begun
    while left:
        now_ms += data.draw(st.sampled_from([500, MINUTE, HOUR, DAY]))
        final = (now_ms - lateness) // MINUTE * MINUTE
        due = [one for one in left if one[1] < final]  # the last moment at which they are not too late
        more = [one for one in left if one[1] >= final and data.draw(st.booleans())]
        left = [one for one in left if one not in due and one not in more]
        line.cut(now_ms - MINUTE, due + more)
        if data.draw(st.booleans()):
            line.restart()
        line.cut(now_ms, [])
    line.cut(now_ms, [], ended=True)
    assert line.found == by_definition(events)


def test_renumbered_names_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interner, "DROP_AT", 2)
    line, events = Line(lateness_ms=2 * MINUTE), []
    for minute in range(30):
        new = [(minute % 4 + 1, MONDAY + minute * MINUTE, 0, 0, minute % 9)]
        events += new
        line.cut(MONDAY + minute * MINUTE, new)
        assert len(line.shard.names) <= 6
    line.cut(MONDAY + HOUR, [], ended=True)
    assert line.found == by_definition(events)


def test_names_of_a_flood_are_forgotten() -> None:
    line = Line(lateness_ms=2 * MINUTE)
    line.cut(MONDAY, [(key, MONDAY, 0, 0, key) for key in range(1, 2_001)])
    for minute in range(1, 240):
        line.cut(MONDAY + minute * MINUTE, [])
    assert len(line.shard.names) == 0


def store_of(keys: int, at_ms: int, rng: np.random.Generator) -> tuple[ClientStore, Any, Any]:
    own = np.unique(rng.integers(1, 2**63, keys).astype(np.uint64))
    store = ClientStore()
    last = at_ms - rng.integers(0, DAY, len(own))
    store.put(own, last, last - rng.integers(0, DAY, len(own)), at_ms)
    return store, own, last


def test_a_key_takes_16_bytes_for_25_hours_and_goes() -> None:
    rng = np.random.default_rng(5)
    store, keys, last = store_of(5_000, MONDAY, rng)
    assert store.runs.nbytes == 16 * len(keys)
    found, _ = store.latest(keys)
    assert (found == last).all()
    store.drop_old(MONDAY + 12 * HOUR)
    (run,) = store.runs
    assert (run.columns[0] == keys[MONDAY + 12 * HOUR - last < 25 * HOUR]).all()
    store.drop_old(MONDAY + 1_600 * DAY)  # beyond what 37 bits of a time can tell
    assert len(store) == 0


def test_large_runs_are_files_and_come_back(tmp_path: Path) -> None:
    line = Line(0, tmp_path)
    events = [(key, MONDAY + key % 50, 0, 0, 0) for key in range(1, SPILL_ROWS + 2)]
    line.cut(MONDAY, events)
    line.cut(MONDAY + 2 * MINUTE, [])
    line.restart()
    assert line.shard.store.runs.file_names()
    line.restart()
    line.cut(MONDAY + HOUR, events[:3])
    line.cut(MONDAY + 2 * DAY, [(1, MONDAY + 47 * HOUR, 0, 0, 0)], ended=True)
    assert totals(line.found)["downloads_first_touch"] == len(events) + 1
