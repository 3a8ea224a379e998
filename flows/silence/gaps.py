"""Measures the gaps between the accepted pixels of each unit of the feed, by which a unit falls silent.

Audio is bursty: a station sends in its ad breaks, and nothing at night. A gap is therefore compared with the
unit's own earlier gaps. A unit is *silent* when its present gap exceeds the greatest of three times
(specification 2.7):

- a minute;
- twice its longest gap in the same hour yesterday and seven days ago, and in the hour before the gap;
- the time in which it had its last hundred pixels. This is for units that send little. With a few plays an
  hour, chance alone makes one gap twice as long as all others of three hours 40 times in 10,000 hours.

The clock of gaps runs only while the flow is proved to have read all that there is. Hours are those of the
calendar, which a station's programme follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flows.model.ticks import DAY_MS, HOUR_MS, MINUTE_MS
from flows.state.arrays import I64, U16, Int
from flows.state.kernel import brief
from flows.state.snapshot import pack, unpack

MAX_UNITS: Final = 2_000
HOURS: Final = 192
"""Eight days, so that the same hour a week ago is known."""
MINUTES: Final = 61
"""The present minute and the hour before it."""
LEAST_PIXELS: Final = 50
"""The least number of pixels of a unit that can be silent."""
BACK: Final = 20
"""The number of pixels with which a silence ends."""
HUNDRED: Final = 100
"""The pixels of some 17 plays. By chance a unit misses so many once in 10^7 times."""
NEW_AT_ONCE: Final = 20
"""The greatest number of units that a cut replaces. Senders may invent names."""
LONGEST_S: Final = 65_535
"""Longer gaps count as this one. Twice this is more than a day, after which no unit is silent."""
NEVER: Final = -1

LAST, AT, BORN, PIXELS, MARK, MARK_BEFORE, LONGEST, SINCE, BEGUN, BOUND, CAME = range(11)
"""Columns of a unit, in ms of the clock of gaps unless stated otherwise.

`LAST`, `AT`: its last pixel, by the clock and in epoch ms. `BORN`: its first pixel. `PIXELS`: their number.
`MARK`, `MARK_BEFORE`: when the latest hundred pixels was full, and the hundred before. `LONGEST`: its longest
gap in the hour before its last pixel, in s.

For a silent unit, `SINCE`, `BEGUN`: the last pixel before its silence, in epoch ms (0 for another unit) and
by the clock. `BOUND`: the bound that its gap exceeded. `CAME`: the number of pixels since.
"""


@brief
def _take_pixels(
    table: I64, hours: U16, lately: U16, units: I64, counts: I64, clock_ms: Int, now_ms: Int
) -> None:
    """Take pixels of units, and note each gap that they end in every hour that it overlaps.

    Args:
        hours: (units, `HOURS`) the longest gaps in s, a ring by the hour since the epoch; 0 for none.
        lately: (units, `MINUTES`) the longest gaps in s, a ring by the minute of `clock_ms` of their end.
        units, counts: (n,) the numbers of units, and of their pixels.
    """
    hour, minute = now_ms // HOUR_MS, clock_ms // MINUTE_MS
    for n in range(len(units)):
        unit, pixels = units[n], table[units[n], PIXELS]
        if table[unit, LAST] != NEVER:
            seconds = np.uint16(min(max(-((table[unit, LAST] - clock_ms) // 1000), 1), LONGEST_S))
            begun = min(table[unit, AT] // HOUR_MS, hour)
            for overlapped_hour in range(max(begun, hour - HOURS + 1), hour + 1):
                hours[unit, overlapped_hour % HOURS] = max(hours[unit, overlapped_hour % HOURS], seconds)
            lately[unit, minute % MINUTES] = max(lately[unit, minute % MINUTES], seconds)
        table[unit, LONGEST] = lately[unit].max()
        table[unit, LAST], table[unit, AT], table[unit, PIXELS] = clock_ms, now_ms, pixels + counts[n]
        for _ in range(min(2, (pixels + counts[n]) // HUNDRED - pixels // HUNDRED)):
            table[unit, MARK_BEFORE], table[unit, MARK] = table[unit, MARK], clock_ms
        if table[unit, SINCE]:
            table[unit, CAME] += counts[n]
            if table[unit, CAME] >= BACK:
                table[unit, SINCE] = 0


@brief
def _fall(
    table: I64, hours: U16, clock_ms: Int, least_ms: Int, history_ms: Int, yesterday: Int, last_week: Int
) -> None:
    """Find the units that have fallen silent, and end silences that are older than a day.

    Args:
        least_ms, history_ms: see `Gaps`.
        yesterday, last_week: the places of the same hour in the ring.
    """
    for unit in range(len(table)):
        gap_ms = clock_ms - table[unit, LAST]
        if table[unit, LAST] == NEVER or gap_ms <= least_ms:
            continue
        if gap_ms > DAY_MS:
            table[unit, SINCE] = 0
            continue
        young = table[unit, LAST] - table[unit, BORN] < history_ms or table[unit, PIXELS] < LEAST_PIXELS
        if table[unit, SINCE] or young:
            continue
        longest = max(
            table[unit, LONGEST], np.int64(hours[unit, yesterday]), np.int64(hours[unit, last_week])
        )
        bound_ms = max(least_ms, 2_000 * longest, table[unit, LAST] - table[unit, MARK_BEFORE])
        if gap_ms > bound_ms:
            table[unit, SINCE], table[unit, BEGUN] = table[unit, AT], table[unit, LAST]
            table[unit, BOUND], table[unit, CAME] = bound_ms, 0


class Gaps:
    """The units of one flow.

    Args:
        zone: the time zone whose hours are compared with those of the days before.
        least_ms: the shortest silence.
        history_ms: the time for which a unit must have sent before it can be silent.

    Attributes:
        clock_ms: the time that has elapsed while the flow was proved to have read all that there is.
        now_ms: the wall clock, in epoch ms.
        names: the units by number.
        table: (units, columns), with more room than there are units.
    """

    def __init__(self, zone: tzinfo, least_ms: int = MINUTE_MS, history_ms: int = 10 * MINUTE_MS) -> None:
        self._zone, self.least_ms, self._history_ms = zone, least_ms, history_ms
        self.clock_ms = self.now_ms = 0
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._days_before: tuple[int, list[int]] = (NEVER, [])
        self._new = 0
        self.table: I64 = np.zeros((0, CAME + 1), np.int64)
        self.hours: U16 = np.zeros((0, HOURS), np.uint16)
        self.lately: U16 = np.zeros((0, MINUTES), np.uint16)

    def elapse(self, now_ms: int, by_ms: int) -> None:
        """Advance the wall clock to `now_ms`, and the clock of gaps by `by_ms`."""
        hour, minute = self.now_ms // HOUR_MS, self.clock_ms // MINUTE_MS
        self.now_ms, self._new = now_ms, 0
        self.clock_ms += by_ms
        if now_ms // HOUR_MS != hour:
            self.hours[:, _passed(hour, now_ms // HOUR_MS, HOURS)] = 0
        if self.clock_ms // MINUTE_MS != minute:
            self.lately[:, _passed(minute, self.clock_ms // MINUTE_MS, MINUTES)] = 0

    def number(self, unit: str) -> int:
        """The number of a unit; `NEVER` for an unwatched one."""
        return self._numbers.get(unit, NEVER)

    def take_pixels(self, pixels: Mapping[str, int]) -> list[int]:
        """Take the accepted pixels since the last cut, by unit. Returns the numbers that now have another
        unit.
        """
        new = [unit for unit in pixels if unit not in self._numbers]
        replaced = [number for unit in new if (number := self._admit(unit)) is not None]
        unit_counts = [
            (number, count) for unit, count in pixels.items() if (number := self.number(unit)) >= 0
        ]
        if unit_counts:
            units, counts = np.array(unit_counts, np.int64).T.copy()
            _take_pixels(self.table, self.hours, self.lately, units, counts, self.clock_ms, self.now_ms)
        return replaced

    def end(self, unit: str) -> None:
        """Stop watching a unit until its next pixel, since it has sent a bye."""
        if (number := self.number(unit)) >= 0:
            self.table[number, LAST], self.table[number, SINCE] = NEVER, 0

    def fall(self) -> None:
        """Find the units that have fallen silent, and end silences that are older than a day."""
        hour = self.now_ms // HOUR_MS
        if self._days_before[0] != hour:
            now = datetime.fromtimestamp(hour * HOUR_MS / 1000, self._zone)
            # By calendar days: a day on which clocks change has 23 or 25 hours.
            days = [now - timedelta(days=ago) for ago in (1, 7)]
            self._days_before = hour, [int(day.timestamp()) * 1000 // HOUR_MS % HOURS for day in days]
        times = self.clock_ms, self.least_ms, self._history_ms
        _fall(self.table, self.hours, *times, *self._days_before[1])

    @property
    def silent(self) -> list[int]:
        """The numbers of the silent units."""
        numbers: list[int] = self.table[:, SINCE].nonzero()[0].tolist()
        return numbers

    @property
    def quiet(self) -> list[int]:
        """The numbers of the units whose present gap may become a silence."""
        gaps = self.clock_ms - self.table[:, LAST]
        within = (gaps > self.least_ms) & (gaps <= DAY_MS) & (self.table[:, LAST] != NEVER)
        numbers: list[int] = within.nonzero()[0].tolist()
        return numbers

    def _admit(self, unit: str) -> int | None:
        """Watch a new unit if there is room. Returns its number if another unit had it before, else None."""
        number, replaced = len(self.names), None
        if number < MAX_UNITS:
            self.names.append(unit)
            if number == len(self.table):
                self._grow()
        elif self._new < NEW_AT_ONCE and (replaced := self._least()) is not None:
            self._new, number = self._new + 1, replaced
            del self._numbers[self.names[number]]
            self.names[number] = unit
        else:
            return None
        self._numbers[unit] = number
        self.table[number] = 0
        self.table[number, LAST] = NEVER
        self.table[number, [BORN, MARK, MARK_BEFORE]] = self.clock_ms
        self.hours[number] = self.lately[number] = 0
        return replaced

    def _grow(self) -> None:
        added = min(max(16, len(self.table)), MAX_UNITS - len(self.table))
        for name in ("table", "hours", "lately"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros((added, old.shape[1]), old.dtype)]))
        self.table[-added:, LAST] = NEVER

    def _least(self) -> int | None:
        """The number of the unit that a new one may replace: of the units with few pixels, or none for a day,
        the one with the oldest last pixel.
        """
        last = self.table[:, LAST]
        is_free = (last == NEVER) | (self.clock_ms - last > DAY_MS) | (self.table[:, PIXELS] < LEAST_PIXELS)
        (replaceable,) = is_free.nonzero()
        return int(replaceable[np.argmin(self.table[replaceable, AT])]) if len(replaceable) else None

    def snapshot(self) -> tuple[Any, ...]:
        """The state as plain values."""
        used = len(self.names)
        arrays = {name: getattr(self, name)[:used] for name in ("table", "hours", "lately")}
        return self.names, (self.clock_ms, self.now_ms), pack(arrays)

    def restore(self, state: Sequence[Any]) -> None:
        """Load `snapshot`'s state."""
        names, (self.clock_ms, self.now_ms), arrays = state
        self.names = [*names]
        self._numbers = {unit: number for number, unit in enumerate(names)}
        for name, array in unpack(arrays).items():
            setattr(self, name, array)


def _passed(before: int, now: int, places: int) -> npt.NDArray[Any]:
    """The places of a ring from after `before` to `now`; empty if time has gone back."""
    return np.arange(max(before + 1, now - places + 1), now + 1) % places
