"""A spool: records that are on the disk before `append` returns, and stay there until they are acknowledged.

One directory holds segment files of lines and a cursor. A record is a JSON object in one line whose last
field is its checksum, so that whatever reads NDJSON reads a segment. One process owns a directory (`flock`).

Order of writes. A record is written and synced before it counts as resting. The cursor is synced before the
segments behind it are removed: a file that was gone while the cursor still named it would stop every start.
Guarantee: a kill at any moment loses no record that `append` has taken; records acknowledged since the cursor
was last synced are given out again. Memory does not grow with what rests: records are read when they are due.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

from connectors.durable import replace_file, sync_directory

SEGMENT_BYTES: Final = 64 << 20
_STAMPED: Final = 256
"""Records that share one stamp at the most."""
_STAMP_SPAN: Final = 200
"""The greatest difference to the stamps of records that share one: a few records may be hours of a night."""
_CHECKSUM: Final = b',"_crc":"'
_TAIL_BYTES: Final = len(_CHECKSUM) + 8 + len(b'"}\n')


class SpoolError(Exception):
    """A spool cannot be used: another process has it, or its files are not its own."""


class SpoolTakenError(SpoolError):
    """Another process has the spool."""


class SpoolFullError(Exception):
    """The spool holds as much as it may."""


@dataclass(frozen=True, slots=True)
class Record:
    """One resting record: its place in the order of all, and the JSON object without its checksum."""

    number: int
    body: bytes


@dataclass(slots=True)
class _Segment:
    """A file of records: the number of its first one, and the bytes that are whole records."""

    first: int
    path: Path
    size: int = 0


class Spool:
    """Resting records of one directory, first in, first out.

    Args:
        directory: made if it is missing; private to its owner.
        most_bytes: of all segments together.
        segment_bytes: at which a new segment begins.
        stamp: a number of a record, of which `least` tells the least among those that rest.

    Attributes:
        torn: records that were cut or passed over because they were not whole any more.
        bytes: of all segments.

    Raises:
        SpoolTakenError: another process has it.
        SpoolError: its files are not a spool's.
        OSError: the disk does not take it.
    """

    def __init__(
        self,
        directory: Path,
        most_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
        stamp: Callable[[bytes], int] = lambda _: 0,
    ) -> None:
        self.directory, self._most, self._segment_bytes = directory, most_bytes, segment_bytes
        # Each tells of the records up to a number that none has a lesser stamp; the stamps rise.
        self._stamp, self._stamps = stamp, deque[tuple[int, int]]()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        sync_directory(directory.parent)
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with ExitStack() as unless_whole:  # a lock that is left behind would hold everybody off
            unless_whole.callback(os.close, self._lock)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SpoolTakenError(
                    f"{directory} is another process's spool: give this one its own"
                ) from None
            self.torn = self.bytes = 0
            path = directory / "cursor"
            try:
                self._cursor = KeptNumber(path)
            except ValueError:
                raise SpoolError(
                    f"{path} is no cursor of a spool: restore it, or move the spool away"
                ) from None
            unless_whole.callback(self._cursor.close)
            self._acknowledged, self._ahead = self._cursor.value, set[int]()
            self._next = self._due = self._acknowledged + 1
            self._segments: deque[_Segment] = deque()
            self._returned: deque[Record] = deque()
            self._reading, self._offset = 0, 0
            self._file = -1
            self._recover()
            unless_whole.pop_all()

    @property
    def resting(self) -> int:
        """Records that are not acknowledged, those given out included."""
        return self._next - 1 - self._acknowledged - len(self._ahead)

    @property
    def least(self) -> int | None:
        """The least stamp of what rests, or a lesser one of its neighbours; None: nothing rests."""
        return self._stamps[0][1] if self.resting else None

    @property
    def full(self) -> float:
        """Share of `most_bytes` in use."""
        return self.bytes / self._most

    def append(self, bodies: Sequence[bytes]) -> None:
        """Put records, each a JSON object, on the disk: all of them or none.

        Raises:
            SpoolFullError: there is no room; nothing was written.
            OSError: the disk does not take them; nothing counts as written.
        """
        lines = b"".join(map(_sealed, bodies))
        if self.bytes + len(lines) > self._most:
            raise SpoolFullError
        if self._file < 0 or self._segments[-1].size >= self._segment_bytes:
            self._begin_segment()
        last = self._segments[-1]
        try:
            _write(self._file, lines)
            os.fdatasync(self._file)
        except OSError:
            # What a failed write left is cut off, or the next record would lie behind half of one; where the
            # disk does not even do that, it lies in a file of its own.
            with suppress(OSError):
                os.ftruncate(self._file, last.size)
            self._end_segment()
            if not last.size:  # its name is the next one's
                self._segments.pop()
            raise
        last.size += len(lines)
        self.bytes += len(lines)
        for body in bodies:
            self._count(body, self._next)
            self._next += 1

    def take(self, most: int) -> list[Record]:
        """The next records that were not given out yet, in order.

        Raises:
            OSError: the disk does not give them; none counts as given out.
        """
        taken = [self._returned.popleft() for _ in range(min(most, len(self._returned)))]
        try:
            self._read(taken, most)
        except BaseException:
            self.give_back(taken)
            raise
        return taken

    def give_back(self, records: Sequence[Record]) -> None:
        """Have records that were taken given out again, before all others, in their order."""
        self._returned.extendleft(reversed(records))

    def _read(self, taken: list[Record], most: int) -> None:
        """Add the next records on the disk to `taken`, until it has as many as are wanted."""
        self._due = max(self._due, self._acknowledged + 1)  # numbers that were cut off are nobody's
        while len(taken) < most and self._due < self._next:
            segment = next(one for one in reversed(self._segments) if one.first <= self._due)
            with segment.path.open("rb") as file:
                if segment.first != self._reading:
                    self._offset = sum(len(file.readline()) for _ in range(self._due - segment.first))
                    self._reading = segment.first  # last: where a read fails, the offset is another's still
                file.seek(self._offset)
                while len(taken) < most and self._offset < segment.size:
                    line = file.readline()
                    self._offset += len(line)
                    body = _opened(line)
                    if body is not None:
                        taken.append(Record(self._due, body))
                    elif self._due not in self._ahead:  # it was whole when it was written
                        self._ahead.add(self._due)
                        self.torn += 1
                    self._due += 1
            if self._offset >= segment.size:  # numbers cut off its end belong to nobody
                later = [one.first for one in self._segments if one.first > segment.first]
                self._due = later[0] if later else self._next

    def acknowledge(self, numbers: Sequence[int]) -> None:
        """Acknowledge records that are safe elsewhere. Segments that hold no others are removed, behind a
        synced cursor.

        Raises:
            OSError: the disk does not take the cursor; the next start may give the records out again.
        """
        self._ahead.update(numbers)
        while self._acknowledged + 1 in self._ahead:
            self._acknowledged += 1
            self._ahead.remove(self._acknowledged)
        while self._stamps and self._stamps[0][0] <= self._acknowledged:
            self._stamps.popleft()
        if not self.resting and self._segments:
            self._end_segment()
        ends = [*(one.first for one in self._segments), self._next][1:]
        done = [one for one, end in zip(self._segments, ends, strict=True) if end <= self._acknowledged + 1]
        if self._file >= 0 and done and done[-1] is self._segments[-1]:
            done.pop()
        if done:
            self._cursor.keep(self._acknowledged)
            for segment in done:
                self._remove(segment)

    def close(self) -> None:
        """Keep the cursor and let go of the directory."""
        with suppress(OSError):  # then the next start gives some records out again
            self._cursor.keep(self._acknowledged)
        self._cursor.close()
        self._end_segment()
        os.close(self._lock)

    def _count(self, body: bytes, number: int) -> None:
        """Remember a record's stamp, or a lesser one that it shares with its neighbours.

        A block of neighbours begins by its number: were it to begin by its stamp, equal ones would join all
        blocks into one, whose stamp stands for as long as the spool is filled and drained at once.
        """
        stamp, stamps = self._stamp(body), self._stamps
        while stamps and stamps[-1][1] > stamp:
            stamps.pop()
        if stamps:
            last, least = stamps[-1]
            if last // _STAMPED == number // _STAMPED and stamp - least <= _STAMP_SPAN:
                stamps[-1] = number, least
                return
        stamps.append((number, stamp))

    # Files

    def _begin_segment(self) -> None:
        self._end_segment()
        segment = _Segment(self._next, self.directory / f"{self._next:020d}.ndjson")
        file = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            sync_directory(self.directory)
        except OSError:
            os.close(file)
            raise
        self._file = file
        self._segments.append(segment)

    def _end_segment(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _remove(self, segment: _Segment) -> None:
        segment.path.unlink()
        self._segments.remove(segment)
        self.bytes -= segment.size

    def _recover(self) -> None:
        """Find what rests. What is not whole at a file's end is cut off; a damaged record before it is passed
        over. What lies behind the number at which the next file begins was not cut off when its write failed.
        """
        paths = sorted(self.directory.glob("*.ndjson"))
        if paths:  # a cursor that was lost is behind files that are gone
            self._acknowledged = max(self._acknowledged, _first(paths[0]) - 1)
            self._next = self._due = self._acknowledged + 1
        for path, following in zip_longest(paths, paths[1:]):
            segment, end = _Segment(_first(path), path), _first(following) if following else None
            number, whole, offset, damaged = segment.first, segment.first, 0, list[int]()
            with path.open("rb") as file:
                for line in file:
                    if number == end:
                        break
                    offset += len(line)
                    body = _opened(line)
                    if body is None:
                        damaged.append(number)
                    else:
                        if number > self._acknowledged:
                            self._count(body, number)
                        whole, segment.size = number + 1, offset
                    number += 1
            self.torn += len(damaged)
            if not segment.size:  # its name is the next one's
                path.unlink()
                continue
            os.truncate(path, segment.size)
            self._ahead.update(one for one in damaged if self._acknowledged < one < whole)
            self._ahead.update(range(self._next, segment.first))  # cut off the segment before
            self._segments.append(segment)
            self._next = max(self._next, whole)
            self.bytes += segment.size
        self.acknowledge(())


def _first(path: Path) -> int:
    """The number of a segment's first record, by which it is named."""
    try:
        return int(path.stem)
    except ValueError:
        raise SpoolError(f"{path} is no file of a spool: move it away") from None


def _sealed(body: bytes) -> bytes:
    assert body[-1:] == b"}"
    assert b"\n" not in body, "not a JSON object in one line"
    return _line(body)


def _line(body: bytes) -> bytes:
    """The line of a record: its checksum is the last field."""
    return b'%s%s%08x"}\n' % (body[:-1], _CHECKSUM, zlib.crc32(body))


def _opened(line: bytes) -> bytes | None:
    """The record of a line; None: it is not whole."""
    body = line[:-_TAIL_BYTES] + b"}"
    return body if line == _line(body) else None


def _write(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


class KeptNumber:
    """A number on the disk, written over in place, so that a full disk takes it too.

    Its digits lie in one sector, which a disk writes whole or not.

    Args:
        path: of its file, which is made with 0 if it is missing.

    Raises:
        ValueError: the file holds no number.
        OSError: the disk does not take it.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.value = int(path.read_bytes())
        except FileNotFoundError:
            self.value = 0
            replace_file(path, b"%020d" % 0)
        self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def keep(self, value: int) -> None:
        """Have another number on the disk when this returns.

        Raises:
            OSError: the disk does not take it.
        """
        os.pwrite(self._file, b"%020d" % value, 0)
        os.fdatasync(self._file)
        self.value = value

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
