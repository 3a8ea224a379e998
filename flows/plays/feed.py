"""Sources of the feed: the partitions and collectors of a shard's pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from flows.model.counts import PIXELS
from flows.model.messages import Impressions
from flows.plays.delay_counts import DelayCounts
from flows.plays.dimension_index import DimensionIndex
from flows.plays.increments import Increments
from flows.state.arrays import I64
from flows.state.interner import Interner

Source = tuple[str, str]
"""A source partition and a collector; the collector is empty for pixels without one."""
_NO_ENTRIES: Final[I64] = np.zeros((0, 3), np.int64)
_NO_COUNTS: Final[I64] = np.zeros(0, np.int64)


class Sources:
    """The sources of one shard since the last reset of the numbers."""

    def __init__(self) -> None:
        self._sources = Interner[Source]()

    def __len__(self) -> int:
        return len(self._sources)

    def numbers(self, partition: str, collectors: Sequence[str]) -> I64:
        """The number of a partition's pixels without a collector, and those of each collector."""
        return self._sources.numbers([(partition, name) for name in ("", *collectors)])

    def units(
        self, increments: Increments, names: DimensionIndex, delays: DelayCounts
    ) -> Iterator[tuple[str, int]]:
        """The numbers of accepted, valid pixels since the last cut, by collector and by platform, as units of
        the feed.
        """
        counts = increments.by_source[: len(self)].tolist()
        for (_, collector), count in zip(self._sources.names, counts, strict=True):
            if collector and count:
                yield f"sender:{collector}", count
        pixels = increments.totals[: len(names), PIXELS]
        (changed,) = np.nonzero(pixels)
        lanes = np.bincount(delays.lanes[changed], pixels[changed]).astype(np.int64)
        platforms = delays.platforms
        for lane in np.flatnonzero(lanes).tolist():
            if lane:
                yield f"platform:{platforms[lane - 1]}", int(lanes[lane])

    def impressions(self, increments: Increments, names: DimensionIndex) -> Impressions:
        """The impressions of the map, with their names."""
        filled = np.flatnonzero(increments.shown)
        if not len(filled):
            return Impressions([], [], [*self._sources.names], _NO_ENTRIES, _NO_COUNTS)
        keys = (increments.shown[filled] - np.uint64(1)).astype(np.int64)
        combos, which = np.unique(keys >> 32, return_inverse=True)
        combo_names = [names.combos[number] for number in combos.tolist()]
        entries = np.stack([which, which, keys & 0xFFFFFFFF], axis=1)
        placements, platforms = [one[0] or "" for one in combo_names], [one[2] for one in combo_names]
        counts = increments.shown_counts[filled, 0]
        return Impressions(placements, platforms, [*self._sources.names], entries, counts)
