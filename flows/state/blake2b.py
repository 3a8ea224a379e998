"""Keyed BLAKE2b of short texts inside compiled loops: 64 bits, the same as `hashlib.blake2b(digest_size=8)`.

Source: https://www.rfc-editor.org/rfc/rfc7693 (section 3).
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np

from flows.state.arrays import U8, U64
from flows.state.kernel import lean
from flows.state.siphash import load64

BLOCK_BYTES: Final = 128
"""The longest text, and the bytes that a key fills."""
BLOCK_WORDS: Final = BLOCK_BYTES // 8
_DIGEST_BYTES: Final = 8
_FIRST: Final = np.array(
    [
        0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
        0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
    ],
    np.uint64,
)  # fmt: skip
_ORDERS: Final = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    ],
    np.uint8,
)
"""The order in which each round takes the words of the message."""

_Four: TypeAlias = tuple[np.uint64, np.uint64, np.uint64, np.uint64]


@lean
def _right(x: np.uint64, bits: int) -> np.uint64:
    return (x >> np.uint64(bits)) | (x << np.uint64(64 - bits))


@lean
def _mix(a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, x: np.uint64, y: np.uint64) -> _Four:
    a += b + x
    d = _right(d ^ a, 32)
    c += d
    b = _right(b ^ c, 24)
    a += b + y
    d = _right(d ^ a, 16)
    c += d
    b = _right(b ^ c, 63)
    return a, b, c, d


@lean
def _compress(state: U64, message: U64, count: np.uint64, last: np.uint64, out: U64) -> None:
    """Write the state after a block to `out`. `count` is the number of bytes up to the block's end. `last`
    has all bits set for the last block, else none.
    """
    a0, a1, a2, a3, b0, b1, b2, b3 = (
        state[0], state[1], state[2], state[3], state[4], state[5], state[6], state[7]
    )  # fmt: skip
    c0, c1, c2, c3 = _FIRST[0], _FIRST[1], _FIRST[2], _FIRST[3]
    d0, d1, d2, d3 = _FIRST[4] ^ count, _FIRST[5], _FIRST[6] ^ last, _FIRST[7]
    for round_number in range(12):
        s = _ORDERS[round_number]
        a0, b0, c0, d0 = _mix(a0, b0, c0, d0, message[s[0]], message[s[1]])
        a1, b1, c1, d1 = _mix(a1, b1, c1, d1, message[s[2]], message[s[3]])
        a2, b2, c2, d2 = _mix(a2, b2, c2, d2, message[s[4]], message[s[5]])
        a3, b3, c3, d3 = _mix(a3, b3, c3, d3, message[s[6]], message[s[7]])
        a0, b1, c2, d3 = _mix(a0, b1, c2, d3, message[s[8]], message[s[9]])
        a1, b2, c3, d0 = _mix(a1, b2, c3, d0, message[s[10]], message[s[11]])
        a2, b3, c0, d1 = _mix(a2, b3, c0, d1, message[s[12]], message[s[13]])
        a3, b0, c1, d2 = _mix(a3, b0, c1, d2, message[s[14]], message[s[15]])
    out[0], out[1], out[2], out[3] = (
        state[0] ^ a0 ^ c0, state[1] ^ a1 ^ c1, state[2] ^ a2 ^ c2, state[3] ^ a3 ^ c3
    )  # fmt: skip
    out[4], out[5], out[6], out[7] = (
        state[4] ^ b0 ^ d0, state[5] ^ b1 ^ d1, state[6] ^ b2 ^ d2, state[7] ^ b3 ^ d3
    )  # fmt: skip


def keyed(key: bytes) -> U64:
    """The state after the block of a key of up to 64 bytes, with which every hash of `hash64` begins."""
    state = _FIRST.copy()
    state[0] ^= np.uint64(0x01010000 ^ len(key) << 8 ^ _DIGEST_BYTES)
    message = np.frombuffer(key.ljust(BLOCK_BYTES, b"\0"), np.uint64)
    _compress(state.copy(), message, np.uint64(BLOCK_BYTES), np.uint64(0), state)
    return state


@lean
def hash64(state: U64, block: U8, place: int, length: int, scratch: U64) -> np.uint64:
    """The hash of 1 to `BLOCK_BYTES` bytes of `block` from `place` on; seven more bytes must follow them.

    Args:
        state: from `keyed`.
        scratch: `BLOCK_WORDS` and eight more words, so that nothing is allocated for a hash.
    """
    for w in range(BLOCK_WORDS):
        bytes_left = length - 8 * w
        scratch[w] = load64(block, place + 8 * w) if bytes_left > 0 else np.uint64(0)
        if 0 < bytes_left < 8:
            scratch[w] &= (np.uint64(1) << np.uint64(8 * bytes_left)) - np.uint64(1)
    out = scratch[BLOCK_WORDS:]
    _compress(state, scratch, np.uint64(BLOCK_BYTES + length), np.uint64(2**64 - 1), out)
    return out[0]  # type: ignore[no-any-return]
