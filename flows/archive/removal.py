"""Removal of forgotten people from an archive: segments that name them are written again without them.

An object, `forgotten.json`, lists the keys that are nowhere in the archive. Each pass writes this object
after its last segment, so a pass that a kill ends begins again.
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
from flows.errors import UNREADABLE
from flows.model.redis_keys import erased_field
from flows.settings import Settings
from flows.state.arrays import U64

FILE: Final = "forgotten.json"


class RemovedPeople(msgspec.Struct):
    """The keys of the deny-list that no segment names, and the end of the last pass, in epoch s."""

    keys: list[str] = []
    at_s: float = 0.0

    @property
    def denied(self) -> frozenset[int]:
        """The keys as numbers."""
        return frozenset(int(one, 16) for one in self.keys)


def removed_people(store: Objects) -> RemovedPeople:
    """The object of an archive; without keys if the object is missing or damaged."""
    try:
        return msgspec.json.decode(store.get(FILE)[0], type=RemovedPeople)
    except (NotThere, *UNREADABLE):
        return RemovedPeople()


@dataclass(frozen=True)
class RemovalPass:
    """A pass over the archive, which removes the people of `keys`."""

    keys: frozenset[int]
    before: RemovedPeople

    @classmethod
    def due(cls, before: RemovedPeople, listed: U64, settings: Settings, now_s: float) -> RemovalPass | None:
        """The pass that is due. None without new people, or if the last pass ended less than the interval
        ago.
        """
        new = frozenset(listed.tolist()) - before.denied
        recent = 0 <= now_s - before.at_s < settings.archive_forget_interval.total_seconds()
        return cls(new, before) if new and not recent else None

    def run(self, store: Objects, series: Mapping[int, Series], secret: bytes) -> Iterator[None]:
        """Check all segments that the manifest has now, one segment a step.

        Args:
            series: by partition; all are sealed.
        """
        forgetting = Forgetting(secret, self.keys)
        again = segments = 0
        for partition, paths in part_paths(store).items():
            partition_series = series.get(partition)
            if partition_series is None:
                continue
            for path in paths:
                part = (
                    partition_series.part if path == partition_series.part.path else read_part(store, path)[0]
                )
                for segment in part.segments:
                    segments += 1
                    again += _rewrite(store, partition_series, path, segment, forgetting)
                    yield
        keys = sorted({*self.before.keys, *map(erased_field, self.keys)})
        body = msgspec.json.encode(RemovedPeople(keys, time.time()))
        next(iter(series.values())).persist(lambda: store.put(FILE, body))
        structlog.get_logger("archive").info(
            "forgotten people are removed from the archive",
            names=len(self.keys),
            segments=segments,
            rewritten=again,
        )


def _rewrite(store: Objects, series: Series, path: str, segment: Segment, forgetting: Forgetting) -> bool:
    """Write a segment again if it names somebody.

    The new file is written first, then the manifest; then the old file is deleted. Returns True if the
    segment was written again.
    """
    body, _ = store.get(segment.path)
    content = opened(body, segment)
    lines = list(content.lines)
    changed = [forgetting.without(line) for line in lines]
    if all(one is other for one, other in zip(lines, changed, strict=True)):
        return False
    builder = Builder(segment.first, segment.hour_ms, segment.lost)
    builder.add(changed, content.offsets.tolist(), content.stamps_ms.tolist(), content.malformed)
    packed, new = builder.close(
        segment.next, segment_path(series.part.partition, segment.first, segment.next, _revision(segment) + 1)
    )
    series.persist(lambda: store.put(new.path, packed))
    series.replace(path, segment, new)
    series.persist(lambda: store.delete(segment.path))
    return True


def _revision(segment: Segment) -> int:
    """The number of times that a segment was written again."""
    _, again, *_ = segment.path.rpartition("/")[2].split(".")
    return int(again[1:]) if again.startswith("r") else 0
