"""Counts that few rows have, by row and minute, with the sums of their windows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from flows.state.arrays import I64

NOTHING: Final[list[I64 | None]] = [None] * 4
"""The windows of a row without counts."""


@dataclass
class SparseCells:
    """Counts of one row shard's rows: by minute, by day, and over all time.

    Few rows have counts in few minutes, so these are dictionaries of small arrays.
    """

    minutes: dict[int, dict[int, I64]] = field(default_factory=dict)
    days: dict[int, dict[int, I64]] = field(default_factory=dict)
    flight: dict[int, I64] = field(default_factory=dict)

    def add(self, row: int, minute: int, day: int, counts: I64, flown: bool = True) -> None:
        """Add to a row's minute and day, and to its flight if that has begun by then."""
        of_row = self.minutes.setdefault(row, {})
        of_row[minute] = of_row.get(minute, 0) + counts
        by_day = self.days.setdefault(row, {})
        by_day[day] = by_day.get(day, 0) + counts
        self.flight[row] = self.flight.get(row, 0) + counts * flown

    def restart_flight(self, row: int, minute: int) -> None:
        """Restart a row's flight at a minute, later than the forgotten ones."""
        if row in self.flight:
            begun = [counts for at, counts in self.minutes.get(row, {}).items() if at >= minute]
            self.flight[row] = np.sum([np.zeros_like(self.flight[row]), *begun], axis=0)

    def windows_of(self, rows: list[int], minute: int, day: int) -> list[list[I64 | None]]:
        """Counts of each row over 5m, 1h, 1d and its flight, None for an empty one; for a row without any the
        object `NOTHING` itself.
        """
        return [self._windows(row, minute, day) if row in self.flight else NOTHING for row in rows]

    def _windows(self, row: int, minute: int, day: int) -> list[I64 | None]:
        by_minute = self.minutes.get(row, {})
        sums: list[I64 | None] = []
        for length in (5, 60):
            inside = [counts for at, counts in by_minute.items() if minute - length < at <= minute]
            sums.append(np.sum(inside, axis=0) if inside else None)
        return [*sums, self.days.get(row, {}).get(day), self.flight[row]]

    def of(self, row: int, minute: int) -> I64 | None:
        """A row's counts in one minute."""
        return self.minutes.get(row, {}).get(minute)

    def drop_expired(self, oldest_minute: int, today: int) -> list[int]:
        """Drop the minutes before one, and the days that are over; returns the rows that lose a day."""
        self.minutes = _from(oldest_minute, self.minutes)
        over = [row for row, of in self.days.items() if min(of) < today]
        self.days = _from(today, self.days)
        return over

    def held(self) -> list[int]:
        """The rows that have counts in a minute or a day."""
        return [*self.minutes, *self.days]

    def take_out(self, row: int) -> list[int] | None:
        """Forget a row's flight; returns it as plain values."""
        counts = self.flight.pop(row, None)
        return None if counts is None else counts.tolist()

    def put_back(self, row: int, taken: list[int] | None) -> None:
        """Restore to a row the values that `take_out` returned."""
        if taken is not None:
            self.flight[row] = np.array(taken, np.int64)

    def recent(self) -> dict[int, Any]:
        """The minutes of all rows, as plain state."""
        return {row: _plain(of) for row, of in self.minutes.items()}

    def restore_recent(self, state: dict[int, Any]) -> None:
        """Load `recent`'s state."""
        self.minutes = {row: _arrays(of) for row, of in state.items()}

    def snapshot(self, rows: list[int]) -> tuple[Any, ...]:
        """The days and flights of `rows`, as plain state."""
        days = {row: _plain(self.days[row]) for row in rows if row in self.days}
        return days, {row: self.flight[row].tolist() for row in rows if row in self.flight}

    def restore(self, rows: list[int], state: tuple[Any, ...]) -> None:
        """Replace the values of `rows` by those of `snapshot`'s state."""
        days, flight = state
        for row in rows:
            self.days.pop(row, None)
            self.flight.pop(row, None)
        self.days |= {row: _arrays(of) for row, of in days.items()}
        self.flight |= _arrays(flight)


def _plain(counts: dict[int, I64]) -> dict[int, list[int]]:
    return {at: some.tolist() for at, some in counts.items()}


def _arrays(counts: dict[int, Any]) -> dict[int, I64]:
    return {at: np.array(some, np.int64) for at, some in counts.items()}


def _from(first: int, held: dict[int, dict[int, I64]]) -> dict[int, dict[int, I64]]:
    """The counts from a minute or a day on."""
    kept = {row: {at: counts for at, counts in of.items() if at >= first} for row, of in held.items()}
    return {row: of for row, of in kept.items() if of}
