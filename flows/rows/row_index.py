"""The index of a shard's rows, by number. Names beyond the cap or the memory budget count in `other`."""

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
"""The greatest number of turned rows (`flows.rows.turning`) that all shards publish in a second.
"""
_MINUTE_MS: Final = 60_000


class Limits(NamedTuple):
    """The limits of one shard's rows; the defaults are those of `flows.settings` with 8 shards.

    Attributes:
        stays, remembered: minutes without a pixel.
        rows: rows a scope.
        turned: turned rows that a cut publishes.
        unplanned, unplanned_bytes: the greatest number of rows that no plan names, in all scopes, and of
            their bytes.
    """

    stays: int = 48 * 60
    remembered: int = 62 * 24 * 60
    rows: int = 25_000
    turned: int = TURNED_A_SECOND // 16
    unplanned: int = 2_500
    unplanned_bytes: int = 32 << 20

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that follow from the settings."""
        stays, remembered = (ms(limit) // _MINUTE_MS for limit in (settings.row_ttl, settings.row_memory))
        turned = int(TURNED_A_SECOND * settings.flush_interval.total_seconds())
        of_all = settings.row_cap, turned, settings.unplanned_rows, settings.unplanned_bytes
        return cls(stays, remembered, *(max(1, limit // settings.shards) for limit in of_all))


DEFAULT_LIMITS: Final = Limits()


class RowIndex:
    """The rows of one shard.

    Attributes:
        names: by number, None where a number is free.
        numbers: by name.
        planned: rows that exist, whatever the cap.
        named: rows that a plan names (planned rows and labels); they count in no budget.
        unplanned: numbers of all other rows, without those of `other`.
        ended: the stored rows that have ended.
    """

    def __init__(self, limits: Limits) -> None:
        self._cap, self._budget = limits.rows, limits.unplanned
        self.names: list[RowName | None] = []
        self.numbers: dict[RowName, int] = {}
        self.planned: frozenset[RowName] = frozenset()
        self.named: frozenset[RowName] = frozenset()
        self.unplanned = set[int]()
        self.ended = Ended()
        self._free: list[int] = []
        self._rows = Counter[str]()
        self._expected, self._kept_places, self._kept_unplanned = set[RowName](), Counter[str](), 0
        self._beyond, self._passed, self._beyond_count = Distinct(), list[int](), 0

    def __len__(self) -> int:
        return len(self.numbers)

    def name(self, number: int) -> RowName:
        """The name of a present row."""
        name = self.names[number]
        assert name is not None, "a row that has ended"
        return name

    def names_of(self, numbers: Iterable[int]) -> list[RowName]:
        """The names of present rows."""
        names = list(map(self.names.__getitem__, numbers))
        assert None not in names, "a row that has ended"
        return names  # type: ignore[return-value]  # asserted above

    def expect(self, rows: Iterable[RowName]) -> None:
        """Reserve places below the cap for the rows that readers have."""
        self._expected = {row for row in rows if row not in self.numbers}
        self._kept_places = Counter(scope for scope, _ in self._expected)
        self._kept_unplanned = sum(map(self.is_unplanned, self._expected))

    def plan(self, planned: Iterable[RowName], labels: Iterable[RowName]) -> None:
        """Set the rows that have a plan, and the labels that plans name."""
        self.planned = frozenset(planned)
        self.named = self.planned | frozenset(labels)
        self._count_unplanned()

    def is_unplanned(self, row: RowName) -> bool:
        """True if a row counts in the budget of rows that no plan names."""
        return row[0] != OTHER_NAME and row not in self.named and row not in self.planned

    def _count_unplanned(self) -> None:
        self.unplanned = {number for row, number in self.numbers.items() if self.is_unplanned(row)}
        self._kept_unplanned = sum(map(self.is_unplanned, self._expected))

    def admit(self, row: RowName, oldest: int, has_memory: bool = True) -> tuple[int, list[Any] | None]:
        """A number for a new row, and the stored values of a row that had ended. A row beyond the cap or the
        budget gets the number of `other`.

        Args:
            oldest: the minute before which a row that ended is forgotten.
            has_memory: whether the budget of unplanned rows has memory for one more.
        """
        scope, _ = row
        unplanned = self.is_unplanned(row)
        full = self._rows[scope] + self._kept_places[scope] >= self._cap
        if unplanned:
            full |= len(self.unplanned) + self._kept_unplanned >= self._budget or not has_memory
        if row in self._expected:
            self._expected.remove(row)
            self._kept_places[scope] -= 1
            self._kept_unplanned -= unplanned
        elif full and scope != OTHER_NAME and row not in self.planned:
            self._passed.append(self.ended.key(row))
            other_row = (OTHER_NAME, scope)
            other_number = self.numbers.get(other_row)
            return (self._place(other_row) if other_number is None else other_number), None
        return self._place(row), self.ended.take(row, oldest)

    def _place(self, row: RowName) -> int:
        number = self._free.pop() if self._free else len(self.names)
        self.names[number : number + 1] = [row]
        self.numbers[row] = number
        self._rows[row[0]] += 1
        if self.is_unplanned(row):
            self.unplanned.add(number)
        return number

    def leave(self, number: int) -> RowName:
        """Free a number; returns the name of its row."""
        row = self.name(number)
        del self.numbers[row]
        self.names[number] = None
        self._free.append(number)
        self._rows[row[0]] -= 1
        self.unplanned.discard(number)
        return row

    def beyond(self) -> int:
        """The number of names that have counted in `other` so far; exact up to 1,000, estimated above."""
        if self._passed:
            passed, self._passed = np.array(self._passed, np.uint64), []
            self._beyond.add(np.zeros(len(passed), np.uint32), passed, 1)
            self._beyond_count = int(self._beyond.reach(np.zeros(1, np.int64))[0])
        return self._beyond_count

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """The state as plain values, without the names, and without ended rows that are in `files`."""
        self.beyond()
        return self.ended.snapshot(files), self._beyond.snapshot(Files(None))

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return self.ended.file_names()

    def rename(self, numbers: list[int], names: list[RowName | None]) -> None:
        """Set the names of a snapshot for these numbers; call `restore` afterwards."""
        self.names += [None] * (max(numbers, default=-1) + 1 - len(self.names))
        for number, name in zip(numbers, names, strict=True):
            self.names[number] = name

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """Load a state of `snapshot`, after all names."""
        ended, beyond = state
        self.numbers = {name: number for number, name in enumerate(self.names) if name is not None}
        self._free = [number for number, name in enumerate(self.names) if name is None]
        self._rows.update(scope for scope, _ in self.numbers)
        self._count_unplanned()
        self.ended = Ended.restored(ended, files, self.numbers)
        self._beyond.restore(beyond, Files(None))
        self._beyond_count = int(self._beyond.reach(np.zeros(1, np.int64))[0])
