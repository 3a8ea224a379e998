"""Clients' keys, 16 bytes each, for as long as they can decide. A key has the times of its latest event and
of the event that began its first-touch window.

The keys are rows of `flows.state.runs`. The newest row of a key is the valid one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from flows.clients.windows import NEVER
from flows.state.arrays import I64, U64
from flows.state.journal import Files
from flows.state.runs import Columns, Runs, latest_rows

KEPT_MS: Final = 25 * 3_600_000
"""The length of the longest calendar day. An older event decides nothing."""
RATIO: Final = 4
"""The ratio of runs (`flows.state.runs.RATIO`). With 2 the keys of a day of repeated events take 4 % more
memory.
"""
_SINCE_BITS: Final = np.uint64(27)
_SINCE_MASK: Final = np.uint64((1 << 27) - 1)
"""The lowest 27 bits of a word: ms from the begin of the first-touch window to the latest event,
under 24 h.
"""
_TIME_MASK: Final = np.uint64((1 << 37) - 1)
"""The other 37 bits, after a shift: the time of the latest event in ms, modulo 4.3 years."""


@dataclass
class ClientStore:
    """The keys of one client shard.

    Attributes:
        decided_ms: the time, epoch ms, before which all stored events lie.
        runs: the keys, each with a word of the times of its events.
    """

    decided_ms: int = 0
    runs: Runs = field(default_factory=lambda: Runs(np.uint64, np.uint64, ratio=RATIO))

    def __len__(self) -> int:
        return len(self.runs)

    def latest(self, keys: U64) -> tuple[I64, I64]:
        """The times, epoch ms, of the latest event of each of the sorted `keys` and of the begin of its
        first-touch window; `NEVER` for a key without an event.
        """
        last, anchor = np.full(len(keys), NEVER, np.int64), np.full(len(keys), NEVER, np.int64)
        places, (_, words) = self.runs.latest(keys)
        ages = self._ages(words)
        since = (words & _SINCE_MASK).astype(np.int64)
        last[places] = np.where(ages < KEPT_MS, self.decided_ms - ages, NEVER)
        anchor[places] = np.where(ages < KEPT_MS, self.decided_ms - ages - since, NEVER)
        return last, anchor

    def _ages(self, words: U64) -> I64:
        now = np.uint64(self.decided_ms)
        return ((now - (words >> _SINCE_BITS)) & _TIME_MASK).astype(np.int64)

    def put(self, keys: U64, last: I64, anchor: I64, decided_ms: int) -> None:
        """Store the events of sorted keys. All events before `decided_ms` are decided from now on."""
        self._advance(decided_ms)
        words = ((last.astype(np.uint64) & _TIME_MASK) << _SINCE_BITS) | (last - anchor).astype(np.uint64)
        self.runs.add((keys, words), self._merged)

    def _merged(self, older: Columns, newer: Columns) -> Columns:
        keys, words = latest_rows(older, newer)
        recent = self._ages(words) < KEPT_MS
        return keys[recent], words[recent]

    def _advance(self, decided_ms: int) -> None:
        if decided_ms - self.decided_ms >= KEPT_MS:
            self.runs.clear()  # all events are older, and a word cannot hold a longer time
        self.decided_ms = max(self.decided_ms, decided_ms)

    def drop_old(self, decided_ms: int) -> None:
        """Drop the events that decide nothing from `decided_ms` on."""
        self._advance(decided_ms)
        self.runs.drop(lambda columns: self._ages(columns[1]) >= KEPT_MS)

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """Plain state; large runs are in `files`. The caller calls `files.keep` with `file_names`."""
        return self.decided_ms, self.runs.snapshot(files)

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return self.runs.file_names()

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """Restore the state of `snapshot`.

        Raises:
            StateError: a file that the state lists is missing or damaged.
        """
        self.decided_ms, listed = state
        self.runs.restore(listed, files)
