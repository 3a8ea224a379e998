"""The pixels of conversions, on disk until their decisions come, with each conversion's listener.

The table outlives restarts: the export commits its place in the pixels' topic once the table has the pixels.
The first pixel of a conversion counts, as in the flow. Rows are dropped after four days, since Google takes
no event older than three. Above a million rows the oldest are dropped first. Days are counted while the
export runs, by a clock that cannot be set: the wall clock may have been ahead.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from flows.errors import StateError
from flows.exports.facts import KnownConversion
from flows.exports.owned import take_lock

FORMAT: Final = 3
RETENTION_MS: Final = 4 * 86_400_000
MAX_ROWS: Final = 1_000_000
_TIDY_EVERY: Final = 1_000
"""The number of additions between two removals of old rows."""


class KnownConversions:
    """A table in a file of an export's take_lock.

    Args:
        clock_s: any clock that goes forward.

    Raises:
        StateError: another process has the file, or it cannot be read.
    """

    def __init__(self, directory: Path, name: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        path = directory / f"{name}.sqlite"
        self._lock = take_lock(directory, name, path)
        try:
            self._table = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            path.chmod(0o600)
            self._check_format(path)
            for line in (
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = FULL",
                "CREATE TABLE IF NOT EXISTS known "
                "(conversion TEXT PRIMARY KEY, who TEXT, utm TEXT, keys TEXT, kept_ms INTEGER) WITHOUT ROWID",
                "CREATE INDEX IF NOT EXISTS by_time ON known (kept_ms)",
                f"PRAGMA user_version = {FORMAT}",
            ):
                self._table.execute(line)
            (self._latest_ms,) = self._table.execute("SELECT IFNULL(MAX(kept_ms), 0) FROM known").fetchone()
        except sqlite3.DatabaseError as error:
            raise StateError(f"{path}: cannot be read ({error}): remove the file, or restore it") from None
        self._additions = 0
        self._clock_s, self._began_s = clock_s, clock_s()

    def _check_format(self, path: Path) -> None:
        (file_format,) = self._table.execute("PRAGMA user_version").fetchone()
        (tables,) = self._table.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and file_format != FORMAT:
            raise StateError(
                f"{path} is of format {file_format}, this version reads {FORMAT}: remove the file; "
                "conversions that wait for their decision are then not exported"
            )

    def add(self, rows: Sequence[KnownConversion]) -> None:
        """Add rows durably.

        Raises:
            OSError: the disk cannot be written.
        """
        try:
            self._add(rows, self._latest_ms + int((self._clock_s() - self._began_s) * 1000))
        except sqlite3.DatabaseError as error:
            if self._table.in_transaction:
                self._table.execute("ROLLBACK")
            raise OSError(str(error)) from None

    def _add(self, rows: Sequence[KnownConversion], now_ms: int) -> None:
        encode = msgspec.json.encode
        self._table.execute("BEGIN")
        self._table.executemany(
            "INSERT OR IGNORE INTO known VALUES (?, ?, ?, ?, ?)",
            [(key, client, encode(utm).decode(), hashes, now_ms) for key, client, utm, hashes in rows],
        )
        if self._additions % _TIDY_EVERY == 0:
            self._table.execute("DELETE FROM known WHERE kept_ms < ?", (now_ms - RETENTION_MS,))
            (beyond,) = self._table.execute("SELECT MAX(0, COUNT(*) - ?) FROM known", (MAX_ROWS,)).fetchone()
            oldest = "SELECT conversion FROM known ORDER BY kept_ms LIMIT ?"
            self._table.execute(f"DELETE FROM known WHERE conversion IN ({oldest})", (beyond,))
        self._additions += 1
        self._table.execute("COMMIT")

    def find(self, conversion: str) -> KnownConversion | None:
        """The row of a conversion, or None.

        Raises:
            OSError: the disk cannot be read.
        """
        try:
            row = self._table.execute(
                "SELECT who, utm, keys FROM known WHERE conversion = ?", (conversion,)
            ).fetchone()
        except sqlite3.DatabaseError as error:
            raise OSError(str(error)) from None
        if row is None:
            return None
        client_id, utm, keys = row
        return KnownConversion(conversion, client_id, msgspec.json.decode(utm, type=dict[str, str]), keys)

    def close(self) -> None:
        """Close the file."""
        self._table.close()
        self._lock.close()
