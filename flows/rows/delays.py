"""Delays of the pixels of platforms, by row: counts by class of delay, since the row's first pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import add

import numpy as np

from flows.model.delays import BOUNDS_S, DELAYS
from flows.model.fields import decimal
from flows.model.messages import RowBatch
from flows.rows.ended import RowName
from flows.rows.row_columns import RowColumns


class Delays:
    """Counts by class of `flows.model.delays`, for the platforms of one shard."""

    def __init__(self, columns: RowColumns) -> None:
        self._of = columns.delays

    def take(self, batches: Iterable[RowBatch], number: Callable[[RowName], int]) -> list[int]:
        """Add the delays of a cut to their rows; returns these rows."""
        rows = []
        for batch in batches:
            for platform, counts in batch.delays:
                rows.append(row := number(("platform", platform)))
                former_counts = self._of.get(row, (0,) * DELAYS)
                self._of[row] = tuple(map(add, former_counts, counts))
        return rows

    def median_s(self, row: int) -> str | None:
        """The upper bound, in seconds, of the class that holds the row's median; None without a pixel."""
        counts = self._of.get(row)
        if counts is None:
            return None
        passed = np.cumsum(counts)
        return decimal(BOUNDS_S[int(np.searchsorted(2 * passed, passed[-1]))])
