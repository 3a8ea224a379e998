"""Identities of pixels: keyed 64-bit hashes of plays, of events without a play, and of conversions.

A pixel is recognised by its hash alone. An attacker who found two texts with one hash could make another
sender's pixel a repeat; many texts for one slot would make a table slow. Both require the key.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import msgspec
import numpy as np

from flows.model.events import PROGRESS
from flows.state.arrays import I64, U8, U64
from flows.state.kernel import kernel, lean
from flows.state.keys import IDENTITY, sub_key
from flows.state.siphash import begin, end, text, word

PLAY, EVENT = 0, 1
"""The kind of an identity, hashed before its text. A `progress` has its code instead, followed by its
playhead.
"""
NO_PLAYHEAD: Final = 2**64 - 1
"""A number greater than all playheads that are hashed as words."""


class Identities:
    """The identities of one store.

    Args:
        secret: the listeners' key.
    """

    def __init__(self, secret: bytes) -> None:
        key = sub_key(secret, IDENTITY)
        self._placements = blake2b(digest_size=16, key=key, person=b"placement")
        self._parts = blake2b(digest_size=8, key=key, person=b"parts")

    def key_of(self, placement: str) -> bytes:
        """The key of 16 bytes for hashing the plays and events of a placement."""
        hasher = self._placements.copy()
        hasher.update(placement.encode())
        return hasher.digest()

    def of(self, *parts: object) -> int:
        """The identity of some JSON values together; not 0."""
        hasher = self._parts.copy()
        hasher.update(msgspec.json.encode(parts))
        return int.from_bytes(hasher.digest(), "little") or 1


@lean
def identity(
    low: np.uint64, high: np.uint64, kind: int, playhead: np.uint64, block: U8, place: int, length: int
) -> np.uint64:
    """The identity of a play or event by its text in `block`; not 0.

    Args:
        low, high: the key of its placement.
        kind: `PLAY`, `EVENT`, or the code of a `progress`.
        playhead: of a `progress`; otherwise ignored.
    """
    state = word(begin(low, high), np.uint64(kind))
    before = 8
    if kind == PROGRESS:
        state = word(state, playhead)
        before = 16
    hash_value = end(text(state, block, place, length, before))
    return hash_value if hash_value != np.uint64(0) else np.uint64(1)


@kernel
def identities(block: U8, ends: I64, keys: U64, kinds: I64, playheads: U64) -> U64:
    """The identities by consecutive texts in `block` that end at `ends`; seven more bytes must follow the
    last text.
    """
    hashes = np.empty(len(ends), np.uint64)
    place = 0
    for i in range(len(ends)):
        hashes[i] = identity(keys[i, 0], keys[i, 1], kinds[i], playheads[i], block, place, ends[i] - place)
        place = ends[i]
    return hashes
