"""NDJSON files as an input, each a finite partition whose position is the number of lines read; and a writer
that resumes.

Unit of parallelism: a file. Guarantee: `open(path, k)` delivers line k + 1 first. A reader that stores
`next_position` therefore gets every line exactly once. Lines end in LF. A last line without LF is a line; a
blank line is `b""`.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from connectors.stream import ConnectError, EndOfInput, LineEnds, Lines, Messages, line_ends
from connectors.wrapping import MAX_LINE_BYTES, READ_ERRORS, is_plain, lines_of, unwrapped

_FULL: Final = 0.98
"""The share of a batch to which a block is cut: the next lines may be a little shorter."""


def regular(path: str) -> os.stat_result:
    """The status of a regular file, which can be read again after an interruption.

    Raises:
        ConnectError: it is missing, unreadable, or no regular file.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ConnectError(f"{path}: no such file") from None
    except OSError as error:
        raise ConnectError(f"{path}: cannot be read: {error.strerror}") from None
    if stat.S_ISDIR(status.st_mode):
        raise ConnectError(f"{path}: is a directory: name a file")
    if not stat.S_ISREG(status.st_mode):
        raise ConnectError(
            f"{path}: not a regular file: write its data to a regular file, and name that file"
        )
    if not os.access(path, os.R_OK):
        raise ConnectError(f"{path}: no permission to read it")
    return status


def logs(paths: Sequence[str]) -> list[str]:
    """The paths of logs, checked before any of them is read.

    Raises:
        ConnectError: there is no path, or a path is not a `regular` file, leads to the same file as another,
            is not UTF-8, or has content of a kind that is not read.
    """
    path_by_inode: dict[tuple[int, int], str] = {}
    for path in paths:
        status = regular(path)
        try:
            path.encode()
        except UnicodeEncodeError:
            raise ConnectError(f"{path}: its name is not UTF-8: rename it, or name a link to it") from None
        same = status.st_dev, status.st_ino
        if same in path_by_inode:
            raise ConnectError(f"{path}: the same file as {path_by_inode[same]}; give each file once")
        path_by_inode[same] = path
        with unpacked(path):
            pass
    if not path_by_inode:
        raise ConnectError("no input files given")
    return list(path_by_inode.values())


class FileInput:
    """A set of NDJSON files, each in its wrappings. The name of a partition is its path, unchanged.

    Args:
        paths: files, at least one; their content decides the compression.
        block_bytes: the greatest number of bytes of one read; a reader holds about twice as many. Each batch
            has a fixed cost, so a block of a plain file is cut to whole batches, by the line length of the
            block before. 16 MiB of 472-byte lines are a batch of the usual size.
        ends: returns the places of line ends.

    Raises:
        ConnectError: see `logs`.
    """

    def __init__(self, paths: Sequence[str], block_bytes: int = 16 << 20, ends: LineEnds = line_ends) -> None:
        self._paths = logs(paths)
        self._block_bytes, self._ends = block_bytes, ends

    live = False

    def partitions(self) -> list[str]:
        """The paths, unchanged."""
        return list(self._paths)

    def open(self, partition: str, position: int | None, log_id: str = "") -> FileReader:
        """Open after the first `position` lines, which are skipped (None: at the first line).

        Raises:
            ConnectError: the file cannot be read, has fewer lines than `position`, or begins with another
                line than the log with `log_id`.
        """
        return FileReader(partition, position or 0, self._block_bytes, log_id, self._ends)


class FileReader:
    """An open file. `positions` are 1-based line numbers; `next_position` is the last of them. `log_id` is a
    hash of the first line, empty until that line is read; a log that has grown has the same `log_id`.
    """

    caught_up = in_history = False
    lag = errors = skipped = 0
    log_id = ""

    def __init__(
        self, path: str, position: int, block_bytes: int, log_id: str = "", ends: LineEnds = line_ends
    ) -> None:
        self._path, self._ends = path, ends
        self._line = 0
        self._lines = Lines.split(b"")
        self._start = 0
        self._rest: bytes | None = b""
        try:
            self._file = open(path, "rb")  # noqa: SIM115 (closed by `close`)
        except OSError as error:
            raise ConnectError(f"{path}: {error.strerror}") from error
        self._size = os.fstat(self._file.fileno()).st_size
        steps, self._blocks = unwrapped(path, self._file, block_bytes=block_bytes)
        self._plain = is_plain(steps)
        if self._plain:  # a block is then read as it suits a batch
            self._file.seek(len(codecs.BOM_UTF8) if steps else 0)
        self._block_bytes, self._line_bytes = block_bytes, 0.0
        try:
            while self._line < position:
                self.read(position - self._line)
        except EndOfInput:
            self.close()
            raise ConnectError(
                f"{path}: has {self._line} lines, but {position} were read before; it was cut or replaced"
            ) from None
        if position and log_id not in ("", self.log_id):
            self.close()
            raise ConnectError(
                f"{path}: begins with another line than the log of which {position} lines were read before; "
                "it was replaced"
            )

    def read(self, limit: int) -> Messages:
        """At most `limit` lines; fewer at the end of a block.

        Raises:
            EndOfInput: all lines were delivered.
            ConnectError: the compression is damaged, the disk fails, the file was cut meanwhile, or a line is
                over 16 MiB.
        """
        while self._start == len(self._lines):
            self._fill(limit)
        lines = self._lines[self._start : self._start + limit]
        self._start += len(lines)
        first = self._line + 1
        self._line += len(lines)
        return Messages(lines, range(first, self._line + 1), self._line)

    @property
    def position(self) -> int:
        """The number of lines that were read."""
        return self._line

    def proven(self) -> bool:
        """False: a file ends by EndOfInput."""
        return False

    def commit(self, position: int) -> None:
        """Do nothing: no tool reads positions in a file."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _next_block(self, limit: int) -> bytes:
        if not self._plain:
            return next(self._blocks, b"")
        batch = max(1, int(_FULL * limit * self._line_bytes))
        return self._file.read(min(self._block_bytes, self._block_bytes // batch * batch or batch))

    def _fill(self, limit: int) -> None:
        if self._rest is None:
            raise EndOfInput(self._path)
        try:
            block = self._next_block(limit)
        except READ_ERRORS as error:
            raise ConnectError(f"{self._path}: cannot be read after line {self._line}: {error}") from error
        lines = Lines.split(self._rest + block if self._rest else block, self._ends)
        if block:
            self._rest = lines.block[lines.ends[-1] + 1 if len(lines) else 0 :]
            if self._plain and len(lines):  # reading it again is cheaper than copying a block
                self._file.seek(-len(self._rest), os.SEEK_CUR)
                self._rest = b""
            if len(lines):
                self._line_bytes = (int(lines.ends[-1]) + 1) / len(lines)
            if len(self._rest) > MAX_LINE_BYTES or (len(lines) and lines.ends[0] > MAX_LINE_BYTES):
                raise ConnectError(
                    f"{self._path}: a line after line {self._line} is over {MAX_LINE_BYTES >> 20} MiB; "
                    "is this an NDJSON file?"
                )
        else:
            if (now := self._file.tell()) < self._size:
                raise ConnectError(
                    f"{self._path}: was cut while it was read, after line {self._line}: "
                    f"it had {self._size} bytes, and ends at {now}"
                )
            if self._rest:
                lines = Lines(self._rest, np.array([len(self._rest)]))
            self._rest = None
        self._lines, self._start = lines, 0
        if not self.log_id and len(lines):
            self.log_id = blake2b(lines[0], digest_size=8).hexdigest()


def unpacked(path: str, encoding: str = "") -> BinaryIO:
    """A file, opened for reading its lines without their wrappings.

    Args:
        encoding: of text without a byte order mark; UTF-8 by default.

    Raises:
        OSError: it cannot be opened. Reading may raise any of `READ_ERRORS`, for example on a truncated file.
        ConnectError: see `connectors.wrapping.unwrapped`.
    """
    return lines_of(path, open(path, "rb"), encoding)


class NdjsonWriter:
    """Appends lines to a file that is first cut to `position`, so that a resumed writer neither repeats nor
    loses a line.

    Args:
        path: created with its directories if absent.
        position: bytes to keep, as read from the property `position` after a `flush`; 0 empties the file.

    Raises:
        ConnectError: the file is shorter than `position`, or cannot be written. The methods raise the second,
            too.
    """

    def __init__(self, path: str, position: int = 0) -> None:
        self._path = path
        self._position = position
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab")  # noqa: SIM115 (closed by `close`)
            size = self._file.tell()
            if size >= position:
                self._file.truncate(position)
        except OSError as error:
            raise self._failed(error) from error
        if size < position:
            self._file.close()
            raise ConnectError(
                f"{path}: has {size} bytes, but {position} were written before; it was cut or replaced"
            )

    @property
    def position(self) -> int:
        """Length in bytes with all lines written so far."""
        return self._position

    def write(self, lines: Sequence[bytes]) -> None:
        """Append `lines`, which have no LF."""
        if lines:
            try:
                self._position += self._file.write(b"\n".join(lines) + b"\n")
            except OSError as error:
                raise self._failed(error) from error

    def flush(self) -> None:
        """Write all lines to disk (fsync)."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()

    def _failed(self, error: OSError) -> ConnectError:
        return ConnectError(f"{self._path}: cannot be written: {error.strerror}")
