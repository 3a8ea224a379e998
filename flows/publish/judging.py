"""Judges whether the numbers of delivery are fit to act on, and if not, since when and why.

The result stands in `meta`. A dead flow writes no `meta`, so a reader also checks `flushed_ms`
(docs/contracts.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from flows.publish.covered import number_of

Reason = Literal["catching_up", "switching", "starting", "collector", "stalled", "lagging", "rejecting"]
"""`catching_up`: the flow reads an archive, or the messages since its end. `switching`: another flow is about
to write the rows. `starting`: the flow does not know the time of its log yet, or the delivery that readers
have. `collector`: time waits for pixels that a collector still has. `stalled`: the numbers are old and do not
move. `lagging`: they are old and move. `rejecting`: more is rejected than chance explains.
"""
OLD_MS: Final = 300_000
"""Age of the watermark from which its numbers count as old. A healthy watermark is 10 s old, on a quiet topic
60 s.
"""
STANDS_MS: Final = 60_000
"""Time without a new watermark after which old numbers count as stalled."""
REJECTED_SHARE: Final = 0.05
REJECTED_LEAST: Final = 100
"""Share and least number of the messages of `REJECTED_MS` that are rejected."""
REJECTED_MS: Final = 600_000
SAMPLE_MS: Final = 60_000


@dataclass
class Judging:
    """The state of one flow. `since_ms` is by Redis's clock, and 0 while delivery is judged."""

    since_ms: int = 0
    reason: Reason | None = None
    _watermark_ms: int = 0
    _moved_ms: int = 0
    _counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    _samples: deque[tuple[int, int, int]] = field(default_factory=deque)

    def recall(self, meta: Mapping[str, str]) -> None:
        """Load from `meta` the moment since which an earlier execution has not judged delivery."""
        self.since_ms = number_of(meta, "unjudged_since_ms")

    def count(self, partition: str, received: int, rejected: int) -> None:
        """Take the numbers of received and rejected messages of a partition since the log's beginning."""
        self._counts[partition] = received, rejected

    def look(
        self,
        now_ms: int,
        watermark_ms: int,
        low_mark_ms: int,
        pacing_loaded: bool,
        time_held_back: bool = False,
        in_history: bool = False,
        switching: bool = False,
    ) -> None:
        """Judge again.

        Args:
            now_ms: Redis's clock.
            watermark_ms: 0 while unknown.
            low_mark_ms: the least low mark that the watermark waits for; 0 for none.
            pacing_loaded: the pacer has loaded the delivery that readers have.
            time_held_back: a collector holds time back, according to the log.
            in_history: the counted messages are of an archive.
            switching: another flow is about to write the rows.
        """
        if watermark_ms != self._watermark_ms:
            self._watermark_ms, self._moved_ms = watermark_ms, now_ms
        reason = (
            "catching_up" if in_history else self._reason(now_ms, low_mark_ms, pacing_loaded, time_held_back)
        )
        self.reason = "switching" if switching and not in_history else reason
        self.since_ms = (self.since_ms or now_ms) if self.reason else 0

    def _reason(
        self, now_ms: int, low_mark_ms: int, pacing_loaded: bool, time_held_back: bool
    ) -> Reason | None:
        rejecting = self._rejecting(now_ms)
        if not pacing_loaded or not self._watermark_ms:
            return "starting"
        if time_held_back:
            return "collector"
        if now_ms - self._watermark_ms > OLD_MS:
            if low_mark_ms and now_ms - low_mark_ms > OLD_MS:
                return "collector"
            return "stalled" if now_ms - self._moved_ms > STANDS_MS else "lagging"
        return "rejecting" if rejecting else None

    def _rejecting(self, now_ms: int) -> bool:
        """True if too many messages of the last ten minutes were rejected, by a sample a minute."""
        received, rejected = (
            (sum(counts) for counts in zip(*self._counts.values(), strict=True)) if self._counts else (0, 0)
        )
        samples = self._samples
        if not samples or now_ms - samples[-1][0] >= SAMPLE_MS or now_ms < samples[-1][0]:
            samples.append((now_ms, received, rejected))
        while len(samples) > 1 and not 0 <= now_ms - samples[0][0] <= REJECTED_MS:
            samples.popleft()
        _, before, lost = samples[0]
        newly_rejected, newly_received = rejected - lost, received - before
        return newly_rejected > REJECTED_LEAST and newly_rejected > REJECTED_SHARE * newly_received
