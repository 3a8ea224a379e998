"""The oracle's own reading of low marks (specification 6.3): which of them hold a log's time back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

_STEP_MS: Final = 10_000
_OFF_MS: Final = 60_000
_OFF_FOR_MS: Final = 300_000
"""The log's time for which a collector is waited for if its clock is off by more than `_OFF_MS`."""


class Said(NamedTuple):
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
class Word:
    """A collector's greatest low mark; and the log's times of its last message, of the mark's last rise, and
    since when its clock has been off.
    """

    low: int
    heard: int
    rose: int
    released: bool = False
    off: int | None = None


@dataclass
class Holds:
    """The collectors of one log, line by line; times in ms.

    Args:
        bound, quiet: the least and the greatest time by which the watermark stays before the least low mark.
        patience: the log's time for which a collector that is silent or stands still is waited for.
        most: pixels that may come during a hold; the next one releases the collector with the least low mark.

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
    _words: dict[str, Word] = field(default_factory=dict)
    _time: int = 0
    _newest: int | None = None
    _came: int = 0

    def line(
        self,
        moment: int | None,
        told: Said | None,
        natural: int | None,
        pixel: bool,
        written: int | None = None,
    ) -> int | None:
        """Take a line; returns the watermark.

        Args:
            moment: when the line was written, or None.
            told: its collector, low mark and clock, or None.
            natural: the watermark that pixels alone would set.
            pixel: whether the line is one.
            written: `moment` if it does not depend on its writer's clock.
        """
        if moment is not None:
            if self._newest is not None:
                self._time += min(max(moment - self._newest, 0), _STEP_MS)
            self._newest = max(moment, self._newest or 0)
        self._words = {
            name: word for name, word in self._words.items() if self._time - word.heard < self.patience
        }
        if told is not None:
            self.begun = True
            if not self._words:  # the log's time matters from here on
                self._newest, self._came = moment, 0
            self._hear(told, None if told.now is None or written is None else abs(told.now - written))
        live = self._live()
        if pixel:
            held = bool(live) and (self._newest or 0) - min(word.low for word in live) > self.quiet
            self._came = self._came + 1 if held else 0
            if self._came > self.most:
                min(live, key=lambda word: word.low).released, self._came = True, 0
                live = self._live()
        lows = [word.low for word in live]
        wanted = natural
        if lows:
            least = min(lows)
            wanted = min(max(least - self.quiet, natural or 0), least - self.bound)
        if wanted is not None:
            self.watermark = max(wanted, self.watermark or 0)
        return self.watermark

    def _live(self) -> list[Word]:
        return [
            word
            for word in self._words.values()
            if not word.released
            and self._time - word.rose < self.patience
            and (word.off is None or self._time - word.off < _OFF_FOR_MS)
        ]

    def _hear(self, told: Said, off: int | None) -> None:
        if told.low is None:
            self._words.pop(told.collector, None)
            return
        word = self._words.setdefault(told.collector, Word(-1, 0, 0))
        word.heard = self._time
        if off is not None:
            word.off = (word.off if word.off is not None else self._time) if off > _OFF_MS else None
        if told.low > word.low:
            word.low, word.rose, word.released = told.low, self._time, False
