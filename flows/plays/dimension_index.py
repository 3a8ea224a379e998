"""Dimensions by number, and the rows in which each counts. A placement shard uses them to distribute its
increments over the row shards.
"""

from __future__ import annotations

from itertools import repeat

import numpy as np

from flows.model.conversion_columns import RowName
from flows.model.dimensions import SCOPES, Dimensions
from flows.state.arrays import I64
from flows.state.homes import Homes
from flows.state.interner import Interner


class DimensionIndex:
    """The dimensions of a shard, by number.

    Their rows are determined on first use, many at once.

    Args:
        homes: the shards of rows.
        limit: the greatest number of combinations.

    Attributes:
        combos: by number.
    """

    def __init__(self, homes: Homes, limit: int) -> None:
        self.combos = Interner[Dimensions](limit=limit)
        self._homes = homes
        self._forget_rows()

    def _forget_rows(self) -> None:
        self._rows = Interner[RowName]()
        self._row_shards = np.zeros(0, np.int64)
        self._rows_of = np.zeros((0, len(SCOPES)), np.int64)

    def __len__(self) -> int:
        return len(self.combos)

    def collect(self, used: I64) -> I64 | None:
        """Drop unused combinations, and their rows; see `Interner.collect`."""
        renumbered = self.combos.collect(used)
        if renumbered is not None:
            self._forget_rows()
        return renumbered

    @property
    def row_names(self) -> list[RowName]:
        """(scope, id) by row."""
        self._find_rows()
        return self._rows.names

    @property
    def rows_of(self) -> I64:
        """(combinations, scopes): the rows in which each counts; -1 for an unnamed one."""
        self._find_rows()
        return self._rows_of

    @property
    def shards_of_rows(self) -> I64:
        """The row shard of each row."""
        self._find_rows()
        return self._row_shards

    def home(self, scope: str, name: str) -> int:
        """The row shard of a row."""
        return self._homes.shard_of(scope, name)

    def _find_rows(self) -> None:
        new = self.combos.names[len(self._rows_of) :]
        if not new:
            return
        columns = []
        for scope, names in zip(SCOPES, zip(*new, strict=True), strict=False):
            distinct, row_count = [name for name in dict.fromkeys(names) if name is not None], len(self._rows)
            rows = self._rows.numbers([(scope, name) for name in distinct]).tolist()
            more = [name for _, name in self._rows.names[row_count:]]
            self._row_shards = np.append(self._row_shards, self._homes.shards_of(scope, more))
            row_of = dict(zip(distinct, rows, strict=True))
            columns.append(np.fromiter(map(row_of.get, names, repeat(-1)), np.int64, len(new)))
        rows_of = self._rows_of[:, : len(columns)]  # all have the same number of names
        self._rows_of = np.concatenate([rows_of, np.column_stack(columns)])
