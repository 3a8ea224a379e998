"""An open-addressing table of (listener, row) pairs, with an optional word of bits. `reach` and `rolling`
count exactly by it, while a row has few listeners.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.state.arrays import I64, U8, U64, Int
from flows.state.kernel import kernel, lean, mixed

WHO, ROW, BITS = range(3)
"""The words of a slot; the listener of an empty slot is 0."""
NUMBER: Final = np.uint64((1 << 32) - 1)
"""The bits of that word that are the row's number; `rolling` has a minute above it (`minute_of`)."""
MAX_LOAD: Final = 0.7
CHUNK: Final = 1 << 16
"""The number of pairs that are added at once: the table must have room for them all."""
Pairs = tuple[U64, U64]
"""A table with the block of its log (`flows.rows.pair_log`)."""


def new_pairs(entries: int, words: int) -> U64:
    """An empty table with room for `entries`, of slots of `words` words."""
    capacity = 256
    while capacity * MAX_LOAD < entries:
        capacity *= 2
    return np.zeros((capacity, words), np.uint64)


@lean
def find_pair(table: U64, who: Int, row: Int) -> Int:
    """The slot of a listener in a row, or the empty one for it."""
    mask = np.uint64(len(table) - 1)
    slot = mixed(who, np.uint64(row) + np.uint64(1)) & mask
    while table[slot, WHO] != np.uint64(0) and (
        table[slot, WHO] != np.uint64(who) or table[slot, ROW] & NUMBER != np.uint64(row)
    ):
        slot = (slot + np.uint64(1)) & mask
    return np.int64(slot)


@lean
def minute_of(row: Int) -> Int:
    """The minute above the number of a row."""
    return np.int64(row >> np.uint64(32))


@kernel
def refill(old: U64, table: U64, dense_of: I64) -> Int:
    """Move the pairs that are not in registers to the empty `table`; returns their number."""
    used = 0
    for i in range(len(old)):
        row = old[i, ROW] & NUMBER
        if old[i, WHO] != np.uint64(0) and dense_of[row] < 0:
            slot = find_pair(table, old[i, WHO], row)
            used += 1
            for w in range(old.shape[1]):
                table[slot, w] = old[i, w]
    return used


@lean
def tidy(table: U64, known_from: Int) -> Int:
    """Empty the slots of listeners who have no minute left; returns the number of others. Refill the table
    afterwards.
    """
    kept = 0
    for i in range(len(table)):
        if table[i, BITS] == np.uint64(0) or minute_of(table[i, ROW]) < known_from:
            table[i, WHO] = np.uint64(0)
        elif table[i, WHO] != np.uint64(0):
            kept += 1
    return kept


@kernel
def useful(table: U64, known_from: Int, most: Int) -> U64:
    """All pairs in use, `most` at most, as (n, 3)."""
    rows = np.empty((most, 3), np.uint64)
    n = 0
    for slot in range(len(table)):
        of_use = table[slot, BITS] != np.uint64(0) and minute_of(table[slot, ROW]) >= known_from
        if table[slot, WHO] != np.uint64(0) and of_use:
            rows[n] = table[slot]
            n += 1
    return rows[:n]


@kernel
def upsert(rows: U64, table: U64) -> Int:
    """Insert rows, replacing those of the same listener and row; returns the number of new ones."""
    new = 0
    for i in range(len(rows)):
        slot = find_pair(table, rows[i, WHO], rows[i, ROW] & NUMBER)
        new += table[slot, WHO] == np.uint64(0)
        table[slot] = rows[i]
    return new


@kernel
def unchanged(rows: U64, table: U64, known_from: Int) -> U8:
    """Mark the rows that the table has unchanged and that are in use."""
    same = np.zeros(len(rows), np.uint8)
    for i in range(len(rows)):
        slot = find_pair(table, rows[i, WHO], rows[i, ROW] & NUMBER)
        same[i] = (
            table[slot, WHO] != np.uint64(0)
            and table[slot, ROW] == rows[i, ROW]
            and table[slot, BITS] == rows[i, BITS]
            and minute_of(rows[i, ROW]) >= known_from
        )
    return same
