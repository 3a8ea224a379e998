"""Tags of touches under their households: the bits of a touch's listener and play."""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.state.arrays import U32, U64
from flows.state.kernel import kernel, lean

MEMBER_BITS, PLAY_BITS = 24, 20
TAG_BITS: Final = MEMBER_BITS + PLAY_BITS
PLAY_SHIFT: Final = np.uint64(PLAY_BITS)
_HASH_BITS: Final = 64


@lean
def _member(listener: np.uint64) -> np.uint64:
    bits = listener >> np.uint64(_HASH_BITS - MEMBER_BITS)
    return max(bits, np.uint64(1)) if listener != np.uint64(0) else np.uint64(0)


@kernel
def members_of(listeners: U64) -> U64:
    """The bits that identify listeners within a household; 0 for no listener."""
    members = np.empty(len(listeners), np.uint64)
    for i in range(len(listeners)):
        members[i] = _member(listeners[i])
    return members


@kernel
def tags_of(listeners: U64, plays: U32) -> U64:
    """The tags of touches: bits of the listener, and below them bits of a hash of play and listener."""
    tags = np.empty(len(listeners), np.uint64)
    for i in range(len(listeners)):
        hashed = np.uint64(plays[i]) * np.uint64(0x9E3779B97F4A7C15) ^ listeners[i]
        hashed ^= hashed >> np.uint64(29)
        hashed *= np.uint64(0xBF58476D1CE4E5B9)
        tags[i] = _member(listeners[i]) << PLAY_SHIFT | hashed >> np.uint64(_HASH_BITS - PLAY_BITS)
    return tags
