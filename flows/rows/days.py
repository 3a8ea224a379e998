"""The open days, which are not over yet: counts and reach of each row, by calendar day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from flows.model.counts import CONSENTED_PLAYS, MINUTE_COUNTS, REPAIRED
from flows.rows.cells import add_lines
from flows.rows.reach import Distinct
from flows.state import snapshot
from flows.state.arrays import I64, U32, U64
from flows.state.journal import Files
from flows.state.kernel import lean


def days_of(minutes: Any, day_of: Callable[[int], int]) -> I64:
    """The calendar day number of each minute."""
    if not len(minutes):
        return np.zeros(0, np.int64)
    first, last = day_of(int(minutes.min())), day_of(int(minutes.max()))
    if first == last:
        return np.full(len(minutes), first, np.int64)
    unique, inverse = np.unique(minutes, return_inverse=True)
    return np.array([day_of(minute) for minute in unique.tolist()], np.int64)[inverse]


@lean
def _add_open(table: I64, rows: U32, deltas: I64) -> None:
    """Add increments of open minutes to the lines of `rows`, without the counts that the end of minutes
    adds.
    """
    for i in range(len(rows)):
        for column in range(CONSENTED_PLAYS + 1):
            if column != REPAIRED:
                table[rows[i], column] += deltas[i, column]


class Days:
    """Counts and reach by day.

    The counts are one array a day, since nearly every row has counts today; cells would need half as much
    memory again.

    Args:
        day_of: calendar day number of a minute since the epoch, in the configured zone.

    Attributes:
        today: the first open day. Pixels of earlier days are too late for this table.
    """

    def __init__(self, day_of: Callable[[int], int]) -> None:
        self.day_of = day_of
        self.today = day_of(0)
        self._of: dict[int, tuple[I64, Distinct, Distinct]] = {}

    def add(self, rows: U32, minutes: I64, deltas: I64, n_rows: int) -> None:
        """Add increments of open minutes. `repaired` and held counts follow in `add_final`."""
        for day, places in self._split(minutes):
            _add_open(self._day(day, n_rows)[0], rows[places], deltas[places])

    def add_final(self, rows: I64, minutes: I64, counts: I64, n_rows: int) -> None:
        """Add the counts that the end of minutes adds."""
        for day, places in self._split(minutes):
            add_lines(self._day(day, n_rows)[0], rows[places], counts[places])

    def reach(
        self, rows: U32, minutes: I64, listener_hashes: U64, household_hashes: U64, n_rows: int
    ) -> None:
        """Add listener `listener_hashes[i]` and household `household_hashes[i]` to the reach of `rows[i]`
        in `minutes[i]`. 0 is no listener or household, and `household_hashes` may be empty.
        """
        for day, places in self._split(minutes):
            _, reached, reached_homes = self._day(day, n_rows)
            reached.add(rows[places], listener_hashes[places], n_rows)
            if len(household_hashes):
                reached_homes.add(rows[places], household_hashes[places], n_rows)

    def of_today(self, n_rows: int) -> tuple[I64, Distinct, Distinct]:
        """Today's counts, (rows, MINUTE_COUNTS), reach, and reach of households."""
        return self._day(self.today, n_rows)

    def people(self) -> Iterator[Distinct]:
        """The reach of listeners, and of households, of each open day."""
        for _, *people in self._of.values():
            yield from people

    def advance(self, minute: int) -> Iterator[npt.NDArray[np.bool_]]:
        """Drop the days before the day of `minute`; yields for each dropped day the mask of rows with
        counts.
        """
        self.today = max(self.today, self.day_of(minute))
        for day in [day for day in self._of if day < self.today]:
            counts, *_ = self._of.pop(day)
            yield np.logical_or.reduce(counts, axis=1)

    def clear(self, quiet: npt.NDArray[np.bool_]) -> None:
        """Clear in `quiet` the rows that have counts in an open day."""
        for counts, *people in self._of.values():
            quiet[: len(counts)] &= ~counts.any(axis=1)
            for reached in people:
                quiet[: len(reached.count)] &= reached.count[: len(quiet)] == 0

    def _split(self, minutes: I64) -> list[tuple[int, Any]]:
        """(day, mask of the `minutes` in it) for each open day."""
        if not len(minutes):
            return []
        first, last = int(minutes.min()), int(minutes.max())
        if (day := self.day_of(first)) == self.day_of(last):
            return [(day, slice(None))] if day >= self.today else []
        unique, inverse = np.unique(minutes, return_inverse=True)
        days = np.array([self.day_of(minute) for minute in unique.tolist()])
        return [(day, days[inverse] == day) for day in np.unique(days).tolist() if day >= self.today]

    def _day(self, day: int, n_rows: int) -> tuple[I64, Distinct, Distinct]:
        nothing = np.zeros((0, MINUTE_COUNTS), np.int64)
        counts, reached, homes = self._of.get(day) or (nothing, Distinct(), Distinct())
        if len(counts) < n_rows:
            counts = np.concatenate([counts, np.zeros((n_rows - len(counts), MINUTE_COUNTS), np.int64)])
        self._of[day] = (counts, reached, homes)
        return self._of[day]

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return [
            name for _, *people in self._of.values() for distinct in people for name in distinct.file_names()
        ]

    def gather(self, files: Files) -> None:
        """See `Distinct.gather`."""
        for _, *people in self._of.values():
            for distinct in people:
                distinct.gather(files)

    def snapshot(self, files: Files) -> list[tuple[Any, ...]]:
        """The days as plain values, without counts (see `counts_of`), and without the parts that are in
        `files`.
        """
        return [
            (day, *(distinct.snapshot(files) for distinct in people))
            for day, (_, *people) in self._of.items()
        ]

    def counts_of(self, rows: I64) -> list[tuple[int, Any]]:
        """The counts of `rows` by day, as plain values, without rows that have no counts."""
        days = []
        for day, (counts, *_) in self._of.items():
            row_numbers = rows[rows < len(counts)]
            row_numbers = row_numbers[counts[row_numbers].any(axis=1)]
            if len(row_numbers):
                days.append(
                    (
                        day,
                        snapshot.pack(
                            {
                                "rows": row_numbers.astype(np.uint32),
                                "counts": snapshot.narrow(counts[row_numbers]),
                            }
                        ),
                    )
                )
        return days

    def restore(self, state: list[tuple[Any, ...]], files: Files) -> None:
        """Load a state of `snapshot`; the owner sets `today`."""
        for day, *people in state:
            _, *tables = self._day(day, 0)
            for table, of_day in zip(tables, people, strict=True):
                table.restore(of_day, files)

    def restore_counts(self, rows: I64, state: list[tuple[int, Any]]) -> None:
        """Replace the counts of `rows` by a state of `counts_of`, without the days that are over."""
        n_rows, of_day = int(rows.max(initial=-1)) + 1, dict(state)
        for day in list(self._of):
            counts, *_ = self._day(day, n_rows)
            counts[rows] = 0
            if day in of_day:
                columns = snapshot.unpack(of_day[day])
                counts[columns["rows"]] = columns["counts"]
