"""The index of a shard's rows, by number, and the cap beyond which names count in `other`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import numpy as np

from flows.model.dimensions import OTHER_NAME
from flows.rows.ended import Ended, RowName
from flows.rows.reach import Distinct
from flows.settings import Settings, ms
from flows.state.journal import Files

TURNED_A_SECOND: Final = 8_000
"""So many rows of all shards that only time has changed are given out in a second (`flows.rows.turning`)."""
_MINUTE_MS: Final = 60_000


class Limits(NamedTuple):
    """For how many minutes without a pixel a row stays, and is remembered, how many rows a scope has in one
    shard, and how many that only time has changed a cut gives out; by default as `flows.settings` has it for
    8 shards.
    """

    stays: int = 48 * 60
    remembered: int = 62 * 24 * 60
    rows: int = 25_000
    turned: int = TURNED_A_SECOND // 16

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Those of the settings."""
        stays, remembered = (ms(of) // _MINUTE_MS for of in (settings.row_ttl, settings.row_memory))
        turned = int(TURNED_A_SECOND * settings.flush_interval.total_seconds())
        return cls(stays, remembered, *(max(1, of // settings.shards) for of in (settings.row_cap, turned)))


DEFAULT_LIMITS: Final = Limits()


class RowIndex:
    """The rows of one shard.

    Attributes:
        names: by number, None where a number is free.
        numbers: by name.
        planned: rows that exist, whatever the cap.
        ended: what is kept of those that have ended.
    """

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self.names: list[RowName | None] = []
        self.numbers: dict[RowName, int] = {}
        self.planned: frozenset[RowName] = frozenset()
        self.ended = Ended()
        self._free: list[int] = []
        self._rows = Counter[str]()
        self._expected, self._kept_places = set[RowName](), Counter[str]()
        self._beyond, self._passed, self._told = Distinct(), list[int](), 0

    def __len__(self) -> int:
        return len(self.numbers)

    def name(self, number: int) -> RowName:
        """The name of a row that there is."""
        name = self.names[number]
        assert name is not None, "a row that has ended"
        return name

    def names_of(self, numbers: Iterable[int]) -> list[RowName]:
        """The names of rows that there are."""
        names = list(map(self.names.__getitem__, numbers))
        assert None not in names, "a row that has ended"
        return names  # type: ignore[return-value]  # by the assertion

    def expect(self, rows: Iterable[RowName]) -> None:
        """Keep places below the cap for rows that readers have, and for no others any more."""
        self._expected = {row for row in rows if row not in self.numbers}
        self._kept_places = Counter(scope for scope, _ in self._expected)

    def admit(self, row: RowName, oldest: int) -> tuple[int, list[Any] | None]:
        """A number for a row that has none, and what is kept of it, if it had ended; beyond the cap the
        number of `other`.

        Args:
            oldest: the minute before which a row that ended is forgotten.
        """
        scope, _ = row
        full = self._rows[scope] + self._kept_places[scope] >= self._cap
        if row in self._expected:
            self._expected.remove(row)
            self._kept_places[scope] -= 1
        elif full and scope != OTHER_NAME and row not in self.planned:
            self._passed.append(self.ended.key(row))
            other = (OTHER_NAME, scope)
            known = self.numbers.get(other)
            return (self._place(other) if known is None else known), None
        return self._place(row), self.ended.take(row, oldest)

    def _place(self, row: RowName) -> int:
        number = self._free.pop() if self._free else len(self.names)
        self.names[number : number + 1] = [row]
        self.numbers[row] = number
        self._rows[row[0]] += 1
        return number

    def leave(self, number: int) -> RowName:
        """Free a number; returns whose it was."""
        row = self.name(number)
        del self.numbers[row]
        self.names[number] = None
        self._free.append(number)
        self._rows[row[0]] -= 1
        return row

    def beyond(self) -> int:
        """The number of names that have counted in `other` so far: exact to 1,000, then about."""
        if self._passed:
            passed, self._passed = np.array(self._passed, np.uint64), []
            self._beyond.add(np.zeros(len(passed), np.uint32), passed, 1)
            self._told = int(self._beyond.reach(np.zeros(1, np.int64))[0])
        return self._told

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """Plain state without the names; of the ended rows what is not in `files`."""
        self.beyond()
        return self.ended.snapshot(files), self._beyond.snapshot(Files(None))

    def rename(self, numbers: list[int], names: list[RowName | None]) -> None:
        """Give numbers the names of a snapshot, behind which `restore` makes the index whole."""
        self.names += [None] * (max(numbers, default=-1) + 1 - len(self.names))
        for number, name in zip(numbers, names, strict=True):
            self.names[number] = name

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """Take up `snapshot`'s state behind all names."""
        ended, beyond = state
        self.numbers = {name: number for number, name in enumerate(self.names) if name is not None}
        self._free = [number for number, name in enumerate(self.names) if name is None]
        self._rows.update(scope for scope, _ in self.numbers)
        self.ended = Ended.restored(ended, files, self.numbers)
        self._beyond = Distinct.restored(beyond, Files(None))
        self._told = int(self._beyond.reach(np.zeros(1, np.int64))[0])
