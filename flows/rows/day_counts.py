"""Counts of placements by calendar day, by the part that others may count differently, for
`audiopixel discrepancy`.

The shard holds a day while pixels may still change it, for `DAYS_OPEN` days after its end; Redis holds it for
longer. Rows with a changed day are published in turns, so that a new day writes no flood of rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from flows.model.basis import BASES, CLIENTS_AT, DELIVERIES, SEEN
from flows.model.client_counts import FINAL_AT, KINDS
from flows.model.day_parts import (
    COLUMNS,
    COUNTED,
    DAYS_OPEN,
    FIRST_BASIS,
    FIRST_CLIENT,
    FIRST_PART,
    OUTSIDE,
    OUTSIDE_SENT,
    REJECTED,
    SENT,
    SENT_COUNTED,
    SENT_PARTS,
    AlikeDays,
)
from flows.model.dimensions import SCOPES
from flows.model.messages import RowBatch
from flows.rows.cells import CHANGED, DIRTY, Cells, split
from flows.rows.days import days_of
from flows.rows.ended import RowName
from flows.rows.row_columns import RowColumns
from flows.rows.row_index import RowIndex
from flows.state.arrays import I64, U32

TURNS: Final = 61
"""The number of cuts between two publications of a row. It is a prime: the numbers of cuts are up to
`UNWATCHED` apart, and a common divisor would leave rows without a turn.
"""
_COUNTED: Final = [SENT + SENT_COUNTED + kind * SENT_PARTS for kind in range(len(KINDS))]
_OF_SIDE: Final[I64] = np.full(SEEN + len(BASES), -1, np.int64)
"""The column of a day of each of `flows.model.basis.SIDES`, or -1."""
_OF_SIDE[:DELIVERIES] = FIRST_BASIS + np.arange(DELIVERIES)
_OF_SIDE[[CLIENTS_AT + place for place in FINAL_AT]] = FIRST_CLIENT + np.arange(len(FINAL_AT))


def _outside(columns: RowColumns, rows: U32, minutes: U32) -> npt.NDArray[np.bool_]:
    """Mark the minutes that are outside the flight of their row's plan."""
    outside = (minutes < columns.flight_from[rows]) | (minutes >= columns.flight_end[rows])
    outside_flight: npt.NDArray[np.bool_] = outside & (columns.planned[rows] > 0)
    return outside_flight


class DayCounts:
    """The open days of one shard's placements.

    Args:
        day_of: calendar day number of a minute since the epoch, in the configured zone.
    """

    def __init__(self, day_of: Callable[[int], int]) -> None:
        self.day_of = day_of
        self.cells = Cells(COLUMNS)

    def count(self, row_columns: RowColumns, rows: U32, minutes: U32, impressions: I64) -> None:
        """Add counted impressions of the placements among `rows`. Impressions outside a flight are also added
        to a column of their own.
        """
        counted = row_columns.is_placement[rows] & (impressions != 0)
        if not counted.any():
            return
        rows, minutes, impressions = rows[counted], minutes[counted], impressions[counted]
        self._add(rows, minutes, COUNTED, impressions)
        if (outside := _outside(row_columns, rows, minutes)).any():
            self._add(rows[outside], minutes[outside], OUTSIDE, impressions[outside])

    def take(
        self, row_columns: RowColumns, batch: RowBatch, rows: U32, numbers: Mapping[RowName, int]
    ) -> None:
        """Add the parts of a placement shard, whose rows have the numbers `rows`, and the rejections of
        placements that have a row. Parts outside a flight are ignored, except parts of sent events.
        """
        if len(row_numbers := rows[batch.parts.rows]):
            _, minutes, parts, counts = batch.parts
            columns = FIRST_PART + parts.astype(np.int64)
            outside = _outside(row_columns, row_numbers, minutes)
            if len(sent := np.flatnonzero(outside & np.isin(parts, _COUNTED))):
                kinds = (parts[sent].astype(np.int64) - SENT) // SENT_PARTS
                outside[sent] = False
                self._add(row_numbers[sent], minutes[sent], OUTSIDE_SENT + kinds, counts[sent])
            inside = ~outside
            self._add(row_numbers[inside], minutes[inside], columns[inside], counts[inside])
        named = [(numbers.get((SCOPES[0], name)), minute, count) for name, minute, count in batch.refused]
        if placement_rows := [(row, *rest) for row, *rest in named if row is not None]:
            refused = np.array(placement_rows, np.int64).T
            row_numbers, minutes = refused[:2].astype(np.uint32)
            inside = ~_outside(row_columns, row_numbers, minutes)
            self._add(row_numbers[inside], minutes[inside], FIRST_PART + REJECTED, refused[2][inside])

    def add_sides(self, row_columns: RowColumns, rows: U32, sides: I64) -> None:
        """Add the counts by client of the placements among `rows`, and impressions inside a flight by basis;
        see `RowBatch.sides`.
        """
        minutes, columns = sides[:, 0].astype(np.uint32), _OF_SIDE[sides[:, 1]]
        counted = row_columns.is_placement[rows] & (columns >= 0)
        counted &= (columns >= FIRST_CLIENT) | ~_outside(row_columns, rows, minutes)
        self._add(rows[counted], minutes[counted], columns[counted], sides[counted, 2])

    def _add(self, rows: U32, minutes: U32, columns: I64 | int, counts: I64) -> None:
        if not len(rows):
            return
        every = np.broadcast_to(np.asarray(columns, np.int64), rows.shape).copy()
        days = days_of(minutes, self.day_of)
        self.cells.add(rows.astype(np.int64), days, every, np.ascontiguousarray(counts))

    def since(self, row: int, minute: int, now: int) -> int | None:
        """The impressions of a row from a minute on; None if no open day begins at that minute.

        Args:
            now: the watermark's minute.
        """
        day = self.day_of(minute)
        if day == self.day_of(minute - 1) or day < self.day_of(now) - DAYS_OPEN:
            return None
        filled = np.flatnonzero(self.cells.keys)
        rows, days = split(self.cells.keys[filled])
        return int(self.cells.counts[filled[(rows == row) & (days >= day)], COUNTED].sum())

    def due(self, names: RowIndex, minute: int, number: int, everything: bool) -> list[AlikeDays]:
        """The days that are due at cut `number`, at the watermark's `minute`; marks them as published. Drops
        the days that no pixel can change any more.
        """
        cells, oldest = self.cells, self.day_of(minute) - DAYS_OPEN
        slots = np.flatnonzero(cells.flags & DIRTY)
        rows, days = cells.rows_and_minutes(slots)
        slots = slots[everything | (rows % TURNS == number % TURNS) | (days < oldest)]
        rows, days = (column.tolist() for column in cells.rows_and_minutes(slots))
        cells.flags[slots] = cells.flags[slots] & ~np.uint8(DIRTY) | CHANGED
        packed = cells.counts[slots].view(f"V{cells.counts.itemsize * COLUMNS}")[:, 0].tolist()
        alike = defaultdict[tuple[int, bytes], list[str]](list)
        for (scope, name), of_day in zip(names.names_of(rows), zip(days, packed, strict=True), strict=True):
            if scope == SCOPES[0]:  # else the row is `other`
                alike[of_day].append(name)
        alike_days = [
            AlikeDays(day, tuple(np.frombuffer(count_bytes, np.int64).tolist()), placements)
            for (day, count_bytes), placements in alike.items()
        ]
        filled = cells.keys != 0
        if (split(cells.keys[filled])[1] < oldest).any():
            cells.keep(split(cells.keys)[1] >= oldest)
        return alike_days

    def mark_all_due(self, minute: int) -> None:
        """Make all open days due at the watermark's `minute`. Called after the cells have been restored."""
        self.cells.keep(split(self.cells.keys)[1] >= self.day_of(minute) - DAYS_OPEN)
        self.cells.flags[self.cells.keys != 0] |= np.uint8(DIRTY | CHANGED)
