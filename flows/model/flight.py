"""The progress of a flight: its unpaused time, and the part of the booking that its curve requires at a
moment.

The arithmetic is exact, by whole milliseconds and fractions of integers. A share of 0.9 is never computed as
0.8999….
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate
from typing import Literal
from zoneinfo import ZoneInfo

from flows.model.ticks import DAY_MS as DAY_MS
from flows.model.ticks import HOUR_MS as HOUR_MS
from flows.model.ticks import MINUTE_MS as MINUTE_MS

Curve = Literal["even", "frontloaded"] | tuple[int, ...]
"""The curve of delivery over a flight. Numbers are weights of the 24 local hours; only their ratios count."""


class Flight:
    """The unpaused time of a flight, summed up once, so that a look-up of a moment costs one bisection.

    Args:
        start_ms, end_ms: epoch milliseconds; the end is not in the flight.
        pauses: [start, end) in epoch milliseconds, in any order. Pauses may overlap, and exceed the flight.
        curve: `even`, `frontloaded`, or 24 weights.
        timezone: the IANA name of the zone whose hours the weights are of; only weights use it.
    """

    __slots__ = (
        "_before", "_ends", "_hours", "_offsets", "_starts", "_weighed",
        "curve", "end_ms", "start_ms", "total_ms", "total_weight",
    )  # fmt: skip

    def __init__(
        self,
        start_ms: int,
        end_ms: int,
        pauses: Sequence[tuple[int, int]] = (),
        curve: Curve = "even",
        timezone: str = "UTC",
    ) -> None:
        self.start_ms, self.end_ms, self.curve = start_ms, end_ms, curve
        spans = [(start, end, 0) for start, end in _unpaused(start_ms, end_ms, pauses)]
        weights = () if isinstance(curve, str) else curve
        self._hours = list(accumulate((weight * HOUR_MS for weight in weights), initial=0))
        if weights:
            spans = [piece for start, end, _ in spans for piece in _by_offset(start, end, timezone)]
        self._starts = [start for start, _, _ in spans]
        self._ends = [end for _, end, _ in spans]
        self._offsets = [offset for _, _, offset in spans]
        self._before = list(accumulate((end - start for start, end, _ in spans), initial=0))
        self._weighed = [0]
        if weights:
            self._weighed = list(accumulate((self._weight(*span) for span in spans), initial=0))
        self.total_ms = self._before[-1]
        self.total_weight = self._weighed[-1]

    def elapsed_ms(self, now_ms: int) -> int:
        """The unpaused time of the flight before `now_ms`, in ms; `total_ms` from the end on."""
        span = bisect_right(self._starts, now_ms) - 1
        if span < 0:
            return 0
        return self._before[span] + min(now_ms, self._ends[span]) - self._starts[span]

    def paused(self, now_ms: int) -> bool:
        """True if `now_ms` is in the flight and in one of its pauses."""
        if not self.start_ms <= now_ms < self.end_ms:
            return False
        span = bisect_right(self._starts, now_ms) - 1
        return span < 0 or now_ms >= self._ends[span]

    def reached(self, now_ms: int) -> tuple[int, int]:
        """f(x) as (numerator, denominator): the part of the booking that is due by `now_ms`, from 0 to 1.

        With x = elapsed / total of the unpaused time, `even` is f(x) = x. `frontloaded` is f(x) = 1.25 x up
        to x = 0.5, then 0.25 + 0.75 x: Google Ad Manager's "as much as 25 % more in the first half"
        (https://support.google.com/admanager/answer/82244). With weights f is the weighted part of the
        unpaused time: each local hour has its weight, and a day of 23 or 25 hours has the hours that it has.
        """
        if not isinstance(self.curve, str):
            span = bisect_right(self._starts, now_ms) - 1
            if span < 0:
                return 0, self.total_weight
            within = self._weight(self._starts[span], min(now_ms, self._ends[span]), self._offsets[span])
            return self._weighed[span] + within, self.total_weight
        elapsed, total = self.elapsed_ms(now_ms), self.total_ms
        if self.curve == "even":
            return elapsed, total
        return (5 * elapsed if 2 * elapsed <= total else total + 3 * elapsed), 4 * total

    def _weight(self, start_ms: int, end_ms: int, offset_ms: int) -> int:
        return self._weight_to(end_ms + offset_ms) - self._weight_to(start_ms + offset_ms)

    def _weight_to(self, local_ms: int) -> int:
        days, ms_of_day = divmod(local_ms, DAY_MS)
        hour, ms_of_hour = divmod(ms_of_day, HOUR_MS)
        weight = (self._hours[hour + 1] - self._hours[hour]) // HOUR_MS
        return days * self._hours[24] + self._hours[hour] + weight * ms_of_hour


def _unpaused(start_ms: int, end_ms: int, pauses: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for pause_start, pause_end in sorted(pauses):
        if pause_start > start_ms:
            yield start_ms, min(pause_start, end_ms)
        start_ms = max(start_ms, pause_end)
        if start_ms >= end_ms:
            return
    yield start_ms, end_ms


def _by_offset(start_ms: int, end_ms: int, timezone: str) -> Iterator[tuple[int, int, int]]:
    """(start, end, offset from UTC), in ms, of the spans between two changes of a zone's clocks."""
    years = range(_utc_year(start_ms), _utc_year(end_ms) + 1)
    offset = _offset_ms(ZoneInfo(timezone), start_ms)
    for at_ms, new_offset in (change for year in years for change in _changes(timezone, year)):
        if start_ms < at_ms < end_ms:
            yield start_ms, at_ms, offset
            start_ms = at_ms
        if at_ms <= start_ms:
            offset = new_offset
    yield start_ms, end_ms, offset


@lru_cache(maxsize=4096)
def _changes(timezone: str, year: int) -> tuple[tuple[int, int], ...]:
    """(moment, offset from then on), in ms, of a zone's changes of clocks in a UTC year, which zoneinfo does
    not list.
    """
    zone = ZoneInfo(timezone)
    changes = []
    first, last = (int(datetime(y, 1, 1, tzinfo=UTC).timestamp()) * 1000 for y in (year, year + 1))
    for day_ms in range(first, last, DAY_MS):
        before, after = _offset_ms(zone, day_ms), _offset_ms(zone, day_ms + DAY_MS)
        if before == after:
            continue
        low, high = day_ms, day_ms + DAY_MS
        while high - low > 1000:
            middle = (low + high) // 2000 * 1000
            low, high = (middle, high) if _offset_ms(zone, middle) == before else (low, middle)
        changes.append((high, after))
    return tuple(changes)


def _offset_ms(zone: ZoneInfo, at_ms: int) -> int:
    offset = datetime.fromtimestamp(at_ms // 1000, zone).utcoffset()
    assert offset is not None, zone
    return round(offset.total_seconds()) * 1000


def _utc_year(at_ms: int) -> int:
    return datetime.fromtimestamp(at_ms // 1000, UTC).year
