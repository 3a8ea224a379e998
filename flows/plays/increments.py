"""Increments: the counts of one shard of plays since the last cut, in arrays that compiled loops fill."""

from __future__ import annotations

from secrets import randbits
from typing import Any, Final, NamedTuple

import numpy as np

from flows.model.counts import FLIGHT_COUNTS, MINUTE_COUNTS
from flows.plays.slots import CELLS_USED, SECRET, SENT_USED, SIDES_USED, TOUCHES
from flows.state.arrays import I64, U32, U64, Int, doubled
from flows.state.hash_table import find_key
from flows.state.kernel import inlined, lean, mixed

LATEST, FIRST, NEWEST = range(3)
BACKWARDS: Final = 1 << 42
"""The constant from which a time is subtracted: the greatest difference is the earliest time."""
COMBO_OF, KIND_OF, PLAY_HALF = range(3)
"""The columns of a touch in `where`: its dimensions, its kind of `flows.model.messages`, and half a hash of
its play.
"""
_CELLS: Final = 256
_COMBOS: Final = 64
_TOUCHES: Final = 1024
_SIDES: Final = 64
_SENT: Final = 64
_SOURCES: Final = 16


class Increments(NamedTuple):
    """The increments of one shard.

    Attributes:
        cells, counts: an open-addressing map from (dimensions, minute) to its `BY_MINUTE` increments. Keys
            are stored increased by one, so that 0 is an empty slot. The counts stand apart from the keys:
            a search then reads eight bytes a slot.
        totals: (dimensions, `FLIGHT_COUNTS`) `BY_FLIGHT` increments.
        times: (dimensions, 3) the greatest event time of the accepted, valid pixels; the greatest `BACKWARDS`
            minus event time of these; the greatest event time of all pixels. 0 without a pixel.
        parts, part_counts: the same map as `cells` from (dimensions, minute and part) to (n, 1) counts, of
            `flows.model.day_parts`; `parts_used` is its `used`.
        where, listeners, ts, homes: (room, 3) `COMBO_OF`, `KIND_OF`, `PLAY_HALF`; (room,) listener, time,
            household: consented impressions, starts and clicks; 0 for an unknown listener or household.
        sides: (room, 4) dimensions, minute, column of `flows.model.basis.SIDES` and increment, for rare
            counts.
        sent: (room, 3) words of `flows.model.client_counts`, of downloads and deliveries that have a key.
        shown, shown_counts: the same map as `cells` from (dimensions, source) to (n, 1) impressions, of more
            cuts than the last (`flows.plays.feed`); `shown_used` is its `used`.
        by_source: (sources,) accepted, valid pixels.
    """

    cells: U64
    counts: I64
    totals: I64
    times: I64
    where: U32
    listeners: U64
    ts: I64
    sides: I64
    parts: U64
    part_counts: I64
    parts_used: I64
    sent: U64
    homes: U64
    shown: U64
    shown_counts: I64
    shown_used: I64
    by_source: I64

    @classmethod
    def new(cls) -> Increments:
        """Empty increments with little room."""
        return cls(
            *_new_cells(_CELLS, MINUTE_COUNTS),
            np.zeros((_COMBOS, FLIGHT_COUNTS), np.int64),
            np.zeros((_COMBOS, 3), np.int64),
            np.zeros((_TOUCHES, 3), np.uint32),
            np.zeros(_TOUCHES, np.uint64),
            np.zeros(_TOUCHES, np.int64),
            np.zeros((_SIDES, 4), np.int64),
            *_new_cells(_CELLS, 1),
            parts_used=np.array([0, 0, 0, randbits(63)], np.int64),
            sent=np.zeros((_SENT, 3), np.uint64),
            homes=np.zeros(_TOUCHES, np.uint64),
            **_nothing_shown(),
        )

    def with_combos(self) -> Increments:
        """The same with room for twice as many dimensions."""
        return self._replace(totals=doubled(self.totals), times=doubled(self.times))

    def with_touches(self) -> Increments:
        """The same with room for twice as many touches."""
        columns = ("where", "listeners", "ts", "homes")
        return self._replace(**{name: doubled(getattr(self, name)) for name in columns})

    def with_sides(self) -> Increments:
        """The same with room for twice as many sides."""
        return self._replace(sides=doubled(self.sides))

    def with_sent(self) -> Increments:
        """The same with room for twice as many events that have been sent."""
        return self._replace(sent=doubled(self.sent))

    def with_cells(self, used: I64) -> Increments:
        """The same with room for twice as many cells."""
        cells, counts = _new_cells(2 * len(self.cells), MINUTE_COUNTS)
        _move(self.cells, self.counts, cells, counts, used)
        return self._replace(cells=cells, counts=counts)

    def with_parts(self) -> Increments:
        """The same with room for twice as many parts."""
        parts, counts = _new_cells(2 * len(self.parts), 1)
        _move(self.parts, self.part_counts, parts, counts, self.parts_used)
        return self._replace(parts=parts, part_counts=counts)

    def with_shown(self) -> Increments:
        """The same with room for twice as many impressions by source."""
        shown, counts = _new_cells(2 * len(self.shown), 1)
        _move(self.shown, self.shown_counts, shown, counts, self.shown_used)
        return self._replace(shown=shown, shown_counts=counts)

    def with_sources(self) -> Increments:
        """The same with room for twice as many sources."""
        return self._replace(by_source=doubled(self.by_source))

    def without_shown(self) -> Increments:
        """The same without impressions by source."""
        return self._replace(**_nothing_shown())

    def begun_anew(self, used: I64) -> Increments:
        """Empty increments after a cut; resets `used`."""
        self.totals[:] = 0
        self.times[:] = 0
        after = self
        if used[CELLS_USED]:
            cells, counts = _new_cells(max(_CELLS, len(self.cells) // 2), MINUTE_COUNTS)
            after = self._replace(cells=cells, counts=counts)
        if self.parts_used[CELLS_USED]:
            parts, part_counts = _new_cells(max(_CELLS, len(self.parts) // 2), 1)
            after = after._replace(parts=parts, part_counts=part_counts)
            self.parts_used[CELLS_USED] = 0
        used[CELLS_USED] = used[TOUCHES] = used[SIDES_USED] = used[SENT_USED] = 0
        return after


def _nothing_shown() -> dict[str, Any]:
    shown, counts = _new_cells(_CELLS, 1)
    used = np.array([0, 0, 0, randbits(63)], np.int64)
    return {
        "shown": shown,
        "shown_counts": counts,
        "shown_used": used,
        "by_source": np.zeros(_SOURCES, np.int64),
    }


def _new_cells(capacity: int, columns: int) -> tuple[U64, I64]:
    return np.zeros(capacity, np.uint64), np.zeros((capacity, columns), np.int64)


@inlined
def add(cells: U64, counts: I64, used: I64, combo: Int, minute: Int, column: Int, by: Int) -> None:
    """Add to a cell; there must be room for one more cell."""
    key = (np.uint64(combo) << np.uint64(32)) | np.uint64(minute)
    key += np.uint64(1)
    slot = find_key(cells, key, mixed(key, np.uint64(used[SECRET])))
    if cells[slot] == np.uint64(0):
        cells[slot] = key
        used[CELLS_USED] += 1
    counts[slot, column] += by


@lean
def _move(old: U64, old_counts: I64, cells: U64, counts: I64, used: I64) -> None:
    """Move all cells of a map to a larger map."""
    for i in range(len(old)):
        if old[i] == np.uint64(0):
            continue
        slot = find_key(cells, old[i], mixed(old[i], np.uint64(used[SECRET])))
        cells[slot] = old[i]
        for column in range(counts.shape[1]):
            counts[slot, column] = old_counts[i, column]
