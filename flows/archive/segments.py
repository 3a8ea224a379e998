"""A segment: the raw messages of one range of offsets of one partition, as a file of zstd.

The file is a frame of NDJSON, with a line for each message. After it comes a skippable frame (RFC 8878,
3.1.2) with the offsets and the broker's timestamps. Readers of zstd skip it, so `zstdcat`, DuckDB and
`audiopixel replay` read the file as a log. The line of a malformed message is empty. Its length and SHA-256
are in the skippable frame.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import zstandard

from connectors.stream import Lines
from flows.errors import UNREADABLE, StateError
from flows.state.arrays import I64

HOUR_MS: Final = 3_600_000
SKIPPABLE: Final = 0x184D2A50
_LEVEL: Final = 3
_PARAMETERS: Final = zstandard.ZstdCompressionParameters.from_level(
    _LEVEL, window_log=24, enable_ldm=True, write_checksum=1
)
"""The pixels of one play are seconds apart. A window that holds them all halves the file."""
_HEAD: Final = struct.Struct("<II")
SUFFIX: Final = ".ndjson.zst"


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A segment's entry in the manifest.

    Attributes:
        path: relative to the archive.
        first, next: the first offset, and the next one after the segment. Offsets in between without a
            message belong to transactions, or to messages that compaction removed.
        messages, malformed: the number of all messages, and of those that are no JSON object.
        lost: the number of messages before `first` that Kafka deleted before they were read.
        bytes, raw_bytes: the sizes of the file and of its lines.
        sha256: the digest of the file.
        hour_ms: the begin of the hour of all its messages, in epoch ms.
        first_ms, last_ms: the broker's timestamps of its first and its last message.
    """

    path: str
    first: int
    next: int
    messages: int
    malformed: int
    lost: int = 0
    bytes: int
    raw_bytes: int
    sha256: str
    hour_ms: int
    first_ms: int
    last_ms: int


class _Index(msgspec.Struct):
    offsets: bytes
    stamps: bytes
    malformed: list[tuple[int, int, str]]


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a segment.

    Attributes:
        lines: one for each message, empty for a malformed one.
        offsets, stamps_ms: int64, one for each message.
        malformed: place, length and SHA-256 of each malformed message.
    """

    lines: Lines
    offsets: I64
    stamps_ms: I64
    malformed: list[tuple[int, int, str]]


@dataclass
class Builder:
    """An open segment, of one hour, from the offset `first` on."""

    first: int
    hour_ms: int
    lost: int = 0
    raw_bytes: int = 0
    messages: int = 0
    _pieces: list[bytes] = field(default_factory=list)
    _offsets: list[int] = field(default_factory=list)
    _stamps: list[int] = field(default_factory=list)
    _malformed: list[tuple[int, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._zstd = zstandard.ZstdCompressor(compression_params=_PARAMETERS).compressobj()

    def add(
        self,
        lines: Sequence[bytes],
        offsets: Sequence[int],
        stamps_ms: Sequence[int],
        malformed: Sequence[tuple[int, int, str]] = (),
    ) -> None:
        """Append messages, given as lines without LF. `malformed` has their places among these messages."""
        block = b"".join([line + b"\n" for line in lines])
        self._pieces.append(self._zstd.compress(block))
        self._malformed += [(self.messages + place, size, digest) for place, size, digest in malformed]
        self._offsets += offsets
        self._stamps += stamps_ms
        self.raw_bytes += len(block)
        self.messages += len(lines)

    def close(self, next_offset: int, path: str) -> tuple[bytes, Segment]:
        """The file of all messages before `next_offset`, and its entry for the manifest."""
        offsets, stamps = np.array(self._offsets, np.int64), np.array(self._stamps, np.int64)
        index = _Index(
            np.diff(offsets, prepend=0).tobytes(), np.diff(stamps, prepend=0).tobytes(), self._malformed
        )
        index_bytes = zstandard.ZstdCompressor(level=_LEVEL).compress(msgspec.msgpack.encode(index))
        self._pieces += [self._zstd.flush(), _HEAD.pack(SKIPPABLE, len(index_bytes)), index_bytes]
        body = b"".join(self._pieces)
        return body, Segment(
            path=path,
            first=self.first,
            next=next_offset,
            messages=self.messages,
            malformed=len(self._malformed),
            lost=self.lost,
            bytes=len(body),
            raw_bytes=self.raw_bytes,
            sha256=hashlib.sha256(body).hexdigest(),
            hour_ms=self.hour_ms,
            first_ms=self._stamps[0] if self._stamps else 0,
            last_ms=self._stamps[-1] if self._stamps else 0,
        )


def opened(body: bytes, segment: Segment) -> Content:
    """The content of a segment's file.

    Raises:
        StateError: the file is not the one that the manifest lists.
    """
    if hashlib.sha256(body).hexdigest() != segment.sha256:
        raise StateError(f"{segment.path}: is damaged: its SHA-256 is not the one in the manifest")
    try:
        frame = zstandard.ZstdDecompressor().decompressobj()
        lines = Lines.split(frame.decompress(body))
        skippable: Any = memoryview(frame.unused_data)
        magic, size = _HEAD.unpack_from(skippable)
        index_bytes = zstandard.ZstdDecompressor().decompress(skippable[_HEAD.size : _HEAD.size + size])
        index = msgspec.msgpack.decode(index_bytes, type=_Index)
    except (zstandard.ZstdError, struct.error, *UNREADABLE) as error:
        raise StateError(f"{segment.path}: cannot be read: {error}") from None
    offsets = np.cumsum(np.frombuffer(index.offsets, np.int64))
    stamps = np.cumsum(np.frombuffer(index.stamps, np.int64))
    if magic != SKIPPABLE or not len(lines) == len(offsets) == len(stamps) == segment.messages:
        raise StateError(
            f"{segment.path}: has {len(lines)} lines and {len(offsets)} offsets, and the manifest "
            f"{segment.messages} messages"
        )
    return Content(lines, offsets, stamps, index.malformed)
