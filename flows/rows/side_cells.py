"""Counts that few pixels add to, by row: impressions by basis, deliveries, confirmed plays, and counts by
client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from flows.model.basis import CLIENTS_AT, SEEN, SIDE_WINDOWS, SIDES
from flows.model.client_counts import COLUMNS_PER_KIND, FINAL_AT, KINDS, UNKEYED
from flows.rows.days import days_of
from flows.rows.row_columns import RowColumns
from flows.rows.sparse_cells import SparseCells
from flows.state.arrays import I64, U32

UNKEYED_COLUMNS: Final = [CLIENTS_AT + kind * COLUMNS_PER_KIND + UNKEYED for kind in range(len(KINDS))]
_SHOWN_AT: Final = [CLIENTS_AT + place for place in FINAL_AT]


class SideCells(SparseCells):
    """The counts of `flows.model.basis.SIDES` of one shard's rows."""

    def __init__(self) -> None:
        super().__init__(len(SIDES), SIDE_WINDOWS)

    def take(self, rows: U32, sides: I64, row_columns: RowColumns, day_of: Callable[[int], int]) -> None:
        """Add the `sides` of a cut (see `RowBatch`) to their rows, and mark these rows as changed."""
        row_columns.changed[rows] = True
        is_basis = sides[:, 1] >= SEEN
        np.bitwise_or.at(row_columns.bases, rows[is_basis], 1 << (sides[is_basis, 1] - SEEN))
        row_numbers, counted = rows[~is_basis], sides[~is_basis]
        minutes, columns, amounts = (np.ascontiguousarray(column) for column in counted.T)
        self.add(
            row_numbers,
            minutes,
            days_of(minutes, day_of),
            minutes >= row_columns.flight_from[row_numbers],
            columns,
            amounts,
        )

    def client_counts(self, rows: I64, minutes: I64) -> list[list[int] | None]:
        """The counts of `flows.model.client_counts.FINAL_AT` of each row in its minute; None if all are 0."""
        cells = [None if counts is None else counts[_SHOWN_AT] for counts in self.counts_at(rows, minutes)]
        return [None if counts is None or not counts.any() else counts.tolist() for counts in cells]
