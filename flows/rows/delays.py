"""Delays of platforms' pixels, by row: counts by class, since the row's first pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from flows.model.delays import BOUNDS_S, DELAYS
from flows.model.fields import decimal
from flows.model.messages import RowBatch
from flows.rows.ended import RowName
from flows.state.arrays import I64


class Delays:
    """Counts of `flows.model.delays` of one shard's platforms."""

    def __init__(self) -> None:
        self._of: dict[int, I64] = {}

    def take(self, batches: Iterable[RowBatch], number: Callable[[RowName], int]) -> list[int]:
        """Add the delays of a cut to their rows; returns these rows."""
        rows = []
        for batch in batches:
            for platform, counts in batch.delays:
                rows.append(row := number(("platform", platform)))
                self._of[row] = self._of.get(row, np.zeros(DELAYS, np.int64)) + np.array(counts, np.int64)
        return rows

    def median_s(self, row: int) -> str | None:
        """The upper bound of the class that has a row's median; None without a pixel."""
        counts = self._of.get(row)
        if counts is None:
            return None
        passed = np.cumsum(counts)
        return decimal(BOUNDS_S[int(np.searchsorted(2 * passed, passed[-1]))])

    def take_out(self, row: int) -> list[int] | None:
        """Forget a row's delays; returns them as plain values."""
        counts = self._of.pop(row, None)
        return None if counts is None else counts.tolist()

    def put_back(self, row: int, taken: list[int] | None) -> None:
        """Restore to a row the values that `take_out` returned."""
        if taken is not None:
            self._of[row] = np.array(taken, np.int64)

    def snapshot(self, rows: list[int]) -> dict[int, Any]:
        """The delays of `rows` as plain state."""
        return {row: self._of[row].tolist() for row in rows if row in self._of}

    def restore(self, rows: list[int], state: dict[int, Any]) -> None:
        """Replace the delays of `rows` by those of `snapshot`'s state."""
        for row in rows:
            self.take_out(row)
            self.put_back(row, state.get(row))
