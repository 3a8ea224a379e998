"""Reads an archive as an input: the partitions of its topic, with offsets and the broker's timestamps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

import numpy as np

from connectors.objects import NotThere, Objects
from connectors.stream import ConnectError, EndOfInput, Lines, Messages
from flows.archive.manifest import Part, part_paths, parts, read_part, topic_of
from flows.archive.segments import HOUR_MS, Content, Segment, opened
from flows.errors import StateError
from flows.state.arrays import I64

ADDRESS: Final = "archive:"
"""The prefix of an archive's address in a setting that may also name a file or a place in a topic."""
_TRIES: Final = 3


class ArchiveInput:
    """All partitions of an archive, each up to its end at the time of opening.

    Raises:
        StateError: there is no archive.
        ConnectError: the archive cannot be read.
    """

    live = False

    def __init__(self, store: Objects) -> None:
        self._store = store
        self._paths = part_paths(store)
        self.topic = topic_of(store, self._paths)

    def partitions(self) -> list[str]:
        """`topic/partition` of each partition in the manifest."""
        return [f"{self.topic}/{partition}" for partition in sorted(self._paths)]

    def open(self, partition: str, position: int | None, log_id: str = "") -> ArchiveReader:
        """Open at an offset; at the beginning if it is None.

        Raises:
            StateError: the manifest has a gap, or begins after the offset.
            ConnectError: the manifest cannot be read.
        """
        number = int(partition.rpartition("/")[2])
        return ArchiveReader(self._store, [*parts(self._store, self._paths.get(number, []))], position)


class ArchiveReader:
    """A partition of an archive.

    Attributes:
        position: the next offset to read.
        begin, end: the first offset, and the next one after the last segment.
        skipped: the number of messages missing between the segments that were read.
    """

    caught_up = in_history = False
    errors = 0

    def __init__(self, store: Objects, parts: Sequence[Part], position: int | None) -> None:
        self._store, self._parts = store, parts
        self._segments: list[Segment] = [one for part in parts for one in part.segments]
        self._firsts = [one.first for one in self._segments]
        self.begin, self.end = (parts[0].first, parts[-1].next) if parts else (0, 0)
        self.position = self.begin if position is None else position
        if not self.begin <= self.position <= self.end:
            raise StateError(
                f"offset {self.position} is not in the archive, which has {self.begin} to {self.end} of "
                f"{parts[-1].name if parts else 'this partition'}"
            )
        self.skipped = 0
        self._content: Content | None = None
        self._place = 0
        self._segment: Segment | None = None

    def first_since(self, from_ms: int) -> int:
        """The first offset of the first segment whose hour ends after `from_ms`; the archive's end if none
        does.
        """
        ending = (one.first for one in self._segments if one.hour_ms + HOUR_MS > from_ms)
        return next(ending, self.end)

    @property
    def log_id(self) -> str:
        """The id of the topic's log to which offsets belong."""
        return self._parts[-1].log_id.partition(":")[0] if self._parts else ""

    @property
    def end_id(self) -> str:
        """The id of the topic's log at the archive's end."""
        return self._parts[-1].log_id if self._parts else ""

    @property
    def lag(self) -> int:
        """The number of offsets up to the archive's end."""
        return self.end - self.position

    def read(self, limit: int) -> Messages:
        """At most `limit` messages.

        Raises:
            EndOfInput: all messages are read.
            StateError: a segment is damaged.
            ConnectError: a segment cannot be read.
        """
        lost = 0
        while self._content is None or self._place == len(self._content.lines):
            lost += self._next()
        pieces = [self._cut(limit)]
        count = len(pieces[0][0])
        # Segments of a quiet partition are small. A batch of one would let the flow rest after each.
        while 2 * count < limit and self._may_continue():
            self._next()
            assert self._content is not None
            if self._place < len(self._content.lines):
                pieces.append(self._cut(limit - count))
                count += len(pieces[-1][0])
        lines, offsets, stamps = pieces[0]
        if len(pieces) > 1:
            blocks = (piece.block[piece.begin : piece.ends[-1] + 1] for piece, _, _ in pieces)
            lines = Lines.split(b"".join(blocks))
            offsets = np.concatenate([piece for _, piece, _ in pieces])
            stamps = np.concatenate([piece for *_, piece in pieces])
        first, last = int(offsets[0]), int(offsets[-1])
        # Offsets mostly follow each other, and a range costs the decoder nothing.
        positions = range(first, last + 1) if last - first == count - 1 else offsets.tolist()
        return Messages(lines, positions, self.position, stamps.tolist(), lost)

    def _cut(self, limit: int) -> tuple[Lines, I64, I64]:
        """The next lines of the open segment, with their offsets and timestamps."""
        content, segment = self._content, self._segment
        assert content is not None
        assert segment is not None
        begin, end = self._place, min(self._place + limit, len(content.lines))
        self._place = end
        self.position = segment.next if end == len(content.lines) else int(content.offsets[end - 1]) + 1
        return content.lines[begin:end], content.offsets[begin:end], content.stamps_ms[begin:end]

    def _may_continue(self) -> bool:
        """True if the open segment is read and the next one follows without a gap."""
        if self._content is None or self._place < len(self._content.lines) or self.position >= self.end:
            return False
        return not self._segments[bisect_right(self._firsts, self.position) - 1].lost

    def _next(self) -> int:
        """Open the segment of `position`, and return the number of messages that are missing before it."""
        if self.position >= self.end:
            raise EndOfInput(f"the archive ends at {self.end}")
        place = bisect_right(self._firsts, self.position) - 1
        segment = self._segments[place]
        self._content, self._segment = self._opened(segment), segment
        self._place = int(np.searchsorted(self._content.offsets, self.position))
        if self._place == len(self._content.lines):  # no message of the segment is at or after `position`
            self.position = segment.next
        if self.position > segment.first:
            return 0
        self.skipped += segment.lost
        return segment.lost

    def _opened(self, segment: Segment) -> Content:
        for _ in range(_TRIES):
            try:
                return opened(self._store.get(segment.path)[0], segment)
            except NotThere:  # the segment was written again, without forgotten people
                segment = self._relisted(segment)
        raise ConnectError(f"{segment.path}: is missing, and the manifest lists it: restore the file")

    def _relisted(self, segment: Segment) -> Segment:
        """The segment of the same range in the present manifest."""
        part = next(one for one in self._parts if one.first <= segment.first < one.next)
        present_part, _ = read_part(self._store, part.path)
        return next((one for one in present_part.segments if one.first == segment.first), segment)

    def proven(self) -> bool:
        """False, since `read` raises at an archive's end."""
        return False

    def commit(self, position: int) -> None:
        """Do nothing: no tool reads a position in an archive."""

    def close(self) -> None:
        """Do nothing: the reader holds nothing open."""
