"""A journal of packed records by number: a save writes only the records that changed since the save before.

The journal is a list of pieces, the oldest first. A piece has chunks of records, and a large one is an
immutable file (`flows.state.journal`). The latest record of a number is the valid one. Once more than half of
the records are out of date, the oldest piece is dropped, and the numbers whose latest record it had are
rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from flows.state import journal
from flows.state.arrays import I64, longer
from flows.state.chunks import chunk, chunks
from flows.state.journal import Body, Files, Segment

CHUNK_RECORDS: Final = 4_096
"""The greatest number of records in a chunk: two megabytes of rows. A piece is no larger, so that a dropped
piece causes few rewrites.
"""
NO_PIECE: Final = -1


class Records(Protocol):
    """The owner's records.

    Attributes:
        alive: the numbers that have a record.
        unsaved: the numbers whose record has changed or was dropped since `unsaved` was cleared.
    """

    @property
    def alive(self) -> npt.NDArray[np.bool_]: ...

    @property
    def unsaved(self) -> npt.NDArray[np.bool_]: ...

    def pack(self, numbers: I64) -> Any:
        """The records of `numbers` as a plain value."""

    def unpack(self, packed: Any) -> I64:
        """Load the records of `pack`; returns their numbers."""


class RecordJournal:
    """The pieces of one table of records. A record has about `record_bytes` bytes."""

    def __init__(self, record_bytes: int) -> None:
        self._record_bytes = record_bytes
        self._pieces: list[Segment] = []
        self._first = 0
        """The number of the oldest piece; the numbers of later ones follow."""
        self._latest = np.zeros(0, np.int64)
        """By number, the piece that has its latest record; `NO_PIECE` if there is no record."""

    def __len__(self) -> int:
        """The number of records in all pieces."""
        return sum(piece.rows for piece in self._pieces)

    @property
    def slack(self) -> int:
        """The number of outdated records below which no piece is dropped."""
        return min(journal.COMPACTION_SLACK, journal.SLACK_BYTES // self._record_bytes)

    def gather(self, records: Records, files: Files) -> None:
        """Write the records that have changed, so that the next snapshot need not."""
        if files.directory is not None:
            self._write(records)

    def snapshot(self, records: Records, files: Files) -> list[tuple[str, Body, int, int]]:
        """The pieces as plain values, with the records that have changed; without a directory all records."""
        if files.directory is None:
            self._pieces = []
            numbers = np.flatnonzero(records.alive)
            return [Segment("", chunk(records.pack(numbers)), len(numbers)).plain()]
        self._write(records)
        for piece in self._pieces:
            piece.close(files)
        return [piece.plain() for piece in self._pieces]

    def _write(self, records: Records) -> None:
        room = len(records.alive)
        self._latest = longer(self._latest, room, NO_PIECE)
        self._drop_oldest(records)
        # A dropped number needs a record while the journal has an older record of it.
        changed = np.flatnonzero(records.unsaved & (records.alive | (self._latest[:room] != NO_PIECE)))
        records.unsaved[:] = False
        for start in range(0, len(changed), CHUNK_RECORDS):
            part = changed[start : start + CHUNK_RECORDS]
            last = self._pieces[-1] if self._pieces else None
            if last is None or last.name or last.size >= journal.SPILL_BYTES:
                self._pieces.append(last := Segment())
            last.add(chunk(records.pack(part)), len(part))
            self._latest[part] = self._first + len(self._pieces) - 1

    def _drop_oldest(self, records: Records) -> None:
        """Drop the oldest pieces, as far as the amount to be written allows, and mark their valid records as
        unsaved.
        """
        room = len(records.alive)
        alive, unsaved = (int(np.count_nonzero(flags)) for flags in (records.alive, records.unsaved))
        records_left = journal.COMPACTION_RATIO * unsaved + self.slack
        while self._pieces and records_left > 0 and len(self) + unsaved > 2 * alive + self.slack:
            records_left -= self._pieces.pop(0).rows
            is_dropped = self._latest[:room] == self._first
            self._latest[:room][is_dropped] = NO_PIECE
            self._first += 1
            is_dropped &= records.alive & ~records.unsaved
            records.unsaved[is_dropped] = True
            unsaved += int(np.count_nonzero(is_dropped))

    def restore(self, pieces: Iterable[Iterable[object]], records: Records, files: Files) -> None:
        """Load the pieces, and their records into an empty table.

        Raises:
            StateError: a file is missing or damaged.
        """
        self._pieces = [Segment(*piece) for piece in pieces]  # type: ignore[arg-type]  # out of a snapshot
        for piece_number, piece in enumerate(self._pieces):
            for packed in chunks(piece.body(files)):
                numbers = records.unpack(packed)
                self._latest = longer(self._latest, int(numbers.max(initial=-1)) + 1, NO_PIECE)
                self._latest[numbers] = piece_number

    def file_names(self) -> list[str]:
        """The names of the pieces that are files."""
        return [piece.name for piece in self._pieces if piece.name]
