"""Removes forgotten people from an archive: segments that name them are written again without them.

The object `forgotten.json` lists the keys that no segment names. A pass writes it after its last segment, so
after a kill the pass begins again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from connectors.objects import NotThere, Objects
from flows.archive.manifest import part_paths, read_part, segment_path
from flows.archive.message_lines import Forgetting
from flows.archive.segments import Builder, Segment, opened
from flows.archive.series import Series
from flows.errors import UNREADABLE, StateError
from flows.model.redis_keys import erased_field
from flows.settings import Settings
from flows.state.arrays import U64

FILE: Final = "forgotten.json"


class RemovedPeople(msgspec.Struct):
    """The keys of the deny-list that no segment names.

    Attributes:
        keys: as the deny-list's fields in Redis (`erased_field`).
        at_s: the end of the last pass, in epoch s.
        unreadable: the paths of the segments and parts that the last pass could not read. The people of that
            pass are not in `keys`, so that the next pass looks for them again.
    """

    keys: list[str] = []
    at_s: float = 0.0
    unreadable: list[str] = []

    @property
    def denied(self) -> frozenset[int]:
        """The keys as numbers."""
        return frozenset(int(one, 16) for one in self.keys)


def removed_people(store: Objects) -> RemovedPeople:
    """The people who are removed from an archive; none if the object is missing or damaged."""
    try:
        return msgspec.json.decode(store.get(FILE)[0], type=RemovedPeople)
    except (NotThere, *UNREADABLE):
        return RemovedPeople()


@dataclass(frozen=True)
class RemovalPass:
    """A pass over the archive.

    Attributes:
        keys: the keys of the people that it removes.
        before: the people who were removed before.
    """

    keys: frozenset[int]
    before: RemovedPeople

    @classmethod
    def due(cls, before: RemovedPeople, listed: U64, settings: Settings, now_s: float) -> RemovalPass | None:
        """The due pass; None if the list has no new people, or if the last pass ended less than
        `archive_forget_interval` ago.
        """
        new = frozenset(listed.tolist()) - before.denied
        recent = 0 <= now_s - before.at_s < settings.archive_forget_interval.total_seconds()
        return cls(new, before) if new and not recent else None

    def run(self, store: Objects, series: Mapping[int, Series], secret: bytes) -> Iterator[None]:
        """Check all segments of the present manifest, one segment a step.

        Args:
            series: the sealed series, by partition.
            secret: the listeners' key.
        """
        forgetting, log = Forgetting(secret, self.keys), structlog.get_logger("archive")
        rewritten = segments = 0
        unreadable: list[str] = []

        def skip(path: str, error: Exception) -> None:
            unreadable.append(path)
            if path not in self.before.unreadable:
                log.error("the archive has an object that cannot be read", path=path, error=str(error))

        for partition, paths in part_paths(store).items():
            partition_series = series.get(partition)
            if partition_series is None:
                continue
            for path in paths:
                newest = partition_series.part
                try:
                    part = newest if path == newest.path else read_part(store, path)[0]
                except (StateError, NotThere) as error:
                    skip(path, error)
                    continue
                for segment in part.segments:
                    segments += 1
                    try:
                        rewritten += _rewrite(store, partition_series, path, segment, forgetting)
                    except (StateError, NotThere) as error:
                        # A second writer, who has claimed the part, may have written the segment again.
                        if segment in partition_series.claim(path).segments:
                            skip(segment.path, error)
                    yield
        found = frozenset[int]() if unreadable else self.keys
        keys = sorted({*self.before.keys, *map(erased_field, found)})
        store.put(FILE, msgspec.json.encode(RemovedPeople(keys, time.time(), unreadable)))
        log.info(
            "forgotten people are removed from the archive"
            if not unreadable
            else "forgotten people are removed from what can be read of the archive",
            names=len(self.keys),
            segments=segments,
            rewritten=rewritten,
            unreadable=len(unreadable),
        )


def _rewrite(store: Objects, series: Series, path: str, segment: Segment, forgetting: Forgetting) -> bool:
    """Write a segment again if it names a person of `forgetting`. Returns True if it was written again.

    The order is: claim the part, write the new file, write the manifest, delete the old file.

    Raises:
        StateError: the segment is damaged.
        NotThere: its file is missing.
    """
    body, _ = store.get(segment.path)
    content = opened(body, segment)
    lines = list(content.lines)
    changed = [forgetting.redacted(line) for line in lines]
    if all(one is other for one, other in zip(lines, changed, strict=True)):
        return False
    series.claim(path)
    builder = Builder(segment.first, segment.hour_ms, segment.lost)
    builder.add(changed, content.offsets.tolist(), content.stamps_ms.tolist(), content.malformed)
    new_path = segment_path(series.part.partition, segment.first, segment.next)
    packed, new = builder.close(segment.next, new_path)
    store.put(new.path, packed)
    series.replace(path, segment, new)
    store.delete(segment.path)
    return True
