"""Open addressing in one packed array: the memory of plays. Linear probing, 32 bytes a slot, no pointers.

A slot is four 64-bit words: the key (0 is empty), flags and names, minutes, times. `flows.plays` defines
their meaning; this module finds, places and rebuilds them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.state.arrays import U32, U64, Int
from flows.state.kernel import brief, kernel, lean

WORDS: Final = 4
SLOT_BYTES: Final = 8 * WORDS
MAX_LOAD: Final = 0.78
"""Share of slots in use at which a table is rebuilt: about three probes a hit, ten a miss."""
GROWTH: Final = 1.25
"""The factor of growth: small, since memory is counted in bytes a play and a rebuild costs 20 ns a slot."""
MIN_SLOTS: Final = 64


def new_table(capacity: int = MIN_SLOTS) -> U64:
    """An empty table of `capacity` slots, (capacity, WORDS) uint64."""
    return np.zeros((capacity, WORDS), np.uint64)


@lean
def find(table: U64, key: Int | np.uint64) -> Int:
    """The slot of `key`, or the empty one for it. The table must have an empty slot."""
    capacity = np.uint64(len(table))
    slot = ((np.uint64(key) >> np.uint64(32)) * capacity) >> np.uint64(32)
    while True:
        there = table[slot, 0]
        if there == np.uint64(key) or there == np.uint64(0):
            return np.int64(slot)
        slot += np.uint64(1)
        if slot == capacity:
            slot = np.uint64(0)


@lean
def refill(rows: U64, table: U64) -> None:
    """Put every row of `rows` whose key is not 0 in the empty `table`."""
    for i in range(len(rows)):
        if rows[i, 0] != np.uint64(0):
            slot = find(table, rows[i, 0])
            for w in range(4):
                table[slot, w] = rows[i, w]


@kernel
def put(rows: U64, table: U64) -> Int:
    """Put every row of `rows` into `table`, replacing the one with its key; returns the number of new ones.
    There must be room for all.
    """
    new = 0
    for i in range(len(rows)):
        slot = find(table, rows[i, 0])
        new += table[slot, 0] == np.uint64(0)
        for w in range(4):
            table[slot, w] = rows[i, w]
    return new


@brief
def drain_changed(table: U64, mark: Int, changes: U32) -> U64:
    """The rows of the listed slots (`flows.state.changes`). Their mark is cleared in the second word, there
    and in the result, and the list is emptied.
    """
    rows = np.empty((changes[0], 4), np.uint64)
    for n in range(len(rows)):
        slot = changes[n + 1]
        table[slot, 1] &= ~mark
        for w in range(4):
            rows[n, w] = table[slot, w]
    changes[0] = np.uint32(0)
    return rows


@kernel
def still(rows: U64, table: U64) -> U64:
    """The rows of `rows` that `table` has unchanged, word by word."""
    n = 0
    kept = np.empty_like(rows)
    for i in range(len(rows)):
        slot = find(table, rows[i, 0])
        same = True
        for w in range(4):
            same = same and table[slot, w] == rows[i, w]
        if same:
            for w in range(4):
                kept[n, w] = rows[i, w]
            n += 1
    return kept[:n]


def resized(rows: U64, used: int, spare: int = 0) -> U64:
    """A table of the `used` rows with a key, with room for `spare` more before it is `MAX_LOAD`."""
    table = new_table(max(MIN_SLOTS, int((used + spare) / MAX_LOAD * GROWTH) + 1))
    refill(rows, table)
    return table
