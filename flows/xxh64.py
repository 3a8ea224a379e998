"""XXH64 inside compiled loops, bit for bit that of the `xxhash` package.

Source: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from flows.kernel import U8, kernel

_P1: Final = np.uint64(0x9E3779B185EBCA87)
_P2: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_P3: Final = np.uint64(0x165667B19E3779F9)
_P4: Final = np.uint64(0x85EBCA77C2B2AE63)
_P5: Final = np.uint64(0x27D4EB2F165667C5)


def _load64(typing_context: Any, block: Any, place: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        word = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(word, align=1)

    return types.uint64(block, place), generate


load64: Callable[[U8, int], np.uint64] = intrinsic(_load64)
"""The eight bytes of a block from a place on, little-endian; unchecked: they must be there.

Not made of eight loads of a byte: LLVM does not join them, and a scan takes half as long again.
"""


@kernel
def _left(x: np.uint64, bits: int) -> np.uint64:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@kernel
def _round(lane: np.uint64, word: np.uint64) -> np.uint64:
    return _left(lane + word * _P2, 31) * _P1


@kernel
def _avalanche(h: np.uint64) -> np.uint64:
    h ^= h >> np.uint64(33)
    h *= _P2
    h ^= h >> np.uint64(29)
    h *= _P3
    return h ^ (h >> np.uint64(32))


@kernel
def xxh64(block: U8, begin: int, length: int, seed: np.uint64) -> np.uint64:
    """XXH64 of `length` bytes of `block` from `begin` on; eight bytes more must be there behind them."""
    place = begin
    end = begin + length
    if length >= 32:
        a = seed + _P1 + _P2
        b = seed + _P2
        c = seed
        d = seed - _P1
        while place + 32 <= end:
            a = _round(a, load64(block, place))
            b = _round(b, load64(block, place + 8))
            c = _round(c, load64(block, place + 16))
            d = _round(d, load64(block, place + 24))
            place += 32
        h = _left(a, 1) + _left(b, 7) + _left(c, 12) + _left(d, 18)
        for lane in (a, b, c, d):
            h = (h ^ _round(np.uint64(0), lane)) * _P1 + _P4
    else:
        h = seed + _P5
    h += np.uint64(length)
    while place + 8 <= end:
        h = _left(h ^ _round(np.uint64(0), load64(block, place)), 27) * _P1 + _P4
        place += 8
    word = load64(block, place)
    if place + 4 <= end:
        h = _left(h ^ (word & np.uint64(0xFFFFFFFF)) * _P1, 23) * _P2 + _P3
        word >>= np.uint64(32)
        place += 4
    while place < end:
        h = _left(h ^ (word & np.uint64(0xFF)) * _P5, 11) * _P1
        word >>= np.uint64(8)
        place += 1
    return _avalanche(h)


@kernel
def xxh64_of_word(word: int, seed: np.uint64) -> np.uint64:
    """XXH64 of the eight bytes of a uint64, little-endian."""
    h = seed + _P5 + np.uint64(8)
    return _avalanche(_left(h ^ _round(np.uint64(0), np.uint64(word)), 27) * _P1 + _P4)
