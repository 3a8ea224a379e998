"""A lane's clock. This clock follows the wall clock while that advances, and never goes back, not even at a
restart.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from connectors.spool import KeptNumber
from flows.errors import SettingsError

AHEAD_MS: Final = 2_000
"""The lead of the clock on the disk, in ms: a crash leaves the clock ahead by this much at most."""
STANDS_AFTER_MS: Final = 5_000
"""A clock that the disk holds back by more than this, in ms, has no valid time for an event."""
MOST_AHEAD_MS: Final = 60_000
"""A clock that is further ahead of the wall clock, in ms, does not wait for it: its lane ends."""
HALF, FULL = 500, 1_000
"""Speeds of the clock, in ms a second."""
SPAN_S: Final = 10
"""The length of a span, in s; a report counts for one to two spans."""


def wall_ms() -> int:
    """The wall clock, epoch ms."""
    return time.time_ns() // 1_000_000


@dataclass
class CollectorClock:
    """A lane's clock for times of receipt and low marks, neither of which may go back.

    Each reading compares the clock with the wall clock. A clock that is behind steps forward: the wall clock
    was set, or the machine was suspended. A clock that is ahead goes at half speed until the two meet. A
    clock that is over a minute ahead is `wrong` and keeps its lead.

    The clock's file always holds at least the latest reading, so that a restarted clock begins behind no
    reading. While the disk does not take the file, the clock stands.

    Args:
        path: of the clock's file.
        wall_ms, monotonic_s: clocks, for tests.

    Raises:
        SettingsError: the file holds no clock.
        OSError: the disk does not take the file.
    """

    path: Path
    wall_ms: Callable[[], int] = wall_ms
    monotonic_s: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        try:
            self._limit = KeptNumber(self.path)
        except ValueError:
            raise SettingsError(f"{self.path}: holds no clock: restore the file, or remove it") from None
        self._lock = Lock()  # metrics are read in threads of their own
        self._from_s, self._from_ms, self._speed = self.monotonic_s(), self._limit.value, HALF
        try:
            self.keep()
        except OSError:
            self._limit.close()
            raise

    def now_ms(self) -> int:
        """Epoch ms; never less than an earlier reading, nor more than the limit on the disk."""
        return min(self._elapsed()[0], self._limit.value)

    def read(self) -> tuple[int, int]:
        """`now_ms`, and its lead over the wall clock, in ms; negative while the disk holds the clock back."""
        elapsed_ms, wall_ms = self._elapsed()
        now_ms = min(elapsed_ms, self._limit.value)
        return now_ms, now_ms - wall_ms

    @property
    def offset_ms(self) -> int:
        """The clock's lead over the wall clock, in ms."""
        return self.read()[1]

    @property
    def wrong(self) -> bool:
        """True if the clock is too far ahead of the wall clock to wait for it: its lane must end."""
        elapsed_ms, wall_ms = self._elapsed()
        return elapsed_ms - wall_ms > MOST_AHEAD_MS

    @property
    def stands(self) -> bool:
        """True if the disk holds the clock back by more than `STANDS_AFTER_MS`."""
        return self._elapsed()[0] - self._limit.value > STANDS_AFTER_MS

    def stood(self, reading_ms: int) -> bool:
        """True if a reading has no valid time: the clock stands, and the reading is at the disk's limit."""
        return reading_ms >= self._limit.value and self.stands

    def keep(self) -> None:
        """Write the clock's next limit to disk; call it twice a second, in one thread.

        Raises:
            OSError: the limit cannot be written.
        """
        self._limit.keep(self._elapsed()[0] + AHEAD_MS)

    def close(self) -> None:
        """Close the file."""
        self._limit.close()

    def _elapsed(self) -> tuple[int, int]:
        """The clock's own time, regardless of the disk, and the wall clock's; epoch ms."""
        with self._lock:
            now_s, wall_ms = self.monotonic_s(), self.wall_ms()
            elapsed_ms = self._from_ms + int((now_s - self._from_s) * self._speed)
            speed = HALF if elapsed_ms - wall_ms <= MOST_AHEAD_MS else FULL
            if wall_ms >= elapsed_ms or speed != self._speed:
                elapsed_ms = max(elapsed_ms, wall_ms)
                self._from_s, self._from_ms, self._speed = now_s, elapsed_ms, speed
            return elapsed_ms, wall_ms


@dataclass
class BrokersClock:
    """The lead of a lane's clock over the brokers' clocks, by the times at which brokers appended messages.

    A report arrives after the append, so the least lead of the last 10 to 20 s is the nearest to the truth.
    """

    monotonic_s: Callable[[], float] = time.monotonic
    _span: int = 0
    _least_ms: tuple[int | None, int | None] = (None, None)

    def take(self, ahead_ms: int) -> None:
        """Note a clock's lead over a report's time at the moment when the report came."""
        before_ms, least_ms = self._spans()
        self._least_ms = before_ms, ahead_ms if least_ms is None else min(least_ms, ahead_ms)

    @property
    def ahead_ms(self) -> int | None:
        """The lead of a lane's clock over the brokers', in ms; None if no report has come in this span or the
        last.
        """
        return min((lead_ms for lead_ms in self._spans() if lead_ms is not None), default=None)

    def _spans(self) -> tuple[int | None, int | None]:
        """The least lead of the span before this one, and of this one."""
        span = int(self.monotonic_s() // SPAN_S)
        if span != self._span:
            before_ms = self._least_ms[1] if span == self._span + 1 else None
            self._span, self._least_ms = span, (before_ms, None)
        return self._least_ms
