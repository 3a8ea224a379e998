"""The fields that a plan adds, in a module of their own: a viewer that needs them loads no compiler."""

from __future__ import annotations

from typing import Final

WINDOWS: Final = ("5m", "1h", "1d", "flight")
SPENDING: Final = tuple(
    f"{window}.{metric}"
    for window in WINDOWS
    for metric in ("cost", "cost_per_acquisition", "return_on_ad_spend")
)
DELIVERY: Final = (
    "delivery.booked",
    "delivery.delivered",
    "delivery.expected",
    "delivery.short_by",
    "delivery.indicator",
    "delivery.state",
    "delivery.since_ms",
    "delivery.projected",
    "delivery.required_rate",
    "delivery.start_ms",
    "delivery.end_ms",
    "delivery.remaining_seconds",
    "delivery.target_completion_rate",
    "delivery.cpm",
    "delivery.currency",
    "delivery.at_stake",
    "delivery.at_stake_end",
    "delivery.blocked_at_stake",
    *SPENDING,
    "delivery.alerted_state",
    "delivery.judged",
    "delivery.unjudged_reason",
    "delivery.unjudged_since_ms",
    "delivery.unjudged_by",
    "flight.counted_since_ms",
    "delivery.delivered_before",
    "delivery.delivered_before_until_ms",
    "delivery.delivered_before_source",
    "delivery.gap_ms",
    "delivery.unknown_reason",
    "delivery.plan_changed_ms",
    "delivery.booked_before",
)
"""Delivery fields of a planned placement or its campaign, which `flows.delivery.pacer` fills; money in the
plan's currency.
"""
