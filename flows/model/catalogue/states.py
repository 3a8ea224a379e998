"""The delivery states of a row, and the reasons for which a delivery is not judged or unknown, in words."""

from __future__ import annotations

from typing import Final

STATES: Final = {
    "under": ("under", "Pacing is below what is allowed: 90 % unless set otherwise."),
    "at_risk": (
        "at risk",
        "Pacing is still allowed, but at the rate of the last hour the booking will be missed.",
    ),
    "unjudged": (
        "not judged",
        "Do not act on its numbers, for the reason that follows. Feed silent: its pixels do not arrive.",
    ),
    "over": ("over", "Pacing is above what is allowed: 110 % unless set otherwise."),
    "ended_short": ("ended short", "The flight has ended and its booking was missed."),
    "unknown_before": (
        "unknown before",
        "The flight began before counting did. Its delivery until then is unknown.",
    ),
    "ended_unknown": (
        "ended, unknown",
        "The flight has ended. Its delivery before counting began is unknown.",
    ),
    "warming_up": ("warming up", "The flight is too young to judge."),
    "on_track": ("on track", "Delivery is as planned."),
    "paused": ("paused", "The plan pauses the flight now."),
    "not_started": ("not started", "The flight has not begun."),
    "complete": ("complete", "All that was booked is delivered."),
    "none": ("no plan", "Pixels arrive, and no plan has a booking for them."),
}
"""Words and meaning of each delivery state, the most severe first. `none` is the state of a row without a
plan; `unjudged` is shown for a row whose `delivery.judged` is not 1, whatever its delivery state is.
"""
ATTENTION: Final = (
    ("blocked",),
    ("under",),
    ("at_risk",),
    ("unjudged", "over", "unknown_before", "warming_up"),
    ("on_track",),
    ("paused", "not_started", "complete"),
    ("ended_short", "ended_unknown"),
    ("none",),
)
"""The order of the rows in `top` and on the page, by tiers of states: those that need attention come first.
`blocked` is any state with impressions in blocked content. Within a tier the most money at stake is first.
"""
ROW_REASONS: Final = {"feed_silent": "feed silent"}
"""Reasons for which one row is not judged; the words follow those of `unjudged`."""
UNKNOWN_BEFORE: Final = {
    "no_balance": "the flight began before anything was counted; give an opening balance in its plan",
    "gap": "too much of the flight is not counted; give a balance up to a later moment, or wait",
    "until": "no counts part at the balance's moment; give one of the moments that the flow's log names",
    "late_plan": "the plan came too late; give a balance up to a minute of the last hour, or a midnight",
}
"""Reasons for which a flight's delivery is unknown, and the remedies (`delivery.unknown_reason`)."""
UNJUDGED: Final = {
    "catching_up": "the flow counts history, and is not live yet",
    "switching": "another flow is about to write the rows",
    "starting": "the flow is starting: its watermark, or the time since which it counts, is not known yet",
    "collector": "time waits for pixels that a collector still holds",
    "stalled": "the numbers are old and stand still",
    "lagging": "the numbers are old, and the flow is catching up",
    "rejecting": "more pixels are rejected than chance explains",
}
"""Reasons for which no delivery is judged (`unjudged_reason` of `meta`)."""
