"""Homes: the shard of a name, by a keyed hash. The shard is the same on every machine and in every execution.
Only the key reveals it, so no sender can direct all names to one shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from flows.state.arrays import I64, U8, U64
from flows.state.kernel import kernel
from flows.state.keys import SHARD, sub_key
from flows.state.siphash import siphash

_MAX_KNOWN: Final = 20_000
"""The number of cached shards, of names of up to 128 characters."""


class Homes:
    """The shards of placements and rows.

    Args:
        secret: the listeners' key.
        shards: their number.
    """

    def __init__(self, secret: bytes, shards: int) -> None:
        self.shards = shards
        self._known: dict[tuple[str, str], int] = {}
        self._key = np.frombuffer(sub_key(secret, SHARD)[:16], "<u8").astype(np.uint64)

    def of(self, scope: str, name: str) -> int:
        """The shard of a row. A placement's row lives in its plays' shard, so that it need not travel; other
        rows are distributed by scope and name.
        """
        home = self._known.get((scope, name))
        if home is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            home = self._known[scope, name] = int(self.of_all(scope, [name])[0])
        return home

    def of_all(self, scope: str, names: Sequence[str]) -> I64:
        """The shards of many rows of one scope."""
        prefix = scope.encode() + b"\0"  # no scope has this character, so that no two rows make one text
        texts = [prefix + name.encode() for name in names]
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        block = np.frombuffer(b"".join([*texts, bytes(8)]), np.uint8)
        return _shards(self._key, block, ends, self.shards)


@kernel
def _shards(key: U64, block: U8, ends: I64, shards: int) -> I64:
    shard_numbers = np.empty(len(ends), np.int64)
    place = 0
    for i in range(len(ends)):
        shard_numbers[i] = np.int64(
            siphash(key[0], key[1], block, place, ends[i] - place) % np.uint64(shards)
        )
        place = ends[i]
    return shard_numbers
