"""Clients' keys, 16 bytes each: the latest event, and the one that began its first-touch window, for as long
as they can decide.

Sorted runs of similar size are merged, so that a look-up of a key is a binary search in each of few. Large
runs are immutable files, so that a snapshot only lists them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from flows.clients.windows import NEVER, merge
from flows.state.arrays import I64, U64
from flows.state.journal import Files, body_of

KEPT_MS: Final = 25 * 3_600_000
"""The longest calendar day: an older event decides nothing."""
LIKE: Final = 4
"""A run is merged with the one before it, unless that is at least so many times as long."""
SPILL: Final = 1 << 13
"""The number of keys from which on a run becomes a file."""
_SINCE_BITS: Final = np.uint64(27)
_SINCE: Final = np.uint64((1 << 27) - 1)
"""The lowest 27 bits of a word: ms from the begin of the first-touch window to the latest event,
under 24 h.
"""
_AROUND: Final = np.uint64((1 << 37) - 1)
"""The other 37 bits: ms of the latest event, modulo 4.3 years."""


@dataclass
class Run:
    """Keys, sorted, and a word of each; `name` if they are a file."""

    keys: U64
    words: U64
    name: str | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass
class ClientStore:
    """The keys of one client shard.

    Attributes:
        decided_ms: before which all events lie that are remembered.
    """

    decided_ms: int = 0
    runs: list[Run] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.runs))

    @property
    def nbytes(self) -> int:
        """The size of all runs, in bytes."""
        return sum(run.keys.nbytes + run.words.nbytes for run in self.runs)

    def of(self, keys: U64) -> tuple[I64, I64]:
        """The latest event of each of some sorted keys, or `NEVER`, and the begin of its first-touch window,
        ms.
        """
        last, anchor = np.full(len(keys), NEVER, np.int64), np.full(len(keys), NEVER, np.int64)
        unknown = np.arange(len(keys))
        for run in reversed(self.runs):
            places = np.minimum(np.searchsorted(run.keys, keys[unknown]), len(run) - 1)
            here = run.keys[places] == keys[unknown]
            found, words = unknown[here], run.words[places[here]]
            ages = self._ages(words)
            last[found] = np.where(ages < KEPT_MS, self.decided_ms - ages, NEVER)
            since = (words & _SINCE).astype(np.int64)
            anchor[found] = np.where(ages < KEPT_MS, self.decided_ms - ages - since, NEVER)
            unknown = unknown[~here]
        return last, anchor

    def _ages(self, words: U64) -> I64:
        now = np.uint64(self.decided_ms)
        return ((now - (words >> _SINCE_BITS)) & _AROUND).astype(np.int64)

    def put(self, keys: U64, last: I64, anchor: I64, decided_ms: int) -> None:
        """Store events of sorted keys, and note that all events before `decided_ms` are decided."""
        self._advance(decided_ms)
        if not len(keys):
            return
        words = ((last.astype(np.uint64) & _AROUND) << _SINCE_BITS) | (last - anchor).astype(np.uint64)
        run = Run(keys, words)
        while self.runs and len(self.runs[-1]) < LIKE * len(run):
            run = self._merged(self.runs.pop(), run)
        if len(run):
            self.runs.append(run)

    def _merged(self, older: Run, newer: Run) -> Run:
        keys, words = (np.empty(len(older) + len(newer), np.uint64) for _ in range(2))
        n = merge(older.keys, older.words, newer.keys, newer.words, keys, words)
        kept = self._ages(words[:n]) < KEPT_MS
        return Run(keys[:n][kept], words[:n][kept])

    def _advance(self, decided_ms: int) -> None:
        if decided_ms - self.decided_ms >= KEPT_MS:
            self.runs = []  # all are older, and a word cannot hold a longer time
        self.decided_ms = max(self.decided_ms, decided_ms)

    def drop_old(self, decided_ms: int) -> None:
        """Drop the events that decide nothing from `decided_ms` on."""
        self._advance(decided_ms)
        for run in self.runs:
            kept = self._ages(run.words) < KEPT_MS
            if not kept.all():
                run.keys, run.words, run.name = run.keys[kept], run.words[kept], None
        self.runs = [run for run in self.runs if len(run)]

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """Plain state: small runs in full, large ones by the names of their `files`, which are written first.
        The caller calls `files.keep` with `names`.
        """
        listed: list[tuple[str, bytes]] = []
        for run in self.runs:
            if run.name is None and files.directory is not None and len(run) >= SPILL:
                run.name = files.write(body_of(run.keys), body_of(run.words))
            body = b"" if run.name else run.keys.tobytes() + run.words.tobytes()
            listed.append((run.name or "", body))
        return self.decided_ms, listed

    def names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return [run.name for run in self.runs if run.name]

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """Restore the state of `snapshot`.

        Raises:
            StateError: a file that it lists is missing or damaged.
        """
        self.decided_ms, listed = state
        self.runs = []
        for name, body in listed:
            keys, words = np.frombuffer(files.read(name) if name else body, np.uint64).reshape(2, -1)
            self.runs.append(Run(keys, words, name or None))
