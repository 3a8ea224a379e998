"""The first day of a trial: traffic of campaigns that have run for weeks, with their plans and a report of
what they delivered before. Every flight is delivered exactly on its plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

MINUTE_MS: Final = 60_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = 24 * 60
FLIGHT: Final = 28 * _DAY
BEGAN: Final = 20 * _DAY
"""The length of a flight in minutes, and the part of it that is over at the start of the traffic."""
TRAFFIC: Final = 120
"""The length of the traffic in minutes."""
_LENGTH_MS: Final = 20_000
_WEIGHTS: Final = (3, 2, 2, 2, 2, 3, 5, 8, 9, 7, 6, 5, 5, 5, 5, 5, 6, 8, 9, 7, 6, 5, 4, 3)
_PAUSED: Final = (5 * _DAY, 6 * _DAY)
"""The minutes of the flight that one of the plans pauses."""


class _Booked(NamedTuple):
    name: str
    booked: int
    completion_rate: float
    plan: str


_PLACEMENTS: Final = (
    _Booked("breakfast", 2_016_000, 0.92, "even"),
    _Booked("drivetime", 1_008_000, 0.88, "weights"),
    _Booked("news", 504_000, 0.95, "frontloaded"),
    _Booked("podcast", 405_000, 0.80, "paused"),
    _Booked("evening", 151_200, 0.85, "even"),
)
"""The placements, booked so that a whole number of impressions is due at the start of the traffic."""


@dataclass(frozen=True)
class FirstDay:
    """Two hours of five placements with flights of 28 days, of which 20 are over.

    At each moment a flight has delivered what its curve makes due, rounded up.

    Args:
        seed: of the plays that are heard to the end.
        start_ms: a full minute, epoch ms: when the traffic begins.
    """

    seed: int
    start_ms: int

    @classmethod
    def ending(cls, end_ms: int, seed: int) -> FirstDay:
        """A first day whose traffic ends with the last full minute."""
        return cls(seed, (end_ms // MINUTE_MS - TRAFFIC) * MINUTE_MS)

    @property
    def since(self) -> str:
        """The start of the traffic, as `--until` takes it."""
        return self._moment(0)

    def lines(self) -> Iterator[bytes]:
        """Every call as JSON, in order of receipt."""
        rng = np.random.default_rng(self.seed)
        calls = list[tuple[int, bytes]]()
        for place in _PLACEMENTS:
            curve = _curve(place.plan, self._hour)
            first, behind = (_whole(place.booked * curve[minute]) for minute in (BEGAN, BEGAN + TRAFFIC))
            due = np.arange(first, behind) / place.booked
            minutes = np.interp(due, curve, np.arange(FLIGHT + 1)) - BEGAN
            completed = rng.random(behind - first) < place.completion_rate
            for number, (minute, whole) in enumerate(zip(minutes, completed, strict=True), first):
                born = self.start_ms + max(0, int(minute * MINUTE_MS))
                calls += self._play(place.name, number, born, bool(whole))
        yield from (call for _, call in sorted(calls))

    def _play(self, name: str, number: int, born: int, whole: bool) -> Iterator[tuple[int, bytes]]:
        events = [("impression", 0), ("start", 200)]
        if whole:
            events.append(("complete", 200 + _LENGTH_MS))
        for event, behind_ms in events:
            at_ms = born + behind_ms
            if at_ms < self.start_ms + TRAFFIC * MINUTE_MS:
                yield at_ms, (
                    b'{"event_id":"%b-%d-%b","event":"%b","ts":%d,"received_at":%d,"play_id":"%b-%d",'
                    b'"placement_id":"%b","campaign_id":"first-day","listener_id":"L%d","consent":true,'
                    b'"duration_ms":%d}'
                ) % (
                    name.encode(), number, event.encode(), event.encode(), at_ms, at_ms,
                    name.encode(), number, name.encode(), number * 7919 % 30_011, _LENGTH_MS,
                )  # fmt: skip

    def plans(self) -> list[dict[str, Any]]:
        """A plan for each placement, for `write_plans`, without opening balances."""
        return [
            {
                "placement_id": place.name,
                "campaign_id": "first-day",
                "booked": place.booked,
                "start": self._moment(-BEGAN),
                "end": self._moment(FLIGHT - BEGAN),
                "timezone": "UTC",
                "cpm": "9.50",
                "currency": "GBP",
                "curve": {"weights": ";".join(map(str, _WEIGHTS)), "frontloaded": "frontloaded"}.get(
                    place.plan, "even"
                ),
                "pauses": "/".join(self._moment(minute - BEGAN) for minute in _PAUSED)
                if place.plan == "paused"
                else "",
            }
            for place in _PLACEMENTS
        ]

    def report(self) -> list[dict[str, Any]]:
        """The publisher's counts up to the start of the traffic: one row for each placement and day
        in UTC.
        """
        return [
            {"placement_id": place.name, "day": day, "impressions": count}
            for place in _PLACEMENTS
            for day, count in self._by_day(place)
        ]

    def _by_day(self, place: _Booked) -> Iterator[tuple[str, int]]:
        curve = _curve(place.plan, self._hour)
        midnight = -(self.start_ms // MINUTE_MS) % _DAY  # minutes of the flight's first day
        borders = [0, *range(midnight or _DAY, BEGAN, _DAY), BEGAN]
        counts = [_whole(place.booked * curve[minute]) for minute in borders]
        for begun, first, behind in zip(borders, counts, counts[1:], strict=False):
            yield self._moment(begun - BEGAN)[:10], behind - first

    def _moment(self, minute: int) -> str:
        """A minute since the traffic's start, as plans take it."""
        return (_EPOCH + timedelta(milliseconds=self.start_ms, minutes=minute)).isoformat(timespec="minutes")

    @property
    def _hour(self) -> int:
        """The minute of day at which the flights begin."""
        return self.start_ms // MINUTE_MS % _DAY


def _whole(due: float) -> int:
    """The impressions that are due, rounded up. A whole number stays the same, whatever its last binary
    digit.
    """
    return math.ceil(due - 1e-6)


def _curve(plan: str, first: int) -> npt.NDArray[np.float64]:
    """The share of the booking that is due at each minute border of a flight.

    Args:
        first: minute of day at which the flight begins.
    """
    weights = np.ones(FLIGHT)
    if plan == "weights":
        weights = np.array(_WEIGHTS, float)[(np.arange(FLIGHT) + first) // 60 % 24]
    if plan == "frontloaded":
        weights[: FLIGHT // 2], weights[FLIGHT // 2 :] = 1.25, 0.75
    if plan == "paused":
        weights[slice(*_PAUSED)] = 0
    curve: npt.NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(weights)]) / weights.sum()
    return curve
