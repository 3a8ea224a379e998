"""The stopwatch of one call: most calls carry one that times nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final


class Laps:
    """The stopwatch of a call, which runs from its construction.

    Args:
        report: receives each stage and its time in s; None times nothing.
    """

    __slots__ = ("_clock_s", "_report", "_since_s")

    def __init__(
        self,
        report: Callable[[str, float], None] | None = None,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._report, self._clock_s = report, clock_s
        self._since_s = clock_s() if report is not None else 0.0

    def end(self, stage: str) -> None:
        """End a stage, and begin the next one."""
        if self._report is None:
            return
        now_s = self._clock_s()
        self._report(stage, now_s - self._since_s)
        self._since_s = now_s


UNTIMED: Final = Laps()
