"""Masks of sixty-four bytes of a line at once: of quotes, of bytes that are not plain, and of differences
from a text.

They use LLVM's vectors, for which every processor has instructions; numba alone would compare byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

from flows.state.arrays import U8

WIDTH: Final = 64
"""The number of bytes that must follow a place in the block."""


_BYTES: Final = ir.VectorType(ir.IntType(8), WIDTH)


def _loaded(context: Any, builder: Any, signature: Any, arguments: Any, number: int) -> Any:
    """The bytes of an array, which is an argument, from the place in the next argument on."""
    array = context.make_array(signature.args[number])(context, builder, arguments[number])
    source = builder.gep(array.data, [arguments[number + 1]])
    return builder.load(builder.bitcast(source, _BYTES.as_pointer()), align=1)


def _everywhere(character: str) -> Any:
    return ir.Constant(_BYTES, [ord(character)] * WIDTH)


def _text_masks(typing_context: Any, block: Any, place: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        loaded = _loaded(context, builder, signature, arguments, 0)
        quotes = builder.icmp_signed("==", loaded, _everywhere('"'))
        # As a signed number, a byte beyond ASCII is negative.
        control = builder.icmp_signed("<", loaded, _everywhere(" "))
        odd = builder.or_(control, builder.icmp_signed("==", loaded, _everywhere("\\")))
        masks = [builder.bitcast(mask, ir.IntType(WIDTH)) for mask in (quotes, odd)]
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint64, 2)(block, place), generate


def _differing(typing_context: Any, block: Any, place: Any, text: Any, begin: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right = (_loaded(context, builder, signature, arguments, number) for number in (0, 2))
        return builder.bitcast(builder.icmp_signed("!=", left, right), ir.IntType(WIDTH))

    return types.uint64(block, place, text, begin), generate


def _line_feeds(typing_context: Any, block: Any, place: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        loaded = _loaded(context, builder, signature, arguments, 0)
        return builder.bitcast(builder.icmp_signed("==", loaded, _everywhere("\n")), ir.IntType(WIDTH))

    return types.uint64(block, place), generate


def _mask(bits: Any) -> np.uint64:
    return np.uint64(np.packbits(bits, bitorder="little").view("<u8")[0])


def plain_masks(block: U8, place: int) -> tuple[np.uint64, np.uint64]:
    """`text_masks` in plain Python, for uncompiled code."""
    loaded = block[place : place + WIDTH]
    odd = (loaded < ord(" ")) | (loaded >= 128) | (loaded == ord("\\"))
    return _mask(loaded == ord('"')), _mask(odd)


def plain_differing(block: U8, place: int, text: U8, begin: int) -> np.uint64:
    """`differing` in plain Python."""
    return _mask(block[place : place + WIDTH] != text[begin : begin + WIDTH])


def plain_line_feeds(block: U8, place: int) -> np.uint64:
    """`line_feeds` in plain Python."""
    return _mask(block[place : place + WIDTH] == ord("\n"))


text_masks: Callable[[U8, int], tuple[np.uint64, np.uint64]] = (
    plain_masks if config.DISABLE_JIT else intrinsic(_text_masks)
)
"""The masks of the `WIDTH` bytes of a block from a place on, the first byte lowest: of quotes, and of bytes
that are no plain text (a control character, a backslash, or beyond ASCII). Unchecked: the block must have
these bytes.
"""
differing: Callable[[U8, int, U8, int], np.uint64] = (
    plain_differing if config.DISABLE_JIT else intrinsic(_differing)
)
"""A bit for each of `WIDTH` bytes that differs between two texts, each from a place on; unchecked."""
line_feeds: Callable[[U8, int], np.uint64] = (
    plain_line_feeds if config.DISABLE_JIT else intrinsic(_line_feeds)
)
"""A bit for each of the `WIDTH` bytes of a block from a place on that is a LF; unchecked."""
