"""Delays of accepted, valid pixels by platform, since the last cut."""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.model.delays import DELAYS
from flows.model.dimensions import SCOPES, Dimensions
from flows.state.arrays import doubled
from flows.state.interner import Interner

PLATFORM: Final = SCOPES.index("platform")
_ROOM: Final = 64


class DelayCounts:
    """Counts by class of `flows.model.delays`, for one shard of plays.

    Attributes:
        lanes: (dimensions,) the lane in which the pixels of each count; 0 without a platform.
        counts: (lanes, 1 + DELAYS), by class; compiled loops increase it.
    """

    def __init__(self) -> None:
        self.lanes, self.counts = np.zeros(_ROOM, np.int64), np.zeros((_ROOM, 1 + DELAYS), np.int64)
        self._known = 0
        self._platforms = Interner[str]()

    def note(self, number: int, combo: Dimensions) -> None:
        """Set the lane of the dimensions of a number, unless it is set. Numbers are passed in order."""
        if number < self._known:
            return
        self._known = number + 1
        if number == len(self.lanes):
            self.lanes = doubled(self.lanes)
        platform = combo[PLATFORM]
        self.lanes[number] = 0 if platform is None else self._lane(platform)

    def _lane(self, platform: str) -> int:
        lane = 1 + self._platforms.number(platform)
        if lane == len(self.counts):
            self.counts = doubled(self.counts)
        return lane

    @property
    def platforms(self) -> list[str]:
        """The platform of each lane from 1 on."""
        return self._platforms.names

    def current(self) -> list[tuple[str, list[int]]]:
        """The platforms with counts, and the counts by class."""
        lanes = np.flatnonzero(self.counts[:, 1:].any(axis=1))
        return [(self.platforms[lane - 1], self.counts[lane, 1:].tolist()) for lane in lanes.tolist() if lane]

    def clear(self) -> None:
        """Reset the counts, after a cut."""
        self.counts[:] = 0
