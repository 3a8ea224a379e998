"""The manifest: the segments of an archive, as parts that follow each other.

A part is an object of one partition, named by its first offset. Its segments follow each other without a gap,
and the next part begins at its end. A segment belongs to the archive once a part lists it.

A writer claims a part by writing its own epoch into it, by a compare-and-swap. Every later change of another
writer then fails, since the object's tag is another one. A writer puts and deletes files of claimed parts
alone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from connectors.objects import Objects
from flows.archive.segments import HOUR_MS, SUFFIX, Segment
from flows.errors import UNREADABLE, StateError

FOLDER: Final = "manifest"
SEGMENTS: Final = "segments"
MAX_SEGMENTS: Final = 500
"""The greatest number of segments in a part. Each new segment writes the whole part again."""
_PART_PATH: Final = re.compile(rf"{FOLDER}/([0-9]{{5}})/[0-9]{{20}}\.json")
_DAY_MS: Final = 24 * HOUR_MS


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the manifest.

    Attributes:
        topic, partition: the source of the messages.
        first: the offset at which the part begins.
        log_id: the id of the topic's log, with the position up to which it was read (`KafkaReader.log_id`).
        through_ms: the epoch ms before which the archive has all messages, by the broker's timestamps.
        epoch: the random name of the writer that has claimed the part.
        following: the first offset of the next part. It is set before that part is written, so that no writer
            can claim this part as the newest one any more.
        segments: the segments in order of offsets.
    """

    audiopixel_archive: Literal[1] = 1
    topic: str
    partition: int
    first: int
    log_id: str = ""
    through_ms: int = 0
    epoch: str = ""
    following: int | None = None
    segments: tuple[Segment, ...] = ()

    @property
    def next(self) -> int:
        """The next offset after the last segment."""
        return self.segments[-1].next if self.segments else self.first

    @property
    def path(self) -> str:
        """The path of the part's object."""
        return part_path(self.partition, self.first)

    @property
    def name(self) -> str:
        """The partition as the flow names it."""
        return f"{self.topic}/{self.partition}"

    def full_for(self, hour_ms: int) -> bool:
        """True if a segment of an hour belongs in the next part."""
        if not self.segments:
            return False
        return (
            len(self.segments) >= MAX_SEGMENTS or hour_ms // _DAY_MS != self.segments[-1].hour_ms // _DAY_MS
        )


def part_path(partition: int, first: int) -> str:
    """The path of a part."""
    return f"{FOLDER}/{partition:05d}/{first:020d}.json"


def segment_path(partition: int, first: int, following: int) -> str:
    """A new path for a segment. Its random part keeps a late upload of one writer off the file of another."""
    return f"{SEGMENTS}/{partition:05d}/{first:020d}-{following:020d}.{secrets.token_hex(4)}{SUFFIX}"


def part_of_segment(segment: str, paths: list[str]) -> str:
    """The path of the part that lists a segment, or would list it, among the parts of its partition."""
    first = segment.rpartition("/")[2]
    return max((path for path in paths if path.rpartition("/")[2] <= first), default=paths[0])


def encoded(part: Part) -> bytes:
    """A part encoded as its object."""
    return msgspec.json.format(msgspec.json.encode(part), indent=1) + b"\n"


def read_part(store: Objects, path: str) -> tuple[Part, str | None]:
    """A part, with its object's tag.

    Raises:
        StateError: the object is no part.
        ConnectError: the object cannot be read.
    """
    body, tag = store.get(path)
    try:
        part = msgspec.json.decode(body, type=Part)
    except UNREADABLE as error:
        raise StateError(f"{path}: is no part of an archive's manifest: {error}") from None
    if part.path != path:
        raise StateError(f"{path}: is the part {part.path}: rename the object to that path")
    return part, tag


def part_paths(store: Objects, partition: int | None = None) -> dict[int, list[str]]:
    """The paths of all parts, in order, by partition; of one partition if it is given."""
    paths: dict[int, list[str]] = {}
    for path in store.names(FOLDER if partition is None else f"{FOLDER}/{partition:05d}"):
        if part := _PART_PATH.fullmatch(path):  # whatever else somebody has put there is no part
            paths.setdefault(int(part[1]), []).append(path)
    return paths


def parts(store: Objects, paths: list[str]) -> Iterator[Part]:
    """Parts of one partition, in order.

    Raises:
        StateError: there is a gap, or an overlap.
    """
    reached: int | None = None
    for path in paths:
        part, _ = read_part(store, path)
        segments = ((one.path, one.first, one.next) for one in part.segments)
        for path_of, first, following in ((part.path, part.first, part.first), *segments):
            if reached is not None and first != reached:
                word = "a gap" if first > reached else "an overlap"
                raise StateError(
                    f"{path_of}: begins at offset {first}, and the one before it ends at {reached}: {word}"
                )
            reached = following
        yield part


def topic_of(store: Objects, paths: dict[int, list[str]]) -> str:
    """The name of an archive's topic.

    Raises:
        StateError: there is no archive.
    """
    for partition_paths in paths.values():
        return read_part(store, partition_paths[-1])[0].topic
    raise StateError("there is no archive: audiopixel archive --to writes one")
