"""The opening of a flight: since when it is counted here, and what is known of its time before."""

from __future__ import annotations

from typing import Final, NamedTuple

from flows.model.flight import MINUTE_MS
from flows.model.messages import Delivered
from flows.model.plan import Plan

COVERED_MS: Final = 15 * MINUTE_MS
COVERED_PART: Final = 1000
"""A flight that began so long before anything is counted, or such a part of its length, is counted whole."""


class Opening(NamedTuple):
    """What is known of a planned placement's flight.

    Args:
        since_ms: from when on it is counted here: its start, or later.
        counted: impressions that were counted in it; None where nobody knows.
        delivered: impressions of all of it; None where nobody knows.
    """

    since_ms: int
    counted: int | None
    delivered: int | None


def counted_from(plan: Plan, since_ms: int) -> int:
    """The moment from which on a flight is counted by a deployment that counts since `since_ms`."""
    late_ms = since_ms - plan.start_ms
    covered = late_ms <= COVERED_MS or late_ms * COVERED_PART <= plan.end_ms - plan.start_ms
    return plan.start_ms if covered else since_ms


def opening(plan: Plan, counted: Delivered | None, since_ms: int) -> Opening:
    """The opening of a placement's flight.

    Args:
        counted: of its row; None: it never had a pixel.
        since_ms: receipt since which the deployment counts.
    """
    impressions = 0 if counted is None else counted.impressions
    from_ms = counted_from(plan, since_ms)
    return Opening(from_ms, impressions, impressions if from_ms == plan.start_ms else None)
