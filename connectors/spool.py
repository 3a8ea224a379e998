"""A spool: records that are on disk before `append` returns, and stay there until they are acknowledged.

One directory holds a cursor and segment files of lines. A record is a line with a JSON object whose last
field is its checksum; any reader of NDJSON can read a segment. One process owns a directory (`flock`).

Order of writes. A record is written and synced before it counts as resting. The cursor is synced before the
segments that it has passed are removed: a cursor that names a removed file would stop every start. Guarantee:
a kill at any moment loses no record that `append` has taken. Records acknowledged since the last sync of the
cursor are returned again. Records are read from disk when they are due: memory holds one byte for each
resting record, its queue. Records of one queue are returned in order, independently of other queues.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from array import array
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Final

from connectors.durable import replace_file, sync_directory

SEGMENT_BYTES: Final = 64 << 20
_STAMPED: Final = 256
"""The greatest number of records that share one stamp."""
_STAMP_SPAN: Final = 200
"""The greatest difference between the stamps of records that share one: a few records may span hours of a
night.
"""
QUEUES: Final = 127
"""The number of queues, which are numbered from 0."""
_GONE, _OUT = 0, 128
"""States of a record. `_GONE`: acknowledged. Otherwise the number of its queue plus 1, with `_OUT` added once
it was taken.
"""
_SORTED_AT_ONCE: Final = 1_000
_INDEXED: Final = 64
"""Every so many records, the place of a record in its file is known without reading."""
_CHECKSUM: Final = b',"_crc":"'
_TAIL_BYTES: Final = len(_CHECKSUM) + 8 + len(b'"}\n')


class SpoolError(Exception):
    """A spool cannot be used: another process has it, or its directory has foreign files."""


class SpoolTakenError(SpoolError):
    """Another process has the spool."""


class SpoolFullError(Exception):
    """The spool has no room left."""


@dataclass(frozen=True, slots=True)
class Record:
    """A resting record: its number in the order of all records, the JSON object without its checksum, its
    queue.
    """

    number: int
    body: bytes
    queue: int = 0


@dataclass(slots=True)
class _Segment:
    """A file of records: the number of its first record, and the number of bytes of whole records.

    Attributes:
        states: of its records, one byte each: `_GONE`, or the queue, with `_OUT` if the record was taken.
        resting: the number of records that are not acknowledged.
        places: the place in the file of every `_INDEXED`th record.
    """

    first: int
    path: Path
    size: int = 0
    states: bytearray = field(default_factory=bytearray)
    resting: int = 0
    places: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def end(self) -> int:
        """The number after its last record."""
        return self.first + len(self.states)

    def add(self, state: int, place: int) -> None:
        """Add a record that begins at `place` in the file."""
        if not len(self.states) % _INDEXED:
            self.places.append(place)
        self.states.append(state)
        self.resting += state != _GONE


class Spool:
    """The resting records of one directory, in queues that are first in, first out.

    Queues are not stored: after a start all records are in queue 0, and `sort` moves them into their queues.

    Args:
        directory: created if missing; private to its owner.
        most_bytes: the greatest number of bytes of all segments together.
        segment_bytes: the size at which a new segment begins.
        stamp: returns a number for a record; the property `least` is the least stamp of the resting records.

    Attributes:
        torn: the number of damaged records that were cut off or skipped.
        bytes: the size of all segments.
        resting: the number of records that are not acknowledged, taken ones included.
        due: by queue, the number of resting records that are not taken.

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
        # Each entry covers the records up to a number; none of them has a lesser stamp. The stamps ascend.
        self._stamp, self._stamps = stamp, deque[tuple[int, int]]()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        sync_directory(directory.parent)
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with ExitStack() as unless_whole:  # a lock left behind would keep every process out
            unless_whole.callback(os.close, self._lock)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SpoolTakenError(
                    f"{directory} is the spool of another process: use another directory"
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
            self._acknowledged, self.resting = self._cursor.value, 0
            self._next = self._acknowledged + 1
            self._segments: list[_Segment] = []
            self.due: Counter[int] = Counter()
            self._from: dict[int, int] = {}  # by queue: no record below this number is due
            self._file = -1
            self._recover()
            unless_whole.pop_all()

    @property
    def least(self) -> int | None:
        """The least stamp of the resting records, or of a neighbour that shares it; None without resting
        records.
        """
        return self._stamps[0][1] if self.resting else None

    @property
    def full(self) -> float:
        """The share of `most_bytes` in use."""
        return self.bytes / self._most

    def append(self, bodies: Sequence[bytes], queues: Sequence[int] = ()) -> None:
        """Write records, each a JSON object, to disk: all of them or none.

        Args:
            queues: the queue of each record; 0 by default.

        Raises:
            SpoolFullError: there is no room; no record was written.
            OSError: the disk does not take them; no record counts as written.
        """
        sealed = [_sealed(body) for body in bodies]
        lines = b"".join(sealed)
        if self.bytes + len(lines) > self._most:
            raise SpoolFullError
        if self._file < 0 or self._segments[-1].size >= self._segment_bytes:
            self._begin_segment()
        last = self._segments[-1]
        try:
            _write(self._file, lines)
            os.fdatasync(self._file)
        except OSError:
            # Cut off the rest of a failed write, or the next record would follow half of one. If the disk
            # refuses even that, the next record goes into a file of its own.
            with suppress(OSError):
                os.ftruncate(self._file, last.size)
            self._end_segment()
            if not last.size:  # the next segment takes its name
                self._segments.pop()
            raise
        for body, line, queue in zip(bodies, sealed, queues or [0] * len(bodies), strict=True):
            last.add(queue + 1, last.size)
            last.size += len(line)
            self._count(body, self._next)
            self._next += 1
            self.due[queue] += 1
        self.resting += len(bodies)
        self.bytes += len(lines)

    def take(self, most: int, queue: int = 0) -> list[Record]:
        """Take the next records of a queue that are due, in order.

        Raises:
            OSError: the disk does not return them; no record counts as taken.
        """
        records, damaged = list[Record](), list[int]()
        number = self._from.get(queue, 0)
        while len(records) < most and self.due[queue] > len(records) + len(damaged):
            segment = next(one for one in self._segments if one.end > number)
            number = self._read(segment, max(number, segment.first), most, queue, records, damaged)
        for record in records:
            segment = self._segment(record.number)
            segment.states[record.number - segment.first] |= _OUT
        self.due[queue] -= len(records)
        self._from[queue] = number
        self.torn += len(damaged)
        self._gone(damaged)
        return records

    def _read(
        self, segment: _Segment, start: int, most: int, queue: int, records: list[Record], damaged: list[int]
    ) -> int:
        """Add the records of a queue in one segment, from the number `start` on, to `records`, up to `most`
        in all. Returns the number after the last record that was examined.
        """
        states, begin, read = segment.states, start - segment.first, -1
        with segment.path.open("rb") as file:
            while len(records) < most and (place := states.find(queue + 1, begin)) >= 0:
                if read < 0 or place // _INDEXED > read // _INDEXED:
                    read = place - place % _INDEXED
                    file.seek(segment.places[read // _INDEXED])
                while read < place:  # of other queues
                    file.readline()
                    read += 1
                body = _opened(file.readline())
                read, begin, number = place + 1, place + 1, segment.first + place
                if body is None:  # the disk has damaged it since
                    damaged.append(number)
                else:
                    records.append(Record(number, body, queue))
        return segment.first + begin if len(records) == most else segment.end

    def sort(self, queue_of: Callable[[bytes], int]) -> None:
        """Move each due record of queue 0 into its own queue.

        Raises:
            OSError: the disk does not return all of them; some may be in their queues already.
        """
        for segment in self._segments:
            number = segment.first
            while number < segment.end:
                records = list[Record]()
                number = self._read(segment, number, _SORTED_AT_ONCE, 0, records, [])
                self.due[0] -= len(records)
                self.give_back(records, [queue_of(record.body) for record in records])

    def give_back(self, records: Sequence[Record], queues: Sequence[int] = ()) -> None:
        """Make taken records due again, in the order of all.

        Args:
            queues: the new queue of each record; its former queue by default.
        """
        for record, queue in zip(records, queues or [one.queue for one in records], strict=True):
            segment = self._segment(record.number)
            segment.states[record.number - segment.first] = queue + 1
            self.due[queue] += 1
            self._from[queue] = min(self._from.get(queue, 0), record.number)

    def acknowledge(self, numbers: Sequence[int]) -> None:
        """Acknowledge records that are stored elsewhere. Segments without other records are removed after the
        cursor is synced.

        Raises:
            OSError: the disk does not take the cursor; the next start may return the records again.
        """
        self._gone(numbers)
        first = next((one for one in self._segments if one.resting), None)
        if first is None:
            self._acknowledged = self._next - 1
        else:
            self._acknowledged = first.end - len(first.states.lstrip(bytes([_GONE]))) - 1
        while self._stamps and self._stamps[0][0] <= self._acknowledged:
            self._stamps.popleft()
        if not self.resting and self._segments:
            self._end_segment()
        done = [one for one in self._segments if not one.resting]
        if self._file >= 0 and done and done[-1] is self._segments[-1]:
            done.pop()
        if done:
            self._cursor.keep(self._acknowledged)
            for segment in done:
                self._remove(segment)

    def _gone(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            segment = self._segment(number)
            state = segment.states[number - segment.first]
            if state == _GONE:
                continue
            if not state & _OUT:
                self.due[state - 1] -= 1
            segment.states[number - segment.first] = _GONE
            segment.resting -= 1
            self.resting -= 1

    def _segment(self, number: int) -> _Segment:
        """The segment of a resting record."""
        return self._segments[bisect_right(self._segments, number, key=lambda one: one.first) - 1]

    def close(self) -> None:
        """Write the cursor and release the directory."""
        with suppress(OSError):  # the next start then returns some records again
            self._cursor.keep(self._acknowledged)
        self._cursor.close()
        self._end_segment()
        os.close(self._lock)

    def _count(self, body: bytes, number: int) -> None:
        """Store the stamp of a record, or a lesser stamp that it shares with its neighbours.

        A block of neighbours begins at a multiple of `_STAMPED`. If it began at a new stamp, equal stamps
        would join all blocks into one, whose stamp would never change while the spool is filled and drained
        at once.
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
        """Find the resting records. A part of a record at a file's end is cut off; a damaged record before it
        is skipped. Records beyond the number at which the next file begins are the rest of a failed write
        that could not be cut off.
        """
        paths = sorted(self.directory.glob("*.ndjson"))
        if paths:  # a lost cursor is restored to before the first file
            self._acknowledged = max(self._acknowledged, _first(paths[0]) - 1)
            self._next = self._acknowledged + 1
        for path, following in zip_longest(paths, paths[1:]):
            segment, end = _Segment(_first(path), path), _first(following) if following else None
            place, damaged = 0, list[int]()
            with path.open("rb") as file:
                for line in file:
                    number = segment.end + len(damaged)
                    if number == end:
                        break
                    body = _opened(line)
                    if body is None:
                        damaged.append(place)
                        self.torn += 1
                    else:
                        for damaged_place in damaged:
                            segment.add(_GONE, damaged_place)
                        damaged.clear()
                        rests = number > self._acknowledged
                        segment.add(1 if rests else _GONE, place)
                        if rests:
                            self._count(body, number)
                        segment.size = place + len(line)
                    place += len(line)
            if not segment.size:  # the next segment takes its name
                path.unlink()
                continue
            os.truncate(path, segment.size)
            self._segments.append(segment)
            self._next = max(self._next, segment.end)
            self.bytes += segment.size
            self.resting += segment.resting
            self.due[0] += segment.resting
        self.acknowledge(())


def _first(path: Path) -> int:
    """The number of a segment's first record, which is the name of its file."""
    try:
        return int(path.stem)
    except ValueError:
        raise SpoolError(f"{path} is no file of a spool: move it away") from None


def _sealed(body: bytes) -> bytes:
    assert body[-1:] == b"}"
    assert b"\n" not in body, "not a JSON object in one line"
    return _line(body)


def _line(body: bytes) -> bytes:
    """The line of a record, with its checksum as the last field."""
    return b'%s%s%08x"}\n' % (body[:-1], _CHECKSUM, zlib.crc32(body))


def _opened(line: bytes) -> bytes | None:
    """The record of a line; None if it is damaged."""
    body = line[:-_TAIL_BYTES] + b"}"
    return body if line == _line(body) else None


def _write(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


class KeptNumber:
    """A number on disk, overwritten in place, so that even a full disk accepts a new one.

    Its digits lie in one sector, which a disk writes whole or not at all.

    Args:
        path: of its file, which is created with 0 if missing.

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
        """Write another number; returns when it is on disk.

        Raises:
            OSError: the disk does not take it.
        """
        os.pwrite(self._file, b"%020d" % value, 0)
        os.fdatasync(self._file)
        self.value = value

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
