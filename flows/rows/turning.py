"""Turned rows: time alone has changed them, as at the end of a minute. Each cut publishes a part of them if
they are many, so that they do not delay new numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flows.state.arrays import I64


@dataclass
class Turning:
    """Chooses turned rows in the order of their numbers, and begins again after the last row.

    Attributes:
        most: the greatest number of rows in a part.
        whole_ms: every row has been published at this watermark or a later one.
    """

    most: int
    whole_ms: int = 0
    _next: int = 0
    _began_ms: int = 0

    def part(self, rows: I64, watermark_ms: int, whole: bool = False) -> I64:
        """The rows to publish at a watermark.

        Args:
            rows: the numbers of the waiting rows, in order; all other rows are already published at this
                watermark.
            whole: publish all of them.
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
