"""Combinations of names by number, and the rows in which each of them counts: what a placement shard needs to
spread its increments over the row shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flows.batches import SCOPES, Combo
from flows.homes import Homes
from flows.kernel import I64


class Names:
    """The combinations that a shard has met.

    Args:
        homes: the shards of rows.
        combos: to begin with.

    Attributes:
        combos: by number.
        rows: (scope, id) to its number.
    """

    def __init__(self, homes: Homes, combos: Sequence[Combo] = ()) -> None:
        self.combos: list[Combo] = []
        self.rows: dict[tuple[str, str], int] = {}
        self._homes, self._shards = homes, homes.shards
        self._numbers: dict[Combo, int] = {}
        self._row_shards = np.zeros(64, np.int64)
        self._rows_of = np.full((64, len(SCOPES)), -1, np.int64)
        for combo in combos:
            self.number(combo)

    def __len__(self) -> int:
        return len(self.combos)

    def number(self, combo: Combo) -> int:
        """Its number; the next one where it is new."""
        number = self._numbers.get(combo)
        if number is not None:
            return number
        number = self._numbers[combo] = len(self.combos)
        self.combos.append(combo)
        if number == len(self._rows_of):
            self._rows_of = doubled(self._rows_of)
        for place, (scope, name) in enumerate(zip(SCOPES, combo, strict=True)):
            self._rows_of[number, place] = -1 if name is None else self._row(scope, name)
        return number

    def _row(self, scope: str, name: str) -> int:
        row = self.rows.get((scope, name))
        if row is None:
            row = self.rows[scope, name] = len(self.rows)
            if row == len(self._row_shards):
                self._row_shards = doubled(self._row_shards)
            self._row_shards[row] = self._homes.of(scope, name)
        return row

    def placement_row(self, combo: int) -> int:
        """The row of a combination's placement; -1: it names none."""
        return int(self._rows_of[combo, 0])

    def shard_of(self, row: int) -> int:
        """The row shard of a row."""
        return int(self._row_shards[row])

    def spread(self, combos: I64) -> tuple[I64, I64]:
        """The rows in which each of `combos` counts, and for each the place in `combos` that it came from."""
        rows = self._rows_of[combos]
        source, scope = np.nonzero(rows >= 0)
        return rows[source, scope], source

    def by_shard(self, rows: I64) -> tuple[I64, list[int]]:
        """The places of `rows` in the order of their row shards, and where each shard's begin."""
        shards = self._row_shards[rows].astype(np.uint16)
        order = np.argsort(shards, kind="stable")
        bounds: list[int] = np.searchsorted(shards[order], np.arange(self._shards + 1)).tolist()
        return order, bounds


def doubled(array: Any) -> Any:
    """`array` with as much room again, zeros."""
    return np.concatenate([array, np.zeros_like(array)])
