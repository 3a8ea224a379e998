"""Counts of a word's zero bits by the processor's own instruction. Plain numba code would test each bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic


def _counting(name: str) -> Callable[..., Any]:
    """An intrinsic that counts zeros: `cttz` from the lowest bit on, `ctlz` from the highest."""

    def zeros(typing_context: Any, word: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(arguments[0], ir.Constant(ir.IntType(1), 0))

        return types.int64(types.uint64), generate

    return zeros


def plain_lowest(word: np.uint64) -> int:
    """`lowest` in plain Python."""
    bits = int(word)
    return (bits & -bits).bit_length() - 1 if bits else 64


def plain_leading_zeros(word: np.uint64) -> int:
    """`leading_zeros` in plain Python."""
    return 64 - int(word).bit_length()


lowest: Callable[[np.uint64], int] = plain_lowest if config.DISABLE_JIT else intrinsic(_counting("cttz"))
"""The number of the lowest bit that is set; 64 if none is set."""
leading_zeros: Callable[[np.uint64], int] = (
    plain_leading_zeros if config.DISABLE_JIT else intrinsic(_counting("ctlz"))
)
"""The number of zeros above the highest bit that is set; 64 if none is set."""
