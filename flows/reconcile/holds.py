"""The oracle's own reading of low marks (specification 6.3): which of them hold a log's time back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

_STEP_MS: Final = 10_000
_OFF_MS: Final = 60_000
_OFF_FOR_MS: Final = 300_000
"""The log's time for which a collector is waited for if its clock is off by more than `_OFF_MS`."""


class CollectorTimes(NamedTuple):
    """A line's values of its collector, times in ms.

    Attributes:
        low: its low mark; None for a bye.
        now: its clock; None if the line does not have it.
        logged: when the line was written, by its own field.
    """

    collector: str
    low: int | None
    now: int | None = None
    logged: int | None = None


@dataclass
class CollectorState:
    """A collector's greatest low mark; and the log's times of its last message, of the mark's last rise, and
    since when its clock has been off.
    """

    low: int
    seen_ms: int
    rose_ms: int
    released: bool = False
    off_ms: int | None = None


@dataclass
class Holds:
    """The collectors of one log, line by line; times in ms.

    Args:
        bound, quiet: the least and the greatest time by which the watermark stays before the least low mark.
        patience: the log's time for which a collector that is silent or stands still is waited for.
        most: pixels that may come during a hold; the next one releases all with the least low mark.

    Attributes:
        watermark: None before anything is known.
        begun: whether a line has named a collector.
    """

    bound: int
    quiet: int
    patience: int
    most: int = 50_000_000
    watermark: int | None = None
    begun: bool = False
    _states: dict[str, CollectorState] = field(default_factory=dict)
    _time: int = 0
    _newest: int | None = None
    _pixels_held: int = 0

    def line(
        self,
        moment: int | None,
        times: CollectorTimes | None,
        natural: int | None,
        pixel: bool,
        written: int | None = None,
    ) -> int | None:
        """Take a line; returns the watermark.

        Args:
            moment: when the line was written, or None.
            times: its collector, low mark and clock, or None.
            natural: the watermark that pixels alone would set.
            pixel: whether the line is one.
            written: `moment` if it does not depend on its writer's clock.
        """
        if moment is not None:
            if self._newest is not None:
                self._time += min(max(moment - self._newest, 0), _STEP_MS)
            self._newest = max(moment, self._newest or 0)
        self._states = {
            name: state for name, state in self._states.items() if self._time - state.seen_ms < self.patience
        }
        if times is not None:
            self.begun = True
            if not self._states:  # the log's time matters from here on
                self._newest, self._pixels_held = moment, 0
            self._take(times, None if times.now is None or written is None else abs(times.now - written))
        live = self._live()
        if pixel:
            is_held = bool(live) and (self._newest or 0) - min(state.low for state in live) > self.quiet
            self._pixels_held = self._pixels_held + 1 if is_held else 0
            if self._pixels_held > self.most:
                least, self._pixels_held = min(state.low for state in live), 0
                for state in live:
                    state.released = state.low == least
                live = self._live()
        lows = [state.low for state in live]
        wanted = natural
        if lows:
            least = min(lows)
            wanted = min(max(least - self.quiet, natural or 0), least - self.bound)
        if wanted is not None:
            self.watermark = max(wanted, self.watermark or 0)
        return self.watermark

    def _live(self) -> list[CollectorState]:
        return [
            state
            for state in self._states.values()
            if not state.released
            and self._time - state.rose_ms < self.patience
            and (state.off_ms is None or self._time - state.off_ms < _OFF_FOR_MS)
        ]

    def _take(self, times: CollectorTimes, offset_ms: int | None) -> None:
        if times.low is None:
            self._states.pop(times.collector, None)
            return
        state = self._states.setdefault(times.collector, CollectorState(-1, 0, 0))
        state.seen_ms = self._time
        if offset_ms is not None:
            state.off_ms = (
                (state.off_ms if state.off_ms is not None else self._time) if offset_ms > _OFF_MS else None
            )
        if times.low > state.low:
            state.low, state.rose_ms, state.released = times.low, self._time, False
