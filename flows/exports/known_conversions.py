"""The pixels of conversions, on disk until their decisions come, with each conversion's listener.

The table outlives restarts: the place in the pixels' topic moves on only once the read messages are safe
here. The first pixel of a conversion counts, as in the flow. Rows are dropped after four days, since Google
takes no event older than three; above a million rows the oldest are dropped first. A day counts only while
the export ran, by a clock that cannot be set: the wall clock may have been ahead.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from flows.errors import StateError
from flows.exports.facts import Known
from flows.exports.owned import own

FORMAT: Final = 3
KEPT_MS: Final = 4 * 86_400_000
MOST: Final = 1_000_000
_TIDY_EVERY: Final = 1_000


class KnownConversions:
    """A table in a file of an export's own.

    Args:
        clock_s: any clock that goes forward.

    Raises:
        StateError: another process has it, or it cannot be read.
    """

    def __init__(self, directory: Path, name: str, clock_s: Callable[[], float] = time.monotonic) -> None:
        path = directory / f"{name}.sqlite"
        self._lock = own(directory, name, path)
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
            raise StateError(f"{path}: cannot be read ({error}): take it away, or restore it") from None
        self._additions = 0
        self._clock_s, self._began_s = clock_s, clock_s()

    def _check_format(self, path: Path) -> None:
        (file_format,) = self._table.execute("PRAGMA user_version").fetchone()
        (tables,) = self._table.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and file_format != FORMAT:
            raise StateError(
                f"{path} is of format {file_format}, this version reads {FORMAT}: take it away; "
                "conversions that wait for their decision are then not exported"
            )

    def add(self, rows: Sequence[Known]) -> None:
        """Add rows; safe on return.

        Raises:
            OSError: the disk does not take them.
        """
        try:
            self._add(rows, self._latest_ms + int((self._clock_s() - self._began_s) * 1000))
        except sqlite3.DatabaseError as error:
            if self._table.in_transaction:
                self._table.execute("ROLLBACK")
            raise OSError(str(error)) from None

    def _add(self, rows: Sequence[Known], now_ms: int) -> None:
        encode = msgspec.json.encode
        self._table.execute("BEGIN")
        self._table.executemany(
            "INSERT OR IGNORE INTO known VALUES (?, ?, ?, ?, ?)",
            [(one, who, encode(utm).decode(), keys, now_ms) for one, who, utm, keys in rows],
        )
        if self._additions % _TIDY_EVERY == 0:
            self._table.execute("DELETE FROM known WHERE kept_ms < ?", (now_ms - KEPT_MS,))
            (beyond,) = self._table.execute("SELECT MAX(0, COUNT(*) - ?) FROM known", (MOST,)).fetchone()
            self._table.execute(
                "DELETE FROM known WHERE conversion IN "
                "(SELECT conversion FROM known ORDER BY kept_ms LIMIT ?)",
                (beyond,),
            )
        self._additions += 1
        self._table.execute("COMMIT")

    def find(self, conversion: str) -> Known | None:
        """The row of a conversion, or None.

        Raises:
            OSError: the disk does not give it.
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
        return Known(conversion, client_id, msgspec.json.decode(utm, type=dict[str, str]), keys)

    def close(self) -> None:
        """Close the file."""
        self._table.close()
        self._lock.close()
