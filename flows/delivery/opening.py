"""The opening of a flight: the moment since which the flow counts it, and its delivery before that moment.

A plan may have an opening balance: impressions that were delivered up to a moment, by another party's word.
The counts from that moment on are added to the balance. Time after the balance without counts is a gap.
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
"""A flight counts as whole if it began at most `COVERED_MS` before counting did, or at most a
`COVERED_PART`-th of its length.
"""

Unknown = Literal["no_balance", "gap", "until", "late_plan"]
"""The reason for which the delivery is unknown.

`no_balance`: the flight began before counting did. `gap`: too much of the flight was not counted. `until`:
the stored counts cannot be split at the balance's moment. `late_plan`: the plan came after the minutes at the
borders of its flight were dropped.
"""


class Counting(NamedTuple):
    """The times from which a deployment has all pixels.

    Args:
        since_ms: the receipt from which on everything is counted, epoch ms.
        holes: later times with lost messages, as [start, end) in epoch ms, in order.
    """

    since_ms: int
    holes: tuple[tuple[int, int], ...] = ()


class Opening(NamedTuple):
    """The counts of a planned placement's flight, and the gaps in them.

    Args:
        since_ms: the moment from which on the flow counts the flight: its start, or later.
        counted: impressions that the flow counted in the flight; None if unknown.
        delivered: all impressions of the flight, with the opening balance; None if unknown.
        recent: the counts by which the delivery rate is judged.
        gap_ms: unpaused time of the flight up to now without counts or a balance; None if the earlier
            delivery is unknown.
        unknown: the reason why `delivered` is None; else None.
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
    """The moment from which on a deployment that counts since `since_ms` counts a flight."""
    late_ms = since_ms - plan.start_ms
    covered = late_ms <= COVERED_MS or late_ms * COVERED_PART <= plan.end_ms - plan.start_ms
    return plan.start_ms if covered else since_ms


def opening(
    plan: Plan, row_counts: Delivered | None, counting: Counting, now_ms: int, max_gap: float
) -> Opening:
    """The opening of a placement's flight.

    Args:
        row_counts: the counts of the placement's row; None if the placement never had a pixel.
        now_ms: the moment of the counts.
        max_gap: the greatest gap with which the delivery is known, as a share of the elapsed flight.
    """
    from_ms = counted_from(plan, counting.since_ms)
    counted = 0 if row_counts is None else row_counts.impressions
    recent = Counted(from_ms, counted or 0)
    result = Opening(from_ms, counted, counted, recent)
    if plan.delivered_before is None:
        if counted is None:
            return result._replace(unknown="late_plan")
        if from_ms != plan.start_ms:
            return result._replace(delivered=None, unknown="no_balance")
        # A flight that counts as whole may have begun shortly before counting did.
        begun_ms = since_ms = from_ms
    else:
        begun_ms, since_ms = _balance_end_ms(plan, counting.since_ms), counting.since_ms
        result = result._replace(until_ms=begun_ms)
        overlaps = begun_ms > max(plan.start_ms, since_ms)  # the balance has a part of the counts, too
        counted_after = _counted_after_balance(row_counts, plan) if overlaps else counted
        if counted_after is None or (overlaps and begun_ms > now_ms > plan.start_ms):
            return result._replace(delivered=None, unknown="until")
        recent = Counted(begun_ms, counted_after) if counted is None else recent
        result = result._replace(delivered=plan.delivered_before + counted_after, recent=recent)
    gap_ms = sum(_gaps_ms(plan.flight, begun_ms, since_ms, counting.holes, now_ms))
    if gap_ms and gap_ms > max_gap * plan.flight.elapsed_ms(now_ms):
        return result._replace(delivered=None, gap_ms=gap_ms, unknown="gap")
    return result._replace(gap_ms=gap_ms)


def _balance_end_ms(plan: Plan, since_ms: int) -> int:
    """The moment of the opening balance. A balance without a moment ends where counting began."""
    if plan.delivered_before_until is None:
        return max(plan.start_ms, since_ms)
    return plan.delivered_before_until


def _counted_after_balance(row_counts: Delivered | None, plan: Plan) -> int | None:
    """The impressions that were counted from the balance's moment on; None if the plan splits no counts."""
    if not plan.parted_from:
        return None
    return 0 if row_counts is None else row_counts.since


def _gaps_ms(
    flight: Flight, begun_ms: int, since_ms: int, holes: tuple[tuple[int, int], ...], now_ms: int
) -> Iterator[int]:
    """The unpaused time of a flight, in ms, before `since_ms` and then in each hole, without overlaps."""
    at_ms = begun_ms
    for from_ms, to_ms in ((begun_ms, since_ms), *holes):
        from_ms, to_ms = max(from_ms, at_ms), min(to_ms, now_ms)
        if from_ms < to_ms:
            yield flight.elapsed_ms(to_ms) - flight.elapsed_ms(from_ms)
            at_ms = to_ms
