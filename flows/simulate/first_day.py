"""The first day of a trial: traffic of campaigns that have run for weeks, with their plans and a report of
their earlier delivery. Every flight delivers exactly by its plan.
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
FLIGHT_MINUTES: Final = 28 * _DAY
ELAPSED_MINUTES: Final = 20 * _DAY
"""The part of a flight that has elapsed at the start of the traffic."""
TRAFFIC_MINUTES: Final = 120
_LENGTH_MS: Final = 20_000
_WEIGHTS: Final = (3, 2, 2, 2, 2, 3, 5, 8, 9, 7, 6, 5, 5, 5, 5, 5, 6, 8, 9, 7, 6, 5, 4, 3)
_PAUSED: Final = (5 * _DAY, 6 * _DAY)
"""The minutes [start, end) of the flight in which the paused plan pauses."""


class _BookedPlacement(NamedTuple):
    """A placement and its plan; `plan` names the curve, or the pause."""

    name: str
    booked: int
    completion_rate: float
    plan: str


_PLACEMENTS: Final = (
    _BookedPlacement("breakfast", 2_016_000, 0.92, "even"),
    _BookedPlacement("drivetime", 1_008_000, 0.88, "weights"),
    _BookedPlacement("news", 504_000, 0.95, "frontloaded"),
    _BookedPlacement("podcast", 405_000, 0.80, "paused"),
    _BookedPlacement("evening", 151_200, 0.85, "even"),
)
"""The placements. By their bookings a whole number of impressions is due at the start of the traffic."""


@dataclass(frozen=True)
class FirstDay:
    """Two hours of five placements with flights of 28 days, of which 20 have elapsed.

    At each moment a flight has delivered the impressions that are due by its curve, rounded up.

    Args:
        seed: decides which plays are complete.
        start_ms: the start of the traffic, a full minute in epoch ms.
    """

    seed: int
    start_ms: int

    @classmethod
    def ending(cls, end_ms: int, seed: int) -> FirstDay:
        """A first day whose traffic ends at the last full minute up to `end_ms`."""
        return cls(seed, (end_ms // MINUTE_MS - TRAFFIC_MINUTES) * MINUTE_MS)

    @property
    def since(self) -> str:
        """The start of the traffic, as `--until` takes it."""
        return self._moment(0)

    def lines(self) -> Iterator[bytes]:
        """All calls as JSON, in order of receipt."""
        rng = np.random.default_rng(self.seed)
        calls = list[tuple[int, bytes]]()
        for place in _PLACEMENTS:
            curve = _curve(place.plan, self._hour)
            borders = ELAPSED_MINUTES, ELAPSED_MINUTES + TRAFFIC_MINUTES
            first, end = (_whole(place.booked * curve[minute]) for minute in borders)
            due = np.arange(first, end) / place.booked
            minutes = np.interp(due, curve, np.arange(FLIGHT_MINUTES + 1)) - ELAPSED_MINUTES
            completed = rng.random(end - first) < place.completion_rate
            for number, (minute, is_complete) in enumerate(zip(minutes, completed, strict=True), first):
                born = self.start_ms + max(0, int(minute * MINUTE_MS))
                calls += self._play(place.name, number, born, bool(is_complete))
        yield from (call for _, call in sorted(calls))

    def _play(self, name: str, number: int, born: int, is_complete: bool) -> Iterator[tuple[int, bytes]]:
        """The calls of a play in the traffic, each with its time in epoch ms."""
        events = [("impression", 0), ("start", 200)]
        if is_complete:
            events.append(("complete", 200 + _LENGTH_MS))
        for event, offset_ms in events:
            at_ms = born + offset_ms
            if at_ms < self.start_ms + TRAFFIC_MINUTES * MINUTE_MS:
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
                "start": self._moment(-ELAPSED_MINUTES),
                "end": self._moment(FLIGHT_MINUTES - ELAPSED_MINUTES),
                "timezone": "UTC",
                "cpm": "9.50",
                "currency": "GBP",
                "curve": {"weights": ";".join(map(str, _WEIGHTS)), "frontloaded": "frontloaded"}.get(
                    place.plan, "even"
                ),
                "pauses": "/".join(self._moment(minute - ELAPSED_MINUTES) for minute in _PAUSED)
                if place.plan == "paused"
                else "",
            }
            for place in _PLACEMENTS
        ]

    def report(self) -> list[dict[str, Any]]:
        """The publisher's counts up to the start of the traffic: a row for each placement and UTC day."""
        return [
            {"placement_id": place.name, "day": day, "impressions": count}
            for place in _PLACEMENTS
            for day, count in self._by_day(place)
        ]

    def _by_day(self, place: _BookedPlacement) -> Iterator[tuple[str, int]]:
        """Each UTC day of a flight up to the start of the traffic, with its impressions."""
        curve = _curve(place.plan, self._hour)
        midnight = -(self.start_ms // MINUTE_MS) % _DAY  # the length of the flight's first day
        borders = [0, *range(midnight or _DAY, ELAPSED_MINUTES, _DAY), ELAPSED_MINUTES]
        counts = [_whole(place.booked * curve[minute]) for minute in borders]
        for border, first, end in zip(borders, counts, counts[1:], strict=False):
            yield self._moment(border - ELAPSED_MINUTES)[:10], end - first

    def _moment(self, minute: int) -> str:
        """A minute, counted from the start of the traffic, in the form that plans take."""
        return (_EPOCH + timedelta(milliseconds=self.start_ms, minutes=minute)).isoformat(timespec="minutes")

    @property
    def _hour(self) -> int:
        """The minute of day at which the flights begin."""
        return self.start_ms // MINUTE_MS % _DAY


def _whole(due: float) -> int:
    """The impressions that are due, rounded up. An error in the last binary digit makes no difference."""
    return math.ceil(due - 1e-6)


def _curve(plan: str, first: int) -> npt.NDArray[np.float64]:
    """The share of the booking that is due at each border of minutes, float64[FLIGHT_MINUTES + 1].

    Args:
        first: the minute of day at which the flight begins.
    """
    weights = np.ones(FLIGHT_MINUTES)
    if plan == "weights":
        weights = np.array(_WEIGHTS, float)[(np.arange(FLIGHT_MINUTES) + first) // 60 % 24]
    if plan == "frontloaded":
        weights[: FLIGHT_MINUTES // 2], weights[FLIGHT_MINUTES // 2 :] = 1.25, 0.75
    if plan == "paused":
        weights[slice(*_PAUSED)] = 0
    curve: npt.NDArray[np.float64] = np.concatenate([[0.0], np.cumsum(weights)]) / weights.sum()
    return curve
