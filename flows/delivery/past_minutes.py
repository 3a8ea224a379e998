"""Impressions of planned placements by final minute, for a flow that reads an older log. By these minutes the
flow finds the moment at which a state began, although it judges the state only now.

A live flow judges each state as it begins. It does not need the minutes and drops them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from flows.delivery.pacing import STILL, Delivery, State
from flows.model.flight import MINUTE_MS
from flows.model.messages import EndedMinutes

STORED_MINUTES: Final = 1_440
"""The number of final minutes that are stored for each placement: a day."""
MAX_PLACEMENTS: Final = 4_096
"""The greatest number of placements with minutes, 6 KB each. The state of any other placement begins when it
is first judged.
"""
STRIDE: Final = 15
"""Minutes between two looks back. A shorter interruption of a state in between is ignored."""
_MIN_ROWS: Final = 16
Look = Callable[[int, State], Delivery]
"""Returns the delivery at a border of minutes since the epoch, by the bands around a held state."""


class Past:
    """The impressions of planned placements in the final minutes of the last day.

    Attributes:
        first: the first fully known minute, since the epoch; 0 if none is known.
        newest: the last known minute.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drop all minutes."""
        self.first = self.newest = 0
        self._rows: dict[str, int] = {}
        self._counts = np.zeros((0, STORED_MINUTES), np.uint32)

    def take(self, minutes: EndedMinutes) -> None:
        """Add minutes that became final. Minutes older than a day are ignored."""
        if not len(minutes.minutes):
            return
        self._advance(int(minutes.minutes.min()), int(minutes.minutes.max()))
        numbers = np.fromiter(map(self._row, minutes.placements), np.int64, len(minutes.placements))
        rows = numbers[minutes.placement_places]
        kept_rows = (rows >= 0) & (minutes.minutes >= self.first)
        places = rows[kept_rows], minutes.minutes[kept_rows] % STORED_MINUTES
        np.add.at(self._counts, places, minutes.impressions[kept_rows].astype(np.uint32))

    def _advance(self, oldest: int, newest: int) -> None:
        if newest > self.newest:
            begin = max(self.newest + 1, newest - STORED_MINUTES + 1)
            self._counts[:, np.arange(begin, newest + 1) % STORED_MINUTES] = 0
            self.newest = newest
        self.first = max(min(self.first or oldest, oldest), self.newest - STORED_MINUTES + 1)

    def _row(self, name: str) -> int:
        """The row of a placement in `_counts`; -1 if there are already `MAX_PLACEMENTS`."""
        row = self._rows.get(name)
        if row is not None:
            return row
        row = len(self._rows)
        if row >= MAX_PLACEMENTS:
            return -1
        if row >= len(self._counts):
            new_rows = np.zeros((max(_MIN_ROWS, row), STORED_MINUTES), np.uint32)
            self._counts = np.concatenate([self._counts, new_rows])
        self._rows[name] = row
        return row

    def after(self, name: str, minute: int, before: int | None = None) -> int:
        """A placement's impressions from `minute` on, up to before `before`; None for no end."""
        row = self._rows.get(name)
        first = max(minute, self.first)
        last = self.newest + 1 if before is None else min(before, self.newest + 1)
        if row is None or first >= last:
            return 0
        return int(self._counts[row, np.arange(first, last) % STORED_MINUTES].sum())


def held_since(state: State, look: Look, floor: int, last: int, hold: int) -> int | None:
    """The border of minutes at which a state began, by looks back; None if the state does not hold at the
    border `last`.

    Args:
        floor: the earliest border for a look.
        hold: minutes for which a new condition must hold before it is the state.
    """
    if last < floor or look(last, state).state != state:
        return None
    same, differing = last, floor - 1
    while same > floor:
        border = max(floor, same - STRIDE)
        if look(border, state).state != state:
            differing = border
            break
        same = border
    while same - differing > 1 and differing >= floor:
        middle = (same + differing) // 2
        if look(middle, state).state == state:
            same = middle
        else:
            differing = middle
    if differing < floor:
        return floor
    # A state begins beyond the far side of its band.
    while same < last and look(same, "on_track").state != state:
        same += 1
    before = look(same - 1, "on_track").state
    waits = before not in STILL and before != "warming_up"
    return min(same + hold * waits, last)


def open_impressions(past: Past, name: str, last_hour: int, now_ms: int) -> int:
    """A placement's impressions of the last hour in minutes that are not final."""
    minute = now_ms // MINUTE_MS
    return max(0, last_hour - past.after(name, minute - 59, minute + 1))
