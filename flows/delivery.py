"""Pacing: is what is booked being delivered? From a plan, counts and a moment to what readers see; all pure.

`expected` = booked x f(x), with f(x) the part of the booking that is due (`flows.flights`). The delivery
indicator is delivered / expected, Google Ad Manager's progress
(https://support.google.com/admanager/answer/79229): half of the booked at three quarters of an even flight
is 0.667. Quotients of integers are rounded once, so that a threshold is met exactly or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from math import fsum
from typing import Final, Literal, NamedTuple

from flows.flights import HOUR_MS
from flows.plans import Plan

State = Literal["not_started", "complete", "ended_short", "paused", "under", "at_risk", "over", "on_track"]
STATES: Final[tuple[State, ...]] = (
    "not_started",
    "complete",
    "ended_short",
    "paused",
    "under",
    "at_risk",
    "over",
    "on_track",
)
"""In the order in which they are tried: the first that holds is the state."""

_STILL: Final = frozenset(STATES[:4])
_OVER_FOR_GOOD: Final = frozenset(STATES[1:3])


@dataclass(frozen=True)
class Thresholds:
    """When delivery is judged, and how.

    Args:
        under: least indicator that is not `under`.
        over: greatest indicator that is not `over`.
        grace: unpaused time from a flight's start in which it is not judged. Up to an hour `at_risk` may hold
            because the impressions of the last hour are those of less than one; a grace of an hour keeps it
            away.
    """

    under: float = 0.90
    over: float = 1.10
    grace: timedelta = timedelta(minutes=15)

    @cached_property
    def grace_ms(self) -> int:
        """Whole milliseconds of `grace`."""
        return self.grace // timedelta(milliseconds=1)


class Delivery(NamedTuple):
    """Pacing of a placement or a campaign at one moment; None is null: an absent field, never 0.

    Args:
        booked, delivered: impressions.
        expected: impressions due by now; null before the flight.
        indicator: delivered / expected; null before the flight, in its grace, paused, or when nothing is due.
        projected: impressions at the flight's end if the last hour goes on; null where the indicator is, but
            not because nothing is due.
        required_rate: impressions an unpaused hour that are still needed; null before the flight, when
            complete, or when no unpaused time is left.
    """

    booked: int
    delivered: int
    expected: float | None
    indicator: float | None
    projected: float | None
    required_rate: float | None
    state: State


def expected(booked: int, due: int, of: int) -> float:
    """Impressions due by now: booked x f(x), with f(x) = due / of."""
    return booked * due / of


def delivery_indicator(booked: int, delivered: int, due: int, of: int) -> float | None:
    """delivered / expected; None where nothing is due."""
    return delivered * of / (booked * due) if due else None


def projected(delivered: int, last_hour: int, left_ms: int) -> float:
    """Delivered, and the impressions of the last hour for each unpaused hour left."""
    return (delivered * HOUR_MS + last_hour * left_ms) / HOUR_MS


def required_rate(booked: int, delivered: int, left_ms: int) -> float | None:
    """Impressions an unpaused hour that are still needed; None when none are, or no time is left."""
    missing = booked - delivered
    return missing * HOUR_MS / left_ms if missing > 0 and left_ms > 0 else None


def pace(plan: Plan, delivered: int, last_hour: int, now_ms: int, thresholds: Thresholds) -> Delivery:
    """The pacing of a planned placement, up to the last moment of its flight and after it.

    Args:
        delivered: net impressions of the flight.
        last_hour: net impressions of the last hour.
        now_ms: the moment that the counts are of: their watermark.
    """
    flight = plan.flight
    if now_ms < plan.start_ms:
        return Delivery(plan.booked, delivered, None, None, None, None, "not_started")
    elapsed_ms = flight.elapsed_ms(now_ms)
    left_ms = flight.total_ms - elapsed_ms
    ended, paused = now_ms >= plan.end_ms, flight.paused(now_ms)
    due, of = flight.reached(now_ms)
    indicator = projection = None
    if ended or not (paused or elapsed_ms < thresholds.grace_ms):
        indicator = delivery_indicator(plan.booked, delivered, due, of)
        projection = projected(delivered, last_hour, left_ms)
    return Delivery(
        plan.booked,
        delivered,
        expected(plan.booked, due, of),
        indicator,
        projection,
        required_rate(plan.booked, delivered, left_ms),
        _state(plan.booked, delivered, ended, paused, indicator, projection, thresholds),
    )


def pace_campaign(placements: Sequence[Delivery], thresholds: Thresholds) -> Delivery:
    """The pacing of a campaign: sums over its planned placements, at least one, and the state of the sums.

    It has started when one placement has; it has ended when each is over or has what it booked; it is paused
    when all are that could deliver. To `projected` a placement without a projection of its own (paused, in
    its grace, not started) adds what it booked: nothing is known against it. `required_rate` is what the
    placements need together now.
    """
    booked, delivered = sum(each.booked for each in placements), sum(each.delivered for each in placements)
    states = {each.state for each in placements}
    if states == {"not_started"}:
        return Delivery(booked, delivered, None, None, None, None, "not_started")
    ended = states <= _OVER_FOR_GOOD
    paused = "paused" in states and states <= _STILL
    due = fsum(each.expected or 0.0 for each in placements)
    indicator = projection = None
    if not paused and any(each.indicator is not None for each in placements):
        # A sum of rounded numbers may be off in its last digit, and must not cross a threshold by it.
        indicator = round(delivered / due, 12) if due else None
        projection = round(fsum(_hoped(each) for each in placements), 6)
    needed = [each.required_rate for each in placements if each.required_rate is not None]
    return Delivery(
        booked,
        delivered,
        due,
        indicator,
        projection,
        fsum(needed) if needed and delivered < booked else None,
        _state(booked, delivered, ended, paused, indicator, projection, thresholds),
    )


def _hoped(placement: Delivery) -> float:
    return placement.booked if placement.projected is None else placement.projected


def _state(
    booked: int,
    delivered: int,
    ended: bool,
    paused: bool,
    indicator: float | None,
    projection: float | None,
    thresholds: Thresholds,
) -> State:
    """The state of a flight that has started."""
    if delivered >= booked:
        return "complete"
    if ended:
        return "ended_short"
    if paused:
        return "paused"
    if indicator is not None and indicator < thresholds.under:
        return "under"
    if projection is not None and projection < booked:
        return "at_risk"
    if indicator is not None and indicator > thresholds.over:
        return "over"
    return "on_track"


def state_change(
    placement: str, campaign: str | None, previous: State | None, now: Delivery, as_of_ms: int
) -> dict[str, str] | None:
    """The alert that tells of a change of state, or None where there was none.

    Args:
        previous: the state that was told last; None for a plan that is new, which begins as `not_started`.
        as_of_ms: watermark of `now`.

    Returns: texts by name; a null is absent. `id` is the same whenever the change is found again at this
    watermark.
    """
    before = previous or "not_started"
    if before == now.state:
        return None
    record = {
        "id": f"{placement}|{now.state}|{as_of_ms}",
        "placement": placement,
        "from": before,
        "to": now.state,
        "booked": str(now.booked),
        "delivered": str(now.delivered),
        "as_of_ms": str(as_of_ms),
    }
    if campaign is not None:
        record["campaign"] = campaign
    for name in ("expected", "indicator", "projected", "required_rate"):
        value: float | None = getattr(now, name)
        if value is not None:
            record[name] = f"{value:.6f}"
    return record
