"""Counts that few pixels add to, by row: by minute, by day, and over the flight."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from flows.model.fields import WINDOWS
from flows.rows.cells import AT_ONCE, CHANGED, Cells, add_count, split
from flows.state.arrays import I64, U8, U32, U64, Int
from flows.state.kernel import lean

DAY_AT, FLIGHT = 1 << 30, 1 << 31
"""The time of a cell is a minute since the epoch, `DAY_AT` and a calendar day number, or `FLIGHT`."""
_MINUTES: Final = {"5m": 5, "1h": 60}


@lean
def _add(
    rows: U32, minutes: I64, days: I64, columns: I64, amounts: I64, of_flights: I64,
    keys: U64, counts: I64, flags: U8,
) -> Int:  # fmt: skip
    """Add to the cells of each row's minute, day and flight; returns the number of new cells."""
    new = 0
    for i in range(len(rows)):
        row, column = rows[i], columns[i]
        new += add_count(row, minutes[i], column, amounts[i], keys, counts, flags)
        new += add_count(row, DAY_AT + days[i], column, amounts[i], keys, counts, flags)
        new += add_count(row, FLIGHT, column, of_flights[i], keys, counts, flags)
    return new


class SparseWindows(NamedTuple):
    """The sums of some rows at one cut.

    Attributes:
        rows: the places of the rows with counts among all rows of the cut, ascending.
        sums: by window, (rows, columns); a window that is absent is not published.
    """

    rows: I64
    sums: dict[str, I64]

    def part(self, row_slice: slice) -> SparseWindows:
        """The sums of the rows at the places of `row_slice`, renumbered from its first place."""
        inside = slice(*np.searchsorted(self.rows, (row_slice.start, row_slice.stop)).tolist())
        return SparseWindows(
            self.rows[inside] - row_slice.start, {name: sums[inside] for name, sums in self.sums.items()}
        )


class SparseCells:
    """Counts of one row shard's rows. A pixel adds to three cells of its row: minute, day and flight.

    Args:
        columns: the number of counts of a cell.
        windows: the windows that are published.
    """

    def __init__(self, columns: int, windows: tuple[str, ...] = WINDOWS) -> None:
        self.cells, self.windows = Cells(columns), windows

    def add(self, rows: U32, minutes: I64, days: I64, flown: Any, columns: I64, amounts: I64) -> None:
        """Add `amounts[i]` to column `columns[i]` of `rows[i]` in its minute and day, and in the flight if
        `flown[i]`: the flight had begun by then.
        """
        cells, of_flights = self.cells, amounts * flown
        for start in range(0, len(rows), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            cells.make_room(3 * len(rows[part]))
            times, added = (minutes[part], days[part]), (columns[part], amounts[part], of_flights[part])
            cells.used += _add(rows[part], *times, *added, cells.keys, cells.counts, cells.flags)

    def has_counts(self, row: int) -> bool:
        """True if a row has counts, or had them before minutes and days were dropped."""
        return bool(self.flights(np.array([row]))[0] >= 0)

    def restart_flight(self, row: int, minute: int) -> None:
        """Restart a row's flight at a minute, which must be after all forgotten minutes."""
        flight = int(self.flights(np.array([row]))[0])
        if flight < 0:
            return
        cells = self.cells
        rows, times = split(cells.keys)
        begun = (cells.keys != 0) & (rows == row) & (times >= minute) & (times < DAY_AT)
        cells.counts[flight] = cells.counts[begun].sum(axis=0)
        cells.flags[flight] |= CHANGED

    def windows_of(self, rows: I64, minute: int, day: int) -> SparseWindows:
        """The sums of `rows` at a minute of a day."""
        places = np.flatnonzero(self.flights(rows) >= 0)
        times = {name: (minute - width + 1, minute) for name, width in _MINUTES.items()}
        times |= {"1d": (DAY_AT + day,) * 2, "flight": (FLIGHT, FLIGHT)}
        present_rows = rows[places]
        return SparseWindows(
            places, {name: self.cells.sums(present_rows, *times[name]) for name in self.windows}
        )

    def counts_at(self, rows: I64, minutes: I64) -> list[I64 | None]:
        """The counts of each row in its minute; None without counts."""
        if not len(self.cells):
            return [None] * len(rows)
        slots = self.cells.slots_of(rows, minutes)
        counts = self.cells.counts[slots]
        return [cell if slot >= 0 else None for cell, slot in zip(counts, slots.tolist(), strict=True)]

    def flights(self, rows: I64) -> I64:
        """The slot of each row's flight; -1 without one."""
        return self.cells.slots_of(rows, np.full(len(rows), FLIGHT))

    def drop_expired(self, oldest_minute: int, today: int) -> I64:
        """Drop the minutes before `oldest_minute` and the days before `today`; returns the rows that lose a
        day.
        """
        rows, times = split(self.cells.keys)
        over = (times >= DAY_AT) & (times < DAY_AT + today)
        expired = (self.cells.keys != 0) & (over | (times < oldest_minute))
        if expired.any():
            self.cells.keep(~expired)
        lost: I64 = rows[expired & over]
        return lost

    def recent_rows(self) -> I64:
        """The rows that still have counts in a minute or a day."""
        rows, times = split(self.cells.keys[self.cells.keys != 0])
        return rows[times < FLIGHT]
