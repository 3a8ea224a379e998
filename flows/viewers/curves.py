"""Curves of rows in the exporter's memory, from its start on; their latest points are the densest."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from flows.viewers.reader import Rows
from flows.viewers.words import number

POINT_S: Final = 10.0
POINTS: Final = 360
"""Points of the finest level: the last hour."""
LEVELS: Final = ((POINT_S, POINTS), (300.0, 288), (7_200.0, 372))
"""Seconds between two points, and points: an hour, a day, a month. Together 17 KB a row."""
SPARK_S: Final = 600.0
"""Length of a sparkline."""
RANGES_S: Final = {"1h": 3_600.0, "6h": 21_600.0, "24h": 86_400.0, "flight": math.inf}
"""Lengths of the curves that a reader may ask for."""


class Level:
    """Impressions and expected impressions of each row at the last samples of one step.

    A row that is missing from a sample starts over, so that every curve ends at the latest sample.
    """

    def __init__(self, step_s: float, points: int) -> None:
        self._step_s, self._points = step_s, points
        self.times: deque[float] = deque(maxlen=points)
        self.curves: dict[str, tuple[array[float], array[float]]] = {}

    def add(self, at_s: float, rows: Rows) -> bool:
        """Take a sample at wall clock `at_s`; False if the last one is less than a step old. Drop the samples
        later than `at_s`, which a clock that was set back leaves.
        """
        self._drop_after(at_s)
        if self.times and at_s - self.times[-1] < self._step_s:
            return False
        self.times.append(at_s)
        curves = {name: self.curves.get(name) or (array("d"), array("d")) for name in rows}
        for name, (delivered, expected) in curves.items():
            row = rows[name]
            delivered.append(number(row.get("delivery.delivered", row.get("flight.impressions", "0"))))
            expected.append(number(row.get("delivery.expected")))
            del delivered[: -self._points], expected[: -self._points]
        self.curves = curves
        return True

    def _drop_after(self, at_s: float) -> None:
        ahead = sum(time_s > at_s for time_s in self.times)
        for _ in range(ahead):
            self.times.pop()
        for columns in self.curves.values() if ahead else ():
            for column in columns:
                del column[-ahead:]

    def points(self, name: str) -> list[tuple[float, float, float]]:
        """(at_s, impressions, expected) of a row, the oldest first."""
        delivered, expected = self.curves.get(name) or (array("d"), array("d"))
        at_s = list(self.times)[len(self.times) - len(delivered) :]
        return list(zip(at_s, delivered, expected, strict=True))


class History:
    """Curves of the rows of one scope, over an hour, a day and a month."""

    def __init__(self) -> None:
        self._levels = [Level(step_s, points) for step_s, points in LEVELS]

    def add(self, at_s: float, rows: Rows) -> dict[str, int] | None:
        """Take a sample at wall clock `at_s`; returns the growth of each row that has grown, or None if the
        last sample is less than `POINT_S` old.
        """
        finest, *coarser = self._levels
        if not finest.add(at_s, rows):
            return None
        for level in coarser:
            level.add(at_s, rows)
            for name in level.curves.keys() - rows.keys():
                del level.curves[name]
        grown = {name: steps(delivered[-2:]) for name, (delivered, _) in finest.curves.items()}
        return {name: step[0] for name, step in grown.items() if step and step[0]}

    def curve(self, name: str, length_s: float = math.inf) -> dict[str, list[float]]:
        """`at_s`, `impressions` and `expected` (NaN without one) of a row, the oldest first.

        Args:
            length_s: the length of the curve, back from its latest sample. Points older than a level's oldest
                come from the next coarser level.
        """
        points: list[tuple[float, float, float]] = []
        for level in self._levels:
            first_s = points[0][0] if points else math.inf
            points = [point for point in level.points(name) if point[0] < first_s] + points
        since_s = points[-1][0] - length_s if points else 0.0
        shown = [point for point in points if point[0] >= since_s]
        columns = zip(("at_s", "impressions", "expected"), zip(*shown, strict=True), strict=True)
        return {"at_s": [], "impressions": [], "expected": []} if not shown else {n: [*c] for n, c in columns}

    def sparks(self, names: Iterable[str]) -> tuple[list[float], dict[str, list[int]]]:
        """The times of the samples of the last `SPARK_S`, the oldest first, and the growth of each row's
        impressions from one sample to the next. A younger row has only the latest samples. Samples are as far
        apart as the reads of Redis, so the first may be earlier than `SPARK_S` ago.
        """
        curves, at_s = self._levels[0].curves, [*self._levels[0].times]
        if at_s:
            del at_s[: max(0, bisect_right(at_s, at_s[-1] - SPARK_S) - 1)]
        return at_s, {name: steps(curves[name][0][-len(at_s) :]) if name in curves else [] for name in names}


def steps(counts: array[float]) -> list[int]:
    """Differences of counts; 0 for a count that falls. It falls only when a log is recomputed from scratch,
    which is no rate to draw.
    """
    return [int(after - before) if after > before else 0 for before, after in pairwise(counts)]
