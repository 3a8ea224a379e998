"""Events of one client shard until they are final, each with the verdicts of its published estimate.

An estimate can change only for keys of which an event arrives or becomes final, and these keys are taken out
alone. In sorted runs, merged while they are of similar size, a key's place is a binary search in each of few.
Taken events stay in their run, marked, until half of the run is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from flows.clients.windows import TAKEN, places_of
from flows.model.clients import AT, KEY
from flows.model.ticks import MINUTE_MS
from flows.state.arrays import I64, U8, U64
from flows.state.by_minute import ByMinute

WORDS: Final = 3
LIKE: Final = 2
"""A run is merged with the one before it, unless that is at least so many times as long."""
SLACK: Final = 1 << 10
"""The excess over twice the number of places from which on amounts are summed up."""


@dataclass
class Run:
    """(n, WORDS) events, sorted by key, and the verdicts of each as published, or `TAKEN`."""

    events: U64
    verdicts: U8
    taken: int = 0

    def __len__(self) -> int:
        return len(self.events) - self.taken

    def take(self, keys: U64) -> tuple[U64, U8]:
        """Take out the events of some sorted keys, with their verdicts."""
        places = places_of(self.events, self.verdicts, keys)
        found = self.events[places], self.verdicts[places]
        self.verdicts[places] = TAKEN
        self.taken += len(places)
        if 2 * self.taken > len(self.events):
            self.tidy()
        return found

    def tidy(self) -> None:
        """Drop the taken events."""
        if self.taken:
            kept = self.verdicts != TAKEN
            self.events, self.verdicts, self.taken = self.events[kept], self.verdicts[kept], 0

    def merged(self, other: Run) -> Run:
        """The events of both runs in one."""
        self.tidy()
        events = np.concatenate([self.events, other.events])
        order = np.argsort(events[:, KEY], kind="stable")  # a merge, since both runs are sorted
        return Run(events[order], np.concatenate([self.verdicts, other.verdicts])[order])


class Waiting:
    """The events that are not final."""

    def __init__(self) -> None:
        self._fresh: list[U64] = []
        self._runs: list[Run] = []
        self._keys = ByMinute()
        self._taken_to = 0

    def __len__(self) -> int:
        return sum(map(len, self._fresh)) + sum(map(len, self._runs))

    @property
    def nbytes(self) -> int:
        """The size of all events, including taken ones that are not dropped yet, in bytes."""
        return sum(map(len, self._fresh)) * 8 * WORDS + sum(run.events.nbytes for run in self._runs)

    def add(self, events: U64) -> None:
        """Add (n, WORDS) events, in any order."""
        while self._fresh and len(self._fresh[-1]) <= len(events):  # so that none is copied often
            events = np.concatenate([self._fresh.pop(), events])
        if len(events):
            self._fresh.append(events)

    def take(self, end_ms: int) -> tuple[U64, U8]:
        """Remove all events of the keys of which one is new or before `end_ms`. Returns them in any order,
        with the verdicts of each as published, 0 for a new one.
        """
        fresh = np.concatenate([np.zeros((0, WORDS), np.uint64), *self._fresh])
        self._fresh = []
        self._wait(fresh)
        self._taken_to = -(-end_ms // MINUTE_MS)
        due = [keys for (keys,) in self._keys.take(self._taken_to)]
        keys = np.unique(np.concatenate([fresh[:, KEY], *due]))
        found = [(fresh, np.zeros(len(fresh), np.uint8)), *(run.take(keys) for run in self._runs)]
        events, verdicts = zip(*found, strict=True)
        return np.concatenate(events), np.concatenate(verdicts)

    def _wait(self, events: U64) -> None:
        self._keys.add((events[:, AT] // np.uint64(MINUTE_MS)).astype(np.int64), events[:, KEY])

    def put(self, events: U64, verdicts: U8) -> None:
        """Put back those of the events that are not final, sorted by key, with their published verdicts."""
        early = events[:, AT] < np.uint64(self._taken_to * MINUTE_MS)
        self._wait(events[early])  # the log's end lay within the minute of these events, whose keys are taken
        run, self._runs = Run(events, verdicts), sorted(filter(len, self._runs), key=len, reverse=True)
        while self._runs and len(self._runs[-1]) < LIKE * len(run):
            run = self._runs.pop().merged(run)
        if len(run):
            self._runs.append(run)

    def parts(self) -> Iterator[U64]:
        """All events, as arrays whose words other than keys and times may be changed in place."""
        yield from self._fresh
        for run in self._runs:
            run.tidy()
            yield run.events


class Sums:
    """Amounts at places, in parts; if they are many, the amounts of a place are summed up."""

    def __init__(self, parts: Sequence[tuple[I64, I64]] = ()) -> None:
        self._parts, self._summed = list(parts), 0

    def add(self, places: I64, amounts: I64) -> None:
        """Add `amounts[i]` at `places[i]`."""
        if len(places):
            self._parts.append((places, amounts))
        if sum(len(places) for places, _ in self._parts) > 2 * self._summed + SLACK:
            self._summed = len(self.summed()[0])

    def columns(self) -> tuple[I64, I64]:
        """The places and amounts as stored, a place maybe several times."""
        nothing = np.zeros(0, np.int64)
        places, amounts = zip((nothing, nothing), *self._parts, strict=True)
        return np.concatenate(places), np.concatenate(amounts)

    def summed(self) -> tuple[I64, I64]:
        """The sum at each place where it is not 0, in order of the places."""
        self._parts = [summed(*self.columns())]
        return self._parts[0]


def summed(places: I64, amounts: I64) -> tuple[I64, I64]:
    """The sum at each place, where it is not 0."""
    some, which = np.unique(places, return_inverse=True)
    sums = np.zeros(len(some), np.int64)
    np.add.at(sums, which, amounts)
    return some[sums != 0], sums[sums != 0]
