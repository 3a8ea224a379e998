"""Rows that have ended, packed. A row is here from when it leaves Redis until its next pixel brings it back,
or it is forgotten.

A record is written once, after the earlier ones, in a segment of memory. A full segment becomes an immutable
file (`flows.state.journal.Files`) when a snapshot lists it. In memory stays an index of 16 bytes a row: a
keyed hash of its name, and the place of its latest record. A segment is dropped whole, once the youngest of
its records is forgotten. The owner defines the content of a record.
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
from flows.state.arrays import I64, U64
from flows.state.journal import Files

MERGE_AT: Final = 4_096
"""The greatest number of records whose places wait in a dictionary, until they are sorted into the index
together.
"""
OFFSET_BITS: Final = 32
GONE: Final = -1
_LENGTH: Final = 4
_HEAD: Final = _LENGTH + 8
"""The bytes before a record: its length, and its checksum, since it is read alone, long after its file."""
_SECRET: Final = 16

RowName = tuple[str, str]
"""Scope and id."""


@dataclass
class Segment:
    """Records in `body` or in the file `name`, each after its length and checksum.

    `minute` is the youngest record's.
    """

    name: str = ""
    body: bytearray | bytes = field(default_factory=bytearray)
    minute: int = 0


@dataclass
class Ended:
    """Packed rows of one row shard, by scope and id.

    Attributes:
        secret: of the hash: whoever chooses names must not choose their places.
        first: number of the oldest segment.
        forgotten: the minute before which forgotten rows had their last pixel; 0 if none is forgotten.
    """

    secret: bytes = field(default_factory=lambda: token_bytes(_SECRET))
    first: int = 0
    forgotten: int = 0
    segments: list[Segment] = field(default_factory=lambda: [Segment()])
    _keys: U64 = field(default_factory=lambda: np.zeros(0, np.uint64))
    _places: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    _fresh: dict[int, int] = field(default_factory=dict)
    _files: Files = field(default_factory=lambda: Files(None))

    def key(self, row: RowName) -> int:
        """64 bits that stand for a name, never 0."""
        text = f"{row[0]}\0{row[1]}".encode()
        return int.from_bytes(blake2b(text, digest_size=8, key=self.secret).digest(), "little") or 1

    def put(self, row: RowName, minute: int, values: Iterable[Any]) -> None:
        """Store the plain values of a row whose last pixel or credit was in `minute`."""
        record = msgspec.msgpack.encode((*row, minute, *values))
        open_one = self.segments[-1]
        if len(open_one.body) >= journal.SPILL_BYTES:
            open_one = Segment()
            self.segments.append(open_one)
        serial = self.first + len(self.segments) - 1
        self._fresh[self.key(row)] = serial << OFFSET_BITS | len(open_one.body)
        assert isinstance(open_one.body, bytearray), "an open segment is in memory"
        open_one.body += len(record).to_bytes(_LENGTH, "little") + xxh3_64_digest(record) + record
        open_one.minute = max(open_one.minute, minute)
        if len(self._fresh) >= MERGE_AT:
            self._merge()

    def has(self, row: RowName) -> bool:
        """True if a record is stored for a name, or for another of the same hash."""
        return self._at(self.key(row))[1] != GONE

    def _at(self, key: int) -> tuple[int, int]:
        """The place of a hash in the index, or the index's end if it is absent; and the place of its latest
        record.
        """
        place = self._fresh.get(key, GONE)
        at = int(np.searchsorted(self._keys, np.uint64(key))) if place == GONE else len(self._keys)
        if at < len(self._keys) and int(self._keys[at]) == key:
            place = int(self._places[at])
        return at, place

    def take(self, row: RowName, oldest: int) -> list[Any] | None:
        """Remove a row and return its values; None if it has none, or if its last minute is before
        `oldest`.
        """
        if not len(self._keys) and not self._fresh:
            return None
        key = self.key(row)
        at, place = self._at(key)
        if place == GONE:
            return None
        scope, name, minute, *values = self._record(place)
        if (scope, name) != row:  # two names of one hash: the later record hides the other's
            return None
        if self._fresh.pop(key, None) is None:
            self._places[at] = GONE
        if minute < oldest:
            self.forgotten = max(self.forgotten, minute + 1)
            return None
        return values

    def _record(self, place: int) -> list[Any]:
        serial, offset = place >> OFFSET_BITS, place & ((1 << OFFSET_BITS) - 1)
        segment = self.segments[serial - self.first]
        body = self._files.part(segment.name, offset) if segment.name else segment.body[offset:]
        packed = body[_HEAD : _HEAD + int.from_bytes(body[:_LENGTH], "little")]
        if xxh3_64_digest(packed) != body[_LENGTH:_HEAD]:
            raise StateError(
                f"an ended row in {segment.name} is damaged: restore the whole recovery directory, or "
                "recompute from the log"
            )
        record: list[Any] = msgspec.msgpack.decode(packed)
        return record

    def _merge(self) -> None:
        """Sort the fresh records into the index, without removed ones and those that have a later record."""
        fresh = np.fromiter(self._fresh, np.uint64, len(self._fresh))
        kept = (self._places >= self.first << OFFSET_BITS) & ~np.isin(self._keys, fresh)
        keys = np.concatenate([self._keys[kept], fresh])
        places = np.concatenate(
            [self._places[kept], np.fromiter(self._fresh.values(), np.int64, len(self._fresh))]
        )
        order = np.argsort(keys)
        self._keys, self._places, self._fresh = keys[order], places[order], {}

    def drop_expired(self, oldest: int) -> None:
        """Drop the segments whose youngest row is from before the minute `oldest`."""
        before = self.first
        while len(self.segments) > 1 and self.segments[0].minute < oldest:
            self.forgotten = max(self.forgotten, self.segments.pop(0).minute + 1)
            self.first += 1
        if self.first > before:
            self._fresh = {
                key: place for key, place in self._fresh.items() if place >> OFFSET_BITS >= self.first
            }
            self._merge()

    def __len__(self) -> int:
        """The number of stored rows; rows of the same hash count as one."""
        return len(self._fresh) + int(np.count_nonzero(self._places != GONE))

    @property
    def nbytes(self) -> int:
        """The memory of segments and index, about, in bytes."""
        bodies = sum(len(segment.body) for segment in self.segments)
        return bodies + self._keys.nbytes + self._places.nbytes + 100 * len(self._fresh)

    def names(self) -> list[str]:
        """The names of the segments that are files."""
        return [segment.name for segment in self.segments if segment.name]

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """Plain state: the segments, of which the full ones may be in `files`."""
        self._files = files
        if files.directory is not None:
            for segment in self.segments[:-1]:
                if not segment.name:
                    segment.name, segment.body = files.write(bytes(segment.body)), b""
        kept = [(segment.name, bytes(segment.body), segment.minute) for segment in self.segments]
        return self.secret, self.first, self.forgotten, kept

    @classmethod
    def restored(cls, state: tuple[Any, ...], files: Files, back: Container[RowName]) -> Ended:
        """The rows of `snapshot`'s state; rows that are `back` had been removed."""
        secret, first, forgotten, segments = state
        self = cls(secret, first, forgotten, [Segment(name, body, minute) for name, body, minute in segments])
        self.segments[-1].body = bytearray(self.segments[-1].body)
        self._files = files
        for serial, segment in enumerate(self.segments, first):
            body = files.read(segment.name) if segment.name else bytes(segment.body)
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
