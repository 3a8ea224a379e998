"""An incremental snapshot: a list of immutable segments on disk instead of a copy of all rows.

Each snapshot appends the rows of a table that changed since the last one, as a segment. Large segments are
files. The latest version of a row is the valid one. Once over half of the listed rows are out of date, the
journal reads the oldest segments again. It appends their valid rows, a few at a time. `gather` does a
part of this work between two snapshots.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from connectors.durable import put, sync_directory
from flows.errors import StateError
from flows.state.arrays import U64
from flows.state.durable import private_directory
from flows.state.sealed import Damaged, checksum, checksum_of

SPILL_BYTES: Final = 1 << 18
"""The size in bytes from which a segment goes to a file of its own."""
KEEP_SNAPSHOTS: Final = 2
"""Without saves, the number of latest snapshots whose files are kept."""
COMPACTION_SLACK: Final = 1 << 13
"""The number of outdated rows below which a compaction is not worth its cost. Fewer rows count if these take
over `SLACK_BYTES`.
"""
SLACK_BYTES: Final = 1 << 20
COMPACTION_RATIO: Final = 4
"""The greatest number of rows that are compacted for each row appended since. A greater ratio compacts sooner
and makes pauses longer.
"""
PART_BYTES: Final = 1 << 15
"""The greatest size of a record for which only a part of a file is read: 16 KiB of registers, and the counts
of a row.
"""
Body = bytes | memoryview
"""A buffer that never changes."""
_WRITERS: Final = ThreadPoolExecutor(4, "journal")
"""Threads that write the files of one snapshot in parallel. Each waits for the disk, and then for a
processor.
"""


@dataclass
class Writing:
    """A file that is being written. The first thread that waits for the file begins the write, never the
    flow's thread.
    """

    files: Files
    name: str
    parts: tuple[Body, ...]
    _begun: Future[None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> Future[None]:
        """Begin the write, unless a thread has begun it."""
        with self._lock:
            if self._begun is None:
                self._begun = _WRITERS.submit(self.files.put, self.name, self.parts)
            return self._begun

    @property
    def done(self) -> bool:
        """True once the disk has the file, or has refused it."""
        return self._begun is not None and self._begun.done()


class SaveUnderWay(threading.local):
    """The save that a thread takes: its number, and its shards' files. `listed` is None without a save."""

    number: int
    listed: list[FileList] | None = None


class FileList(NamedTuple):
    """The files that one owner's snapshot lists. `writing` has the files that are still being written."""

    files: Files
    names: frozenset[str]
    writing: tuple[Writing, ...]


def settle(lists: Iterable[FileList]) -> None:
    """Wait until all files are on the disk under their names.

    Raises:
        OSError: the disk does not take them.
    """
    lists = list(lists)
    for begun in [file.begin() for listed in lists for file in listed.writing]:
        begun.result()
    for listed in lists:
        if listed.writing and listed.files.directory is not None:
            sync_directory(listed.files.directory)


_SAVE_UNDER_WAY: Final = SaveUnderWay()


@contextmanager
def taking(number: int) -> Iterator[list[FileList]]:
    """A context in which snapshots list their files for the save `number` and wait for none of them. The
    caller passes the lists to `settle` in another thread.
    """
    _SAVE_UNDER_WAY.number, listed = number, list[FileList]()
    _SAVE_UNDER_WAY.listed = listed
    try:
        yield listed
    finally:
        _SAVE_UNDER_WAY.listed = None


@dataclass
class Files:
    """The immutable files of one owner in a directory of its own, named by their content.

    Attributes:
        directory: None for an owner without files.
    """

    directory: Path | None
    _lists: list[tuple[int, frozenset[str]]] = field(default_factory=list)
    _fresh: set[str] = field(default_factory=set)
    _writing: dict[str, Writing] = field(default_factory=dict)
    _step: Path | None = None
    _has_directories: bool = False
    _making: threading.Lock = field(default_factory=threading.Lock)
    _first: int | None = None
    _collected: int = -1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, root: Path | None, step: str, shard: int) -> Files:
        """The files of a step's shard, under the recovery directory."""
        return cls(None) if root is None else cls(root / step / f"{shard:04d}", _step=root / step)

    def write(self, *parts: Body, name: str = "") -> str:
        """Make a file of `parts`, in order. The file is on the disk once its save is settled.

        Args:
            name: the checksum of the parts, if it is known.

        Returns:
            The file's name.
        """
        name = name or checksum(*parts)
        with self._lock:  # `collect` removes files of old saves, in another thread
            self._fresh.add(name)
            earlier = self._writing.get(name)
            if earlier is None or earlier.done:  # two tables may have the same new rows
                self._writing[name] = Writing(self, name, parts)
        return name

    def put(self, name: str, parts: Iterable[Body]) -> None:
        """Write a file, unless the disk has it undamaged. A damaged file is replaced. Other threads call
        this.

        Raises:
            OSError: the disk does not take it.
        """
        assert self.directory is not None
        with self._making:
            if not self._has_directories:  # those of step and shard; the engine makes the recovery directory
                for directory in filter(None, (self._step, self.directory)):
                    private_directory(directory)
                self._has_directories = True
        if not _is_whole(path := self.directory / name):
            put(path, *parts)

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            StateError: it is missing or damaged.
        """
        if self.directory is None:
            raise StateError(
                f"the recovery store lists {name}, and no recovery directory is set: set "
                "AUDIOPIXEL_RECOVERY_DIR to the directory of the save, or recompute from the log"
            )
        if (unwritten := self._writing.get(name)) is not None:
            return b"".join(unwritten.parts)
        try:
            body = (self.directory / name).read_bytes()
        except OSError as error:
            raise StateError(
                f"the recovery store lists {name}, which cannot be read from {self.directory} "
                f"({error.strerror}): restore the whole recovery directory, or recompute from the log"
            ) from None
        if checksum(body) != name:
            raise StateError(f"{self.directory / name} is damaged: restore it, or recompute from the log")
        return body

    def part(self, name: str, offset: int) -> bytes:
        """At most `PART_BYTES` bytes of a file from `offset` on, without a check of the checksum.

        Raises:
            StateError: it is missing.
        """
        assert self.directory is not None
        try:
            with (self.directory / name).open("rb", buffering=0) as file:
                file.seek(offset)
                return file.read(PART_BYTES)
        except OSError:
            return self.read(name)[offset : offset + PART_BYTES]

    def keep(self, names: Iterable[str]) -> None:
        """Record that a snapshot lists the files `names`. Within `taking` the caller of `taking` settles
        them. Otherwise they are settled at once, and files that none of the last `KEEP_SNAPSHOTS` snapshots
        lists are removed.

        Raises:
            OSError: the disk does not take them.
        """
        if self.directory is None:
            return
        saving = _SAVE_UNDER_WAY.listed
        with self._lock:
            number = (
                _SAVE_UNDER_WAY.number if saving is not None else self._lists[-1][0] + 1 if self._lists else 0
            )
            self._first = number if self._first is None else self._first
            fresh, wanted = self._fresh, frozenset(names)
            self._fresh = set()
            self._lists.append((number, wanted))
            # The previous save settles finished files that it listed, and commits first. Files in no list
            # were only needed between two saves.
            self._writing = {
                name: writing
                for name, writing in self._writing.items()
                if self._is_listed(name) and (name in fresh or not writing.done)
            }
            listed = FileList(self, wanted, tuple(self._writing.values()))
        if saving is not None:
            saving.append(listed)
        else:
            settle([listed])
            self.collect(number - KEEP_SNAPSHOTS + 1)

    def collect(self, oldest: int) -> None:
        """Remove the files that no save from the number `oldest` on lists. Files of earlier executions stay
        until `oldest` is a save of this one.
        """
        first = self._first
        if self.directory is None or first is None or not first <= oldest or oldest == self._collected:
            return
        with self._lock:
            self._collected = oldest
            self._lists = [numbered for numbered in self._lists if numbered[0] >= oldest]
        for path in self.directory.iterdir() if self.directory.exists() else ():
            with self._lock:  # one file at a time, so that the flow can add files meanwhile
                if not self._is_listed(path.name.removesuffix(".part")):
                    path.unlink(missing_ok=True)

    def _is_listed(self, name: str) -> bool:
        return name in self._fresh or any(name in names for _, names in self._lists)


class Segment:
    """Rows, in memory as `parts` or in the file `name`; `mark` is defined by the owner."""

    def __init__(self, name: str = "", body: Body = b"", rows: int = 0, mark: int = 0) -> None:
        self.name, self.parts, self.rows, self.mark = name, [body] if len(body) else [], rows, mark
        self.size, self._sum = len(body), xxhash.xxh3_128(body)

    def add(self, body: Body, rows: int, mark: int = 0) -> None:
        """Append `rows` rows in packed form."""
        self.parts.append(body)
        self.rows, self.mark, self.size = self.rows + rows, mark, self.size + len(body)
        self._sum.update(body)

    def close(self, files: Files) -> None:
        """Write a large segment to a file, and join the parts of a small one."""
        if not self.name and files.directory is not None and self.size >= SPILL_BYTES:
            self.name, self.parts = files.write(*self.parts, name=self._sum.hexdigest()), []
        else:
            self.join()

    def join(self) -> Body:
        """Join the parts in memory; returns the result."""
        if len(self.parts) > 1:
            self.parts = [b"".join(self.parts)]
        return self.parts[0] if self.parts else b""

    def body(self, files: Files) -> bytes:
        """All appended bytes; raises as `Files.read` does."""
        return files.read(self.name) if self.name else b"".join(self.parts)

    def plain(self) -> tuple[str, Body, int, int]:
        """The segment as plain values, after `close`."""
        return self.name, self.join(), self.rows, self.mark


class Table(Protocol):
    """A table of rows of 64-bit words, one row a key."""

    def __len__(self) -> int: ...

    def changed(self) -> U64:
        """(n, words): the rows that changed since the last call, the latest version of each last."""

    def live(self, rows: U64) -> U64:
        """(n, words): the rows of `rows` that are still the latest versions of their keys."""

    def whole(self) -> U64:
        """(n, words): all rows."""


@dataclass
class Journal:
    """The segments of one table, the oldest first. A row has `words` words."""

    words: int
    pieces: list[Segment] = field(default_factory=list)
    _new: int = 0
    _compacted: bool = False

    def load(self, table: Table) -> None:
        """Load the compiled loops of snapshots by empty calls. At the first snapshot the flow would wait
        100 ms for them.
        """
        table.live(np.zeros((0, self.words), np.uint64))
        table.changed()

    def gather(self, table: Table, files: Files, mark: int = 0) -> None:
        """Append the changes since the last call, with a mark, and compact. Called between two snapshots."""
        if files.directory is not None:
            self.append(table.changed(), mark)
            self.compact(table, files, mark)

    def compact(self, table: Table, files: Files, mark: int = 0) -> None:
        """Compact at most `COMPACTION_RATIO` times the rows appended since the last call, and some more."""
        slack = min(COMPACTION_SLACK, SLACK_BYTES // (8 * self.words))
        rows_left = COMPACTION_RATIO * self._new + slack
        while len(self.pieces) > 1 and rows_left > 0 and self.rows > 2 * len(table) + slack:
            oldest = self.pieces.pop(0)
            rows_left -= oldest.rows
            self.append(table.live(self._rows(oldest, files)), mark)
        self._new, self._compacted = 0, True

    def snapshot(self, table: Table, files: Files, mark: int = 0) -> list[tuple[str, Body, int, int]]:
        """Append the changed rows, and compact unless `gather` has since the last snapshot. The caller then
        calls `files.keep`.

        Args:
            mark: the mark of the appended rows.

        Returns:
            The segments that together hold the table, as plain values.
        """
        if files.directory is None:
            self.pieces = []
            whole = table.whole()
            return [Segment("", body_of(whole), len(whole), mark).plain()]
        self.append(table.changed(), mark)
        if not self._compacted:
            self.compact(table, files, mark)
        self._compacted = False
        return self.spilled(files)

    def spilled(self, files: Files) -> list[tuple[str, Body, int, int]]:
        """The segments as plain values, the last one in a file, if it is large."""
        if self.pieces:
            self.pieces[-1].close(files)
        return [piece.plain() for piece in self.pieces]

    def drop_before(self, mark: int) -> None:
        """Drop the segments of lesser marks."""
        self.pieces = [piece for piece in self.pieces if piece.mark >= mark]

    @property
    def rows(self) -> int:
        """The number of rows in all segments."""
        return sum(piece.rows for piece in self.pieces)

    def append(self, rows: U64, mark: int = 0) -> None:
        """Add rows to the last segment, or to a new one if the last is a file. The journal owns the rows from
        now on.
        """
        if not len(rows):
            return
        self._new += len(rows)
        if not self.pieces or self.pieces[-1].name:
            self.pieces.append(Segment())
        self.pieces[-1].add(body_of(rows), len(rows), mark)

    def restore(self, pieces: Iterable[Iterable[object]], files: Files) -> Iterator[tuple[U64, int]]:
        """Load segments; yields their rows (n, words) and marks, the oldest first.

        Raises:
            StateError: a file is missing or damaged.
        """
        self.pieces = [Segment(*piece) for piece in pieces]  # type: ignore[arg-type]  # out of a snapshot
        for piece in self.pieces:
            yield self._rows(piece, files), piece.mark

    def file_names(self) -> list[str]:
        """The names of the segments that are files."""
        return [piece.name for piece in self.pieces if piece.name]

    def _rows(self, piece: Segment, files: Files) -> U64:
        return np.frombuffer(piece.body(files), np.uint64).reshape(-1, self.words).copy()


def body_of(array: npt.NDArray[Any]) -> Body:
    """The bytes of an array that never changes, without a copy."""
    return np.ascontiguousarray(array).data.cast("B") if array.size else b""


def _is_whole(path: Path) -> bool:
    """True if a file exists and its name is the checksum of its content."""
    try:
        return checksum_of(path) == path.name
    except Damaged:
        return False
