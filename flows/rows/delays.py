"""Delays of platforms' pixels, by row: counts by class, since the row's first pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from flows.model.delays import BOUNDS_S, DELAYS
from flows.model.fields import decimal
from flows.model.messages import RowBatch
from flows.rows.ended import RowName
from flows.state.kernel import I64


class Delays:
    """Counts of `flows.model.delays` of one shard's platforms."""

    def __init__(self) -> None:
        self._of: dict[int, I64] = {}

    def take(self, batches: Iterable[RowBatch], number: Callable[[RowName], int]) -> None:
        """Add the delays of a cut to their rows."""
        for batch in batches:
            for platform, counts in batch.delays:
                row = number(("platform", platform))
                self._of[row] = self._of.get(row, np.zeros(DELAYS, np.int64)) + np.array(counts, np.int64)

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
        """Give a row what `take_out` gave."""
        if taken is not None:
            self._of[row] = np.array(taken, np.int64)

    def snapshot(self) -> dict[int, Any]:
        """Plain state."""
        return {row: counts.tolist() for row, counts in self._of.items()}

    @classmethod
    def restored(cls, state: dict[int, Any]) -> Delays:
        """From `snapshot`'s state."""
        self = cls()
        self._of = {row: np.array(counts, np.int64) for row, counts in state.items()}
        return self
