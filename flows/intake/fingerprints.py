"""A bounded cache from a 64-bit fingerprint to a number, in one array that compiled loops search.

It is a bare array and no `flows.state.hash_table.HashTable`: it is never saved. It is half full at most, so
that most searches are one probe.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.state.arrays import I64, U64, Int
from flows.state.hash_table import find, refill
from flows.state.kernel import kernel, lean

_SMALLEST: Final = 1024


@lean
def room(slots: U64, used: I64) -> bool:
    """True if one more key fits: at most half of the slots may be in use."""
    return bool(2 * used[0] < len(slots))


@kernel
def put(slots: U64, used: I64, key: np.uint64, value: int | np.uint64) -> Int:
    """Set the value of `key` (not 0); there must be room. Returns the slot."""
    slot = find(slots, key)
    used[0] += slots[slot, 0] == np.uint64(0)
    slots[slot, 0] = key
    slots[slot, 1] = value
    return slot


class FingerprintCache:
    """A cache of numbers, which is emptied when it exceeds a bound.

    Args:
        most: the greatest number of keys (approximate).

    Attributes:
        slots: (capacity, 2) uint64: key or 0, value.
        used: the number of keys, int64[1].
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.clear()

    def clear(self) -> None:
        """Drop everything."""
        self.slots, self.used = np.zeros((_SMALLEST, 2), np.uint64), np.zeros(1, np.int64)

    def make_room(self) -> None:
        """Make room for more keys by growth; beyond the bound, by dropping all present keys."""
        if self.used[0] > self._most:
            self.clear()
        self.grow()

    def grow(self) -> None:
        """Make room for more keys by growth."""
        if not room(self.slots, self.used):
            old, self.slots = self.slots, np.zeros((4 * len(self.slots), 2), np.uint64)
            refill(old, self.slots, False)
