"""Cells of rows: an open-addressing map from (row, minute) to counts, and the loops over it.

The map has its own columns and is no `flows.state.hash_table.HashTable`. A window searches 60 minutes of a
row, mostly without a cell: keys of 8 bytes are read faster than rows of 200 bytes. A cut reads the flags of
all cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flows.model.counts import HELD_COLUMN, MINUTE_COUNTS, REPAIRED
from flows.model.events import COMPLETE, IMPRESSION, OF_PLAY, START
from flows.state.arrays import I64, U8, U32, U64, Int
from flows.state.hash_table import find_key
from flows.state.journal import Files, Journal
from flows.state.kernel import inlined, kernel, lean, mixed

MIN_SLOTS: Final = 256
MANY: Final = 8
"""Expired cells are dropped once they are one in so many of all cells. The cells of a minute are about a
sixtieth of an hour's.
"""
AT_ONCE: Final = 2_048
"""The number of increments that are added after one check of the free room."""
DIRTY, FINAL, CHANGED, GONE = 1, 2, 4, 8
"""Flags of a cell. DIRTY: changed since its last publication as a minute. FINAL: published as final.
CHANGED: changed since the last snapshot. GONE: removed (in the journal alone).
"""
KEY, FLAGS, PUBLISHED, COUNTS = range(4)
"""The words of a cell in a snapshot; the words from `COUNTS` on are its counts."""


@lean
def _key(row: Int, minute: Int) -> np.uint64:
    return ((np.uint64(row) << np.uint64(32)) | np.uint64(np.int64(minute))) + np.uint64(1)


@lean
def _find(keys: U64, key: np.uint64) -> Int:
    return find_key(keys, key, mixed(key, np.uint64(7)))


@lean
def add_cells(
    rows: U32,
    minutes: U32,
    deltas: I64,
    keys: U64,
    counts: I64,
    flags: U8,
    flight: I64,
    flight_from: I64,
    flight_end: I64,
    overrun: I64,
    parted_from: I64,
    before: I64,
    first_open: Int,
) -> Int:
    """Add increments to cells and flights. Impressions at or after a flight's end are also added to `overrun`
    (an end of 0 means no end). Impressions of a flight's minutes before `parted_from` are also added to
    `before` (0 means no such minute). Returns the number of new cells, or -1 if a final one would change.
    """
    new = 0
    for i in range(len(rows)):
        if np.int64(minutes[i]) < first_open:
            return -1
        key = _key(rows[i], minutes[i])
        slot = _find(keys, key)
        new += keys[slot] == np.uint64(0)
        keys[slot] = key
        flags[slot] |= np.uint8(DIRTY | CHANGED)
        for column in range(MINUTE_COUNTS):
            counts[slot, column] += deltas[i, column]
            if column != REPAIRED and np.int64(minutes[i]) >= flight_from[rows[i]]:
                flight[rows[i], column] += deltas[i, column]
        if 0 < flight_end[rows[i]] <= minutes[i] and flight_from[rows[i]] <= minutes[i]:
            overrun[rows[i]] += deltas[i, IMPRESSION]
        if flight_from[rows[i]] <= minutes[i] < parted_from[rows[i]]:
            before[rows[i]] += deltas[i, IMPRESSION]
    return new


@inlined
def add_count(row: Int, time: Int, column: Int, amount: Int, keys: U64, counts: I64, flags: U8) -> Int:
    """Add to one column of the cell of a row and time; returns 1 if the cell is new."""
    key = _key(row, time)
    slot = _find(keys, key)
    new = keys[slot] == np.uint64(0)
    keys[slot] = key
    flags[slot] |= np.uint8(DIRTY | CHANGED)
    counts[slot, column] += amount
    return np.int64(new)


@lean
def _add_counts(rows: I64, times: I64, columns: I64, amounts: I64, keys: U64, counts: I64, flags: U8) -> Int:
    """Add to one column of the cell of each row and time; returns the number of new cells."""
    new = 0
    for i in range(len(rows)):
        new += add_count(rows[i], times[i], columns[i], amounts[i], keys, counts, flags)
    return new


@lean
def add_lines(table: I64, rows: U32, lines: I64) -> None:
    """Add each of `lines` to the line of its row."""
    for i in range(len(rows)):
        for column in range(table.shape[1]):
            table[rows[i], column] += lines[i, column]


@lean
def _sum_counts(rows: I64, first: Int, last: Int, keys: U64, counts: I64, sums: I64) -> None:
    """Add each row's cells of the times from `first` to `last` to its sums."""
    for i in range(len(rows)):
        for time in range(first, last + 1):
            slot = _find(keys, _key(rows[i], time))
            if keys[slot] != np.uint64(0):
                for column in range(counts.shape[1]):
                    sums[i, column] += counts[slot, column]


@lean
def window(
    rows: I64, last: Int, minutes: Int, keys: U64, counts: I64, sums: I64, mature: I64, mature_before: Int
) -> None:
    """Sum the `minutes` minutes up to `last` of each of `rows`. `mature` gets the starts and completes of the
    minutes before `mature_before`.
    """
    for i in range(len(rows)):
        for minute in range(last - minutes + 1, last + 1):
            slot = _find(keys, _key(rows[i], minute))
            if keys[slot] == np.uint64(0):
                continue
            for column in range(MINUTE_COUNTS):
                sums[i, column] += counts[slot, column]
            if minute < mature_before:
                mature[i, 0] += counts[slot, START]
                mature[i, 1] += counts[slot, COMPLETE]


@lean
def move(
    slots: I64, old: U64, old_counts: I64, old_flags: U8, old_published_cuts: I64,
    keys: U64, counts: I64, flags: U8, published_cuts: I64,
) -> None:  # fmt: skip
    """Move the cells at `slots` of a map into an empty one with room for them."""
    for i in slots:
        slot = _find(keys, old[i])
        keys[slot], flags[slot], published_cuts[slot] = old[i], old_flags[i], old_published_cuts[i]
        for column in range(counts.shape[1]):
            counts[slot, column] = old_counts[i, column]


@kernel
def _rows(slots: I64, keys: U64, counts: I64, flags: U8, published_cuts: I64) -> U64:
    """The words of the cells at `slots`."""
    rows = np.empty((len(slots), COUNTS + counts.shape[1]), np.uint64)
    for i in range(len(slots)):
        slot = slots[i]
        rows[i, KEY], rows[i, FLAGS], rows[i, PUBLISHED] = keys[slot], flags[slot], published_cuts[slot]
        for column in range(counts.shape[1]):
            rows[i, COUNTS + column] = counts[slot, column]
    return rows


@kernel
def places(sought: U64, keys: U64) -> I64:
    """The slot of each key, -1 for an absent one."""
    slots_found = np.full(len(sought), -1, np.int64)
    for i in range(len(sought)):
        slot = _find(keys, sought[i])
        if keys[slot] != np.uint64(0):
            slots_found[i] = slot
    return slots_found


def split(keys: U64) -> tuple[I64, I64]:
    """Rows and minutes of cell keys."""
    packed = keys - np.uint64(1)
    return (packed >> np.uint64(32)).astype(np.int64), (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _empty(capacity: int, columns: int) -> tuple[U64, I64, U8, I64]:
    return (
        np.zeros(capacity, np.uint64),
        np.zeros((capacity, columns), np.int64),
        np.zeros(capacity, np.uint8),
        np.zeros(capacity, np.int64),
    )


class Cells:
    """The map, as columns with one entry a slot.

    Attributes:
        keys: of (row, minute), 0 in an empty slot; see `split`.
        counts: (slots, columns), by default `MINUTE_COUNTS`.
        flags: `DIRTY`, `FINAL` and `CHANGED`.
        published_cuts: number of the cut at which the cell was last published.
        used: the number of slots that hold a cell.
    """

    def __init__(self, columns: int = MINUTE_COUNTS) -> None:
        self.keys, self.counts, self.flags, self.published_cuts = _empty(MIN_SLOTS, columns)
        self.used = 0
        self.journal = Journal(COUNTS + columns)
        self.journal.load(self)

    def make_room(self, more: int) -> None:
        """Make room for `more` cells."""
        room = len(self.keys)
        while (self.used + more) * 4 > room * 3:
            room *= 2
        if room > len(self.keys):
            self.keep(np.ones(len(self.keys), bool), room)

    def keep(self, kept_slots: npt.NDArray[np.bool_], room: int = MIN_SLOTS) -> None:
        """Drop the cells outside `kept_slots`, and resize the map for the others, or for `room` cells if that
        is more.
        """
        old = np.nonzero(kept_slots & (self.keys != 0))[0]
        capacity = room
        while len(old) * 2 > capacity:
            capacity *= 2
        new = _empty(capacity, self.counts.shape[1])
        move(old, self.keys, self.counts, self.flags, self.published_cuts, *new)
        (self.keys, self.counts, self.flags, self.published_cuts), self.used = new, len(old)

    def drop_expired(self, oldest: int, at_once: bool = False) -> None:
        """Drop the cells of times before `oldest`, `at_once` or once they are many: all other cells must
        move.
        """
        expired = (self.keys != 0) & (split(self.keys)[1] < oldest)
        if at_once or np.count_nonzero(expired) * MANY > self.used:
            self.keep(~expired)

    def add(self, rows: I64, times: I64, columns: I64, amounts: I64) -> None:
        """Add `amounts[i]` to column `columns[i]` of the cell of `rows[i]` at `times[i]`."""
        for start in range(0, len(rows), AT_ONCE):  # all at once would need room for a new cell each
            part = slice(start, start + AT_ONCE)
            increments = rows[part], times[part], columns[part], amounts[part]
            self.make_room(len(increments[0]))
            self.used += _add_counts(*increments, self.keys, self.counts, self.flags)

    def sums(self, rows: I64, first: int, last: int) -> I64:
        """(rows, columns): the sums of each row's cells of the times from `first` to `last`."""
        sums = np.zeros((len(rows), self.counts.shape[1]), np.int64)
        _sum_counts(rows, first, last, self.keys, self.counts, sums)
        return sums

    def slots_of(self, rows: I64, times: I64) -> I64:
        """The slot of each cell, -1 for an absent one."""
        return places(((rows << 32) | times).astype(np.uint64) + np.uint64(1), self.keys)

    def take_out(self, rows: Sequence[int]) -> dict[int, list[list[int]]]:
        """Remove the cells of these rows, and record the removal in the journal: a restart must not restore
        them.

        Returns:
            For each row the cells that `put_back` takes: time and counts.
        """
        filled = np.flatnonzero(self.keys)
        slots = filled[np.isin(split(self.keys[filled])[0], rows)]
        cells: dict[int, list[list[int]]] = {row: [] for row in rows}
        numbers, times = (column.tolist() for column in self.rows_and_minutes(slots))
        for row, time, counts in zip(numbers, times, self.counts[slots].tolist(), strict=True):
            cells[row].append([time, *counts])
        if len(slots):
            self._drop(slots)
        return cells

    def put_back(self, row: int, cells: Iterable[Sequence[int]]) -> None:
        """Restore to a row the cells that `take_out` returned."""
        for time, *counts in cells:
            columns, numbers = np.arange(len(counts)), np.ones(len(counts), np.int64)
            self.add(row * numbers, time * numbers, columns, np.array(counts, np.int64))

    def _drop(self, slots: I64) -> None:
        gone = self._rows(slots)
        gone[:, FLAGS], gone[:, PUBLISHED:] = GONE, 0
        self.journal.append(gone)
        left = np.ones(len(self.keys), bool)
        left[slots] = False
        self.keep(left)

    def close(self, before: int) -> tuple[I64, I64, I64, I64]:
        """Make the minutes before `before` final. Returns for each of these cells: row, minute, the counts
        that it adds to flights and days (`repaired`, and held skips and mutes), and its impressions.
        """
        slots = np.nonzero((self.keys != 0) & (self.flags & FINAL == 0))[0]
        slots = slots[split(self.keys[slots])[1] < before]
        self.flags[slots] |= DIRTY | FINAL | CHANGED
        ended = np.zeros((len(slots), MINUTE_COUNTS), np.int64)
        ended[:, REPAIRED] = self.counts[slots, REPAIRED]
        for code in OF_PLAY:
            ended[:, code] = self.counts[slots, code + HELD_COLUMN]
        return *self.rows_and_minutes(slots), ended, self.counts[slots, IMPRESSION]

    def rows_and_minutes(self, slots: Any) -> tuple[I64, I64]:
        """Rows and minutes of some slots that have a cell."""
        return split(self.keys[slots])

    def __len__(self) -> int:
        return self.used

    def changed(self) -> U64:
        """See `flows.state.journal.Table`."""
        slots = np.flatnonzero(self.flags & CHANGED)
        self.flags[slots] &= ~np.uint8(CHANGED)
        return self._rows(slots)

    def live(self, rows: U64) -> U64:
        """See `flows.state.journal.Table`."""
        slots = places(rows[:, KEY].copy(), self.keys)
        rows, now = rows[slots >= 0], self._rows(slots[slots >= 0])
        same: U64 = now[(now == rows).all(axis=1)]
        return same

    def whole(self) -> U64:
        """See `flows.state.journal.Table`."""
        return self._rows(np.flatnonzero(self.keys))

    def _rows(self, slots: I64) -> U64:
        return _rows(slots, self.keys, self.counts, self.flags, self.published_cuts)

    def gather(self, files: Files) -> None:
        """Write the journal to `files`, so that the next snapshot need not. The table itself is only copied,
        since a cell changes at each cut.
        """
        if files.directory is not None:
            self.journal.compact(self, files)

    def snapshot(self, files: Files) -> list[tuple[Any, ...]]:
        """The state as plain values: the changes, and the earlier pieces, which may be in `files`."""
        return self.journal.snapshot(self, files)

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return self.journal.file_names()

    def restore(self, state: list[tuple[Any, ...]], files: Files) -> None:
        """Load the cells of a snapshot. The snapshot may have cells that `keep` had dropped: the owner drops
        them again.
        """
        pieces = [rows for rows, _ in self.journal.restore(state, files)]
        rows = np.concatenate([np.zeros((0, self.journal.words), np.uint64), *pieces])[::-1]
        _, latest = np.unique(rows[:, KEY], return_index=True)
        rows = rows[latest]
        rows = rows[rows[:, FLAGS] & np.uint64(GONE) == 0]
        self.keys, self.flags = rows[:, KEY].copy(), rows[:, FLAGS].astype(np.uint8) & ~np.uint8(CHANGED)
        self.published_cuts, self.counts = (
            rows[:, PUBLISHED].astype(np.int64),
            rows[:, COUNTS:].astype(np.int64),
        )
        self.keep(np.ones(len(self.keys), bool))
