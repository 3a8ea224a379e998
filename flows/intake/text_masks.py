"""Sixty-four bytes of a line at once: a bit for each byte that is a quote, and for each that is not plain.

Vectors of LLVM, which every processor has instructions for; numba itself would compare byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

from flows.state.kernel import U8

WIDTH: Final = 64
"""The bytes that must be there from a place on."""


def _text_masks(typing_context: Any, block: Any, place: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        vector, bits = ir.VectorType(ir.IntType(8), WIDTH), ir.IntType(WIDTH)

        def everywhere(byte: int) -> Any:
            return ir.Constant(vector, [byte] * WIDTH)

        source = builder.bitcast(builder.gep(array.data, [arguments[1]]), vector.as_pointer())
        there = builder.load(source, align=1)
        quotes = builder.icmp_signed("==", there, everywhere(ord('"')))
        # Signed, a byte beyond ASCII is below zero.
        control = builder.icmp_signed("<", there, everywhere(ord(" ")))
        odd = builder.or_(control, builder.icmp_signed("==", there, everywhere(ord("\\"))))
        masks = [builder.bitcast(mask, bits) for mask in (quotes, odd)]
        return context.make_tuple(builder, signature.return_type, masks)

    return types.UniTuple(types.uint64, 2)(block, place), generate


def _lowest(typing_context: Any, mask: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


def plain_masks(block: U8, place: int) -> tuple[np.uint64, np.uint64]:
    """`text_masks` in plain Python, for where nothing is compiled."""
    there = block[place : place + WIDTH]
    odd = (there < ord(" ")) | (there >= 128) | (there == ord("\\"))
    quotes, others = (
        np.packbits(bits, bitorder="little").view("<u8")[0] for bits in (there == ord('"'), odd)
    )
    return quotes, others


def plain_lowest(mask: np.uint64) -> int:
    """`lowest` in plain Python."""
    bits = int(mask)
    return (bits & -bits).bit_length() - 1 if bits else WIDTH


text_masks: Callable[[U8, int], tuple[np.uint64, np.uint64]] = (
    plain_masks if config.DISABLE_JIT else intrinsic(_text_masks)
)
"""The masks of the `WIDTH` bytes of a block from a place on, the first byte lowest: of quotes, and of what is
no plain text (a control character, a backslash, or beyond ASCII); unchecked: the bytes must be there.
"""
lowest: Callable[[np.uint64], int] = plain_lowest if config.DISABLE_JIT else intrinsic(_lowest)
"""The number of the lowest bit that is set; `WIDTH` where none is."""
