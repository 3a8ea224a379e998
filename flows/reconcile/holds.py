"""The clock of a log: its event times, and the low marks of collectors, by which its watermark waits
(specification 1.4 and 6.3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

NO_TIME: Final = -(2**62)
"""The number that stands for an absent time."""
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000
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


@dataclass
class Clock:
    """The event times and the watermark of one partition, line by line (specification 1.4).

    Args:
        guards_receipts: whether a jump of `received_at` waits for the next pixel, too, since no broker has
            bounded that time.

    Attributes:
        greatest_ms: the greatest event time; `NO_TIME` before any.
        jump_ms: the jump that waits for the next pixel; `NO_TIME` for none.
        clock_skewed: the number of pixels whose `ts` was clamped by more than 5 min.
        first_receipt_ms: the receipt of the first line that has one; 0 before any. The receipt of a pixel is
            its `received_at`, or its `ts` without that field. The receipt of a mark is its low mark.
    """

    holds: Holds
    guards_receipts: bool
    greatest_ms: int = NO_TIME
    jump_ms: int = NO_TIME
    clock_skewed: int = 0
    first_receipt_ms: int = 0

    @property
    def watermark_ms(self) -> int:
        """The watermark after the lines so far."""
        natural_ms = self.greatest_ms - self.holds.bound_ms
        return max(0, (self.holds.watermark_ms or 0) if self.holds.has_collectors else natural_ms)

    def take_pixel(self, ts: int, received_ms: int | None, times: CollectorTimes | None) -> tuple[int, int]:
        """Take a pixel; returns its event time, and the greatest event time that gives the watermark."""
        event_ms, before_ms = ts, self.greatest_ms
        if received_ms is not None:
            event_ms = max(min(ts, received_ms + _MINUTE_MS), received_ms - _DAY_MS, 0)
            self.clock_skewed += abs(event_ms - ts) > 5 * _MINUTE_MS
        if self.jump_ms != NO_TIME and event_ms >= self.jump_ms - _DAY_MS:
            self.greatest_ms = max(self.greatest_ms, self.jump_ms)
        self.jump_ms = NO_TIME
        if (received_ms is not None and not self.guards_receipts) or event_ms <= self.greatest_ms + _DAY_MS:
            self.greatest_ms = max(self.greatest_ms, event_ms)
        else:
            self.jump_ms = event_ms
        self.first_receipt_ms = self.first_receipt_ms or (event_ms if received_ms is None else received_ms)
        if times is None and not self.holds.has_collectors:
            return event_ms, self.greatest_ms
        moment_ms = received_ms if received_ms is not None or times is None else times.low_ms
        watermark_ms = self._wait(moment_ms, times, before_ms, True)
        return event_ms, NO_TIME if watermark_ms is None else watermark_ms + self.holds.bound_ms

    def take_mark(self, mark: CollectorTimes) -> None:
        """Take a mark."""
        self.first_receipt_ms = self.first_receipt_ms or mark.low_ms or 0
        moment_ms = mark.logged_ms or mark.now_ms or mark.low_ms
        self._wait(moment_ms, mark, self.greatest_ms, False)

    def _wait(
        self, moment_ms: int | None, times: CollectorTimes | None, before_ms: int, is_pixel: bool
    ) -> int | None:
        """Take a line's times; returns the watermark. `before_ms` is the greatest event time before it."""
        if not self.holds.has_collectors and before_ms != NO_TIME:
            self.holds.watermark_ms = max(before_ms - self.holds.bound_ms, 0)
        natural_ms = None if self.greatest_ms == NO_TIME else self.greatest_ms - self.holds.bound_ms
        logged_ms = None if times is None else times.logged_ms
        return self.holds.take_line(moment_ms, times, natural_ms, is_pixel, logged_ms)
