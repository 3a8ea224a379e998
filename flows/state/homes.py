"""The shard of a name, by a keyed hash. The shard is the same on every machine and in every execution. Only
the key reveals it, so no sender can direct all names to one shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from flows.state.arrays import I64, U8, U64
from flows.state.kernel import kernel
from flows.state.keys import SHARD, sub_key
from flows.state.siphash import siphash

_MAX_CACHED: Final = 20_000
"""The greatest number of names, of up to 128 characters each, whose shards are cached."""


class Homes:
    """The shards of placements and rows.

    Args:
        secret: the listeners' key.
        shards: the number of shards.
    """

    def __init__(self, secret: bytes, shards: int) -> None:
        self.shards = shards
        self._cached: dict[tuple[str, str], int] = {}
        self._key = np.frombuffer(sub_key(secret, SHARD)[:16], "<u8").astype(np.uint64)

    def shard_of(self, scope: str, name: str) -> int:
        """The shard of a row, by scope and name. A placement's plays and its row have the same shard."""
        shard = self._cached.get((scope, name))
        if shard is None:
            if len(self._cached) >= _MAX_CACHED:
                self._cached.clear()
            shard = self._cached[scope, name] = int(self.shards_of(scope, [name])[0])
        return shard

    def shards_of(self, scope: str, names: Sequence[str]) -> I64:
        """The shards of many rows of one scope, int64[names]."""
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
