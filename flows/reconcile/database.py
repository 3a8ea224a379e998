"""The embedded DuckDB of a recomputation. It stores data beyond its memory in a temporary directory."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import duckdb
import numpy as np

from flows.errors import AudiopixelError, UsageError

_CHUNK: Final = 65_536
"""The number of rows that `insert` passes to DuckDB at once."""
_INTERRUPT: Final = re.compile(r"Query interrupted|(Traceback .*\n)?KeyboardInterrupt:? *$", re.DOTALL)
"""DuckDB's messages of an interruption. The second one ends with the traceback of the Python code that DuckDB
called. Only errors of the base classes are compared, since messages of other errors may quote a value.
"""
_SETTINGS: Final[Mapping[str, str | bool | int | float | list[str]]] = {
    "preserve_insertion_order": False,
    "temp_directory": tempfile.gettempdir(),
}


class Database:
    """A DuckDB of which each statement raises `KeyboardInterrupt` on Ctrl-C.

    Args:
        threads: the number of threads; None for one a core.
        memory: the greatest memory of the database, such as `2GB`; None for four fifths of the machine's
            memory.

    Raises:
        UsageError: `memory` is no size.
    """

    def __init__(self, threads: int | None = None, memory: str | None = None) -> None:
        config = dict(_SETTINGS)
        if threads:
            config["threads"] = threads
        if memory:
            config["memory_limit"] = memory
        try:
            self._connection = duckdb.connect(config=config)
        except (duckdb.ParserException, duckdb.InvalidInputException):
            raise UsageError("the memory of the database takes a size, such as 2GB or 512MB") from None

    def run(self, statements: str, parameters: Sequence[object] = ()) -> None:
        """Run statements, and ignore their results."""
        with _interruptible():
            self._connection.execute(statements, list(parameters) or None)

    def all(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Every row of a query."""
        with _interruptible():
            return self._connection.execute(query, list(parameters) or None).fetchall()

    def first(self, query: str, parameters: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """The first row of a query; None if the query has no row."""
        with _interruptible():
            return self._connection.execute(query, list(parameters) or None).fetchone()

    def set(self, variables: Mapping[str, object]) -> None:
        """Set variables, which statements read with `getvariable`."""
        for name, value in variables.items():
            self.run(f"SET VARIABLE {name} = ?", [value])

    def insert(self, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Append rows to a table, in the order of its columns."""
        remaining = iter(rows)
        while chunk := list(islice(remaining, _CHUNK)):
            columns = {f"c{i}": _column(values) for i, values in enumerate(zip(*chunk, strict=True))}
            self.load(f"INSERT INTO {table} SELECT * FROM chunk", columns)

    def load(self, statement: str, columns: Mapping[str, Any]) -> None:
        """Run a statement that reads the columns as a table `chunk`."""
        with _interruptible():
            self._connection.register("chunk", columns)
            try:
                self._connection.execute(statement)
            finally:
                self._connection.unregister("chunk")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt for a query that failed on Ctrl-C, AudiopixelError for too little memory."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        first, _, _ = str(error).partition("\n")
        raise AudiopixelError(f"the database has too little memory: allow it more: {first}") from None
    except (RuntimeError, duckdb.Error) as error:
        if type(error) in (RuntimeError, duckdb.Error) and _INTERRUPT.match(str(error)):
            raise KeyboardInterrupt from None
        raise


def _column(values: Sequence[object]) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
