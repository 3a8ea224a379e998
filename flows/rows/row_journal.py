"""The journal of rows: a save writes only the rows that changed since the save before.

The journal is a list of pieces, the oldest first. A piece has records of rows, as columns, and a large one is
an immutable file (`flows.state.journal`). The latest record of a row is the valid one. Once more than half of
the records are out of date, the oldest piece is dropped, and the rows whose latest record it had are
rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from flows.model.dimensions import SCOPES
from flows.rows.conversions import RowConversions
from flows.rows.days import Days
from flows.rows.delays import Delays
from flows.rows.labels import Labels
from flows.rows.row_columns import ROW_BYTES, RowColumns
from flows.rows.row_index import RowIndex
from flows.state import journal
from flows.state.arrays import I64, longer
from flows.state.journal import Body, Files, Segment
from flows.state.names import chunk, chunks

AT_ONCE: Final = 4_096
"""The most records of a chunk, two megabytes. Pieces are no larger, so that a dropped piece causes few
rewrites.
"""
NONE: Final = -1


def slack() -> int:
    """The number of outdated records below which no piece is dropped."""
    return min(journal.COMPACTION_SLACK, journal.SLACK_BYTES // ROW_BYTES)


@dataclass
class Recorded:
    """The tables that a record is made of."""

    index: RowIndex
    columns: RowColumns
    labels: Labels
    days: Days
    conversions: RowConversions
    delays: Delays

    def pack(self, rows: I64) -> bytes:
        """The records of `rows` as a chunk; a row that has ended has no name."""
        each = rows.tolist()
        records = {
            "rows": rows.astype(np.uint32).tobytes(),
            "names": [self.index.names[row] for row in each],
            "columns": self.columns.snapshot(rows),
            "days": self.days.counts_of(rows),
            **{name: of.snapshot(each) for name, of in self._by_row().items()},
        }
        return chunk(records)

    def unpack(self, records: dict[str, Any]) -> I64:
        """Load the records of a chunk; returns their rows."""
        rows: I64 = np.frombuffer(records["rows"], np.uint32).astype(np.int64)
        each, names = rows.tolist(), [None if name is None else tuple(name) for name in records["names"]]
        self.index.rename(each, names)
        self.columns.restore(rows, records["columns"])
        self.columns.alive[rows] = [name is not None for name in names]
        self.columns.is_placement[rows] = [name is not None and name[0] == SCOPES[0] for name in names]
        self.days.restore_counts(rows, records["days"])
        for name, of in self._by_row().items():
            of.restore(each, records[name])
        return rows

    def _by_row(self) -> dict[str, Labels | RowConversions | Delays]:
        """The tables that are dictionaries by row."""
        return {
            "labels": self.labels,
            "conversions": self.conversions,
            "delays": self.delays,
        }


class RowJournal:
    """The pieces of one shard of rows."""

    def __init__(self) -> None:
        self._pieces: list[Segment] = []
        self._first = 0
        """The number of the oldest piece; the numbers of later ones follow."""
        self._latest = np.zeros(0, np.int64)
        """By row, the piece that has its latest record; `NONE` if there is no record."""

    def __len__(self) -> int:
        """The number of records in all pieces."""
        return sum(piece.rows for piece in self._pieces)

    def gather(self, tables: Recorded, files: Files) -> None:
        """Write the rows that have changed, so that the next snapshot need not."""
        if files.directory is not None:
            self._write(tables)

    def snapshot(self, tables: Recorded, files: Files) -> list[tuple[str, Body, int, int]]:
        """The pieces as plain values, with the rows that have changed; without a directory all rows."""
        if files.directory is None:
            self._pieces = []
            rows = np.flatnonzero(tables.columns.alive)
            return [Segment("", tables.pack(rows), len(rows)).plain()]
        self._write(tables)
        for piece in self._pieces:
            piece.close(files)
        return [piece.plain() for piece in self._pieces]

    def _write(self, tables: Recorded) -> None:
        of = tables.columns
        self._latest = longer(self._latest, len(of), NONE)
        self._let_go(of)
        # A row that has ended needs a record as long as there is an older one of its number.
        rows = np.flatnonzero(of.unsaved & (of.alive | (self._latest[: len(of)] != NONE)))
        of.unsaved[:] = False
        for start in range(0, len(rows), AT_ONCE):
            some = rows[start : start + AT_ONCE]
            last = self._pieces[-1] if self._pieces else None
            if last is None or last.name or last.size >= journal.SPILL_BYTES:
                self._pieces.append(last := Segment())
            last.add(tables.pack(some), len(some))
            self._latest[some] = self._first + len(self._pieces) - 1

    def _let_go(self, of: RowColumns) -> None:
        """Drop the oldest pieces, as far as the amount to be written allows: their rows are written again,
        too.
        """
        rows, more = (int(np.count_nonzero(some)) for some in (of.alive, of.unsaved))
        left = journal.COMPACTION_RATIO * more + slack()
        while self._pieces and left > 0 and len(self) + more > 2 * rows + slack():
            left -= self._pieces.pop(0).rows
            there = self._latest[: len(of)] == self._first
            self._latest[: len(of)][there] = NONE
            self._first += 1
            there &= of.alive & ~of.unsaved
            of.unsaved |= there
            more += int(np.count_nonzero(there))

    def restore(self, pieces: Iterable[Iterable[object]], tables: Recorded, files: Files) -> None:
        """Load the pieces, and their records into empty tables.

        Raises:
            StateError: a file is missing or damaged.
        """
        self._pieces = [Segment(*piece) for piece in pieces]  # type: ignore[arg-type]  # out of a snapshot
        for number, piece in enumerate(self._pieces):
            for records in chunks(piece.body(files)):
                rows = tables.unpack(records)
                self._latest = longer(self._latest, int(rows.max(initial=-1)) + 1, NONE)
                self._latest[rows] = number

    def names(self) -> list[str]:
        """The names of the pieces that are files."""
        return [piece.name for piece in self._pieces if piece.name]
