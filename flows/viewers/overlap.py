"""Overlap of two placements' reach, from their flight sketches: who was reached by A was also reached by B.

|A ∩ B| = |A| + |B| - |A ∪ B|, the union's sketch being the registers' maxima. A sketch tells of no listener
whether they are in it.
"""

from __future__ import annotations

from math import sqrt
from typing import Final, NamedTuple

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from flows.shown import shown
from flows.state.hyperloglog import STANDARD_ERROR, estimate, histogram
from flows.state.kernel import U8

SIGMAS: Final = 3


class Overlap(NamedTuple):
    """Listeners reached by A, by B, and by both, and by how much each may be off: three standard errors of
    its estimates, taken for independent.
    """

    a: int
    b: int
    both: int
    a_error: int
    b_error: int
    both_error: int


def overlap(a: U8, b: U8) -> Overlap:
    """Of two sketches' registers."""
    in_a, in_b, in_any = (estimate(histogram(some)) for some in (a, b, np.maximum(a, b)))
    both = min(max(in_a + in_b - in_any, 0.0), in_a, in_b)
    off = SIGMAS * STANDARD_ERROR
    errors = (off * in_a, off * in_b, off * sqrt(in_a**2 + in_b**2 + in_any**2))
    return Overlap(*map(round, (in_a, in_b, both, *errors)))


def show(a: str, b: str, found: Overlap) -> Group:
    """For people."""
    a, b = shown(a), shown(b)
    table = Table(box=None, pad_edge=False)
    for name, side in (("listeners of the flight", "left"), ("", "right"), ("share", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]  # one of two literals
    reached = (
        (a, found.a, found.a_error),
        (b, found.b, found.b_error),
        ("both", found.both, found.both_error),
    )
    for name, number, error in reached:
        table.add_row(Text(f"reached by {name}"), f"{number:,} ± {error:,}", "")
    for one, other, whole in ((a, b, found.a), (b, a, found.b)):
        if whole:
            share = f"{100 * found.both / whole:.1f} % ± {100 * found.both_error / whole:.1f}"
            table.add_row(Text(f"of {one}, also by {other}"), "", share)
    return Group(table, f"±: {SIGMAS} standard errors; that of one sketch is {100 * STANDARD_ERROR:.1f} %")
