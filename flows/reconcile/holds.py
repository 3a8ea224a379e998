"""Low marks of collectors, by which the watermark of a log waits (specification 6.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

_STEP_MS: Final = 10_000
"""The greatest step of the log's time between two lines."""
_OFF_MS: Final = 60_000
_OFF_FOR_MS: Final = 300_000
"""The log's time for which the watermark waits for a collector whose clock is off by more than `_OFF_MS`."""


class CollectorTimes(NamedTuple):
    """The values of a line about its collector, times in epoch ms.

    Attributes:
        collector: its id.
        low_ms: its low mark; None for a bye.
        now_ms: its clock; None if the line has none.
        logged_ms: the time at which the line was written, by a field of the line; None without it.
    """

    collector: str
    low_ms: int | None
    now_ms: int | None = None
    logged_ms: int | None = None


@dataclass
class CollectorState:
    """The state of one collector. Times but the low mark are in ms of the log's time.

    Attributes:
        low_ms: its greatest low mark, epoch ms.
        seen_ms: the time of its last message.
        rose_ms: the time of the low mark's last rise.
        released: whether too many pixels came while the log waited for it.
        off_ms: the time from which on its clock has been off; None if it is right.
    """

    low_ms: int
    seen_ms: int
    rose_ms: int
    released: bool = False
    off_ms: int | None = None


@dataclass
class Holds:
    """The collectors of one log, line by line.

    Args:
        bound_ms, quiet_ms: the least and the greatest time by which the watermark stays before the least low
            mark.
        patience_ms: the log's time for which the watermark waits for a collector without messages or
            progress.
        max_pixels: the number of pixels that may come during a hold. The next pixel releases the collectors
            with the least low mark.

    Attributes:
        watermark_ms: epoch ms; None before any time is known.
        has_collectors: whether a line has named a collector.
    """

    bound_ms: int
    quiet_ms: int
    patience_ms: int
    max_pixels: int = 50_000_000
    watermark_ms: int | None = None
    has_collectors: bool = False
    _states: dict[str, CollectorState] = field(default_factory=dict)
    _log_time_ms: int = 0
    _newest_ms: int | None = None
    _pixels_held: int = 0

    def take_line(
        self,
        moment_ms: int | None,
        times: CollectorTimes | None,
        natural_ms: int | None,
        is_pixel: bool,
        logged_ms: int | None = None,
    ) -> int | None:
        """Take a line; returns the watermark.

        Args:
            moment_ms: the time at which the line was written, or None.
            times: the values about its collector, or None.
            natural_ms: the watermark that pixels alone would set.
            is_pixel: whether the line is a pixel.
            logged_ms: the time at which the line was written, by another clock than the writer's; or None.
        """
        if moment_ms is not None:
            if self._newest_ms is not None:
                self._log_time_ms += min(max(moment_ms - self._newest_ms, 0), _STEP_MS)
            self._newest_ms = max(moment_ms, self._newest_ms or 0)
        self._states = {
            name: state
            for name, state in self._states.items()
            if self._log_time_ms - state.seen_ms < self.patience_ms
        }
        if times is not None:
            self.has_collectors = True
            if not self._states:  # the log's time matters from this line on
                self._newest_ms, self._pixels_held = moment_ms, 0
            offset_ms = None
            if times.now_ms is not None and logged_ms is not None:
                offset_ms = abs(times.now_ms - logged_ms)
            self._take_times(times, offset_ms)
        live = self._live()
        if is_pixel:
            least_ms = min((state.low_ms for state in live), default=0)
            is_held = bool(live) and (self._newest_ms or 0) - least_ms > self.quiet_ms
            self._pixels_held = self._pixels_held + 1 if is_held else 0
            if self._pixels_held > self.max_pixels:
                self._pixels_held = 0
                for state in live:
                    state.released = state.low_ms == least_ms
                live = self._live()
        watermark_ms = natural_ms
        if live:
            least_ms = min(state.low_ms for state in live)
            watermark_ms = min(max(least_ms - self.quiet_ms, natural_ms or 0), least_ms - self.bound_ms)
        if watermark_ms is not None:
            self.watermark_ms = max(watermark_ms, self.watermark_ms or 0)
        return self.watermark_ms

    def _live(self) -> list[CollectorState]:
        """The collectors for which the watermark waits."""
        return [
            state
            for state in self._states.values()
            if not state.released
            and self._log_time_ms - state.rose_ms < self.patience_ms
            and (state.off_ms is None or self._log_time_ms - state.off_ms < _OFF_FOR_MS)
        ]

    def _take_times(self, times: CollectorTimes, offset_ms: int | None) -> None:
        """Update a collector's state. `offset_ms` is the error of its clock, if known."""
        if times.low_ms is None:
            self._states.pop(times.collector, None)
            return
        state = self._states.setdefault(times.collector, CollectorState(-1, 0, 0))
        state.seen_ms = self._log_time_ms
        if offset_ms is not None and offset_ms <= _OFF_MS:
            state.off_ms = None
        elif offset_ms is not None and state.off_ms is None:
            state.off_ms = self._log_time_ms
        if times.low_ms > state.low_ms:
            state.low_ms, state.rose_ms, state.released = times.low_ms, self._log_time_ms, False
