"""The collector's clock: the wall clock at its start, and monotone from there; a restart does not set it
back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from connectors.spool import replace_file
from flows.errors import SettingsError

AHEAD_MS: Final = 1_000
"""How far ahead of itself the clock is kept on the disk: a crash leaves it so much ahead at the most."""


def wall_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


@dataclass
class CollectorClock:
    """One clock for a collector's times of receipt and low marks; neither may go back.

    What this clock has told is never more than what the file holds, so that one which starts again begins
    behind nothing that was told before a crash.

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
    _kept_ms: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        try:
            self._kept_ms = int(self.path.read_bytes())
        except FileNotFoundError:
            pass
        except ValueError:
            raise SettingsError(f"{self.path} keeps no clock: restore it, or remove it") from None
        self._from_s, self._from_ms = self.monotonic_s(), max(self.wall_ms(), self._kept_ms)
        self._keep(self._from_ms)

    def now_ms(self) -> int:
        """Epoch ms; never less than it was, nor more than what is kept on the disk."""
        now = self._from_ms + int((self.monotonic_s() - self._from_s) * 1000)
        if now > self._kept_ms:
            self._keep(now)
        return now

    def keep(self) -> None:
        """Keep the clock ahead, so that `now_ms` need not wait for the disk; call it twice a second."""
        now = self._from_ms + int((self.monotonic_s() - self._from_s) * 1000)
        if now + AHEAD_MS // 2 > self._kept_ms:
            self._keep(now)

    def _keep(self, now: int) -> None:
        kept = now + AHEAD_MS
        replace_file(self.path, str(kept).encode())
        self._kept_ms = kept
