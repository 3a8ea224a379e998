"""Overlap of two placements' reach, from their flight sketches: who was reached by A was also reached by B.

|A ∩ B| = |A| + |B| - |A ∪ B|, the union's sketch being the registers' maxima. A sketch tells of no listener
whether they are in it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from math import sqrt
from typing import Final, NamedTuple

import numpy as np
from rich.table import Table

from flows.kernel import U8
from flows.sketch import REGISTERS, compressed, decompressed, estimate, histogram

STANDARD_ERROR: Final = 1.04 / sqrt(REGISTERS)
SIGMAS: Final = 3


class Overlap(NamedTuple):
    """Listeners reached by A, by B, and by both; `error` is by how much the last may be off (three standard
    errors of the three estimates, taken for independent).
    """

    a: int
    b: int
    both: int
    error: int


def pack(registers: U8) -> str:
    """A sketch as text for Redis, its empty registers costing little."""
    return b64encode(compressed(registers)).decode()


def unpack(text: str) -> U8:
    """`pack`'s counterpart."""
    return decompressed(b64decode(text))


def overlap(a: U8, b: U8) -> Overlap:
    """Of two sketches' registers."""
    in_a, in_b, in_any = (estimate(histogram(some)) for some in (a, b, np.maximum(a, b)))
    both = min(max(in_a + in_b - in_any, 0.0), in_a, in_b)
    error = SIGMAS * STANDARD_ERROR * sqrt(in_a**2 + in_b**2 + in_any**2)
    return Overlap(round(in_a), round(in_b), round(both), round(error))


def show(a: str, b: str, found: Overlap) -> Table:
    """For people."""
    table = Table(box=None, pad_edge=False)
    for name, side in (("listeners of the flight", "left"), ("", "right"), ("share", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]  # one of two literals
    table.add_row(f"reached by {a}", f"{found.a:,}", "")
    table.add_row(f"reached by {b}", f"{found.b:,}", "")
    table.add_row("reached by both", f"{found.both:,} ± {found.error:,}", "")
    for one, other, whole in ((a, b, found.a), (b, a, found.b)):
        if whole:
            share = f"{100 * found.both / whole:.1f} % ± {100 * found.error / whole:.1f}"
            table.add_row(f"of {one}, also by {other}", "", share)
    return table
