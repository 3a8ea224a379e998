"""Dimensions by number, and the rows in which each of them counts, by which a placement shard distributes its
increments over the row shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np

from flows.model.dimensions import SCOPES, Dimensions
from flows.state.arrays import I32, I64
from flows.state.homes import Homes
from flows.state.names import NameJournal


class DimensionIndex:
    """The combinations that a shard has met.

    Their rows are found when they are first asked for, many at once.

    Args:
        homes: the shards of rows.
        combos: to begin with.

    Attributes:
        combos: by number.
        journal: what snapshots have of them.
    """

    def __init__(self, homes: Homes, combos: Sequence[Dimensions] = ()) -> None:
        self.combos: list[Dimensions] = []
        self.journal = NameJournal()
        self._homes = homes
        self._numbers: dict[Dimensions, int] = {}
        self._rows: list[dict[str | None, int]] = [{None: -1} for _ in SCOPES]
        self._row_names: list[tuple[str, str]] = []
        self._row_shards = np.zeros(0, np.int64)
        self._rows_of = np.zeros((0, len(SCOPES)), np.int64)
        for combo in combos:
            self.number(combo)

    def __len__(self) -> int:
        return len(self.combos)

    def number(self, combo: Dimensions) -> int:
        """The number of some dimensions; new ones get the next one."""
        number = self._numbers.setdefault(combo, len(self.combos))
        if number == len(self.combos):
            self.combos.append(combo)
        return number

    def known(self, combos: Sequence[Dimensions]) -> I32:
        """The numbers of some dimensions; -1 for new ones."""
        return np.fromiter(map(self._numbers.get, combos, repeat(-1)), np.int32, len(combos))

    @property
    def row_names(self) -> list[tuple[str, str]]:
        """(scope, id) by row."""
        self._find_rows()
        return self._row_names

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
        return self._homes.of(scope, name)

    def _find_rows(self) -> None:
        new = self.combos[len(self._rows_of) :]
        if not new:
            return
        columns = []
        for scope, known, names in zip(SCOPES, self._rows, zip(*new, strict=True), strict=False):
            more = [name for name in dict.fromkeys(names) if name is not None and name not in known]
            known.update({name: number for number, name in enumerate(more, len(self._row_names))})
            self._row_names += [(scope, name) for name in more]
            self._row_shards = np.append(self._row_shards, self._homes.of_all(scope, more))
            columns.append(np.fromiter(map(known.__getitem__, names), np.int64, len(new)))
        rows_of = self._rows_of[:, : len(columns)]  # all have as many names as the first
        self._rows_of = np.concatenate([rows_of, np.column_stack(columns)])
