"""Paired tables (`flows.state.hash_table`) of listener and row, with an optional word of bits. `reach` and
`rolling_reach` count exactly by them, while a row has few listeners.

They are bare arrays, and no `HashTable`: no slot has a mark, since the listeners that a save adds are logged
in the order in which they come, and loops empty slots and fill them again. They are less full than those,
since most of the listeners that are looked up are new.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.state.arrays import U64, Int, mapped_zeros
from flows.state.hash_table import GROWTH, LOW, move
from flows.state.kernel import kernel, lean

WHO, ROW, BITS = range(3)
"""The words of a slot; the listener of an empty slot is 0."""
NUMBER: Final = LOW
"""The bits of that word that are the row's number; `rolling` has a minute above it (`minute_of`)."""
MAX_LOAD: Final = 0.7
MIN_SLOTS: Final = 256
CHUNK: Final = 1 << 16
"""The number of pairs that are added at once: the table must have room for them all."""
Pairs = tuple[U64, U64]
"""A table with the block of its log (`flows.rows.pair_log`)."""


def new_pairs(entries: int, words: int) -> U64:
    """An empty table with room for `entries`, of slots of `words` words."""
    capacity = max(MIN_SLOTS, int(entries / MAX_LOAD * GROWTH) + 1)
    table: U64 = mapped_zeros((capacity, words), np.uint64)
    return table


def refilled(old: U64, entries: int) -> U64:
    """A table of all pairs of `old`, with room for `entries`."""
    table = new_pairs(entries, old.shape[1])
    move(old, table, True)
    return table


@lean
def minute_of(row: Int) -> Int:
    """The minute above the number of a row."""
    return np.int64(row >> np.uint64(32))


@lean
def tidy(table: U64, known_from: Int) -> Int:
    """Empty the slots of listeners who have no minute left; returns the number of others. Refill the table
    afterwards.
    """
    live_slots = 0
    for i in range(len(table)):
        if table[i, BITS] == np.uint64(0) or minute_of(table[i, ROW]) < known_from:
            table[i, WHO] = np.uint64(0)
        elif table[i, WHO] != np.uint64(0):
            live_slots += 1
    return live_slots


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
