"""The days that are complete in Kafka, according to the flow's `meta`.

A final minute is due when the watermark is past its end by the allowed lateness. The flow writes Redis and
its topics in parallel, so a watermark in Redis alone does not prove that the minutes are in their topic. A
save waits for Kafka's acknowledgement, and the flow ends if it does not come in time. A watermark of `meta`
therefore counts only once the same execution (`fence`) has flushed a cut that is later by `SAVES` saves and
`ACKNOWLEDGED`. Cuts are numbered by elapsed time (`rev`).
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
"""A margin for an acknowledgement. If one takes longer, the whole flow waits and flushes no more."""
SAVES: Final = 3
"""The number of saves from a cut until the flow waits for its acknowledgement: its own save, and two more."""
STILL: Final = timedelta(seconds=30)
"""The time without a flush after which `once` no longer waits for the flow."""


class NewGeneration(Exception):
    """The flow counts the log again, so the staged rows are of an older generation."""


class Completeness:
    """Finds the day up to which everything is in Kafka.

    Args:
        meta: reads the fields of `meta`; empty if no flow has written.
        generation: the generation whose days are exported.
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
            NewGeneration: the flow has begun another generation.
            ConnectError: Redis does not answer.
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
        """The first day that will not be complete once the latest watermark has settled. If the flow stands
        still, the settled watermark counts.
        """
        going = self._clock_s() - self._moved_s < STILL.total_seconds()
        return self._day(self._pending_ms if going else self._watermark_ms)

    def _day(self, watermark_ms: int) -> int:
        return (watermark_ms - self._lateness_ms) // DAY_MS

    def _take(self, fence: int, rev: int, watermark_ms: int) -> None:
        if fence != self._fence:  # the new execution writes again the lines after the last save
            self._fence = fence
            self._seen.clear()
        if rev != self._rev:
            self._rev, self._moved_s = rev, self._clock_s()
        self._pending_ms = max(self._pending_ms, watermark_ms)
        if not self._seen or rev >= self._seen[-1][0] + max(1, self._settles // 8):
            self._seen.append((rev, watermark_ms))
        while self._seen and self._seen[0][0] + self._settles <= rev:
            self._watermark_ms = max(self._watermark_ms, self._seen.popleft()[1])
