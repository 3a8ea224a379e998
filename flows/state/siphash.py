"""SipHash inside compiled loops: a keyed hash whose collisions cannot be found without the key.

Anybody who may choose the texts can make texts that collide under an unkeyed hash, or under a fast hash with
a secret seed. Source: https://eprint.iacr.org/2012/351. SipHash-2-4, with two rounds a word and four at the
end, makes stored hashes. SipHash-1-3 finds the slots of tables; Python hashes its strings by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

from flows.state.arrays import U8
from flows.state.kernel import lean

State: TypeAlias = tuple[np.uint64, np.uint64, np.uint64, np.uint64]

_V0: Final = np.uint64(0x736F6D6570736575)
_V1: Final = np.uint64(0x646F72616E646F6D)
_V2: Final = np.uint64(0x6C7967656E657261)
_V3: Final = np.uint64(0x7465646279746573)


def _load64(typing_context: Any, block: Any, place: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        word = builder.bitcast(builder.gep(array.data, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(word, align=1)

    return types.uint64(block, place), generate


def plain_load64(block: U8, place: int) -> np.uint64:
    """`load64` in plain Python, for uncompiled code."""
    return np.uint64(int.from_bytes(block[place : place + 8].tobytes(), "little"))


load64: Callable[[U8, int], np.uint64] = plain_load64 if config.DISABLE_JIT else intrinsic(_load64)
"""The eight bytes of a block from a place on, little-endian. They must exist: nothing checks the bounds.

Eight loads of one byte would not do: LLVM does not join them, and a scan takes half as long again.
"""


@lean
def _left(x: np.uint64, bits: int) -> np.uint64:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


@lean
def _round(state: State) -> State:
    v0, v1, v2, v3 = state
    v0 += v1
    v2 += v3
    v1 = _left(v1, 13) ^ v0
    v3 = _left(v3, 16) ^ v2
    v0 = _left(v0, 32)
    v2 += v1
    v0 += v3
    v1 = _left(v1, 17) ^ v2
    v3 = _left(v3, 21) ^ v0
    v2 = _left(v2, 32)
    return v0, v1, v2, v3


@lean
def begin(low: np.uint64, high: np.uint64) -> State:
    """The state before any word, under a key of two words. The key is not an array, since numba would count
    references to it.
    """
    return low ^ _V0, high ^ _V1, low ^ _V2, high ^ _V3


@lean
def word(state: State, next_word: np.uint64) -> State:
    """The state after one more word."""
    v0, v1, v2, v3 = _round((state[0], state[1], state[2], state[3] ^ next_word))
    return v0 ^ next_word, v1, v2, v3


@lean
def text(state: State, block: U8, place: int, length: int, before: int) -> State:
    """The state after the end of the message: `length` bytes of `block` from `place` on.

    Args:
        before: the number of bytes of the message before these, in whole words.
    """
    last = place + length - (length & 7)
    while place < last:
        state = word(state, load64(block, place))
        place += 8
    final_word = np.uint64(before + length) << np.uint64(56)
    if length & 7:
        final_word |= load64(block, place) & ((np.uint64(1) << np.uint64(8 * (length & 7))) - np.uint64(1))
    return word(state, final_word)


@lean
def end(state: State) -> np.uint64:
    """The hash of the message after whose end `state` is."""
    v0, v1, v2, v3 = state
    v0, v1, v2, v3 = _round(_round(_round((v0, v1, v2 ^ np.uint64(0xFF), v3))))
    return v0 ^ v1 ^ v2 ^ v3


@lean
def siphash(low: np.uint64, high: np.uint64, block: U8, place: int, length: int) -> np.uint64:
    """SipHash-1-3 of `length` bytes of `block` from `place` on; seven more bytes must follow them."""
    return end(text(begin(low, high), block, place, length, 0))


@lean
def siphash24(low: np.uint64, high: np.uint64, block: U8, place: int, length: int) -> np.uint64:
    """SipHash-2-4 of `length` bytes of `block` from `place` on; seven more bytes must follow them."""
    v0, v1, v2, v3 = begin(low, high)
    last = place + length - (length & 7)
    final_word = np.uint64(length) << np.uint64(56)
    if length & 7:
        final_word |= load64(block, last) & ((np.uint64(1) << np.uint64(8 * (length & 7))) - np.uint64(1))
    while place <= last:
        next_word = load64(block, place) if place < last else final_word
        v0, v1, v2, v3 = _round(_round((v0, v1, v2, v3 ^ next_word)))
        v0 ^= next_word
        place += 8
    v0, v1, v2, v3 = _round(_round(_round(_round((v0, v1, v2 ^ np.uint64(0xFF), v3)))))
    return v0 ^ v1 ^ v2 ^ v3
