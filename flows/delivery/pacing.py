"""Pacing: whether booked impressions are being delivered. Each function is pure: a plan, counts and a moment
give the result.

`expected` = booked x f(x), with f(x) the part of the booking that is due (`flows.model.flight`). The delivery
indicator is delivered / expected, Google Ad Manager's progress
(https://support.google.com/admanager/answer/79229): half of the booked at three quarters of an even flight is
0.667. Quotients of integers are rounded once, so that a threshold is met exactly or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from math import fsum, sqrt
from typing import Final, Literal, NamedTuple

from flows.model.flight import HOUR_MS, MINUTE_MS
from flows.model.plan import Plan

State = Literal[
    "not_started", "complete", "ended_unknown", "ended_short", "paused", "unknown_before", "under",
    "warming_up", "at_risk", "over", "on_track",
]  # fmt: skip
STATES: Final[tuple[State, ...]] = (
    "not_started",
    "complete",
    "ended_unknown",
    "ended_short",
    "paused",
    "unknown_before",
    "under",
    "warming_up",
    "at_risk",
    "over",
    "on_track",
)
"""The states, in the order in which they are tried: the first whose condition holds is the state."""

STANDARD_ERRORS: Final = 3
"""Standard errors that chance alone could explain."""
FALLEN_HOUR: Final = 1.5
FALLEN_MINUTES: Final = 4
"""Standard errors of the last hour and of the last five minutes by which both fall short after a fall: chance
alone explains that of one flight in a million.
"""
FIVE_MS: Final = 5 * MINUTE_MS
STILL: Final = frozenset(STATES[:5])
"""The states of a flight that does not run."""
_OVER_FOR_GOOD: Final = frozenset(STATES[1:4])
QUIET: Final = frozenset(("ended_unknown", "unknown_before"))
"""The states without an alert: an unknown delivery is not wrong."""


@dataclass(frozen=True)
class Thresholds:
    """The thresholds by which delivery is judged.

    Args:
        under: least indicator that is not `under`.
        over: greatest indicator that is not `over`.
        grace: unpaused time from when a flight is counted in which it is not judged.
        gap: share of the elapsed flight of which nothing need be known.
        hold: event time for which a new condition must hold to become the state.
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
        indicator: delivered / expected; null before the flight, in its grace, paused, when nothing is due, or
            where `delivered` is.
        projected: impressions at the flight's end if delivery goes on as in the last hour; null where the
            indicator is, and while it falls short of what is booked by no more than chance may.
        required_rate: impressions an unpaused hour that are still needed; null before the flight, when
            complete, when no unpaused time is left, or where `delivered` is.
        start_ms, end_ms: of the flight, the end not included; of a campaign the first and the last.
        remaining_ms: unpaused time until the end; of a campaign the longest of its placements'.
        counted: where `delivered` is null, impressions that are known of; else 0.
        since_ms: from when on the flight is counted; of a campaign the latest of its placements'.
        short_by: impressions that are due and not delivered, 0 if delivery is ahead; null if the indicator
            is. For a campaign, the sum over its placements that have one: a lead of one does not offset
            another.
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
    """The part of a flight that was counted here: its impressions from `since_ms` on, which is its start or
    later.
    """

    since_ms: int
    impressions: int


class Recent(NamedTuple):
    """The latest delivery, and the part of the booking that was due meanwhile.

    Args:
        delivered: impressions.
        due: numerator of a part of f(x), above 0.
        young: the flight is not an hour old.
        five: impressions of the last five minutes, and the part of the booking that was due in them; None:
            not known, or nothing was due.
    """

    delivered: int
    due: int
    young: bool
    five: tuple[int, int] | None = None


def expected(booked: int, due: int, total: int) -> float:
    """Impressions due by now: booked x f(x), with f(x) = due / total."""
    return booked * due / total


def delivery_indicator(booked: int, delivered: int, due: int, total: int) -> float | None:
    """delivered / expected; None if nothing is due."""
    return delivered * total / (booked * due) if due else None


def lately(
    plan: Plan, counted: Counted, last_hour: int, now_ms: int, last_five: int | None = None
) -> Recent | None:
    """The last hour of a flight, as `1h` counts it: the present minute and the 59 before. If the counted
    flight is shorter, or nothing was due in the hour, it is the counted flight so far. None if nothing is due
    at all.
    """
    due, _ = plan.flight.reached(now_ms)
    before, _ = plan.flight.reached(counted.since_ms)
    since_ms = now_ms // MINUTE_MS * MINUTE_MS - (HOUR_MS - MINUTE_MS)
    young = since_ms < plan.start_ms
    due_lately = due - plan.flight.reached(max(since_ms, counted.since_ms))[0]
    if since_ms < counted.since_ms or not due_lately:
        return Recent(counted.impressions, due - before, young) if due > before else None
    due_of_five = due - plan.flight.reached(now_ms // MINUTE_MS * MINUTE_MS - (FIVE_MS - MINUTE_MS))[0]
    five = None if last_five is None or not due_of_five else (last_five, due_of_five)
    return Recent(last_hour, due_lately, young, five)


def projected(booked: int, delivered: int, left: int, recent: Recent) -> float | None:
    """Delivered, plus the amount still due times the recent delivered / expected. None while this falls short
    of the booking and chance alone could explain it. Chance explains an hour that falls short by at most
    three standard errors, unless the last five minutes show a fall too (`_fell`).

    The question is whether the recent delivery is less than the one needed from now on. If exactly the needed
    amount is delivered, random arrivals have a standard error of its root.

    Args:
        left: numerator of the part of the booking that is due from now on.
    """
    projection = (delivered * recent.due + recent.delivered * left) / recent.due
    missing = booked - delivered
    if left and projection < booked:
        needed = missing * recent.due / left
        short = needed - recent.delivered
        if short**2 <= STANDARD_ERRORS**2 * needed and not _fell(missing, left, short, needed, recent):
            return None
    return projection


def _fell(missing: int, left: int, short: float, needed: float, recent: Recent) -> bool:
    """True if the last five minutes and the last hour both show that delivery has fallen: the hour alone
    shows a fall by 30 % only after several minutes.
    """
    if recent.five is None:
        return False
    came, due = recent.five
    needed_of_five = missing * due / left
    return short > FALLEN_HOUR * sqrt(needed) and needed_of_five - came > FALLEN_MINUTES * sqrt(
        needed_of_five
    )


def recovered(booked: int, delivered: int, left: int, recent: Recent) -> bool:
    """True if the recent delivery exceeds the least that is not at risk by the width of its band, twice the
    standard error of the count.
    """
    missing = booked - delivered
    if missing <= 0 or not left:
        return True
    needed = missing * recent.due / left
    least = needed - STANDARD_ERRORS * sqrt(needed)
    return recent.delivered > least + 2 * sqrt(recent.delivered)


def required_rate(booked: int, delivered: int, left_ms: int) -> float | None:
    """Impressions an unpaused hour that are still needed; None if none are, or no time is left."""
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
    """The pacing of a planned placement, up to the last moment of its flight and after it.

    Args:
        delivered: net impressions of the flight; None if unknown.
        last_hour: net impressions of the last hour.
        now_ms: the moment of the counts, their watermark.
        counted: of the flight; None for everything delivered since its start.
        held_state: the earlier state. Another state takes its place only beyond a band around the threshold.
            None to go by the threshold alone.
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
    young = lags = False
    if delivered is not None:
        needed = required_rate(plan.booked, delivered, flight.total_ms - elapsed_ms)
        if ended or not (paused or fresh):
            indicator = delivery_indicator(plan.booked, delivered, due, total)
            recent = lately(plan, counted, last_hour, now_ms, last_five)
            if recent is not None:
                projection, young = projected(plan.booked, delivered, total - due, recent), recent.young
                lags = not recovered(plan.booked, delivered, total - due, recent)
    due_now = expected(plan.booked, due, total)
    of_state = _Judged(
        *(plan.booked, delivered, counted_least, ended, paused, indicator, projection, young),
        *(due_now, held_state, lags),
    )
    state = _state(of_state, thresholds)
    short = None if indicator is None or delivered is None else max(0.0, due_now - delivered)
    return Delivery(
        plan.booked, delivered, due_now, indicator, projection, needed, state, *times, short_by=short
    )


def pace_campaign(
    placements: Sequence[Delivery], thresholds: Thresholds, held_state: State | None = None
) -> Delivery:
    """The pacing of a campaign: sums over its planned placements, at least one, and the state of the sums.

    It has started when one placement has; it has ended when each is over or has what it booked; it is paused
    when all are that could deliver. To `projected` a placement without a projection of its own (paused, in
    its grace, not started, within chance) adds what it booked: nothing is known against it. `required_rate`
    is what the placements need together now. If `delivered` is unknown for one placement, it is unknown for
    the campaign.

    Args:
        held_state: as of `pace`.
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
    ended = states <= _OVER_FOR_GOOD
    paused = "paused" in states and states <= STILL
    due = fsum(each.expected or 0.0 for each in placements)
    indicator = projection = None
    if delivered is not None and not paused and any(each.indicator is not None for each in placements):
        # A sum of rounded numbers may be off in its last digit, and must not cross a threshold for that.
        indicator = round(delivered / due, 12) if due else None
        if any(each.projected is not None for each in placements):
            projection = round(fsum(_hoped(each) for each in placements), 6)
    needed = [each.required_rate for each in placements if each.required_rate is not None]
    more = delivered is not None and delivered < booked
    young = "warming_up" in states and states <= STILL | {"warming_up"}
    counted = sum(each.least for each in placements)
    short = [each.short_by for each in placements if each.short_by is not None]
    of_state = _Judged(
        *(booked, delivered, counted, ended, paused, indicator, projection, young), *(due, held_state, False)
    )
    return Delivery(
        booked,
        delivered,
        due,
        indicator,
        projection,
        fsum(needed) if needed and more else None,
        _state(of_state, thresholds),
        *times,
        short_by=fsum(short) if short else None,
    )


def _hoped(placement: Delivery) -> float:
    return placement.booked if placement.projected is None else placement.projected


class _Judged(NamedTuple):
    """The facts that decide the state of a flight that has started; names as of `Delivery`.

    Args:
        held_state: the earlier state; None for thresholds without bands.
        lags: whether a flight that is at risk remains so.
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
    lags: bool


def _state(judged: _Judged, thresholds: Thresholds) -> State:
    if (judged.counted if judged.delivered is None else judged.delivered) >= judged.booked:
        return "complete"
    if judged.ended:
        return "ended_unknown" if judged.delivered is None else "ended_short"
    if judged.paused:
        return "paused"
    if judged.delivered is None:
        return "unknown_before"
    if judged.indicator is None:
        return "warming_up"
    # The standard error of the indicator, for random arrivals.
    band = (
        sqrt(judged.delivered) / judged.expected if judged.held_state is not None and judged.expected else 0.0
    )
    if judged.indicator < thresholds.under + (band if judged.held_state == "under" else -band):
        return "under"
    if judged.projected is None and judged.young:
        return "warming_up"
    if judged.indicator > thresholds.over - (band if judged.held_state == "over" else -band):
        return "over"
    short = judged.projected is not None and judged.projected < judged.booked
    at_risk = short or (judged.held_state == "at_risk" and judged.lags)
    return "at_risk" if at_risk and judged.indicator <= thresholds.over else "on_track"


def state_change(
    placement: str, campaign: str | None, previous: State | None, now: Delivery, as_of_ms: int
) -> dict[str, str] | None:
    """The alert of a change of state; None without a change, or for a state of `QUIET`.

    Args:
        previous: the state of the latest alert; None for a new plan, which begins as `not_started`.
        as_of_ms: watermark of `now`.

    Returns: texts by name; a null is absent. `id` is the same whenever the change is found again at this
    watermark.
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
