"""The arithmetic of HyperLogLog: registers from 64-bit hashes, and an estimate from the registers alone.

Source: P. Flajolet et al., "HyperLogLog: the analysis of a near-optimal cardinality estimation algorithm",
2007. The estimator is the improved raw estimator of O. Ertl, "New cardinality estimation algorithms for
HyperLogLog sketches", 2017, algorithm 6. It has one formula for all sizes, so the estimate makes no jump. It
does not depend on the order of insertion, so merged and re-ordered streams agree to the bit.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from math import sqrt
from threading import local
from typing import Final

import numpy as np
import zstandard
from zstandard import ZstdError

from flows.state.arrays import I64, U8, Int
from flows.state.bits import leading_zeros
from flows.state.kernel import kernel, lean


def pack_registers(registers: U8) -> str:
    """A sketch as text for Redis; empty registers take little room."""
    return b64encode(compressed(registers)).decode()


def unpack_registers(text: str) -> U8:
    """The registers of `pack_registers`.

    Raises:
        ValueError: the text is no sketch.
    """
    try:
        registers = decompressed(b64decode(text, validate=True))
    except ZstdError as error:
        raise ValueError(str(error)) from None
    if len(registers) != REGISTERS or registers.max() >= RANKS:
        raise ValueError(f"not {REGISTERS} registers of ranks below {RANKS}")
    return registers


PRECISION: Final = 14
REGISTERS: Final = 1 << PRECISION
"""16,384 registers of one byte."""
STANDARD_ERROR: Final = 1.04 / sqrt(REGISTERS)
"""0.81 %."""
RANKS: Final = 64 - PRECISION + 2
"""A register holds 0 .. 51."""


@lean
def rank(hash_value: Int) -> tuple[Int, Int]:
    """(register, rank) of a hash: the first 14 bits, and the position of the first 1 in the other 50."""
    register = np.int64(np.uint64(hash_value) >> np.uint64(50))
    zeros = leading_zeros(np.uint64(hash_value) << np.uint64(14))
    return register, 1 + (zeros if zeros < 50 else 50)


@lean
def estimate(histogram: I64) -> float:
    """The number of distinct hashes in registers of which `histogram[k]` hold rank k; int64[RANKS]."""
    m = 16384.0
    q = 50
    x = 1.0 - histogram[q + 1] / m  # tau
    z = 0.0
    if x != 0.0 and x != 1.0:
        y, tau = 1.0, 1.0 - x
        while True:
            x = np.sqrt(x)
            before = tau
            y *= 0.5
            tau -= (1.0 - x) ** 2 * y
            if tau == before:
                break
        z = m * tau / 3.0
    for k in range(q, 0, -1):
        z = 0.5 * (z + histogram[k])
    x = histogram[0] / m  # sigma
    if x == 1.0:
        return 0.0
    y, sigma = 1.0, x
    while True:
        x *= x
        before = sigma
        sigma += x * y
        y += y
        if sigma == before:
            break
    distinct: float = m * m / (2.0 * np.log(2.0)) / (z + m * sigma)
    return distinct


@kernel
def histogram(registers: U8) -> I64:
    """The number of registers that hold each rank."""
    counts = np.zeros(52, np.int64)
    for i in range(len(registers)):
        counts[registers[i]] += 1
    return counts


_of_thread = local()
"""The compressor of each thread: to make one takes as much time as one compression."""


def compressed(registers: U8) -> bytes:
    """Registers for a snapshot or a reader; empty ones take little room."""
    if not hasattr(_of_thread, "compressor"):
        _of_thread.compressor = zstandard.ZstdCompressor(level=1)
    packed: bytes = _of_thread.compressor.compress(registers.tobytes())
    return packed


def decompressed(data: bytes) -> U8:
    """The registers of `compressed`, flat."""
    return np.frombuffer(zstandard.decompress(data), np.uint8)
