"""Rows by minute, so that the rows of a minute are taken without reading the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from flows.state.arrays import I64

Columns = tuple[Any, ...]
"""Arrays of one length, one a column."""


class ByMinute:
    """Rows as columns, each row in one minute."""

    def __init__(self) -> None:
        self._parts: dict[int, list[Columns]] = {}
        self._packed: dict[int, tuple[bytes, ...]] = {}

    def add(self, minutes: I64, *columns: Any) -> None:
        """Add rows; `minutes[i]` is the minute of row `i`."""
        order = np.argsort(minutes, kind="stable")
        borders = np.flatnonzero(np.diff(minutes[order])) + 1
        for rows in np.split(order, borders) if len(order) else ():
            minute = int(minutes[rows[0]])
            self._parts.setdefault(minute, []).append(tuple(column[rows] for column in columns))
            self._packed.pop(minute, None)

    def take(self, end: int) -> list[Columns]:
        """Remove the rows of the minutes before `end`; returns the columns of each minute, the earliest
        first.
        """
        due = sorted(minute for minute in self._parts if minute < end)
        for minute in due:
            self._packed.pop(minute, None)
        return [_joined(self._parts.pop(minute)) for minute in due]

    def packed(self) -> list[tuple[bytes, ...]]:
        """The columns of each minute as bytes, which are rebuilt only for minutes with new rows."""
        for minute in self._parts.keys() - self._packed.keys():
            columns = _joined(self._parts[minute])
            bodies = self._packed[minute] = tuple(column.tobytes() for column in columns)
            views = zip(bodies, columns, strict=True)  # from here on the only copy of these rows
            self._parts[minute] = [tuple(np.frombuffer(body, column.dtype) for body, column in views)]
        return list(self._packed.values())

    def __iter__(self) -> Iterator[Columns]:
        """The columns of all rows, part by part."""
        for parts in self._parts.values():
            yield from parts

    def __len__(self) -> int:
        return sum(len(columns[0]) for columns in self)


def _joined(parts: list[Columns]) -> Columns:
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
