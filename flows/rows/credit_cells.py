"""Credits by row and minute, with the sums of their windows."""

from __future__ import annotations

from flows.model.conversions import carry
from flows.rows.sparse_cells import SparseCells
from flows.state.arrays import I64


class CreditCells(SparseCells):
    """Credits of one row shard's rows."""

    def add(self, row: int, minute: int, day: int, counts: I64, flown: bool = True) -> None:
        """Add to a row's minute and day, and to its flight if that has begun by then."""
        super().add(row, minute, day, counts, flown)
        carry(self.flight[row])  # else the lower words of 2^31 conversions would overflow
