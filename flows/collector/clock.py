"""The collector's clock: the wall clock at its start, and monotone from there; a restart does not set it
back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connectors.spool import KeptNumber
from flows.errors import SettingsError

AHEAD_MS: Final = 2_000
"""The lead of the clock on the disk, in ms: a crash leaves the clock ahead by this much at most."""
STANDS_AFTER_MS: Final = 5_000
"""A clock that the disk has not let go on for so long tells no time that an event could have."""


def wall_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


@dataclass
class CollectorClock:
    """One clock for a collector's times of receipt and low marks; neither may go back.

    What this clock has told is never more than what the file holds, so that one which starts again begins
    behind nothing that was told before a crash. Where the disk does not take that in time, the clock stands.

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
        self._from_s, self._from_ms = self.monotonic_s(), max(self.wall_ms(), self._kept.value)
        try:
            self._kept.keep(self._from_ms + AHEAD_MS)
        except OSError:
            self._kept.close()
            raise

    def now_ms(self) -> int:
        """Epoch ms; never less than it was, nor more than what is kept on the disk."""
        return min(self._went_ms(), self._kept.value)

    @property
    def stands(self) -> bool:
        """True if the disk has kept the clock from going on for longer than is bearable."""
        return self._went_ms() - self._kept.value > STANDS_AFTER_MS

    def keep(self) -> None:
        """Keep the clock ahead; call it twice a second, in one thread.

        Raises:
            OSError: the disk does not take it.
        """
        self._kept.keep(self._went_ms() + AHEAD_MS)

    def close(self) -> None:
        """Let go of the file."""
        self._kept.close()

    def _went_ms(self) -> int:
        return self._from_ms + int((self.monotonic_s() - self._from_s) * 1000)
