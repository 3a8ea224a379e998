"""The opening of a flight: the moment since which it is counted here, and what is known of the time before.

A plan may have an opening balance: impressions that were delivered up to a moment, by another party's word.
The counts from that moment on are added to it. Time in between without counts is a gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from flows.delivery.pacing import Counted
from flows.model.flight import MINUTE_MS, Flight
from flows.model.messages import Delivered
from flows.model.plan import Plan

COVERED_MS: Final = 15 * MINUTE_MS
COVERED_PART: Final = 1000
"""A flight that began so long before counting did, or such a part of its length, counts as whole."""

Unknown = Literal["no_balance", "gap", "until", "late_plan"]
"""The reason for which the delivery is unknown. `no_balance`: the flight began before counting did. `gap`:
too much of it was not counted. `until`: no counts are split at the balance's moment. `late_plan`: the plan
came after the minutes that separate its flight were dropped.
"""


class Counting(NamedTuple):
    """The coverage of a deployment: everything that was received since `since_ms`, except in `holes`, each
    from one epoch time in ms to before another, in order.
    """

    since_ms: int
    holes: tuple[tuple[int, int], ...] = ()


class Opening(NamedTuple):
    """The knowledge of a planned placement's flight.

    Args:
        since_ms: from when on it is counted here: its start, or later.
        counted: impressions that were counted in it; None if unknown.
        delivered: all its impressions; None if unknown.
        recent: the moment from which counts give its rate, and their number.
        gap_ms: its unpaused time up to now without counts or a balance; None if the earlier delivery is
            unknown.
        unknown: the reason, if `delivered` is None.
        until_ms: the moment of the opening balance, or None.
    """

    since_ms: int
    counted: int | None
    delivered: int | None
    recent: Counted
    gap_ms: int | None = None
    unknown: Unknown | None = None
    until_ms: int | None = None


def counted_from(plan: Plan, since_ms: int) -> int:
    """The moment from which on a flight is counted by a deployment that counts since `since_ms`."""
    late_ms = since_ms - plan.start_ms
    covered = late_ms <= COVERED_MS or late_ms * COVERED_PART <= plan.end_ms - plan.start_ms
    return plan.start_ms if covered else since_ms


def opening(
    plan: Plan, of_row: Delivered | None, counting: Counting, now_ms: int, most_gap: float
) -> Opening:
    """The opening of a placement's flight.

    Args:
        of_row: the counts of its row; None if it never had a pixel.
        now_ms: the moment of the counts.
        most_gap: share of the elapsed flight up to which a gap leaves it known.
    """
    from_ms = counted_from(plan, counting.since_ms)
    counted = 0 if of_row is None else of_row.impressions
    recent = Counted(from_ms, counted or 0)
    state = Opening(from_ms, counted, counted, recent)
    if plan.delivered_before is None:
        if counted is None:
            return state._replace(unknown="late_plan")
        if from_ms != plan.start_ms:
            return state._replace(delivered=None, unknown="no_balance")
        # A flight that counts as whole may have begun a little before.
        begun_ms = since_ms = from_ms
    else:
        begun_ms, since_ms = _until(plan, counting.since_ms), counting.since_ms
        state = state._replace(until_ms=begun_ms)
        later = begun_ms > max(plan.start_ms, since_ms)  # else none of the counts is in the balance
        after = _since(of_row, plan) if later else counted
        if after is None or (later and begun_ms > now_ms > plan.start_ms):
            return state._replace(delivered=None, unknown="until")
        recent = Counted(begun_ms, after) if counted is None else recent
        state = state._replace(delivered=plan.delivered_before + after, recent=recent)
    gap_ms = sum(_missing(plan.flight, begun_ms, since_ms, counting.holes, now_ms))
    if gap_ms and gap_ms > most_gap * plan.flight.elapsed_ms(now_ms):
        return state._replace(delivered=None, gap_ms=gap_ms, unknown="gap")
    return state._replace(gap_ms=gap_ms)


def _until(plan: Plan, since_ms: int) -> int:
    """The moment of the opening balance; without one nothing ran until counting began."""
    if plan.delivered_before_until is None:
        return max(plan.start_ms, since_ms)
    return plan.delivered_before_until


def _since(of_row: Delivered | None, plan: Plan) -> int | None:
    """The impressions that were counted from the balance's moment on."""
    if not plan.parted_from:
        return None
    return 0 if of_row is None else of_row.since


def _missing(
    flight: Flight, begun_ms: int, since_ms: int, holes: tuple[tuple[int, int], ...], now_ms: int
) -> Iterator[int]:
    """The unpaused times of a flight, in ms, that lie in the time before `since_ms`, or in a hole."""
    at_ms = begun_ms
    for from_ms, to_ms in ((begun_ms, since_ms), *holes):
        from_ms, to_ms = max(from_ms, at_ms), min(to_ms, now_ms)
        if from_ms < to_ms:
            yield flight.elapsed_ms(to_ms) - flight.elapsed_ms(from_ms)
            at_ms = to_ms
