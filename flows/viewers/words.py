"""Words and numbers of `audiopixel top`: the vocabulary of the live page (`static/words.js`) for a terminal.

A quantity has one name, one scale and one unit, on the page and here; a test compares them.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, tzinfo
from typing import Final

NULL: Final = "–"
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
"""Words and meaning of each delivery state, the most severe first; `none` is that of a row without a plan,
`unjudged` that of a row whose `delivery.judged` is 0, whatever its delivery state is.
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
"""The order of the rows, for `top` and for the page: the states that need somebody first, `blocked` being any
state with impressions in blocked content. Within a tier the most money at stake is first.
"""
ROW_REASONS: Final = {"feed_silent": "feed silent"}
"""Reasons for which one row is not judged, as they follow the words of `unjudged`."""
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
"""Reasons of `meta` for which delivery is not judged."""
AWAY: Final = {"down": "the flow writes nothing", "redis": "Redis does not answer"}
"""Reasons that `meta` cannot have."""
_LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999."""


def reason(of: str) -> str:
    """The words for a reason for which delivery is not judged."""
    return (UNJUDGED | AWAY).get(of, "the flow gives no reason")


def state_words(state: str, reason_of_row: str | None) -> str:
    """The words for a state, with the reason if it is not judged, such as `not judged: feed silent`."""
    why = ROW_REASONS.get(reason_of_row or "") if state == "unjudged" else None
    return f"{STATES[state][0]}: {why}" if why else STATES[state][0]


def number(text: str | None) -> float:
    """A number of Redis; NaN for an absent or invalid one."""
    if text is None:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def whole(value: float) -> str:
    """`1,234,567`."""
    return f"{value:,.0f}" if math.isfinite(value) else NULL


def fixed(value: float) -> str:
    """`1.73`."""
    return f"{value:.2f}" if math.isfinite(value) else NULL


def percent(value: float) -> str:
    """`97 %`."""
    return f"{100 * value:.0f} %" if math.isfinite(value) else NULL


def shares(value: float) -> str:
    """A count that may hold shares of a conversion: `12`, `12.50`."""
    return whole(value) if value.is_integer() else fixed(value)


def amount(value: float) -> str:
    """Money without its currency: `12.50`, `1,235`."""
    if not math.isfinite(value):
        return NULL
    return f"{value:,.2f}" if value and abs(value) < 1000 else f"{value:,.0f}"


def span(seconds: float) -> str:
    """`0.4 s`, `12 s`, `35 min`, `5 h`, `354 d`."""
    if not math.isfinite(seconds):
        return NULL
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, length, most in (("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < most:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:,.0f} d"


def left(seconds: float) -> str:
    """Time that is left, in two units: `2 d 8 h`, `8 h 12 min`, `12 min`."""
    if not math.isfinite(seconds):
        return NULL
    minutes = max(0, round(seconds / 60))
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days:,} d {hours} h"
    return f"{hours} h {rest} min" if hours else f"{rest} min"


def utc_moment(epoch_s: float) -> str:
    """A moment as `25 Nov 2026, 16:04 UTC`, for pages without a reader's clock."""
    try:
        return f"{datetime.fromtimestamp(epoch_s, UTC):%d %b %Y, %H:%M UTC}"
    except (ValueError, OverflowError, OSError):
        return "at no date"


def moment(ms: float, now_ms: float, zone: tzinfo | None = None) -> str:
    """A moment as `25 Nov, 16:04 UTC`: always with date and zone, and with the year if it is not the present
    one.

    Args:
        ms: epoch milliseconds.
        now_ms: wall clock.
        zone: of the reader; None is this machine's.
    """
    if not math.isfinite(ms) or not 0 < ms <= _LAST_MS:
        return NULL
    at, now = (datetime.fromtimestamp(one / 1000, UTC).astimezone(zone) for one in (ms, now_ms))
    year = f" {at.year}" if at.year != now.year else ""
    return f"{at.day} {at:%b}{year}, {at:%H:%M} {at.tzname()}"


def since(ms: float, now_ms: float, zone: tzinfo | None = None) -> str:
    """The moment, and how long ago."""
    told = moment(ms, now_ms, zone)
    if told == NULL:
        return NULL
    ago = f"in {left((ms - now_ms) / 1000)}" if ms > now_ms else f"{span((now_ms - ms) / 1000)} ago"
    return f"{told} ({ago})"
