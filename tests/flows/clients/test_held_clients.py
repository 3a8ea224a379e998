"""Downloads while a collector holds time: a minute that turns costs what came or became final in it."""

from __future__ import annotations

from collections import Counter
from math import log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.clients import ClientShard, client_shard, waiting_events
from flows.model.client_counts import COLUMNS, COMBO_SHIFT, DETAILS, KEY, KINDS, TIME, ClientBatch
from flows.model.dimensions import Dimensions
from flows.model.ticks import DAY_MS, MINUTE_MS, Cut
from flows.state import runs
from flows.state.arrays import U64
from flows.state.runs import appended
from flows.state.saves import decode, encode

NOW_MS = 29_400_000 * MINUTE_MS
LATENESS_MS = 10 * MINUTE_MS
NAMES: list[Dimensions] = [(f"p{one}", *[None] * 6) for one in range(3)]
A_MINUTE = 40
"""Downloads, each of a client of its own."""


def day_of(minute: int) -> int:
    return minute // 1440


class Line:
    """A client shard, and the sums of what it sends."""

    def __init__(self) -> None:
        self.shard, self.number = ClientShard(0, 1, LATENESS_MS, day_of), 0
        self.sums: Counter[tuple[str | None, int, str]] = Counter()

    def cut(self, now_ms: int, sent: U64, ended: bool = False) -> None:
        self.number += 1
        cut = Cut(self.number, now_ms, ended, ())
        counts = self.shard.apply(cut, [ClientBatch(0, 0, cut, NAMES, sent)])
        columns = counts.combos, counts.minutes, counts.columns, counts.amounts
        for combo, minute, column, amount in zip(*(one.tolist() for one in columns), strict=True):
            self.sums[counts.names[combo][0], minute, COLUMNS[column]] += amount

    def restart(self) -> None:
        state = decode(encode(self.shard.snapshot()))
        self.shard = ClientShard(0, 1, LATENESS_MS, day_of)
        self.shard.restore(state)

    @property
    def found(self) -> dict[tuple[str | None, int, str], int]:
        return {place: amount for place, amount in self.sums.items() if amount}


def downloads(keys: Any, at_ms: Any) -> U64:
    sent = np.zeros((len(keys), 3), np.uint64)
    sent[:, KEY], sent[:, TIME] = keys, at_ms
    return sent


NONE = downloads([], [])


@pytest.mark.parametrize("minutes", [30, 240])
def test_a_gradually_ending_hold_decides_each_event_twice(
    minutes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an estimate, and for good; of each minute that turns a few more come."""
    line, total, decided, decide = Line(), minutes * A_MINUTE, 0, client_shard.decide
    keys = np.random.default_rng(0).permutation(2 * total).astype(np.uint64) + 1
    line.cut(NOW_MS, NONE)
    line.cut(NOW_MS, downloads(keys[:total], NOW_MS + np.arange(total) * MINUTE_MS // A_MINUTE))

    def counting(ts: Any, *rest: Any) -> None:
        nonlocal decided
        decided += len(ts)
        decide(ts, *rest)

    monkeypatch.setattr(client_shard, "decide", counting)
    came = total
    for minute in range(1, minutes + 12):
        now_ms = NOW_MS + minute * MINUTE_MS
        line.cut(now_ms, downloads(keys[came : came + 5], now_ms - MINUTE_MS + np.arange(5)))
        came += 5
    assert decided <= 2 * came
    assert (
        sum(amount for (_, _, column), amount in line.sums.items() if column == "downloads_calendar") >= total
    )


def copied_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of events of each copy from now on."""
    copies = list[int]()

    def counting(parts: Any) -> Any:
        columns = appended(parts)
        copies.append(len(columns[0]))
        return columns

    for module in (runs, waiting_events):
        monkeypatch.setattr(module, "appended", counting)
    return copies


def test_a_cut_in_a_hold_copies_each_event_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    line, cuts, each = Line(), 1_000, 20
    rng = np.random.default_rng(0)
    line.cut(NOW_MS, NONE)
    copies = copied_rows(monkeypatch)
    for cut in range(cuts):
        line.cut(NOW_MS, downloads(rng.integers(1, 1 << 62, each), np.full(each, NOW_MS + cut * 500)))
    assert cuts < sum(copies) <= cuts * each * (log2(cuts) + 2)


def test_turning_minutes_copy_each_event_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour that waits, and drains while as much comes: runs are merged when of like size alone."""
    line, minutes = Line(), 60
    rng = np.random.default_rng(0)
    total = minutes * 500
    line.cut(NOW_MS, NONE)
    line.cut(NOW_MS, downloads(rng.integers(1, 1 << 62, total), NOW_MS + np.arange(total) * 120))
    copies = copied_rows(monkeypatch)
    for minute in range(1, minutes + 1):
        at_ms = NOW_MS + (minutes + minute) * MINUTE_MS
        line.cut(
            NOW_MS + minute * MINUTE_MS, downloads(rng.integers(1, 1 << 62, 500), at_ms + np.arange(500))
        )
    assert total < sum(copies) <= 2 * total * (log2(2 * minutes) + 3)


Event = tuple[int, int, int, int]
"""Key, ms behind what is final, hash of the id, placement."""
Came = tuple[int, int, int, int]
"""The same, at its time."""


def recomputed(events: list[Came], final_ms: int) -> dict[tuple[str | None, int, str], int]:
    """The decisions on every event of every key from the first on, recomputed as if no more came."""
    counts: Counter[tuple[str | None, int, str]] = Counter()
    for key in {event[0] for event in events}:
        own = sorted(event for event in events if event[0] == key)
        began, latest = None, None
        for _, ts, _, placement in own:
            windows = []
            if latest is None or day_of(latest // MINUTE_MS) != day_of(ts // MINUTE_MS):
                windows.append("calendar")
            if began is None or ts - began >= DAY_MS:
                windows.append("first_touch")
                began = ts
            if latest is None or ts - latest >= DAY_MS:
                windows.append("last_touch")
            latest = ts
            for window in windows:
                column = f"{KINDS[0]}_{window}" + ("" if ts < final_ms else "_provisional")
                counts[f"p{placement}", ts // MINUTE_MS, column] += 1
    return dict(counts)


steps = st.lists(
    st.tuples(
        st.lists(
            st.tuples(
                st.integers(1, 4),
                st.one_of(st.integers(0, 3 * DAY_MS), st.sampled_from([0, MINUTE_MS - 1, DAY_MS])),
                st.integers(0, 1),
                st.integers(0, 2),
            ),
            max_size=8,
        ),
        st.sampled_from([0, 500, MINUTE_MS, MINUTE_MS, 90 * MINUTE_MS, DAY_MS]),
        st.booleans(),
    ),
    max_size=12,
)


@given(steps, st.booleans())
def test_each_cut_equals_a_full_recomputation(
    history: list[tuple[list[Event], int, bool]], ends: bool
) -> None:
    line, now_ms, final_ms = Line(), NOW_MS, NOW_MS - LATENESS_MS
    came, told = list[Came](), dict[tuple[str | None, int, str], int]()
    line.cut(now_ms, NONE)
    for number, (events, on_ms, restarts) in enumerate(history):
        some = [(key, final_ms + ts, tie, placement) for key, ts, tie, placement in events]
        came += some
        turned, decided_ms = (now_ms + on_ms) // MINUTE_MS > now_ms // MINUTE_MS, line.shard.store.decided_ms
        now_ms += on_ms
        sent = downloads([one[0] for one in some], [one[1] for one in some])
        sent[:, DETAILS] = [one[3] << COMBO_SHIFT | one[2] for one in some]
        ended = ends and number == len(history) - 1
        line.cut(now_ms, sent, ended)
        final_ms = (now_ms - LATENESS_MS) // MINUTE_MS * MINUTE_MS
        if ended:
            told = recomputed(came, 1 << 62)
        elif turned or final_ms > decided_ms:  # it is not, where nothing has waited
            told = recomputed(came, final_ms)
        assert line.found == told
        if restarts:
            line.restart()
