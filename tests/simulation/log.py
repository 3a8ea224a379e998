"""Kafka's side of the input: partitions that grow with time, and readers that promise what Kafka's do.

A reader gives messages in order from its position, never two times; it may be behind. `caught_up` is true
behind a read that ended at the end. `proven` answers by the end as it was when it asked, which is behind the
call before. `tests/connectors/test_kafka_input.py` holds the real reader to the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from connectors.stream import Messages
from simulation.world import T0_MS, World


class Entry(NamedTuple):
    """A message, put into the log so many ms after the beginning."""

    at_ms: int
    value: bytes


class Log:
    """The input; an added partition is there from its first entry on, others always."""

    live = True

    def __init__(self, world: World, entries: Mapping[str, Sequence[Entry]], added: str | None) -> None:
        self._world, self._entries, self._added = world, entries, added
        self._times_ms = sorted(entry.at_ms for some in entries.values() for entry in some)
        self._last_ms = self._times_ms[-1] if self._times_ms else 0

    def partitions(self) -> list[str]:
        if self._added is None:
            return list(self._entries)
        return [
            name
            for name, entries in self._entries.items()
            if name != self._added or entries[0].at_ms <= self._world.elapsed_ms
        ]

    def open(self, partition: str, position: int | None, log_id: str = "") -> LogReader:
        return LogReader(self._world, self._entries[partition], position or 0)

    def next_ms(self) -> int | None:
        """The time of the next message; None if no more come."""
        if self._last_ms <= self._world.elapsed_ms:
            return None
        place = bisect_right(self._times_ms, self._world.elapsed_ms)
        return self._times_ms[place]


class LogReader:
    """An open partition."""

    errors = skipped = 0
    log_id = ""

    def __init__(self, world: World, entries: Sequence[Entry], position: int) -> None:
        self._world, self._entries, self.position = world, entries, position
        self.caught_up = self.in_history = False
        self._asked: int | None = None
        self.committed: int | None = None

    @property
    def _end(self) -> int:
        end, now_ms = self.position, self._world.elapsed_ms
        while end < len(self._entries) and self._entries[end].at_ms <= now_ms:
            end += 1
        return end

    @property
    def lag(self) -> int:
        return self._end - self.position

    def read(self, limit: int) -> Messages | None:
        there = min(limit, self._end - self.position)
        if there and self._world.random.random() < 0.6:  # not all of it has been fetched
            there = self._world.random.randint(0, min(there, 4))
        if not there:
            self.caught_up = self.position == self._end
            return None
        found = self._entries[self.position : self.position + there]
        positions = range(self.position, self.position + there)
        self.position += there
        self.caught_up = self.position == self._end
        times = [T0_MS + entry.at_ms for entry in found]
        return Messages([entry.value for entry in found], positions, self.position, times)

    def proven(self) -> bool:
        if self._asked is None:
            self._asked = self._end
            return False
        asked, self._asked = self._asked, None
        return asked <= self.position

    def commit(self, position: int) -> None:
        assert position <= self.position, "progress that has not been made is reported"
        self.committed = position

    def close(self) -> None:
        pass
