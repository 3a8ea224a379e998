"""Redis's clock, which all members and readers share. The clock of a member may be an hour off."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from flows.model.ticks import boot_ms

ASK_MS: Final = 60_000
"""Milliseconds between two questions. Two quartz clocks diverge by 10 ms at most in this time."""


@dataclass
class ServerClock:
    """Epoch seconds by the server's clock, asked once a minute, and in between by elapsed time.

    Args:
        ask: the server's clock in epoch ms; None while it does not answer.
        elapsed_ms: a monotonic clock, which counts time of suspension too.
    """

    ask: Callable[[], int | None]
    elapsed_ms: Callable[[], int] = boot_ms
    _ahead_ms: int | None = field(default=None, init=False)
    _next_ms: int = field(default=0, init=False)

    def __call__(self) -> float:
        """The present time; by this machine's clock until the server has answered once."""
        elapsed_ms = self.elapsed_ms()
        if self._ahead_ms is None or elapsed_ms >= self._next_ms:
            self._next_ms = elapsed_ms + ASK_MS
            now_ms, elapsed_ms = self.ask(), self.elapsed_ms()
            if now_ms is None and self._ahead_ms is None:
                return time.time()
            if now_ms is not None:
                self._ahead_ms = now_ms - elapsed_ms
        assert self._ahead_ms is not None
        return (self._ahead_ms + elapsed_ms) / 1000
