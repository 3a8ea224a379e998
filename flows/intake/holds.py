"""Low marks: the time of a partition waits for events that collectors have not yet written to its log.

Without low marks a spool would be useless: after an outage, the first new pixel would make all spooled pixels
too late. Everything that ends a hold is in the log, so a replay decides the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from flows.model.pixel import POSITION, WATERMARK
from flows.model.ticks import HoldReason
from flows.state.arrays import I64, U64, Int
from flows.state.hash_table import find, remove
from flows.state.kernel import lean

MAX_COLLECTORS: Final = 1_024
"""The greatest number of collectors of a partition. Beyond it, the partition stops waiting for the collector
whose low mark has not risen for longest.
"""
LOG_STEP_MS: Final = 10_000
"""The greatest counted step between two messages: a longer gap is an outage, and not the silence of a
collector.
"""
BYE: Final = -1
"""The low mark of a collector's bye."""
NOBODY_LIVE: Final = 1 << 62
CLOCK_OFF_MS: Final = 60_000
"""The greatest difference of a right collector's clock from the time at which its mark was written to the
log.
"""
MAX_CLOCK_HOLD_MS: Final = 300_000
"""The log time for which the partition waits for a collector with a wrong clock."""
MAX_HOLD_MS: Final = 6 * 3_600_000
MAX_STATE: Final = 50_000_000

LOW, LAST_MARK, ROSE, RELEASED, WRONG = COLUMNS = range(5)
"""Columns of a collector. They are: its low mark; the log times of its last message, of the last rise of that
mark, and from which its clock has been wrong (`NOBODY_LIVE` if it is right); and whether it is released: the
partition does not wait for it until the mark rises.
"""
LOG, NEWEST, CREDIT, USED, EVICTED, AT, WHILE_HELD, RELEASES = range(8)
LEAST, ENDS, STOOD = range(3)
"""Three trees over the collectors, in which a place is the least of the two below it, so that one place has
the least of all (`_top`). They are of the low marks of live collectors, of the log times at which a hold
ends, and of those at which a low mark last rose.
"""


class CollectorMarks(NamedTuple):
    """The collectors, low marks and clocks of messages.

    Attributes:
        collectors: (messages,) keyed hashes of ids; 0 if the message names none.
        lows: (messages,) their low marks, or `BYE`.
        nows: (messages,) their clocks; 0 without one.
        logged: (messages,) when they were written to the topic, by their own field, which counts in a log on
            disk alone; 0 without one.
    """

    collectors: U64
    lows: I64
    nows: I64
    logged: I64

    @classmethod
    def of(cls, messages: int) -> CollectorMarks:
        """Empty arrays for a number of messages."""
        times = (np.zeros(messages, np.int64) for _ in range(3))
        return cls(np.zeros(messages, np.uint64), *times)


@lean
def _top(used: Int) -> Int:
    """The place of a tree that has the least of all: the first that spans the present collectors."""
    span = 1
    while span < used:
        span *= 2
    return MAX_COLLECTORS // span


@lean
def _lift(table: I64, state: I64, trees: I64, row: Int, max_hold_ms: Int) -> None:
    """Update the trees for one place of the table."""
    used = state[USED]
    least = ends = rose = np.int64(NOBODY_LIVE)
    if row < used:
        rose = table[row, ROSE]
        ends = table[row, LAST_MARK] + max_hold_ms
        clock_ends = table[row, WRONG] + MAX_CLOCK_HOLD_MS
        if not table[row, RELEASED] and state[LOG] < clock_ends:
            least = table[row, LOW]
            ends = min(ends, table[row, ROSE] + max_hold_ms, clock_ends)
    place, top = MAX_COLLECTORS + row, _top(used)
    trees[LEAST, place], trees[ENDS, place], trees[STOOD, place] = least, ends, rose
    while place > top:
        place >>= 1
        for tree in range(len(trees)):
            trees[tree, place] = min(trees[tree, 2 * place], trees[tree, 2 * place + 1])


@lean
def _least_of(trees: I64, tree: Int, used: Int) -> Int:
    """The first place of the table that has the value of a tree's root."""
    place = _top(used)
    while place < MAX_COLLECTORS:
        place *= 2
        place += trees[tree, place] > trees[tree, place // 2]
    return place - MAX_COLLECTORS


@lean
def _expire(ids: U64, table: I64, index: U64, trees: I64, state: I64, max_hold_ms: Int) -> None:
    """End the holds of collectors that were silent, or whose low mark did not rise, for too long by the log's
    time.

    Rebuilds the index and the trees.
    """
    live_count = 0
    for i in range(state[USED]):
        if state[LOG] - table[i, LAST_MARK] >= max_hold_ms:
            continue
        # A collector whose mark does not rise stays in the table: its next mark must not begin another hold.
        table[i, RELEASED] |= np.int64(state[LOG] - table[i, ROSE] >= max_hold_ms)
        ids[live_count] = ids[i]
        for column in range(table.shape[1]):
            table[live_count, column] = table[i, column]
        live_count += 1
    state[USED] = live_count
    index[:] = 0
    trees[:] = NOBODY_LIVE
    for i in range(live_count):
        slot = find(index, ids[i])
        index[slot, 0], index[slot, 1] = ids[i], i
        _lift(table, state, trees, i, max_hold_ms)


@lean
def _enter_mark(
    ids: U64, table: I64, index: U64, trees: I64, state: I64, collector: np.uint64, low_ms: Int, off_ms: Int,
    max_hold_ms: Int,
) -> None:  # fmt: skip
    """Store a collector's mark. `off_ms` is the error of its clock, below 0 if the mark has no clock."""
    slot = find(index, collector)
    is_known = index[slot, 0] != np.uint64(0)
    row = np.int64(index[slot, 1]) if is_known else state[USED]
    if low_ms == BYE:
        if is_known:
            last = state[USED] - 1
            index[find(index, ids[last]), 1] = row
            remove(index, collector)
            ids[row], state[USED] = ids[last], last
            for column in range(table.shape[1]):
                table[row, column] = table[last, column]
            _lift(table, state, trees, row, max_hold_ms)
            _lift(table, state, trees, last, max_hold_ms)
        return
    if not is_known:
        if row == len(ids):
            row = _least_of(trees, STOOD, state[USED])
            remove(index, ids[row])
            slot = find(index, collector)
            state[EVICTED] += 1
        else:
            state[USED] += 1
        index[slot, 0], index[slot, 1] = collector, row
        ids[row] = collector
        table[row, LOW], table[row, WRONG] = -1, NOBODY_LIVE
    table[row, LAST_MARK] = state[LOG]
    if off_ms > CLOCK_OFF_MS:
        table[row, WRONG] = min(table[row, WRONG], state[LOG])
    elif off_ms >= 0:
        table[row, WRONG] = NOBODY_LIVE
    if low_ms > table[row, LOW]:
        table[row, LOW], table[row, ROSE], table[row, RELEASED] = low_ms, state[LOG], 0
    _lift(table, state, trees, row, max_hold_ms)


@lean
def _release_oldest(table: I64, trees: I64, state: I64, max_hold_ms: Int) -> None:
    """Release the live collectors with the least low mark: the partition does not wait for them until their
    marks rise.
    """
    least_ms = trees[LEAST, _top(state[USED])]
    while trees[LEAST, _top(state[USED])] == least_ms:
        row = _least_of(trees, LEAST, state[USED])
        table[row, RELEASED] = 1
        _lift(table, state, trees, row, max_hold_ms)
        state[RELEASES] += 1
    state[WHILE_HELD] = 0


@lean
def _watermark_after(before_ms: Int, natural_ms: Int, least_ms: Int, bound_ms: Int, quiet_ms: Int) -> Int:
    """The watermark after `before_ms`, bounded by the least low mark of the collectors."""
    if least_ms == NOBODY_LIVE:
        return max(before_ms, natural_ms)
    return max(before_ms, min(max(natural_ms, least_ms - quiet_ms), least_ms - bound_ms))


@lean
def _hold(
    pixels: U64, positions: I64, moments: I64, marks: CollectorMarks, ids: U64, table: I64, index: U64,
    trees: I64, state: I64, natural_ms: Int, bound_ms: Int, quiet_ms: Int, max_hold_ms: Int, max_state: Int,
) -> None:  # fmt: skip
    """Set the watermarks of pixels to those that collectors allow, instead of those that pixels alone would
    set.

    Args:
        pixels: judged by `flows.intake.watermark`; changed in place.
        positions, moments: (messages,) their positions, and when they were written; 0 if unknown.
        marks: of the messages.
        ids, table, index, trees, state: of `Holds`; changed in place.
        natural_ms: the watermark that pixels alone have set so far.
    """
    pixel = 0
    for i in range(len(positions)):
        if moments[i] > state[NEWEST]:
            if state[NEWEST]:
                gap = moments[i] - state[NEWEST]
                state[LOG] += max(min(gap, LOG_STEP_MS) - state[CREDIT], 0)
                state[CREDIT] = max(state[CREDIT] - gap, 0)
            state[NEWEST] = moments[i]
        if state[LOG] >= trees[ENDS, _top(state[USED])]:
            _expire(ids, table, index, trees, state, max_hold_ms)
        if marks.collectors[i]:
            if not state[USED]:  # an earlier message in another batch is not compared
                state[NEWEST], state[CREDIT], state[WHILE_HELD] = moments[i], 0, 0
            off_ms = abs(marks.nows[i] - moments[i]) if marks.nows[i] else np.int64(-1)
            collector, low_ms = marks.collectors[i], marks.lows[i]
            _enter_mark(ids, table, index, trees, state, collector, low_ms, off_ms, max_hold_ms)
        at_pixel = pixel < len(pixels) and np.int64(pixels[pixel, POSITION]) == positions[i]
        if at_pixel:
            natural_ms = np.int64(pixels[pixel, WATERMARK])
            # Only the log decides, so that a replay releases at the same pixel.
            is_held = state[NEWEST] - trees[LEAST, _top(state[USED])] > quiet_ms
            state[WHILE_HELD] = state[WHILE_HELD] + 1 if is_held else 0
            if state[WHILE_HELD] > max_state:
                _release_oldest(table, trees, state, max_hold_ms)
        state[AT] = _watermark_after(
            state[AT], natural_ms, trees[LEAST, _top(state[USED])], bound_ms, quiet_ms
        )
        if at_pixel:
            pixels[pixel, WATERMARK] = np.uint64(state[AT])
            pixel += 1


@dataclass
class Holds:
    """The collectors for which one partition waits.

    Time is the log's: the steps between its newest timestamps, and, while the log is read to its end, the
    elapsed time between proofs of this. Later steps are reduced by proved time, so no time counts twice. Time
    is never less than in a replay, which has only the steps.

    The partition waits for a collector with a wrong clock no longer than `MAX_CLOCK_HOLD_MS`, since its clock
    causes the hold. A collector that drains its spool has a right clock, however old its low mark is.

    Args:
        bound_ms, quiet_ms: the least and the greatest time by which the watermark stays before the least low
            mark.
        max_hold_ms: log time after which the partition stops waiting for a collector that is silent, or whose
            mark does not rise.
        max_state: the greatest number of pixels during a hold; beyond it, all collectors with the least low
            mark are released.
    """

    bound_ms: int
    quiet_ms: int
    max_hold_ms: int
    max_state: int = MAX_STATE
    _names: dict[int, str] = field(default_factory=dict)
    _ids: U64 = field(default_factory=lambda: np.zeros(MAX_COLLECTORS, np.uint64))
    _table: I64 = field(default_factory=lambda: np.zeros((MAX_COLLECTORS, len(COLUMNS)), np.int64))
    _index: U64 = field(default_factory=lambda: np.zeros((2 * MAX_COLLECTORS, 2), np.uint64))
    _trees: I64 = field(default_factory=lambda: np.full((3, 2 * MAX_COLLECTORS), NOBODY_LIVE))
    _state: I64 = field(default_factory=lambda: np.zeros(8, np.int64))
    _quiet_for_ms: int = 0

    @property
    def has_collectors(self) -> bool:
        """True if any collector is known; otherwise no other method need be called."""
        return bool(self._state[USED])

    @property
    def least_ms(self) -> int | None:
        """The least low mark of live collectors, or None without one."""
        least = int(self._trees[LEAST, _top(self._state[USED])])
        return None if least == NOBODY_LIVE else least

    @property
    def evicted(self) -> int:
        """The number of holds that ended because there were too many collectors."""
        return int(self._state[EVICTED])

    @property
    def released(self) -> int:
        """The number of holds that ended because of `max_state`."""
        return int(self._state[RELEASES])

    @property
    def while_held(self) -> int:
        """The number of pixels during the present hold."""
        return int(self._state[WHILE_HELD])

    @property
    def hold_of(self) -> tuple[str, HoldReason | None]:
        """The collector that holds time back by more than `quiet_ms` from the log's, with the reason; or an
        empty text and None.
        """
        least = self.least_ms
        # Proved time is not used: a log whose clock was set back has some for ever.
        if least is None or int(self._state[NEWEST]) + self._quiet_for_ms - least <= self.quiet_ms:
            return "", None
        row = int(_least_of(self._trees, LEAST, self._state[USED]))
        reason: HoldReason = "drain" if self._table[row, WRONG] == NOBODY_LIVE else "clock"
        return self._names.get(int(self._ids[row]), ""), reason

    @property
    def wrong_clocks(self) -> int:
        """Collectors whose clock is wrong."""
        return int((self._table[: self._state[USED], WRONG] != NOBODY_LIVE).sum())

    @property
    def cloned(self) -> str:
        """The copied spool directory that two processes use; empty without one."""
        names = (self._names.get(collector, "") for collector in self._ids[: self._state[USED]].tolist())
        directories = Counter(name.partition("~")[0] for name in names if "~" in name)
        return min((name for name, processes in directories.items() if processes > 1), default="")

    def unnamed(self) -> list[int]:
        """The collectors without a known name; drops the names of collectors that have left."""
        used = self._ids[: self._state[USED]].tolist()
        if len(self._names) > len(used):
            self._names = {
                collector: self._names[collector] for collector in used if collector in self._names
            }
        return [collector for collector in used if collector not in self._names]

    def name(self, collector: int, name: str) -> None:
        """Store a collector's name, of 128 letters at most."""
        self._names[collector] = name

    def hold(
        self,
        pixels: U64,
        positions: I64,
        moments: I64,
        marks: CollectorMarks,
        natural_ms: int,
        before_ms: int,
    ) -> int:
        """Set the watermarks of a batch's pixels, in place; returns the partition's after them."""
        self._state[AT], newest = before_ms, self._state[NEWEST]
        _hold(
            pixels, positions, moments, marks, self._ids, self._table, self._index, self._trees, self._state,
            natural_ms, self.bound_ms, self.quiet_ms, self.max_hold_ms, self.max_state,
        )  # fmt: skip
        if self._state[NEWEST] != newest:
            self._quiet_for_ms = 0
        return int(self._state[AT])

    def elapse(self, by_ms: int, natural_ms: int, before_ms: int) -> int:
        """Advance by time in which the partition was read to its end; returns its watermark."""
        self._state[LOG] += by_ms
        self._state[CREDIT] += by_ms  # the steps of the next messages include it
        self._quiet_for_ms += by_ms
        self._expire()
        least_ms = self._trees[LEAST, _top(self._state[USED])]
        return int(_watermark_after(before_ms, natural_ms, least_ms, self.bound_ms, self.quiet_ms))

    def _expire(self) -> None:
        _expire(self._ids, self._table, self._index, self._trees, self._state, self.max_hold_ms)

    def snapshot(self) -> tuple[Any, ...]:
        """The state as plain values."""
        used = int(self._state[USED])
        return self._ids[:used].tolist(), self._table[:used].tolist(), self._state.tolist(), dict(self._names)

    def restore(self, state: tuple[Any, ...]) -> None:
        """Load a state of `snapshot`."""
        ids, table, self._state[:], names = state
        self._quiet_for_ms = int(self._state[CREDIT])
        self._names = dict(names)
        self._ids[: len(ids)] = ids
        self._table[: len(ids)] = np.array(table, np.int64).reshape(-1, len(COLUMNS))
        self._expire()
