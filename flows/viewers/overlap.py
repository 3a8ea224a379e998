"""Overlap of the reach of two placements or campaigns, from flight sketches.

|A ∩ B| = |A| + |B| - |A ∪ B|; the union's sketch has the registers' maxima. A sketch does not reveal its
listeners.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Final, NamedTuple

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from connectors.redis import Client, read_rows
from flows.errors import AudiopixelError
from flows.model.redis_keys import row_key
from flows.shown import shown
from flows.state.arrays import U8
from flows.state.hyperloglog import STANDARD_ERROR, estimate, histogram, unpack_registers

SIGMAS: Final = 3


class Overlap(NamedTuple):
    """Listeners reached by A, by B, and by both, each with three standard errors. The estimates are taken for
    independent.
    """

    a: int
    b: int
    both: int
    a_error: int
    b_error: int
    both_error: int


def overlap(a: U8, b: U8) -> Overlap:
    """The overlap of two sketches' registers."""
    in_a, in_b, in_any = (estimate(histogram(registers)) for registers in (a, b, np.maximum(a, b)))
    both = min(max(in_a + in_b - in_any, 0.0), in_a, in_b)
    margin = SIGMAS * STANDARD_ERROR  # a share of each estimate
    errors = (margin * in_a, margin * in_b, margin * sqrt(in_a**2 + in_b**2 + in_any**2))
    return Overlap(*map(round, (in_a, in_b, both, *errors)))


class Audience(NamedTuple):
    """Listeners of a placement or a campaign.

    Attributes:
        name: its id.
        registers: the registers of its sketch; for a campaign, the maxima over its placements' sketches.
        placements: the number of its placements with a sketch.
        without: the number of its placements without a sketch.
    """

    name: str
    registers: U8
    placements: int = 1
    without: int = 0


def audience(
    client: Client, namespace: str, name: str, campaigns: Mapping[str, Sequence[str]] | None = None
) -> Audience:
    """Read the sketch of a placement, or of all placements of a campaign.

    Args:
        campaigns: the placements of each campaign; None: `name` is a placement.

    Raises:
        AudiopixelError: there is no sketch, or it is damaged.
        ConnectError: Redis cannot be read.
    """
    names = [name] if campaigns is None else campaigns.get(name, [])
    rows = read_rows(client, [row_key(namespace, "sketch", placement) for placement in names])
    registers = [
        _unpacked(placement, row["registers"])
        for placement, row in zip(names, rows, strict=True)
        if "registers" in row
    ]
    if not registers:
        raise AudiopixelError(_missing(client, namespace, name, campaigns is not None))
    return Audience(name, np.maximum.reduce(registers), len(registers), len(names) - len(registers))


def _unpacked(name: str, registers: str) -> U8:
    try:
        return unpack_registers(registers)
    except ValueError as error:
        raise AudiopixelError(
            f"the sketch of placement {shown(name)!r} in Redis is damaged ({error}): it is written again "
            "once the placement has more listeners, or within a day"
        ) from None


def _missing(client: Client, namespace: str, name: str, campaign: bool) -> str:
    """A message with the reason why there is no sketch, and the remedy."""
    other_scope = "placement" if campaign else "campaign"
    (row,) = read_rows(client, [row_key(namespace, other_scope, name)], ["as_of_ms"])
    prefix = f"no sketch of {'campaign' if campaign else 'placement'} {shown(name)!r}: "
    if row:
        return prefix + f"it is a {other_scope}: {'leave out' if campaign else 'add'} --campaigns"
    has = "none of its placements has a plan or" if campaign else "it has neither a plan nor"
    return prefix + f"{has} 100 consenting listeners in the last two days, or it does not exist"


def show(a: Audience, b: Audience, overlap: Overlap) -> Group:
    """An overlap as text for people."""
    first, second = shown(a.name), shown(b.name)
    table = Table(box=None, pad_edge=False)
    for name, side in (("listeners of the flight", "left"), ("", "right"), ("share", "right")):
        table.add_column(name, justify=side, overflow="fold")  # type: ignore[arg-type]  # one of two literals
    reached = (
        (first, overlap.a, overlap.a_error),
        (second, overlap.b, overlap.b_error),
        ("both", overlap.both, overlap.both_error),
    )
    for name, number, error in reached:
        table.add_row(Text(f"reached by {name}"), f"{number:,} ± {error:,}", "")
    for listed, compared, whole in ((first, second, overlap.a), (second, first, overlap.b)):
        if whole:
            share = f"{100 * overlap.both / whole:.1f} % ± {100 * overlap.both_error / whole:.1f}"
            table.add_row(Text(f"of {listed}, also by {compared}"), "", share)
    notes = [f"± is three standard errors; one of a sketch is {100 * STANDARD_ERROR:.1f} %"]
    notes += [
        f"{shown(side.name)}: {side.placements} placements; {side.without} more have no sketch"
        for side in (a, b)
        if side.without
    ]
    return Group(table, *(Text(line) for line in notes))
