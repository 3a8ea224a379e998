"""Watches the feed: finds at each cut the silent units, and the planned placements that they concern."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any, Final

from flows.errors import StateError
from flows.model.messages import Impressions, SilentUnit
from flows.model.ticks import MINUTE_MS, RECENT_MS
from flows.silence.gaps import BEGUN, BOUND, SINCE, Gaps
from flows.silence.shares import KINDS, Shares

FORMAT: Final = 1


class Watch:
    """The units of one flow.

    Args:
        zone, least_ms, history_ms: see `flows.silence.gaps.Gaps`.
    """

    def __init__(
        self, zone: tzinfo = UTC, least_ms: int = MINUTE_MS, history_ms: int = 10 * MINUTE_MS
    ) -> None:
        self.gaps = Gaps(zone, least_ms, history_ms)
        self.shares = Shares(self.gaps)
        self._pixel_counts: Counter[str] = Counter()
        self._impressions: list[Impressions] = []
        self._ended: list[str] = []
        self._now_ms: int | None = None
        self._silent_units: Sequence[SilentUnit] = ()

    def follow(self, placements: Collection[str]) -> None:
        """Keep the shares of exactly these placements, which have plans."""
        self.shares.plan(placements)

    def take_pixels(self, pixels: Mapping[str, int], impressions: Impressions | None = None) -> None:
        """Take accepted pixels by unit since the last cut, and impressions if they are due."""
        self._pixel_counts.update(pixels)
        if impressions is not None:
            self._impressions.append(impressions)

    def end(self, name: str) -> None:
        """Stop watching a unit until its next pixel. A name that is no unit's key is a sender's."""
        self._ended.append(name if name.partition(":")[0] in KINDS and ":" in name else f"sender:{name}")

    def cut(self, now_ms: int, proven: bool, watermark_ms: int, log_ms: int = 0) -> Sequence[SilentUnit]:
        """Watch a cut. Returns the silent units: the same object while none of them has changed.

        Args:
            now_ms: the wall clock, in epoch ms, which may go back.
            proven: whether the flow has read all that there is, and waits for no collector. Otherwise the
                clock of gaps stands.
            watermark_ms, log_ms: see `flows.silence.shares.Shares.take`.
        """
        passed_ms = 0 if self._now_ms is None else now_ms - self._now_ms
        self._now_ms = now_ms
        gaps, before = self.gaps, self.gaps.silent
        gaps.elapse(now_ms, min(max(0, passed_ms), RECENT_MS) if proven else 0)
        self.shares.forget(gaps.take_pixels(self._pixel_counts))
        for unit in self._ended:
            gaps.end(unit)
        if proven:
            gaps.fall()
        due = bool(self._impressions)
        if due:
            self.shares.take(self._impressions, now_ms, watermark_ms, log_ms)
        self._pixel_counts.clear()
        self._ended, self._impressions = [], []
        silent = gaps.silent
        if silent != before or (silent and (due or not self._silent_units)):
            self._silent_units = [self._silent(unit) for unit in silent]
        return self._silent_units

    def _silent(self, unit: int) -> SilentUnit:
        gaps, row = self.gaps, self.gaps.table[unit].tolist()
        placements = self.shares.concerned(unit)
        times = row[SINCE], gaps.clock_ms - row[BEGUN], row[BOUND]
        return SilentUnit(gaps.names[unit], *times, float(self.shares.totals[unit]), placements)

    def snapshot(self) -> tuple[Any, ...]:
        """The state at a cut as plain values, with its format."""
        return FORMAT, self.gaps.snapshot(), self.shares.snapshot()

    def restore(self, state: Sequence[Any]) -> None:
        """Load `snapshot`'s state.

        Raises:
            StateError: the state is of another format.
        """
        if state[0] != FORMAT:
            raise StateError(
                f"the recovery store holds a watch of format {state[0]}, this version reads {FORMAT}: run "
                "the version that wrote it, or recompute from the log with --recompute and an empty recovery "
                "directory"
            )
        self.gaps.restore(state[1])
        self.shares.restore(state[2])
