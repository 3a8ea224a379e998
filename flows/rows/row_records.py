"""The records of rows in their journal: name, columns, and counts of the open days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flows.model.dimensions import SCOPES
from flows.rows.days import Days
from flows.rows.row_columns import RowColumns
from flows.rows.row_index import RowIndex
from flows.state.arrays import I64
from flows.state.journal import Files
from flows.state.record_journal import RecordJournal


@dataclass(frozen=True)
class RowRecords:
    """The tables that a record combines (see `flows.state.record_journal.Records`), and the journal of the
    records.
    """

    index: RowIndex
    columns: RowColumns
    days: Days
    journal: RecordJournal

    @property
    def alive(self) -> npt.NDArray[np.bool_]:
        """The rows that exist."""
        return self.columns.alive

    @property
    def unsaved(self) -> npt.NDArray[np.bool_]:
        """The rows that the journal lacks."""
        return self.columns.unsaved

    def pack(self, rows: I64) -> dict[str, Any]:
        """The records of `rows`; a row that has ended has no name."""
        return {
            "rows": rows.astype(np.uint32).tobytes(),
            "names": [self.index.names[row] for row in rows.tolist()],
            "columns": self.columns.snapshot(rows),
            "days": self.days.counts_of(rows),
        }

    def unpack(self, packed: dict[str, Any]) -> I64:
        """Load the records of `pack`; returns their rows."""
        rows: I64 = np.frombuffer(packed["rows"], np.uint32).astype(np.int64)
        names = [None if name is None else tuple(name) for name in packed["names"]]
        self.index.rename(rows.tolist(), names)
        self.columns.restore(rows, packed["columns"])
        self.columns.alive[rows] = [name is not None for name in names]
        self.columns.is_placement[rows] = [name is not None and name[0] == SCOPES[0] for name in names]
        self.days.restore_counts(rows, packed["days"])
        return rows

    def gather(self, files: Files) -> None:
        """Write the changes to `files`, so that the next snapshot need not."""
        self.journal.gather(self, files)

    def snapshot(self, files: Files) -> list[tuple[Any, ...]]:
        """The state as plain values: the records; large pieces are in `files`."""
        return self.journal.snapshot(self, files)

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return self.journal.file_names()

    def restore(self, state: list[tuple[Any, ...]], files: Files) -> None:
        """Load the records of a snapshot, after the days and before the index."""
        self.journal.restore(state, self, files)
