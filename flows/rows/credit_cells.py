"""Credits by row and time."""

from __future__ import annotations

from typing import Any

import numpy as np

from flows.model.conversion_columns import COLUMNS, carry
from flows.rows.sparse_cells import SparseCells
from flows.state.arrays import I64, U32


class CreditCells(SparseCells):
    """Credits of one row shard's rows: the columns of `flows.model.conversion_columns.COLUMNS`."""

    def __init__(self) -> None:
        super().__init__(len(COLUMNS))

    def add(self, rows: U32, minutes: I64, days: I64, flown: Any, columns: I64, amounts: I64) -> None:
        """See `SparseCells.add`."""
        super().add(rows, minutes, days, flown, columns, amounts)
        flights = self.flights(np.unique(rows).astype(np.int64))
        counts = self.cells.counts[flights]
        carry(counts)  # otherwise the lower words of 2^31 conversions would overflow
        self.cells.counts[flights] = counts
