"""Rows that have ended, packed. A row is stored from its removal from Redis until its next pixel restores it,
or until it is forgotten.

A record is appended once to a segment (`flows.state.journal`), and a large segment becomes a file. Memory
holds an index of 16 bytes a row, in sorted runs (`flows.state.runs`): a keyed hash of the name, and the place
of the latest record. A segment is dropped as a whole once its youngest record is forgotten. The owner defines
the content of a record.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from secrets import token_bytes
from typing import Any, Final

import msgspec
import numpy as np
from xxhash import xxh3_64_digest

from flows.errors import StateError
from flows.state import journal
from flows.state.journal import Files, Segment
from flows.state.runs import Runs, columns_at, latest_rows

MERGE_AT: Final = 4_096
"""The number of records whose places wait in a dictionary before they become a run of the index."""
OFFSET_BITS: Final = 32
NONE: Final = -1
"""The place of a missing record."""
_LENGTH: Final = 4
_HEAD: Final = _LENGTH + 8
"""The bytes before a record: its length and its checksum. Records have checksums of their own, since one
record is read long after its file was checked.
"""
_SECRET: Final = 16

RowName = tuple[str, str]
"""Scope and id."""


@dataclass
class Ended:
    """Packed rows of one row shard, by scope and id.

    Attributes:
        secret: the key of the hash: a sender who chooses names must not choose their places.
        first: number of the oldest segment.
        forgotten: the minute before which all forgotten rows had their last pixel; 0 if no row is forgotten.
        segments: records, each after its length and checksum. A segment's mark is the minute of its youngest
            record.
    """

    secret: bytes = field(default_factory=lambda: token_bytes(_SECRET))
    first: int = 0
    forgotten: int = 0
    segments: list[Segment] = field(default_factory=lambda: [Segment()])
    _index: Runs = field(default_factory=lambda: Runs(np.uint64, np.int64, ratio=4))
    _fresh: dict[int, int] = field(default_factory=dict)
    _files: Files = field(default_factory=lambda: Files(None))

    def key(self, row: RowName) -> int:
        """64 bits that stand for a name, never 0."""
        text = f"{row[0]}\0{row[1]}".encode()
        return int.from_bytes(blake2b(text, digest_size=8, key=self.secret).digest(), "little") or 1

    def put(self, row: RowName, minute: int, values: Iterable[Any]) -> None:
        """Store the plain values of a row with its last pixel or credit in `minute`."""
        record = msgspec.msgpack.encode((*row, minute, *values))
        last = self.segments[-1]
        if last.name or last.size >= journal.SPILL_BYTES:
            last.join()
            self.segments.append(last := Segment())
        serial = self.first + len(self.segments) - 1
        self._fresh[self.key(row)] = serial << OFFSET_BITS | last.size
        body = len(record).to_bytes(_LENGTH, "little") + xxh3_64_digest(record) + record
        last.add(body, 1, max(last.mark, minute))
        if len(self._fresh) >= MERGE_AT:
            self._merge()

    def has(self, row: RowName) -> bool:
        """True if a record is stored for a name, or for another of the same hash."""
        return self._place(self.key(row)) != NONE

    def _place(self, key: int) -> int:
        """The place of the latest record of a hash."""
        if key in self._fresh:
            return self._fresh[key]
        row = self._index.latest_row(key)
        return NONE if row is None else int(row[1])

    def take(self, row: RowName, oldest: int) -> list[Any] | None:
        """Remove a row and return its values; None if no values are stored, or the last minute is before
        `oldest`.
        """
        if not len(self):
            return None
        key = self.key(row)
        place = self._place(key)
        if place == NONE:
            return None
        scope, name, minute, *values = self._record(place)
        if (scope, name) != row:  # two names of one hash: the later record hides the earlier one
            return None
        if self._fresh.pop(key, None) is None:
            self._index.take(np.array([key], np.uint64))
        if minute < oldest:
            self.forgotten = max(self.forgotten, minute + 1)
            return None
        return values

    def _record(self, place: int) -> list[Any]:
        serial, offset = place >> OFFSET_BITS, place & ((1 << OFFSET_BITS) - 1)
        segment = self.segments[serial - self.first]
        body = self._files.part(segment.name, offset) if segment.name else segment.join()[offset:]
        packed = body[_HEAD : _HEAD + int.from_bytes(body[:_LENGTH], "little")]
        if xxh3_64_digest(packed) != body[_LENGTH:_HEAD]:
            raise StateError(
                f"an ended row in {segment.name} is damaged: restore the whole recovery directory, or "
                "recompute from the log"
            )
        record: list[Any] = msgspec.msgpack.decode(packed)
        return record

    def _merge(self) -> None:
        """Make a run of the waiting records."""
        keys = np.fromiter(self._fresh, np.uint64, len(self._fresh))
        places = np.fromiter(self._fresh.values(), np.int64, len(self._fresh))
        self._index.add(columns_at((keys, places), np.argsort(keys)), latest_rows)
        self._fresh = {}

    def drop_expired(self, oldest: int) -> None:
        """Drop the segments whose youngest record is from before the minute `oldest`."""
        before = self.first
        while len(self.segments) > 1 and self.segments[0].mark < oldest:
            self.forgotten = max(self.forgotten, self.segments.pop(0).mark + 1)
            self.first += 1
        if self.first > before:
            first_place = self.first << OFFSET_BITS
            self._fresh = {key: place for key, place in self._fresh.items() if place >= first_place}
            self._index.drop(lambda columns: columns[1] < first_place)

    def __len__(self) -> int:
        """The number of stored rows."""
        return len(self._fresh) + len(self._index)

    @property
    def nbytes(self) -> int:
        """The memory of segments and index, in bytes (estimated)."""
        bodies = sum(segment.size for segment in self.segments if not segment.name)
        return bodies + self._index.nbytes + 100 * len(self._fresh)

    def file_names(self) -> list[str]:
        """The names of the segments that are files."""
        return [segment.name for segment in self.segments if segment.name]

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """The state as plain values: the segments; large ones are in `files`."""
        self._files = files
        for segment in self.segments:
            segment.close(files)
        return self.secret, self.first, self.forgotten, [segment.plain() for segment in self.segments]

    @classmethod
    def restored(cls, state: tuple[Any, ...], files: Files, back: Container[RowName]) -> Ended:
        """The rows of a state of `snapshot`, without the rows `back`, which had been restored."""
        secret, first, forgotten, segments = state
        self = cls(secret, first, forgotten, [Segment(*plain) for plain in segments])
        self._files = files
        for serial, segment in enumerate(self.segments, first):
            body = segment.body(files)
            for offset, (scope, name, *_) in _records(body):
                if (scope, name) not in back:
                    self._fresh[self.key((scope, name))] = serial << OFFSET_BITS | offset
        self._merge()
        return self


def _records(body: bytes) -> Iterator[tuple[int, list[Any]]]:
    """The records of a segment, with their offsets."""
    offset = 0
    while offset < len(body):
        start = offset + _HEAD
        end = start + int.from_bytes(body[offset : offset + _LENGTH], "little")
        yield offset, msgspec.msgpack.decode(body[start:end])
        offset = end
