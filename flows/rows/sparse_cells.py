"""Counts that few rows have, by row and minute, with the sums of their windows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np

from flows.state.kernel import I64

NOTHING: Final[list[I64 | None]] = [None] * 4
"""The windows of a row that has none."""


@dataclass
class SparseCells:
    """Counts of one row shard's rows: by minute, by day, and since ever.

    Few rows have any in few minutes, so these are dictionaries of small arrays.
    """

    minutes: dict[int, dict[int, I64]] = field(default_factory=dict)
    days: dict[tuple[int, int], I64] = field(default_factory=dict)
    flight: dict[int, I64] = field(default_factory=dict)

    def add(self, row: int, minute: int, day: int, counts: I64, flown: bool = True) -> None:
        """Add to a row's minute and day, and where its flight has begun by then, to that."""
        of_row = self.minutes.setdefault(row, {})
        of_row[minute] = of_row.get(minute, 0) + counts
        self.days[row, day] = self.days.get((row, day), 0) + counts
        self.flight[row] = self.flight.get(row, 0) + counts * flown

    def restart_flight(self, row: int, minute: int) -> None:
        """Let a row's flight begin with a minute, later than those that were forgotten."""
        if row in self.flight:
            begun = [counts for at, counts in self.minutes.get(row, {}).items() if at >= minute]
            self.flight[row] = np.sum([np.zeros_like(self.flight[row]), *begun], axis=0)

    def windows_of(self, rows: list[int], minute: int, day: int) -> list[list[I64 | None]]:
        """Counts of each row over 5m, 1h, 1d and its flight, None where it has none; of one that has none at
        all `NOTHING` itself.
        """
        return [self._windows(row, minute, day) if row in self.flight else NOTHING for row in rows]

    def _windows(self, row: int, minute: int, day: int) -> list[I64 | None]:
        by_minute = self.minutes.get(row, {})
        sums: list[I64 | None] = []
        for length in (5, 60):
            inside = [counts for at, counts in by_minute.items() if minute - length < at <= minute]
            sums.append(np.sum(inside, axis=0) if inside else None)
        return [*sums, self.days.get((row, day)), self.flight[row]]

    def of(self, row: int, minute: int) -> I64 | None:
        """A row's counts in one minute."""
        return self.minutes.get(row, {}).get(minute)

    def drop_expired(self, oldest_minute: int, today: int) -> list[int]:
        """Drop the minutes before one, and the days that are over; returns the rows that had one of those."""
        kept = {
            row: {at: counts for at, counts in of.items() if at >= oldest_minute}
            for row, of in self.minutes.items()
        }
        self.minutes = {row: of for row, of in kept.items() if of}
        over = [row for row, day in self.days if day < today]
        self.days = {key: counts for key, counts in self.days.items() if key[1] >= today}
        return over

    def held(self) -> list[int]:
        """The rows that have anything in a minute or a day."""
        return [*self.minutes, *(row for row, _ in self.days)]

    def take_out(self, row: int) -> list[int] | None:
        """Forget a row's flight; returns it as plain values."""
        counts = self.flight.pop(row, None)
        return None if counts is None else counts.tolist()

    def put_back(self, row: int, taken: list[int] | None) -> None:
        """Give a row what `take_out` gave."""
        if taken is not None:
            self.flight[row] = np.array(taken, np.int64)

    def snapshot(self) -> tuple[Any, ...]:
        """Plain state."""
        minutes = {
            row: {at: counts.tolist() for at, counts in of.items()} for row, of in self.minutes.items()
        }
        days = {key: counts.tolist() for key, counts in self.days.items()}
        return minutes, days, {row: counts.tolist() for row, counts in self.flight.items()}

    @classmethod
    def restored(cls, state: tuple[Any, ...]) -> Self:
        """From `snapshot`'s state."""
        minutes, days, flight = state
        return cls(
            {
                row: {at: np.array(counts, np.int64) for at, counts in of.items()}
                for row, of in minutes.items()
            },
            {key: np.array(counts, np.int64) for key, counts in days.items()},
            {row: np.array(counts, np.int64) for row, counts in flight.items()},
        )
