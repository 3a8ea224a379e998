"""Stores the rows of days that are not written yet, sorted by key, in a temporary file of this process.

The file may be lost at any time: the place in Kafka stays before the first message of its rows, and the next
process reads them again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from connectors.kafka import Place
from flows.errors import AudiopixelError
from flows.exports.columns import Kind, Row

_CHUNK: Final = 10_000
_CREATE: Final = """
CREATE TABLE staged (
    kind TEXT, day INTEGER, key BLOB, topic TEXT, partition INTEGER, position INTEGER, row BLOB,
    PRIMARY KEY (day, kind, key)
) WITHOUT ROWID
"""


class Staged(NamedTuple):
    """A row, its day since the epoch, and its place in a topic."""

    kind: Kind
    day: int
    row: Row
    place: Place
    offset: int


class Staging:
    """A table on disk, with the latest row of each key.

    Args:
        directory: an existing directory, whose files no other process uses.
    """

    def __init__(self, directory: Path) -> None:
        self._table = sqlite3.connect(
            directory / "staged.sqlite", isolation_level=None, check_same_thread=False
        )
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536"):
            self._table.execute(f"PRAGMA {pragma}")
        self._table.execute(_CREATE)

    def add(self, rows: Sequence[Staged]) -> None:
        """Add rows, in the order of their topic.

        Raises:
            AudiopixelError: the disk cannot be written.
        """
        try:
            self._add(rows)
        except sqlite3.OperationalError as error:
            raise AudiopixelError(
                f"rows of open days cannot be stored ({error}): make room in the temporary directory, or "
                "name another one in TMPDIR"
            ) from None

    def _add(self, rows: Sequence[Staged]) -> None:
        encode = msgspec.msgpack.encode
        self._table.execute("BEGIN")
        self._table.executemany(
            "INSERT OR REPLACE INTO staged VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(kind, day, row[0], *place, offset, encode(row)) for kind, day, row, place, offset in rows],
        )
        self._table.execute("COMMIT")

    def days(self) -> list[int]:
        """The days that have rows, in order."""
        return [day for (day,) in self._table.execute("SELECT DISTINCT day FROM staged ORDER BY day")]

    def rows(self, kind: Kind, day: int) -> Iterator[list[Row]]:
        """The rows of a day by key, some thousands at a time."""
        cursor = self._table.execute(
            "SELECT row FROM staged WHERE kind = ? AND day = ? ORDER BY key", (kind, day)
        )
        while chunk := cursor.fetchmany(_CHUNK):
            yield [tuple(msgspec.msgpack.decode(row)) for (row,) in chunk]

    def drop(self, day: int) -> None:
        """Drop the rows of a day."""
        self._table.execute("DELETE FROM staged WHERE day = ?", (day,))

    def first_offsets(self) -> dict[Place, int]:
        """The offset of the first message with a row in the table, by partition."""
        cursor = self._table.execute(
            "SELECT topic, partition, MIN(position) FROM staged GROUP BY topic, partition"
        )
        return {(topic, partition): offset for topic, partition, offset in cursor}

    def close(self) -> None:
        """Close the table."""
        self._table.close()
