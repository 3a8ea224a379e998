"""The days that are complete in Kafka, according to the flow's `meta`.

A final minute is due when the watermark is past its end by the allowed lateness. The flow writes Redis and
its topics in parallel, so a watermark in Redis alone does not prove that the minutes are in their topic. At a
save the flow asks for their acknowledgement, and ends if it does not come in time. A watermark of `meta`
therefore counts once the same execution (`fence`) has flushed a cut that is so much younger; cuts are
numbered by elapsed time (`rev`).
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from flows.exports.columns import DAY_MS
from flows.settings import Settings, ms

ACKNOWLEDGED: Final = timedelta(seconds=30)
"""A margin: if an acknowledgement takes longer, the whole flow waits and flushes no more."""
SAVES: Final = 3
"""Saves between a cut and the flow's wait for the cut's acknowledgement: its own, and two more."""
STILL: Final = timedelta(seconds=30)
"""A flow that has flushed nothing for so long is not waited for."""


class NewGeneration(Exception):
    """The log is being counted again: the staged rows are of the generation before."""


class Completeness:
    """Finds the day up to which everything is in Kafka.

    Args:
        meta: reads the fields of `meta`; empty if no flow has written.
        generation: of the flow whose days are wanted.
    """

    def __init__(
        self,
        settings: Settings,
        meta: Callable[[], Mapping[str, str]],
        generation: int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meta, self._generation, self._clock_s = meta, generation, clock_s
        self._rev, self._moved_s = -1, float("-inf")
        self._lateness_ms = ms(settings.allowed_lateness)  # until the flow's own value is read
        self._settles = max(
            1, math.ceil((ACKNOWLEDGED + SAVES * settings.save_interval) / settings.flush_interval)
        )
        self._fence = -1
        self._seen: deque[tuple[int, int]] = deque()
        self._watermark_ms = -1
        self._pending_ms = -1

    def look(self) -> int:
        """The first day, since the epoch, that may not be complete.

        Raises:
            NewGeneration: see there. ConnectError: Redis does not answer.
        """
        meta = self._meta()
        if "watermark_ms" in meta:
            if int(meta["generation"]) != self._generation:
                raise NewGeneration
            self._lateness_ms = int(meta.get("allowed_lateness_ms", self._lateness_ms))
            self._take(int(meta["fence"]), int(meta["rev"]), int(meta["watermark_ms"]))
        return self._day(self._watermark_ms)

    @property
    def soon(self) -> int:
        """Like `look`, by the latest watermark, settled or not, while the flow goes on."""
        going = self._clock_s() - self._moved_s < STILL.total_seconds()
        return self._day(self._pending_ms if going else self._watermark_ms)

    def _day(self, watermark_ms: int) -> int:
        return (watermark_ms - self._lateness_ms) // DAY_MS

    def _take(self, fence: int, rev: int, watermark_ms: int) -> None:
        if fence != self._fence:  # the last execution's lines after its last snapshot come again
            self._fence = fence
            self._seen.clear()
        if rev != self._rev:
            self._rev, self._moved_s = rev, self._clock_s()
        self._pending_ms = max(self._pending_ms, watermark_ms)
        if not self._seen or rev >= self._seen[-1][0] + max(1, self._settles // 8):
            self._seen.append((rev, watermark_ms))
        while self._seen and self._seen[0][0] + self._settles <= rev:
            self._watermark_ms = max(self._watermark_ms, self._seen.popleft()[1])
