"""Writes days as Parquet into a directory or below an S3 prefix. A written day never changes.

`KIND/generation=G/day=YYYY-MM-DD/` holds `KIND.parquet`, `_manifest.json` and `_SUCCESS`, which is written
last. The same rows make the same bytes: they are sorted by key, the writer's version is pinned, and no file
has the time of its writing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import IO, Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from connectors.shelves import Shelf
from flows.exports.columns import DAY_MS, TABLES, Kind, Row, batch

ROW_GROUP: Final = 100_000
MARKER: Final = "_SUCCESS"
MANIFEST: Final = "_manifest.json"


def date_of(day: int) -> str:
    """`YYYY-MM-DD` of a day since the epoch, in UTC."""
    return datetime.fromtimestamp(day * DAY_MS / 1000, UTC).date().isoformat()


class Warehouse:
    """Writes days of one generation onto a shelf."""

    def __init__(self, shelf: Shelf, generation: int) -> None:
        self._shelf, self._generation = shelf, generation
        self._complete: dict[tuple[Kind, int], bool] = {}

    def path(self, kind: Kind, day: int) -> str:
        """The folder of a day."""
        return f"{kind}/generation={self._generation}/day={date_of(day)}"

    def complete(self, kind: Kind, day: int) -> bool:
        """True if the day is written, and never changes again. The shelf's answer is remembered.

        Raises:
            OSError: the shelf cannot be read.
        """
        if (kind, day) not in self._complete:
            self._complete[kind, day] = self._shelf.holds(f"{self.path(kind, day)}/{MARKER}")
        return self._complete[kind, day]

    def whole(self, day: int) -> bool:
        """True if all kinds of a day are complete.

        Raises:
            OSError: the shelf cannot be read.
        """
        return all(self.complete(kind, day) for kind in TABLES)

    def write(self, kind: Kind, day: int, chunks: Iterator[list[Row]]) -> None:
        """Write a day, unless it is complete.

        Args:
            chunks: its rows, sorted by key.

        Raises:
            OSError: the shelf cannot be written. A day in part has no `_SUCCESS`, and is written again.
        """
        self._complete.pop((kind, day), None)  # a bucket has no lock: another export may have written the day
        if self.complete(kind, day):
            return
        folder, name = self.path(kind, day), f"{kind}.parquet"
        with self._shelf.writing(f"{folder}/{name}") as out:
            measured = _Measured(out)
            rows, first, last = _write(kind, measured, chunks)
        manifest = {
            "format": 1,
            "kind": kind,
            "day": date_of(day),
            "generation": self._generation,
            "rows": rows,
            "first_key": first,
            "last_key": last,
            "files": [{"name": name, "bytes": measured.size, "sha256": measured.sha256.hexdigest()}],
            "writer": f"pyarrow {pa.__version__}",
        }
        bodies = {MANIFEST: msgspec.json.format(msgspec.json.encode(manifest)) + b"\n", MARKER: b""}
        for small_name, body in bodies.items():
            with self._shelf.writing(f"{folder}/{small_name}") as out:
                out.write(body)
        self._complete[kind, day] = True

    def keys(self, kind: Kind, day: int, candidates: Collection[str]) -> set[str]:
        """The keys among `candidates` that a complete day has.

        Raises:
            OSError: the shelf cannot be read.
        """
        with self._shelf.reading(f"{self.path(kind, day)}/{kind}.parquet") as file:
            rows = pq.read_table(file, columns=["key"], filters=[("key", "in", set(candidates))])
        return set(rows["key"].to_pylist())


class _Measured:
    """A file to write, which measures its size in bytes and its SHA-256."""

    closed = False

    def __init__(self, out: IO[bytes]) -> None:
        self._out, self.size, self.sha256 = out, 0, hashlib.sha256()

    def write(self, data: Any) -> int:
        """Write to the shelf's file."""
        self._out.write(data)
        size = memoryview(data).nbytes
        self.size += size
        self.sha256.update(data)
        return size

    def flush(self) -> None:
        """Do nothing: `write` has no buffer."""

    def close(self) -> None:
        """Leave the shelf's file open: the shelf closes it."""


def _write(kind: Kind, out: _Measured, chunks: Iterator[list[Row]]) -> tuple[int, str | None, str | None]:
    """Write all rows. Returns the number of rows, and the first and last key."""
    rows, first, last = 0, None, None
    schema = TABLES[kind].schema
    with pq.ParquetWriter(out, schema, compression="zstd", compression_level=6, version="2.6") as writer:
        waiting: list[Row] = []
        for chunk in chunks:
            waiting += chunk
            first = first if first is not None else chunk[0][1]
            last = chunk[-1][1]
            while len(waiting) >= ROW_GROUP:
                writer.write_batch(batch(kind, waiting[:ROW_GROUP]))
                del waiting[:ROW_GROUP]
            rows += len(chunk)
        if waiting:
            writer.write_batch(batch(kind, waiting))
    return rows, first, last
