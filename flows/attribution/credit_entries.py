"""Entries of a cut's credits: the amounts that are added to rows, stored once for all rows in which a credit
counts.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

import numpy as np

from flows.model.conversion_columns import RowName
from flows.model.dimensions import SCOPES, Dimensions
from flows.state.arrays import I64, U8, U32
from flows.state.homes import Homes
from flows.state.interner import Interner

_NO_AMOUNTS: Final[tuple[U32, U32, U8, I64]] = (
    np.zeros(0, np.uint32),
    np.zeros(0, np.uint32),
    np.zeros(0, np.uint8),
    np.zeros(0, np.int64),
)


class Entries:
    """Amounts for groups of rows. The group of some dimensions has at most one row for each scope.

    Attributes:
        names: of the rows, numbered in order of appearance.
        groups: row numbers, by the number of the group.
    """

    def __init__(self) -> None:
        self.names = Interner[RowName]()
        self.groups: list[list[int]] = []
        self._group_numbers: dict[Dimensions, int] = {}
        self._unions: dict[frozenset[int], int] = {}
        self._amounts: dict[tuple[int, int, tuple[int, ...]], int] = {}
        self._added = array("q")

    def group_of(self, combo: Dimensions) -> int:
        """The group of the rows in which a credit counts."""
        number = self._group_numbers.get(combo)
        if number is None:
            names = zip(SCOPES, combo, strict=False)
            rows = [self.names.number((scope, name)) for scope, name in names if name is not None]
            number = self._group_numbers[combo] = self.group(rows)
        return number

    def group(self, rows: Sequence[int]) -> int:
        """A new group."""
        self.groups.append(list(rows))
        return len(self.groups) - 1

    def union(self, groups: set[int]) -> int:
        """The group of all rows in some groups, each row once."""
        if len(groups) == 1:
            return next(iter(groups))
        number = self._unions.get(key := frozenset(groups))
        if number is None:
            rows = {row for group in groups for row in self.groups[group]}
            number = self._unions[key] = self.group(sorted(rows))
        return number

    def add(self, group: int, minute: int, columns: tuple[int, ...], amount: int) -> None:
        """Add to some columns of a minute of each row of a group."""
        place = group, minute, columns
        self._amounts[place] = self._amounts.get(place, 0) + amount

    def add_all(self, table: I64) -> None:
        """Add amounts to one column each: (n, 4) group, minute, column, amount."""
        self._added.frombytes(np.ascontiguousarray(table, np.int64).tobytes())

    def by_shard(self, homes: Homes) -> list[tuple[list[RowName], U32, U32, U8, I64]]:
        """The rows of each shard; and (place in these rows, minute, column, amount). A cell may have several
        amounts.
        """
        if not len(self.names):
            return [([], *_NO_AMOUNTS) for _ in range(homes.shards)]
        for (group, minute, columns), amount in self._amounts.items():
            self._added.extend([part for column in columns for part in (group, minute, column, amount)])
        table = np.frombuffer(self._added, np.int64).reshape(-1, 4)
        sizes = np.fromiter(map(len, self.groups), np.int64, len(self.groups))
        rows = np.fromiter((row for rows in self.groups for row in rows), np.int64, int(sizes.sum()))
        # An entry for each row; the entries of a group follow one another.
        many = sizes[table[:, 0]]
        source = np.repeat(np.arange(len(table)), many)
        begins = (np.cumsum(sizes) - sizes)[table[:, 0]] - (np.cumsum(many) - many)
        entry_rows = rows[np.arange(len(source)) + begins[source]]
        shards = np.array([homes.shard_of(*name) for name in self.names.names], np.int64)
        place, home = np.empty(len(self.names), np.uint32), shards[entry_rows]
        shard_entries = []
        for shard in range(homes.shards):
            own, entries = np.flatnonzero(shards == shard), np.flatnonzero(home == shard)
            place[own] = np.arange(len(own), dtype=np.uint32)
            _, minutes, columns, amounts = table[source[entries]].T
            shard_entries.append(
                (
                    [self.names[row] for row in own.tolist()],
                    place[entry_rows[entries]],
                    minutes.astype(np.uint32),
                    columns.astype(np.uint8),
                    amounts.copy(),
                )
            )
        return shard_entries
