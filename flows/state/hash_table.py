"""Open addressing with linear probing: rows of 64-bit words in one array, no pointers.

The first word of a row is its key; 0 is an empty slot. The key of a paired table is the first word together
with the low half of the second. Every search of the flow is one of three loops: `find` by a key that is a
hash, `find_key` by a key with a hash of its own, `find_pair` by a pair. A table must have an empty slot.

`HashTable` is such an array with its growth, its list of changed slots and its journal. A module that keeps
a bare array states why.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flows.state.arrays import I64, U32, U64, Int, consumed, mapped_zeros
from flows.state.changes import marked, note_change
from flows.state.journal import Body, Files, Journal
from flows.state.kernel import brief, inlined, kernel, lean, mixed

MAX_LOAD: Final = 0.78
"""Share of slots in use at which a table is rebuilt: about three probes a hit, ten a miss."""
GROWTH: Final = 1.25
"""The factor of growth: small, since memory is counted in bytes a row and a rebuild costs 20 ns a slot."""
MIN_SLOTS: Final = 64
LOW: Final = np.uint64((1 << 32) - 1)
"""The low half of a word."""


@lean
def _start(hashed: np.uint64, capacity: np.uint64) -> np.uint64:
    return ((hashed >> np.uint64(32)) * capacity) >> np.uint64(32)


@lean
def find(table: U64, key: Int | np.uint64) -> Int:
    """The slot of a key in the first words of `table`, or the empty one for it. The key is a hash."""
    capacity = np.uint64(len(table))
    slot = ((np.uint64(key) >> np.uint64(32)) * capacity) >> np.uint64(32)
    while True:
        slot_key = table[slot, 0]
        if slot_key == np.uint64(key) or slot_key == np.uint64(0):
            return np.int64(slot)
        slot += np.uint64(1)
        if slot == capacity:
            slot = np.uint64(0)


@inlined
def find_key(keys: U64, key: np.uint64, hashed: np.uint64) -> Int:
    """The slot of a key, or the empty one for it, in an array of keys alone."""
    capacity = np.uint64(len(keys))
    slot = _start(hashed, capacity)
    while keys[slot] != key and keys[slot] != np.uint64(0):
        slot += np.uint64(1)
        if slot == capacity:
            slot = np.uint64(0)
    return np.int64(slot)


@lean
def find_pair(table: U64, first: Int, number: Int, oldest: Int) -> Int:
    """The slot of a pair, or the first slot that can take it: an empty slot, or a slot whose second word has
    less than `oldest` in its high half. An `oldest` of 0 finds empty slots alone.
    """
    capacity = np.uint64(len(table))
    slot = _start(mixed(first, np.uint64(number) + np.uint64(1)), capacity)
    stale = np.int64(-1)
    while table[slot, 0] != np.uint64(0):
        if table[slot, 0] == np.uint64(first) and table[slot, 1] & LOW == np.uint64(number):
            return np.int64(slot)
        if stale < 0 and np.int64(table[slot, 1] >> np.uint64(32)) < oldest:
            stale = np.int64(slot)
        slot += np.uint64(1)
        if slot == capacity:
            slot = np.uint64(0)
    return np.int64(slot) if stale < 0 else stale


@inlined
def _copy(rows: U64, row: Int, to: U64, slot: Int) -> None:
    if rows.shape[1] == 4:  # most rows; a constant number of words takes two thirds of the time
        for word in range(4):
            to[slot, word] = rows[row, word]
    else:
        for word in range(rows.shape[1]):
            to[slot, word] = rows[row, word]


@inlined
def _same(rows: U64, row: Int, table: U64, slot: Int) -> Int:
    same = True
    if rows.shape[1] == 4:
        for word in range(4):
            same = same and table[slot, word] == rows[row, word]
    else:
        for word in range(rows.shape[1]):
            same = same and table[slot, word] == rows[row, word]
    return same


@lean
def remove(table: U64, key: Int | np.uint64) -> None:
    """Remove the row of a key that is in the table, and move rows so that each other key is still found."""
    capacity = np.int64(len(table))
    empty = find(table, key)
    slot = (empty + 1) % capacity
    while table[slot, 0]:
        start = np.int64(_start(table[slot, 0], np.uint64(capacity)))
        if (slot - start) % capacity >= (slot - empty) % capacity:
            _copy(table, slot, table, empty)
            empty = slot
        slot = (slot + 1) % capacity
    table[empty, 0] = np.uint64(0)


@lean
def _slot_of(rows: U64, i: Int, table: U64, paired: Int) -> Int:
    if paired:
        return find_pair(table, rows[i, 0], rows[i, 1] & LOW, 0)
    return find(table, rows[i, 0])


@lean
def refill(rows: U64, table: U64, paired: Int) -> None:
    """Put every row of `rows` whose key is not 0 in the empty `table`."""
    for i in range(len(rows)):
        if rows[i, 0] != np.uint64(0):
            slot = _slot_of(rows, i, table, paired)
            _copy(rows, i, table, slot)


def move(rows: U64, table: U64, paired: bool) -> None:
    """Put every row of a table that is no longer needed into a new one, and free the old pages on the way."""
    for part in consumed(rows):
        refill(part, table, paired)


@lean
def put(rows: U64, table: U64, paired: Int) -> Int:
    """Put every row of `rows` into `table`, replacing the row of its key. There must be room for all. Returns
    the number of new keys.
    """
    new_keys = 0
    for i in range(len(rows)):
        slot = _slot_of(rows, i, table, paired)
        new_keys += table[slot, 0] == np.uint64(0)
        _copy(rows, i, table, slot)
    return new_keys


@lean
def _put_changed(rows: U64, table: U64, paired: Int, mark: np.uint64, changes: U32) -> Int:
    """Put rows as `put` does, mark them and list them; returns the number of new keys."""
    new_keys = 0
    for i in range(len(rows)):
        slot = _slot_of(rows, i, table, paired)
        new_keys += table[slot, 0] == np.uint64(0)
        if table[slot, 1] & mark == np.uint64(0):
            note_change(changes, slot)
        _copy(rows, i, table, slot)
        table[slot, 1] |= mark
    return new_keys


@brief
def _drain(table: U64, mark: np.uint64, changes: U32) -> U64:
    """The rows of the listed slots. Their mark is cleared, there and in the result; the list is emptied."""
    rows = np.empty((changes[0], table.shape[1]), np.uint64)
    for n in range(len(rows)):
        slot = changes[n + 1]
        table[slot, 1] &= ~mark
        _copy(table, slot, rows, n)
    changes[0] = np.uint32(0)
    return rows


@kernel
def unchanged_rows(rows: U64, table: U64, paired: Int) -> U64:
    """The rows of `rows` that are in `table` with equal words."""
    n = 0
    unchanged = np.empty_like(rows)
    for i in range(len(rows)):
        slot = _slot_of(rows, i, table, paired)
        if _same(rows, i, table, slot):
            _copy(rows, i, unchanged, n)
            n += 1
    return unchanged[:n]


class HashTable:
    """Rows by key, with a list of those that changed since the last snapshot, and a journal of them.

    A compiled loop finds its slot, sets the mark and lists the slot if the mark was not set
    (`flows.state.changes`), and counts new rows in `count`.

    Args:
        words: the number of words in a row.
        mark: a bit of the second word that rows use for nothing else; in a paired table a bit of its high
            half.
        paired: whether the key is a pair.
        count: int64[1], the number of rows, to which a loop adds; by default an array of its own.

    Attributes:
        slots: (capacity, words).
        changes: the list of changed slots.
    """

    def __init__(
        self, words: int, mark: np.uint64, *, paired: bool = False, count: I64 | None = None
    ) -> None:
        self.words, self._mark, self._paired = words, mark, paired
        self.count = np.zeros(1, np.int64) if count is None else count
        self.journal = Journal(words)
        self._resize(np.zeros((0, words), np.uint64), 0, 0)
        self.journal.load(self)

    def __len__(self) -> int:
        return int(self.count[0])

    @property
    def nbytes(self) -> int:
        """The memory of the rows, in bytes."""
        return self.slots.nbytes

    def _resize(self, rows: U64, used: int, spare: int) -> None:
        capacity = max(MIN_SLOTS, int((used + spare) / MAX_LOAD * GROWTH) + 1)
        self.slots: U64 = mapped_zeros((capacity, self.words), np.uint64)
        move(rows, self.slots, self._paired)
        self.count[0] = used
        self._list_changes()

    def _list_changes(self) -> None:
        self.changes = marked(self.slots[:, 1], self._mark)

    def make_room(self, more: int) -> None:
        """Make room for `more` rows, by growth."""
        if len(self) + more > MAX_LOAD * len(self.slots):
            self._resize(self.slots, len(self), more)

    def rebuild(self, spare: int = 0) -> None:
        """Rebuild the table, with room for `spare` more rows, after a loop has emptied slots and reduced
        `count`. The journal still has the emptied rows, so the caller runs the same loop after `restore`.
        """
        self._resize(self.slots, len(self), spare)

    def keep(self, kept_slots: npt.NDArray[np.bool_]) -> None:
        """Drop the rows of all other slots; see `rebuild`."""
        rows = self.slots[kept_slots & (self.slots[:, 0] != 0)]
        if len(rows) < len(self):
            self._resize(rows, len(rows), 0)

    def begin_anew(self) -> None:
        """Drop the journal and list every row as changed, once rows were dropped or rewritten for good."""
        self.slots[self.slots[:, 0] != 0, 1] |= self._mark
        self._list_changes()
        self.journal.pieces = []

    def put(self, rows: U64) -> None:
        """Put rows (n, words), replacing those of their keys."""
        self.make_room(len(rows))
        self.count[0] += _put_changed(rows, self.slots, self._paired, self._mark, self.changes)

    # State

    def changed(self) -> U64:
        """See `flows.state.journal.Table`."""
        return _drain(self.slots, self._mark, self.changes)

    def live(self, rows: U64) -> U64:
        """See `flows.state.journal.Table`."""
        return unchanged_rows(rows, self.slots, self._paired)

    def whole(self) -> U64:
        """See `flows.state.journal.Table`; without the empty slots, and without marks."""
        # `take` by numbers needs a third of the time that a mask needs.
        rows = self.slots.take(np.flatnonzero(self.slots[:, 0]), axis=0)
        rows[:, 1] &= ~self._mark
        return rows

    def gather(self, files: Files) -> None:
        """Copy the changes since the last cut, so that the next snapshot need not."""
        self.journal.gather(self, files)

    def snapshot(self, files: Files) -> list[tuple[str, Body, int, int]]:
        """The rows as plain values: the changes, and the files of earlier snapshots. The caller calls
        `files.keep` with `file_names`.
        """
        return self.journal.snapshot(self, files)

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return self.journal.file_names()

    def restore(self, state: Iterable[Iterable[Any]], files: Files) -> None:
        """Load the rows of `snapshot` into the empty table: a later version of a row replaces an earlier one.

        Raises:
            StateError: a file is missing or damaged.
        """
        for rows, _ in self.journal.restore(state, files):
            self.make_room(len(rows))
            self.count[0] += put(rows, self.slots, self._paired)
