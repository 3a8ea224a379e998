"""The tables of one shard of rows, and their snapshot. A row begins in them, ends, and comes back with its
former values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flows.model.counts import LAYOUT
from flows.model.dimensions import OTHER_NAME, SCOPES
from flows.rows.cells import Cells, split
from flows.rows.day_counts import DayCounts
from flows.rows.days import Days
from flows.rows.delays import Delays
from flows.rows.ended import RowName
from flows.rows.flights import Flights
from flows.rows.labels import Labels
from flows.rows.reach import Distinct
from flows.rows.rolling_reach import Rolling
from flows.rows.row_columns import RowColumns
from flows.rows.row_conversions import RowConversions
from flows.rows.row_index import Limits, RowIndex
from flows.rows.row_records import RowRecords
from flows.rows.side_cells import SideCells
from flows.rows.turning import Turning
from flows.state.arrays import I64, U32
from flows.state.record_journal import RecordJournal
from flows.state.shard import Shard, Stored

ROW_MEMORY: Final = 4_096
"""The memory of a row without its listeners, in bytes, as measured in a replay."""


class RowTables(Shard):
    """The columns, cells and sketches that `flows.rows.row_shard.RowShard` counts in.

    Attributes:
        first_open: the first minute that is not final.
        turning: chooses the turned rows that a cut publishes.
    """

    STEP = "rows"
    FORMAT = f"32-{LAYOUT}"
    PLAIN = ("index", "watermark_ms", "first_open")

    def __init__(
        self, index: int, shards: int, day_of: Callable[[int], int], recovery: Path | None, limits: Limits
    ) -> None:
        self.index, self.shards, self.recovery, self.limits = index, shards, recovery, limits
        self.watermark_ms = self.first_open = 0
        self.turning, self._rare = Turning(limits.turned), False
        self._memory_left: int | None = None
        self._day_of = day_of
        self._begin_empty()

    def _begin_empty(self) -> None:
        """Begin without a row."""
        self.cells, self.rolling, self.reached, self.homes = Cells(), Rolling(), Distinct(), Distinct()
        self.row_index, self.columns, self.sides = RowIndex(self.limits), RowColumns(), SideCells()
        self.labels, self.delays = Labels(self.columns), Delays(self.columns)
        self.conversions, self.days = RowConversions(self.columns), Days(self._day_of)
        self.day_counts, journal = DayCounts(self._day_of), RecordJournal(self.columns.row_bytes)
        self.records = RowRecords(self.row_index, self.columns, self.days, journal)
        people = self.rolling, self.reached, self.homes
        self.flights = Flights(self.columns, self.cells, self.conversions, self.sides, *people)

    @property
    def minute(self) -> int:
        """The watermark's minute."""
        return self.watermark_ms // 60_000

    @property
    def oldest(self) -> int:
        """The first minute that a window still needs; all earlier ones are final."""
        return min(self.first_open, self.minute - 60)

    def numbers(self, names: Sequence[RowName]) -> U32:
        """The numbers of rows; new ones begin."""
        numbers = np.fromiter(map(self.row_index.numbers.get, names, repeat(-1)), np.int64, len(names))
        for place in np.flatnonzero(numbers < 0).tolist():
            numbers[place] = self.number(names[place])
        return numbers.astype(np.uint32)

    def number(self, row: RowName) -> int:
        """The number of a row, which begins if it is new."""
        number = self.row_index.numbers.get(row)
        return self._begin(row) if number is None else number

    def _begin(self, row: RowName) -> int:
        """Begin a row, or resume an ended row. Returns the number of `other` beyond the cap or the budget."""
        oldest = self.minute - self.limits.remembered
        number, ended = self.row_index.admit(row, oldest, self._memory() >= ROW_MEMORY)
        if number in self.row_index.unplanned:
            self._memory_left = self._memory() - ROW_MEMORY
        row_columns = self.columns
        row_columns.make_room(number + 1)
        scope, _ = self.row_index.name(number)
        row_columns.is_placement[number] = scope == SCOPES[0]
        row_columns.alive[number] = row_columns.unsaved[number] = True
        if ended is not None:
            columns, *cells, reached_by, homes = ended
            row_columns.put_back(number, columns)
            for table, of_row in zip(self._cells[1:], cells, strict=True):
                table.put_back(number, of_row)
            self.reached.put_back(number, tuple(reached_by), len(row_columns))
            self.homes.put_back(number, tuple(homes), len(row_columns))
        else:
            row_columns.own_from[number] = self.row_index.ended.forgotten
        # The row may have uncounted pixels, in `other` or from before it was forgotten.
        other_number = self.row_index.numbers.get((OTHER_NAME, scope))
        if (
            other_number is not None
            and (last := int(row_columns.latest[other_number]) // 60_000) >= row_columns.last_minutes[number]
        ):
            row_columns.own_from[number] = last + 1
        return number

    def _memory(self) -> int:
        """The memory in bytes that rows without a plan may still take, computed once a cut."""
        if self._memory_left is None:
            rows = np.fromiter(self.row_index.unplanned, np.int64, len(self.row_index.unplanned))
            tables = self.reached, self.homes, *self.days.people()
            people = self.rolling.memory_of(rows) + sum(table.memory_of(rows) for table in tables)
            taken_bytes = len(rows) * ROW_MEMORY + people
            self._memory_left = self.limits.unplanned_bytes - taken_bytes
        return self._memory_left

    def take_out(self, rows: list[int]) -> list[RowName]:
        """End these rows and store their counts, packed; returns their names."""
        names, last_minutes = [], self.columns.last_minutes[rows].tolist()
        # These rows have expired minutes alone. Other rows get the numbers, and would get the minutes too.
        self.cells.drop_expired(self.oldest, at_once=True)
        cells = [cells.take_out(rows) for cells in self._cells[1:]]
        columns = self.columns.take_out(rows)
        people = (reached.take_out(np.array(rows)) for reached in (self.reached, self.homes))
        for row, minute, row_values, *of_people in zip(rows, last_minutes, columns, *people, strict=True):
            names.append(self.row_index.leave(row))
            self.row_index.ended.put(
                names[-1], minute, (row_values, *(by_row[row] for by_row in cells), *of_people)
            )
        self.columns.unsaved[rows] = True
        return names

    def mark_all_unpublished(self) -> None:
        """Make the next publishing cut publish all rows: after a resume it is unknown which rows readers
        have.
        """
        columns = self.columns
        columns.unpublished |= columns.alive
        columns.fresh |= columns.alive

    def take_changed(self, publish: bool, whole: bool) -> tuple[I64, npt.NDArray[np.bool_]]:
        """The rows that a cut publishes, and a mask of the turned rows among them. A publishing cut publishes
        all rows that changed since the last one, but only a part of the turned rows. Planned rows, by which
        delivery is judged, and `other`, which all shards share, are never left for a later part. Changed rows
        are also marked to be saved.

        Args:
            whole: publish all changed rows, as the first cut after one that published nothing does: such a
                flow publishes rarely.
        """
        columns = self.columns
        columns.unsaved |= columns.changed | columns.turned
        columns.unpublished |= columns.changed | columns.turned
        columns.fresh |= columns.changed
        columns.changed[:] = columns.turned[:] = False
        whole, self._rare = whole or self._rare, not publish
        if not publish:
            return np.zeros(0, np.int64), np.zeros(0, bool)
        waits = columns.unpublished & ~columns.fresh
        waits[self.turning.part(np.flatnonzero(waits), self.watermark_ms, whole)] = False
        if waits.any():
            numbers, planned = self.row_index.numbers, self.row_index.planned
            never = [*planned, *((OTHER_NAME, scope) for scope in SCOPES)]
            waits[[numbers[row] for row in never if row in numbers]] = False
        rows: I64 = np.flatnonzero(columns.unpublished & ~waits)
        turned = ~columns.fresh[rows]
        columns.unpublished[rows] = columns.fresh[rows] = False
        return rows, turned

    def gather(self) -> None:
        """See `Shard.gather`. The index is not gathered: it writes a row's counts when the row ends."""
        for people in (self.rolling, self.reached, self.homes, self.days):
            people.gather(self.files)
        for cells in self._cells:
            cells.gather(self.files)
        self.records.gather(self.files)

    @property
    def _cells(self) -> tuple[Cells, ...]:
        return self.cells, self.day_counts.cells, self.conversions.credits.cells, self.sides.cells

    def stored(self) -> dict[str, Stored]:
        """See `Shard.stored`. Records of rows hold counts of days and the names for the index, which fixes
        the order.
        """
        return {
            "days": self.days,
            "rows": self.records,
            "row_index": self.row_index,
            "cells": self.cells,
            "credits": self.conversions.credits.cells,
            "sides": self.sides.cells,
            "day_counts": self.day_counts.cells,
            "rolling": self.rolling,
            "reached": self.reached,
            "homes": self.homes,
        }

    def restore(self, state: tuple[Any, ...]) -> None:
        """See `Shard.restore`; every row is published again."""
        self._begin_empty()
        super().restore(state)
        self.days.today = self._day_of(self.minute)
        self.cells.keep(split(self.cells.keys)[1] >= self.oldest)
        for sparse in (self.conversions.credits, self.sides):
            sparse.drop_expired(self.oldest, self.days.today)
        self.day_counts.mark_all_due(self.minute)
        self.mark_all_unpublished()
