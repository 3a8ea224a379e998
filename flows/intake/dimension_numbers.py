"""Dimensions by number, each with the key for hashing the plays and events of its placement."""

from __future__ import annotations

from secrets import randbits
from sys import getsizeof
from typing import Final

import numpy as np

from flows.intake.identity import Identities
from flows.model.dimensions import Dimensions
from flows.model.events import each_present
from flows.state.arrays import U64
from flows.state.interner import Interner

MAX_COMBOS: Final = 500_000
MAX_COMBO_BYTES: Final = 256 << 20
_COMBO_BYTES: Final = 800
"""The memory in bytes of a tuple of dimensions without its characters: places in a list and a dictionary,
key, heads of texts.
"""
_NO_KEY: Final = bytes(16)
"""The key of dimensions without a placement; only conversions may have them."""


class DimensionNumbers:
    """The dimensions of one decoder so far.

    Args:
        width: the number of names in each tuple.

    Attributes:
        combos: by number.
        numbering: the number of this numbering, which no other decoder has.
    """

    def __init__(self, identities: Identities, width: int) -> None:
        self.width = width
        self.combos: list[Dimensions] = []
        self.numbering = randbits(63)
        self._identities = identities
        self._names = Interner[tuple[str | None, ...]]()
        self._key_rows, self._new_keys = np.zeros((1, 2), np.uint64), list[bytes]()
        self._bytes = 0

    @property
    def full(self) -> bool:
        """True if the decoder should start over: a producer that invents names must not fill the memory."""
        return len(self.combos) > MAX_COMBOS or self._bytes > MAX_COMBO_BYTES

    def number(self, names: tuple[str | None, ...]) -> int:
        """The index of the names in `combos`; new names get a new one."""
        index = self._names.number(names)
        if index == len(self.combos):
            combo = each_present(names)
            self.combos.append(combo)
            self._bytes += _COMBO_BYTES + getsizeof("".join(filter(None, names)))
            self._new_keys.append(_NO_KEY if combo[0] is None else self._identities.key_of(combo[0]))
        return index

    @property
    def keys(self) -> U64:
        """The key of the placement of each, as two words; there may be more rows than dimensions."""
        if self._new_keys:
            count = len(self.combos)
            if count > len(self._key_rows):
                more = np.zeros((count, 2), np.uint64)  # with room for twice as many
                self._key_rows = np.concatenate([self._key_rows, more])
            new = np.frombuffer(b"".join(self._new_keys), "<u8").reshape(-1, 2)
            self._key_rows[count - len(new) : count] = new
            self._new_keys.clear()
        return self._key_rows
