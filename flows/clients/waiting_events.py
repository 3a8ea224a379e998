"""Events of one client shard until they are final, each with the verdicts of its published estimate.

An estimate can change only for keys with an event that arrives or becomes final. Only the events of these
keys are taken out of the sorted runs (`flows.state.runs`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from flows.model.ticks import MINUTE_MS
from flows.state.arrays import I64, U8, U64
from flows.state.by_minute import ByMinute
from flows.state.runs import Runs, all_rows, appended, columns_at

SLACK: Final = 1 << 10
"""The number of amounts, beyond two for each place, above which the amounts of a place are summed up."""


class Events(NamedTuple):
    """Events by column; `flows.model.client_counts` describes the first three.

    Attributes:
        verdicts: those of the published estimate; 0 for a new event.
    """

    keys: U64
    times: U64
    details: U64
    verdicts: U8

    def rows(self, rows: Any) -> Events:
        """Some of the events."""
        return Events(*columns_at(self, rows))


class Waiting:
    """The events that are not final."""

    def __init__(self) -> None:
        self._fresh: list[Events] = []
        self._runs = Runs(np.uint64, np.uint64, np.uint64, np.uint8)
        self._keys = ByMinute()
        self._taken_to = 0

    def __len__(self) -> int:
        return sum(len(events.keys) for events in self._fresh) + len(self._runs)

    @property
    def nbytes(self) -> int:
        """The size of all events, including taken ones that are not dropped yet, in bytes."""
        return sum(column.nbytes for events in self._fresh for column in events) + self._runs.nbytes

    def add(self, events: Events) -> None:
        """Add events, in any order."""
        # Joined with no larger part, so that no event is copied often.
        while self._fresh and len(self._fresh[-1].keys) <= len(events.keys):
            events = Events(*appended([self._fresh.pop(), events]))
        if len(events.keys):
            self._fresh.append(events)

    def take(self, end_ms: int) -> Events:
        """Remove all events of each key that has an event that is new or before `end_ms`. Returns these
        events in any order.
        """
        fresh = Events(*appended([self._runs.no_rows, *self._fresh]))
        self._fresh = []
        self._list_keys(fresh)
        self._taken_to = -(-end_ms // MINUTE_MS)
        due = [keys for (keys,) in self._keys.take(self._taken_to)]
        keys = np.unique(np.concatenate([fresh.keys, *due]))
        return Events(*appended([fresh, self._runs.take(keys)]))

    def _list_keys(self, events: Events) -> None:
        self._keys.add((events.times // np.uint64(MINUTE_MS)).astype(np.int64), events.keys)

    def put(self, events: Events) -> None:
        """Put back those of the events that are not final, sorted by key, with their published verdicts."""
        early = events.times < np.uint64(self._taken_to * MINUTE_MS)
        self._list_keys(events.rows(early))  # the log ended within their minute, whose keys `take` removed
        self._runs.add(events, all_rows)

    def all(self) -> Events:
        """All events, in any order."""
        return Events(*appended([self._runs.no_rows, *self._fresh, *(run.columns for run in self._runs)]))

    def latest_ms(self) -> int:
        """The time of the latest event; -1 if there is none."""
        return int(self.all().times.astype(np.int64).max(initial=-1))

    def change(self, replacement: Callable[[U64], U64]) -> None:
        """Replace the details of all events."""
        self._fresh = [events._replace(details=replacement(events.details)) for events in self._fresh]
        self._runs.change(lambda columns: Events(*columns)._replace(details=replacement(columns[2])))

    def snapshot(self) -> list[bytes]:
        """All events as plain state. After `restore` each event is new."""
        return [column.tobytes() for column in self.all()[:-1]]

    def restore(self, state: Sequence[bytes]) -> None:
        """Restore the state of `snapshot`."""
        keys, times, details = (np.frombuffer(column, np.uint64) for column in state)
        self.add(Events(keys, times, details, np.zeros(len(keys), np.uint8)))


class Sums:
    """Amounts at places, in parts. If there are many, the amounts of each place are summed up."""

    def __init__(self, parts: Sequence[tuple[I64, I64]] = ()) -> None:
        self._parts, self._summed = list(parts), 0

    def add(self, places: I64, amounts: I64) -> None:
        """Add `amounts[i]` at `places[i]`."""
        if len(places):
            self._parts.append((places, amounts))
        if sum(len(places) for places, _ in self._parts) > 2 * self._summed + SLACK:
            self._summed = len(self.summed()[0])

    def columns(self) -> tuple[I64, I64]:
        """The places and amounts as stored. A place may be there several times."""
        no_places = np.zeros(0, np.int64)
        places, amounts = zip((no_places, no_places), *self._parts, strict=True)
        return np.concatenate(places), np.concatenate(amounts)

    def summed(self) -> tuple[I64, I64]:
        """The sum at each place where it is not 0, in order of the places."""
        self._parts = [summed(*self.columns())]
        return self._parts[0]


def summed(places: I64, amounts: I64) -> tuple[I64, I64]:
    """The sum at each place, where it is not 0."""
    distinct, place_numbers = np.unique(places, return_inverse=True)
    sums = np.zeros(len(distinct), np.int64)
    np.add.at(sums, place_numbers, amounts)
    return distinct[sums != 0], sums[sums != 0]
