"""Writes the segments of one partition: first the file of a segment, then the manifest."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import structlog
from msgspec.structs import replace

from connectors.durable import Taken
from connectors.objects import NotThere, Objects
from connectors.stream import Messages
from flows.archive.manifest import (
    SEGMENTS,
    Part,
    encoded,
    part_of_segment,
    part_paths,
    parts,
    read_part,
    segment_path,
)
from flows.archive.message_lines import Forgetting, lines_of
from flows.archive.segments import HOUR_MS, Builder, Segment
from flows.errors import StateError


@dataclass
class Series:
    """A partition of an archive.

    Args:
        part: the newest part of the manifest.
        tag: the tag of that part's object; None if the object is not written yet.
        most_bytes: the size of lines at which a segment is closed.
        epoch: the random name of the writer, by which it claims parts.

    Each change of the manifest raises `Taken` if another writer has claimed the part meanwhile.
    """

    store: Objects
    part: Part
    tag: str | None
    most_bytes: int
    epoch: str = ""
    builder: Builder | None = None
    began_s: float = 0.0

    def __post_init__(self) -> None:
        self._clock_ms = self.part.through_ms
        self._reached, self._log_id = self.part.next, self.part.log_id

    @property
    def lost(self) -> int:
        """The number of messages missing between the segments of the newest part."""
        return sum(one.lost for one in self.part.segments)

    def begin(self) -> None:
        """Write a part without segments, from which readers learn the partition and its first offset."""
        self._list(self.part)

    @property
    def reached(self) -> int:
        """The next offset after the last taken message."""
        return self._reached

    def tidy(self) -> None:
        """Delete files that no part of the manifest lists, which a kill has left.

        The part that would list a file is claimed first: a writer that has put the file and not listed it yet
        cannot list it any more.
        """
        present = self.store.names(f"{SEGMENTS}/{self.part.partition:05d}")
        # Read after the files: what another writer puts from now on is not among them.
        paths = part_paths(self.store, self.part.partition).get(self.part.partition, [])
        try:
            listed = {one.path for part in parts(self.store, paths) for one in part.segments}
        except (StateError, NotThere) as error:  # what a damaged part lists is not known
            structlog.get_logger("archive").error(
                "unlisted files stay: a part cannot be read", error=str(error)
            )
            return
        for path in present:
            if path not in listed:
                part = self.claim(part_of_segment(path, paths))
                if all(one.path != path for one in part.segments):
                    self.store.delete(path)

    def claim(self, path: str) -> Part:
        """Claim an older part. The newest part must still be claimed. Returns the part.

        Raises:
            Taken: another writer has claimed it meanwhile.
        """
        part, tag = read_part(self.store, path)
        if part.epoch != self.epoch:
            if path == self.part.path:
                raise Taken
            part = replace(part, epoch=self.epoch)
            self.store.swap(path, encoded(part), tag)
        return part

    def take(
        self, messages: Messages, log_id: str, now_ms: int, now_s: float, forgetting: Forgetting
    ) -> None:
        """Take messages into segments; `forgetting` removes people from them."""
        stamps = list(messages.timestamps_ms or [0] * len(messages.positions))
        # The greatest timestamp so far gives a message's hour, so that an hour is one range of offsets.
        # Timestamps after our own clock count as now.
        clock = np.maximum.accumulate([self._clock_ms, *(min(one, now_ms) for one in stamps)])[1:]
        hours = clock // HOUR_MS * HOUR_MS
        lines, malformed = lines_of(messages.values)
        lines = [forgetting.redacted(line) for line in lines]
        positions, lost = list(messages.positions), messages.lost
        borders = [0, *(np.flatnonzero(np.diff(hours)) + 1).tolist(), len(lines)]
        for begin, end in pairwise(borders):
            hour_ms = int(hours[begin])
            if self.builder is not None and (self.builder.hour_ms != hour_ms or lost):
                self.seal(positions[begin] if not lost else self._reached)
            if self.builder is None:
                first = self.part.next
                self.builder, self.began_s, lost = Builder(first, hour_ms, lost), now_s, 0
            malformed_part = [(at - begin, *facts) for at, *facts in malformed if begin <= at < end]
            self.builder.add(lines[begin:end], positions[begin:end], stamps[begin:end], malformed_part)  # type: ignore[arg-type]
            self._clock_ms = int(clock[end - 1])
            self._reached = positions[end - 1] + 1
        self._log_id = log_id
        if self.builder is not None and self.builder.raw_bytes >= self.most_bytes:
            self.seal(self._reached)

    def seal(self, next_offset: int | None = None) -> None:
        """Close the open segment: write its file, then the manifest."""
        builder, self.builder = self.builder, None
        if builder is None:
            return
        following = self._reached if next_offset is None else next_offset
        path = segment_path(self.part.partition, builder.first, following)
        body, segment = builder.close(following, path)
        self.store.put(path, body)
        if self.part.full_for(segment.hour_ms):
            self._list(replace(self.part, following=segment.first))
            part = Part(
                topic=self.part.topic,
                partition=self.part.partition,
                first=segment.first,
                epoch=self.epoch,
                segments=(segment,),
            )
        else:
            part = replace(self.part, segments=(*self.part.segments, segment))
        self._list(replace(part, log_id=self._log_id, through_ms=self._clock_ms))

    def prove(self, through_ms: int, now_s: float, every_s: float) -> None:
        """Note that all messages before `through_ms` are taken. The manifest gets this moment at most once in
        `every_s`, and only while no segment is open.
        """
        self._clock_ms = max(self._clock_ms, through_ms)
        if self.builder is None and now_s - self.began_s >= every_s:
            self.began_s = now_s
            self._list(replace(self.part, through_ms=self._clock_ms))

    @property
    def through_ms(self) -> int:
        """The moment, in epoch ms, before which all messages are in the archive."""
        return self.part.through_ms if self.builder is not None else max(self.part.through_ms, self._clock_ms)

    def replace(self, path: str, old: Segment, new: Segment) -> None:
        """Replace the segment `old` with `new` in the claimed part at `path`."""
        if path == self.part.path:
            self._list(_exchanged(self.part, old, new))
            return
        part, tag = read_part(self.store, path)
        if part.epoch != self.epoch:
            raise Taken
        self.store.swap(path, encoded(_exchanged(part, old, new)), tag)

    def _list(self, part: Part) -> None:
        tag = self.tag if part.first == self.part.first else None
        self.tag = self.store.swap(part.path, encoded(part), tag)
        self.part = part


def claimed(store: Objects, partition: int, epoch: str) -> tuple[Part, str | None] | None:
    """Claim the newest part of a partition. Returns it with its tag; None if there is no part.

    The writer of that part may go on meanwhile: the claim is tried again at what it has written.

    Raises:
        StateError: the newest part is damaged.
    """
    while paths := part_paths(store, partition).get(partition):
        part, tag = read_part(store, paths[-1])
        if part.following is None:
            part = replace(part, epoch=epoch)
        else:  # its writer has ended before it wrote the next part
            part, tag = replace(part, first=part.following, following=None, segments=(), epoch=epoch), None
        with suppress(Taken):
            return part, store.swap(part.path, encoded(part), tag)
    return None


def _exchanged(part: Part, old: Segment, new: Segment) -> Part:
    return replace(part, segments=tuple(new if one.path == old.path else one for one in part.segments))
