"""Pacing: whether booked impressions are being delivered. Each function is pure: its result follows from a
plan, counts and a moment.

`expected` = booked x f(x), with f(x) the part of the booking that is due (`flows.model.flight`). The delivery
indicator is delivered / expected, Google Ad Manager's progress
(https://support.google.com/admanager/answer/79229). Half of the booking at three quarters of an even flight
is 0.667. Quotients of integers are rounded once, so that a threshold is met exactly or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from math import fsum, sqrt
from typing import Final, Literal, NamedTuple, get_args

from flows.model.flight import HOUR_MS, MINUTE_MS
from flows.model.plan import Plan

State = Literal[
    "not_started", "complete", "ended_unknown", "ended_short", "paused", "unknown_before", "under",
    "warming_up", "at_risk", "over", "on_track",
]  # fmt: skip
STATES: Final[tuple[State, ...]] = get_args(State)
"""The states, in the order in which they are tried: the first state whose condition holds is chosen."""

STANDARD_ERRORS: Final = 3
"""The greatest shortfall of an hour, in standard errors, that counts as chance."""
FALLEN_HOUR: Final = 1.5
FALLEN_MINUTES: Final = 4
"""A fall is a shortfall of the last hour and of the last five minutes by more than these standard errors
each. By chance alone one flight in a million has both.
"""
FIVE_MS: Final = 5 * MINUTE_MS
STILL: Final = frozenset(STATES[:5])
"""The states of a flight that does not run."""
_ENDED: Final = frozenset(STATES[1:4])
QUIET: Final = frozenset(("ended_unknown", "unknown_before"))
"""The states without an alert, since an unknown delivery need not be wrong."""


@dataclass(frozen=True)
class Thresholds:
    """The thresholds by which delivery is judged.

    Args:
        under: least indicator that is not `under`.
        over: greatest indicator that is not `over`.
        grace: unpaused time after the counting of a flight began in which the flight is not judged.
        gap: share of the elapsed flight that may be without counts.
        hold: event time for which a new condition must hold before it is the state.
    """

    under: float = 0.90
    over: float = 1.10
    grace: timedelta = timedelta(minutes=15)
    gap: float = 0.01
    hold: timedelta = timedelta(minutes=5)

    @cached_property
    def grace_ms(self) -> int:
        """Whole milliseconds of `grace`."""
        return self.grace // timedelta(milliseconds=1)

    @cached_property
    def hold_ms(self) -> int:
        """Whole milliseconds of `hold`."""
        return self.hold // timedelta(milliseconds=1)


class Delivery(NamedTuple):
    """Pacing of a placement or a campaign at one moment. None stands for an absent field, never for 0.

    Args:
        booked: impressions.
        delivered: impressions; null if the delivery before the counts is unknown.
        expected: impressions due by now; null before the flight.
        indicator: delivered / expected; null before the flight, in its grace, in a pause, while nothing is
            due, or if `delivered` is null.
        projected: impressions at the flight's end if delivery goes on as in the last hour; null if the
            indicator is null, or if chance alone could explain a shortfall.
        required_rate: impressions an unpaused hour that are still needed; null before the flight, when
            complete, when no unpaused time is left, or if `delivered` is null.
        start_ms, end_ms: [start, end) of the flight; for a campaign, its earliest start and latest end.
        remaining_ms: unpaused time until the end; for a campaign, the longest of its placements.
        counted: impressions that are known if `delivered` is null; else 0.
        since_ms: the moment from which on the flight is counted; for a campaign, the latest of its
            placements.
        short_by: impressions that are due and not delivered, 0 if delivery is ahead; null if the indicator
            is null. For a campaign, the sum over its placements that have a value: the lead of one placement
            does not offset the shortfall of another.
    """

    booked: int
    delivered: int | None
    expected: float | None
    indicator: float | None
    projected: float | None
    required_rate: float | None
    state: State
    start_ms: int
    end_ms: int
    remaining_ms: int
    counted: int = 0
    since_ms: int = 0
    short_by: float | None = None

    @property
    def least(self) -> int:
        """Impressions that are certainly delivered."""
        return self.counted if self.delivered is None else self.delivered


class Counted(NamedTuple):
    """The part of a flight that the flow counted: the impressions from `since_ms` on, which is the start of
    the flight or later.
    """

    since_ms: int
    impressions: int


class Recent(NamedTuple):
    """The latest delivery, and the part of the booking that was due in the same time.

    Args:
        delivered: impressions.
        due: the numerator of the part of f(x) that was due, above 0.
        young: whether the flight is younger than an hour.
        five_minutes: impressions of the last five minutes, and the numerator of the part of f(x) that was due
            in them; None if the impressions are unknown, or nothing was due.
    """

    delivered: int
    due: int
    young: bool
    five_minutes: tuple[int, int] | None = None


def expected(booked: int, due: int, total: int) -> float:
    """Impressions due by now: booked x f(x), with f(x) = due / total."""
    return booked * due / total


def delivery_indicator(booked: int, delivered: int, due: int, total: int) -> float | None:
    """delivered / expected; None if nothing is due."""
    return delivered * total / (booked * due) if due else None


def recent_delivery(
    plan: Plan, counted: Counted, last_hour: int, now_ms: int, last_five: int | None = None
) -> Recent | None:
    """The delivery of the last hour of a flight, as `1h` counts it: the present minute and the 59 before. If
    the counted flight is shorter, or nothing was due in the hour, the delivery of the counted flight so far.
    None if nothing is due at all.
    """
    due, _ = plan.flight.reached(now_ms)
    before, _ = plan.flight.reached(counted.since_ms)
    since_ms = now_ms // MINUTE_MS * MINUTE_MS - (HOUR_MS - MINUTE_MS)
    young = since_ms < plan.start_ms
    due_in_hour = due - plan.flight.reached(max(since_ms, counted.since_ms))[0]
    if since_ms < counted.since_ms or not due_in_hour:
        return Recent(counted.impressions, due - before, young) if due > before else None
    due_in_five = due - plan.flight.reached(now_ms // MINUTE_MS * MINUTE_MS - (FIVE_MS - MINUTE_MS))[0]
    five_minutes = None if last_five is None or not due_in_five else (last_five, due_in_five)
    return Recent(last_hour, due_in_hour, young, five_minutes)


def projected(booked: int, delivered: int, left: int, recent: Recent) -> float | None:
    """The delivered impressions, plus the impressions still due times the recent delivered / expected. None
    if this is less than the booking and chance alone could explain the shortfall.

    The shortfall is that of the recent delivery against the rate that is needed from now on. Random arrivals
    at the needed rate have a standard error of the root of their number. Chance explains a shortfall of at
    most `STANDARD_ERRORS`, unless the last five minutes show a fall too (`_has_fallen`).

    Args:
        left: the numerator of the part of f(x) that is due from now on.
    """
    projection = (delivered * recent.due + recent.delivered * left) / recent.due
    missing = booked - delivered
    if left and projection < booked:
        needed = missing * recent.due / left
        short = needed - recent.delivered
        if short**2 <= STANDARD_ERRORS**2 * needed and not _has_fallen(missing, left, short, needed, recent):
            return None
    return projection


def _has_fallen(missing: int, left: int, short: float, needed: float, recent: Recent) -> bool:
    """True if the last hour and the last five minutes both show that delivery has fallen. The hour alone
    shows a fall by 30 % only after several minutes.
    """
    if recent.five_minutes is None:
        return False
    delivered, due = recent.five_minutes
    needed_in_five = missing * due / left
    short_in_five = needed_in_five - delivered
    return short > FALLEN_HOUR * sqrt(needed) and short_in_five > FALLEN_MINUTES * sqrt(needed_in_five)


def has_recovered(booked: int, delivered: int, left: int, recent: Recent) -> bool:
    """True if the recent delivery exceeds the least delivery that is not at risk by the width of the band:
    twice the standard error of the count.
    """
    missing = booked - delivered
    if missing <= 0 or not left:
        return True
    needed = missing * recent.due / left
    least = needed - STANDARD_ERRORS * sqrt(needed)
    return recent.delivered > least + 2 * sqrt(recent.delivered)


def required_rate(booked: int, delivered: int, left_ms: int) -> float | None:
    """Impressions an unpaused hour that are still needed; None if none are needed, or no time is left."""
    missing = booked - delivered
    return missing * HOUR_MS / left_ms if missing > 0 and left_ms > 0 else None


def pace(
    plan: Plan,
    delivered: int | None,
    last_hour: int,
    now_ms: int,
    thresholds: Thresholds,
    counted: Counted | None = None,
    held_state: State | None = None,
    last_five: int | None = None,
) -> Delivery:
    """The pacing of a planned placement before, in and after its flight.

    Args:
        delivered: net impressions of the flight; None if unknown.
        last_hour: net impressions of the last hour.
        now_ms: the watermark of the counts.
        counted: the counted part of the flight; None if `delivered` was counted since the start.
        held_state: the earlier state. Another state replaces it only beyond a band around the threshold.
            None for thresholds without bands.
        last_five: net impressions of the last five minutes; None if unknown.
    """
    counted = Counted(plan.start_ms, delivered or 0) if counted is None else counted
    flight, counted_least = plan.flight, counted.impressions if delivered is None else 0
    elapsed_ms = flight.elapsed_ms(now_ms)
    times = (plan.start_ms, plan.end_ms, flight.total_ms - elapsed_ms, counted_least, counted.since_ms)
    if now_ms < plan.start_ms:
        return Delivery(plan.booked, delivered, None, None, None, None, "not_started", *times)
    ended, paused = now_ms >= plan.end_ms, flight.paused(now_ms)
    fresh = elapsed_ms - flight.elapsed_ms(counted.since_ms) < thresholds.grace_ms
    due, total = flight.reached(now_ms)
    indicator = projection = needed = None
    young = recovers = False
    if delivered is not None:
        needed = required_rate(plan.booked, delivered, flight.total_ms - elapsed_ms)
        if ended or not (paused or fresh):
            indicator = delivery_indicator(plan.booked, delivered, due, total)
            recent = recent_delivery(plan, counted, last_hour, now_ms, last_five)
            if recent is not None:
                projection, young = projected(plan.booked, delivered, total - due, recent), recent.young
                recovers = not has_recovered(plan.booked, delivered, total - due, recent)
    due_now = expected(plan.booked, due, total)
    facts = _StateFacts(
        *(plan.booked, delivered, counted_least, ended, paused, indicator, projection, young),
        *(due_now, held_state, recovers),
    )
    state = _state(facts, thresholds)
    short = None if indicator is None or delivered is None else max(0.0, due_now - delivered)
    return Delivery(
        plan.booked, delivered, due_now, indicator, projection, needed, state, *times, short_by=short
    )


def pace_campaign(
    placements: Sequence[Delivery], thresholds: Thresholds, held_state: State | None = None
) -> Delivery:
    """The pacing of a campaign: sums over its planned placements, at least one, and the state of the sums.

    A campaign has started once one placement has. It has ended once each placement has ended or delivered its
    booking. It is paused while all placements that could deliver are paused. A placement without a projection
    (paused, in its grace, not started, within chance) adds its booking to `projected`, since nothing shows
    that it will deliver less. `required_rate` is the sum of the placements' rates. If `delivered` is unknown
    for one placement, it is unknown for the campaign.

    Args:
        held_state: see `pace`.
    """
    booked = sum(each.booked for each in placements)
    known_deliveries = [each.delivered for each in placements if each.delivered is not None]
    delivered = sum(known_deliveries) if len(known_deliveries) == len(placements) else None
    states = {each.state for each in placements}
    times = (
        min(each.start_ms for each in placements),
        max(each.end_ms for each in placements),
        max(each.remaining_ms for each in placements),
        0 if delivered is not None else sum(each.least for each in placements),
        max(each.since_ms for each in placements),
    )
    if states == {"not_started"}:
        return Delivery(booked, delivered, None, None, None, None, "not_started", *times)
    ended = states <= _ENDED
    paused = "paused" in states and states <= STILL
    due = fsum(each.expected or 0.0 for each in placements)
    indicator = projection = None
    if delivered is not None and not paused and any(each.indicator is not None for each in placements):
        # A sum of rounded numbers may be wrong in its last digit, which must not make it cross a threshold.
        indicator = round(delivered / due, 12) if due else None
        if any(each.projected is not None for each in placements):
            projection = round(fsum(_projected_or_booked(each) for each in placements), 6)
    needed = [each.required_rate for each in placements if each.required_rate is not None]
    is_short = delivered is not None and delivered < booked
    young = "warming_up" in states and states <= STILL | {"warming_up"}
    counted = sum(each.least for each in placements)
    short = [each.short_by for each in placements if each.short_by is not None]
    facts = _StateFacts(
        *(booked, delivered, counted, ended, paused, indicator, projection, young), *(due, held_state, False)
    )
    return Delivery(
        booked,
        delivered,
        due,
        indicator,
        projection,
        fsum(needed) if needed and is_short else None,
        _state(facts, thresholds),
        *times,
        short_by=fsum(short) if short else None,
    )


def _projected_or_booked(placement: Delivery) -> float:
    return placement.booked if placement.projected is None else placement.projected


class _StateFacts(NamedTuple):
    """The facts that decide the state of a flight that has started. Names have the meanings of `Delivery`.

    Args:
        ended, paused: whether the flight has ended, or is in a pause.
        young: see `Recent`.
        held_state: see `pace`.
        recovers: whether a flight at risk is still within the band of `has_recovered`, and so stays at risk.
    """

    booked: int
    delivered: int | None
    counted: int
    ended: bool
    paused: bool
    indicator: float | None
    projected: float | None
    young: bool
    expected: float
    held_state: State | None
    recovers: bool


def _state(facts: _StateFacts, thresholds: Thresholds) -> State:
    if (facts.counted if facts.delivered is None else facts.delivered) >= facts.booked:
        return "complete"
    if facts.ended:
        return "ended_unknown" if facts.delivered is None else "ended_short"
    if facts.paused:
        return "paused"
    if facts.delivered is None:
        return "unknown_before"
    if facts.indicator is None:
        return "warming_up"
    # The standard error of the indicator, for random arrivals.
    has_band = facts.held_state is not None and facts.expected
    band = sqrt(facts.delivered) / facts.expected if has_band else 0.0
    if facts.indicator < thresholds.under + (band if facts.held_state == "under" else -band):
        return "under"
    if facts.projected is None and facts.young:
        return "warming_up"
    if facts.indicator > thresholds.over - (band if facts.held_state == "over" else -band):
        return "over"
    short = facts.projected is not None and facts.projected < facts.booked
    at_risk = short or (facts.held_state == "at_risk" and facts.recovers)
    return "at_risk" if at_risk and facts.indicator <= thresholds.over else "on_track"


def state_change(
    placement: str, campaign: str | None, previous: State | None, now: Delivery, as_of_ms: int
) -> dict[str, str] | None:
    """The alert about a changed state; None without a change, or for a state of `QUIET`.

    Args:
        previous: the state of the latest alert; None for a new plan, which begins as `not_started`.
        as_of_ms: watermark of `now`.

    Returns:
        Texts by name; a null is absent. The same change at the same watermark has the same `id`.
    """
    before = previous or "not_started"
    if before == now.state or now.state in QUIET:
        return None
    record = {
        "id": f"{placement}|{now.state}|{as_of_ms}",
        "placement": placement,
        "from": before,
        "to": now.state,
        "booked": str(now.booked),
        "as_of_ms": str(as_of_ms),
    }
    if now.delivered is not None:
        record["delivered"] = str(now.delivered)
    if campaign is not None:
        record["campaign"] = campaign
    for name in ("expected", "short_by", "indicator", "projected", "required_rate"):
        value: float | None = getattr(now, name)
        if value is not None:
            record[name] = f"{value:.6f}"
    return record
