"""Rows that only time has changed, as when a minute turns. If they are many, each cut publishes a part of
them, so that they delay no pixel's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flows.state.arrays import I64


@dataclass
class Turning:
    """Takes such rows in the order of their numbers, and begins again after the last.

    Attributes:
        most: rows of a part, at most.
        whole_ms: the watermark that every row was given out as of, or later.
    """

    most: int
    whole_ms: int = 0
    _next: int = 0
    _began_ms: int = 0

    def part(self, rows: I64, watermark_ms: int, whole: bool = False) -> I64:
        """Take the rows that are published at a watermark.

        Args:
            rows: the numbers of those that wait, in order; all others are given out as they are.
            whole: take all.
        """
        if whole or len(rows) <= self.most:
            self._next, self.whole_ms = 0, watermark_ms
            return rows
        if not self._next:
            self._began_ms = watermark_ms
        begin = int(np.searchsorted(rows, self._next))
        part = rows[begin : begin + self.most]
        if begin + self.most < len(rows):
            self._next = int(part[-1]) + 1
        else:  # the rows before them were published since it began
            self._next, self.whole_ms = 0, self._began_ms
        return part
