"""Counts that few pixels add to, by row: bases of impressions, deliveries, confirmed plays, clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from flows.model.basis import CLIENTS_AT, SEEN, SIDES
from flows.model.clients import FINAL_AT, KINDS, OF_KIND, UNKEYED
from flows.rows.row_columns import RowColumns
from flows.rows.sparse_cells import SparseCells
from flows.state.arrays import I64, U32

UNKEYED_COLUMNS: Final = [CLIENTS_AT + kind * OF_KIND + UNKEYED for kind in range(len(KINDS))]
_SHOWN_AT: Final = [CLIENTS_AT + place for place in FINAL_AT]


class SideCells(SparseCells):
    """Counts of `flows.model.basis.SIDES`."""

    def take(self, rows: U32, sides: I64, of: RowColumns, day_of: Callable[[int], int]) -> None:
        """Add the `sides` of a cut to their rows, which they change; see `RowBatch`."""
        minutes, columns, amounts = sides.T
        seen = columns >= SEEN
        np.bitwise_or.at(of.bases, rows[seen], 1 << (columns[seen] - SEEN))
        rest = ~seen
        keys, inverse = np.unique((rows[rest].astype(np.int64) << 32) | minutes[rest], return_inverse=True)
        counts = np.zeros((len(keys), len(SIDES)), np.int64)
        np.add.at(counts, (inverse, columns[rest]), amounts[rest])
        of.changed[rows] = True
        for key, of_place in zip(keys.tolist(), counts, strict=True):
            row, minute = key >> 32, key & 0xFFFFFFFF
            self.add(row, minute, day_of(minute), of_place, minute >= int(of.flight_from[row]))

    def shown(self, row: int, minute: int) -> list[int] | None:
        """A row's counts of `flows.model.clients.FINAL_AT` in one minute; None if all are 0."""
        counts = self.of(row, minute)
        if counts is None or not counts[_SHOWN_AT].any():
            return None
        return [int(count) for count in counts[_SHOWN_AT]]
