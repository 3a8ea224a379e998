"""A lane's clock: the wall clock as long as that goes on; it never goes back, and a restart does not set it
back.
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
"""A clock that the disk keeps back by more has no time that an event could have."""
MOST_AHEAD_MS: Final = 60_000
"""A clock that is ahead of the wall clock by more does not wait for it: its lane ends."""
HALF, FULL = 500, 1_000
"""Speeds, in ms a second."""
SPAN_S: Final = 10
"""A report counts for one to two of these."""


def wall_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


@dataclass
class CollectorClock:
    """One clock for a lane's times of receipt and low marks; neither may go back.

    Each reading compares it with the wall clock. Behind, it steps forward: the wall clock was set, or the
    machine was suspended. Ahead, it goes at half speed until they meet. Over a minute ahead it is `wrong`
    and keeps its lead.

    Its file holds no less than any of its readings, so that one that starts again begins behind none of them.
    Where the disk does not take that in time, the clock stands.

    Args:
        path: of the file that keeps it.
        wall_ms, monotonic_s: clocks, for tests.

    Raises:
        SettingsError: the file is none of a clock.
        OSError: the disk does not take it.
    """

    path: Path
    wall_ms: Callable[[], int] = wall_ms
    monotonic_s: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        try:
            self._kept = KeptNumber(self.path)
        except ValueError:
            raise SettingsError(f"{self.path} keeps no clock: restore it, or remove it") from None
        self._lock = Lock()  # metrics are read in threads of their own
        self._from_s, self._from_ms, self._speed = self.monotonic_s(), self._kept.value, HALF
        try:
            self.keep()
        except OSError:
            self._kept.close()
            raise

    def now_ms(self) -> int:
        """Epoch ms; never less than it was, nor more than what is kept on the disk."""
        return min(self._went()[0], self._kept.value)

    def read(self) -> tuple[int, int]:
        """`now_ms`, and its lead over the wall clock; below 0: the disk keeps it back."""
        went_ms, wall_ms = self._went()
        now_ms = min(went_ms, self._kept.value)
        return now_ms, now_ms - wall_ms

    @property
    def offset_ms(self) -> int:
        """Its lead over the wall clock."""
        return self.read()[1]

    @property
    def wrong(self) -> bool:
        """True if it is ahead of the wall clock by too much to wait for it: its lane is to end."""
        went_ms, wall_ms = self._went()
        return went_ms - wall_ms > MOST_AHEAD_MS

    @property
    def stands(self) -> bool:
        """True if the disk keeps it back by more than is bearable."""
        return self._went()[0] - self._kept.value > STANDS_AFTER_MS

    def keep(self) -> None:
        """Keep the clock ahead; call it twice a second, in one thread.

        Raises:
            OSError: the disk does not take it.
        """
        self._kept.keep(self._went()[0] + AHEAD_MS)

    def close(self) -> None:
        """Let go of the file."""
        self._kept.close()

    def _went(self) -> tuple[int, int]:
        """Its own time, whatever the disk keeps, and the wall clock's; epoch ms."""
        with self._lock:
            now_s, wall_ms = self.monotonic_s(), self.wall_ms()
            went_ms = self._from_ms + int((now_s - self._from_s) * self._speed)
            speed = HALF if went_ms - wall_ms <= MOST_AHEAD_MS else FULL
            if wall_ms >= went_ms or speed != self._speed:
                went_ms = max(went_ms, wall_ms)
                self._from_s, self._from_ms, self._speed = now_s, went_ms, speed
            return went_ms, wall_ms


@dataclass
class BrokersClock:
    """The brokers' clocks as a second witness, by the times at which they appended messages.

    A report comes behind the append, so the least lead of the last 10 to 20 s is the nearest to the truth.
    """

    monotonic_s: Callable[[], float] = time.monotonic
    _span: int = 0
    _least_ms: tuple[int | None, int | None] = (None, None)

    def take(self, ahead_ms: int) -> None:
        """By so much a clock was ahead of a report's time when the report came."""
        before_ms, least_ms = self._spans()
        self._least_ms = before_ms, ahead_ms if least_ms is None else min(least_ms, ahead_ms)

    @property
    def ahead_ms(self) -> int | None:
        """By how much that clock is ahead of the brokers'; None: no report has come lately."""
        return min((one for one in self._spans() if one is not None), default=None)

    def _spans(self) -> tuple[int | None, int | None]:
        """The least of the span before this one, and of this one."""
        span = int(self.monotonic_s() // SPAN_S)
        if span != self._span:
            before_ms = self._least_ms[1] if span == self._span + 1 else None
            self._span, self._least_ms = span, (before_ms, None)
        return self._least_ms
