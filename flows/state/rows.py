"""Rows of named columns, by row number: integers of all rows as arrays, values of few rows as dictionaries.

An owner declares the columns in a class. `Rows` then makes snapshots of rows, takes rows out and puts them
back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from flows.state import snapshot
from flows.state.arrays import I64, doubled

_SCALAR: Final = 0
"""The width of a column that has one integer a row."""


class _Numbers(NamedTuple):
    width: int


class _Flags(NamedTuple):
    dtype: type


class _Values(NamedTuple):
    make_value: Callable[[Any], Any]


def numbers(width: int = _SCALAR) -> I64:
    """Declare a column of integers, or of `width` integers a row, 0 at first."""
    return _Numbers(width)  # type: ignore[return-value]  # `Rows` replaces it by the array


def flags() -> npt.NDArray[np.bool_]:
    """Declare a column of flags that no snapshot has."""
    return _Flags(np.bool_)  # type: ignore[return-value]


def unsaved_numbers() -> I64:
    """Declare a column of integers that no snapshot has."""
    return _Flags(np.int64)  # type: ignore[return-value]


def values(make_value: Callable[[Any], Any] | None = None) -> dict[int, Any]:
    """Declare a column of plain values that never change, such as tuples, of the rows that have one.

    Args:
        make_value: makes a value from its form in a snapshot. By default each list becomes a tuple.
    """
    return _Values(make_value or _tuples)  # type: ignore[return-value]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


class Rows:
    """The declared columns as attributes. A dictionary stays the same object; an array that grows is
    replaced.

    Args:
        room: the number of rows for which there is room at first.
    """

    def __init__(self, room: int) -> None:
        self._room, declared = room, vars(type(self))
        self._numbers = {
            name: column.width for name, column in declared.items() if isinstance(column, _Numbers)
        }
        self._flags = [name for name, column in declared.items() if isinstance(column, _Flags)]
        self._values = {
            name: column.make_value for name, column in declared.items() if isinstance(column, _Values)
        }
        for name, width in self._numbers.items():
            setattr(self, name, np.zeros((room, width) if width else room, np.int64))
        for name in self._flags:
            setattr(self, name, np.zeros(room, declared[name].dtype))
        for name in self._values:
            setattr(self, name, {})

    @property
    def row_bytes(self) -> int:
        """The size of a row's saved integers."""
        return 8 * sum(max(width, 1) for width in self._numbers.values())

    def __len__(self) -> int:
        """The number of rows for which there is room."""
        return self._room

    def make_room(self, rows: int) -> None:
        """Make room for `rows` rows."""
        while self._room < rows:
            for name in (*self._numbers, *self._flags):
                setattr(self, name, doubled(getattr(self, name)))
            self._room *= 2

    def take_out(self, rows: Sequence[int]) -> list[list[Any]]:
        """Clear the places of `rows`; returns for each row the argument of `put_back`."""
        places = np.asarray(rows, np.int64)
        columns = [getattr(self, name)[places].tolist() for name in self._numbers]
        columns += [[getattr(self, name).pop(row, None) for row in rows] for name in self._values]
        for name in (*self._numbers, *self._flags):
            getattr(self, name)[places] = 0
        return [list(row_values) for row_values in zip(*columns, strict=True)]

    def put_back(self, row: int, row_values: Sequence[Any]) -> None:
        """Restore to a row the values that `take_out` returned, packed and unpacked or not."""
        split = len(self._numbers)
        for name, number in zip(self._numbers, row_values[:split], strict=True):
            getattr(self, name)[row] = number
        for (name, make_value), value in zip(self._values.items(), row_values[split:], strict=True):
            if value is not None:
                getattr(self, name)[row] = make_value(value)

    def snapshot(self, rows: I64) -> dict[str, Any]:
        """The values of `rows` as plain state."""
        row_list, values_by_column = rows.tolist(), {}
        for name in self._values:
            column: dict[int, Any] = getattr(self, name)
            values_by_column[name] = {row: column[row] for row in row_list if row in column}
        narrow = {name: snapshot.narrow(getattr(self, name)[rows]) for name in self._numbers}
        return {"numbers": snapshot.pack(narrow), "values": values_by_column}

    def restore(self, rows: I64, state: Mapping[str, Any]) -> None:
        """Replace the values of `rows` by those of `snapshot`'s state."""
        self.make_room(int(rows.max(initial=-1)) + 1)
        for name, integers in snapshot.unpack(state["numbers"]).items():
            getattr(self, name)[rows] = integers
        for name, make_value in self._values.items():
            column: dict[int, Any] = getattr(self, name)
            for row in rows.tolist():
                column.pop(row, None)
            column |= {row: make_value(value) for row, value in state["values"][name].items()}
