"""The minutes of placements that are due at a cut: at intervals as provisional, then once as final."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flows.rows.cells import CHANGED, DIRTY, FINAL, Cells
from flows.rows.row_columns import RowColumns
from flows.rows.row_conversions import CreditCells
from flows.rows.row_index import RowIndex
from flows.rows.side_cells import SideCells
from flows.rows.values import Minutes
from flows.state.arrays import I64


def due_minutes(
    cells: Cells,
    beside: tuple[CreditCells, SideCells],
    columns: RowColumns,
    index: RowIndex,
    number: int,
    every: int,
    provisional_from: int,
) -> list[Minutes]:
    """The minutes that are due at cut `number`; marks them as published.

    Args:
        beside: the counts outside the cells.
        every: least cuts between two provisional values of a minute.
        provisional_from: earlier minutes are due only when they are final.
    """
    slots = np.nonzero(cells.flags & DIRTY)[0]
    if not len(slots):
        return []
    rows, _ = cells.rows_and_minutes(slots)
    slots = slots[columns.is_placement[rows]]
    credits, sides = beside
    slots = slots[_says_something(cells, credits, sides, slots)]
    final = cells.flags[slots] & FINAL != 0
    _, minutes_of = cells.rows_and_minutes(slots)
    waited = number - cells.published_cuts[slots] >= every
    waited &= minutes_of >= provisional_from
    due = []
    for cell_slots, is_final in ((slots[final], True), (slots[~final & waited], False)):
        if len(cell_slots):
            rows, minutes = cells.rows_and_minutes(cell_slots)
            names = [index.name(row)[1] for row in rows.tolist()]
            credited, clients = credits.counts_at(rows, minutes), sides.client_counts(rows, minutes)
            due.append(
                Minutes(names, minutes.tolist(), cells.counts[cell_slots], credited, is_final, clients)
            )
            cells.flags[cell_slots] = cells.flags[cell_slots] & ~np.uint8(DIRTY) | CHANGED
            cells.published_cuts[cell_slots] = number
    return due


def _says_something(
    cells: Cells, credits: CreditCells, sides: SideCells, slots: I64
) -> npt.NDArray[np.bool_]:
    """Mark the cells that have a count, a credit or a client's count, or that were published before.

    The other cells are zeros, left by a milestone, a skip or a play that moved to another minute.
    """
    something = cells.counts[slots].any(axis=1) | (cells.published_cuts[slots] > 0)
    if len(places := np.flatnonzero(~something)):
        rows_minutes = cells.rows_and_minutes(slots[places])
        beside = zip(credits.counts_at(*rows_minutes), sides.client_counts(*rows_minutes), strict=True)
        something[places] = [credited is not None or clients is not None for credited, clients in beside]
    return something
