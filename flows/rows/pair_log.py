"""Versions of pairs in the order in which they change, for the next save. A save copies them in sequence: a
look-up of each changed slot would cost a cache miss.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.rows.pairs import ROW, minute_of
from flows.state.arrays import U64, Int
from flows.state.kernel import brief, lean

BLOCK: Final = 1 << 16
"""The room of a block in versions, unless more are asked for at once."""


@lean
def log_pair(log: U64, table: U64, slot: Int) -> None:
    """Append a slot's present state to a block that has room for it."""
    used = np.int64(log[0, 0]) + 1
    log[0, 0] = np.uint64(used)
    for w in range(3):
        log[used, w] = table[slot, w]


@brief
def _copy(log: U64, known_from: Int, rows: U64, place: Int) -> Int:
    """Copy a block's versions from the minute `known_from` on to `rows`, from `place` on; returns the end of
    the copy.
    """
    for i in range(1, np.int64(log[0, 0]) + 1):
        if minute_of(log[i, ROW]) >= known_from:
            for w in range(3):
                rows[place, w] = log[i, w]
            place += 1
    return place


def _block(rows: int) -> U64:
    """An empty block: its first word is the number of versions, which follow from the second row on."""
    block = np.empty((rows + 1, 3), np.uint64)
    block[0] = 0
    return block


class PairLog:
    """The versions since the last save; only the latest of them in a flow without saves."""

    def __init__(self) -> None:
        self._full: list[U64] = []
        self._kept = 0
        self._block = _block(BLOCK)
        self._whole = True

    def room(self, rows: int, most: int) -> U64:
        """The block to append to, which has room for so many versions.

        Args:
            most: versions to keep besides it; above this number the table itself is the better source.
        """
        used = int(self._block[0, 0])
        if used + rows >= len(self._block):
            self._full.append(self._block[: used + 1].copy())
            self._kept += used
            if self._kept > most:
                self._full, self._kept, self._whole = [], 0, False
            if rows >= len(self._block):
                self._block = _block(rows)
            self._block[0] = 0
        return self._block

    def take(self, known_from: int) -> U64 | None:
        """Remove the versions and return those from the minute `known_from` on, as (n, 3), the latest of a
        pair last. None if some were dropped.
        """
        versions, end, whole = np.empty((self._kept + int(self._block[0, 0]), 3), np.uint64), 0, self._whole
        for block in (*self._full, self._block):
            end = _copy(block, known_from, versions, end)
        self._full, self._kept, self._whole = [], 0, True
        if len(self._block) > BLOCK + 1:
            self._block = _block(BLOCK)
        self._block[0] = 0
        return versions[:end] if whole else None
