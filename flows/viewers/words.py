"""Words and numbers of `audiopixel top`: the vocabulary of the live page (`static/words.js`) for a terminal.

A quantity has one name, one scale and one unit, on the page and here.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, tzinfo
from typing import Final

from flows.model.catalogue.states import ATTENTION as ATTENTION
from flows.model.catalogue.states import ROW_REASONS as ROW_REASONS
from flows.model.catalogue.states import STATES as STATES
from flows.model.catalogue.states import UNJUDGED as UNJUDGED

NULL: Final = "–"
AWAY: Final = {"down": "the flow writes nothing", "redis": "Redis does not answer"}
"""Reasons that only a viewer can see: `meta` never has them."""
_LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999."""


def reason(reason: str) -> str:
    """The words for the reason why delivery is not judged."""
    return (UNJUDGED | AWAY).get(reason, "the flow gives no reason")


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


def integer(text: str | None) -> int:
    """A whole number of Redis; 0 for an absent or invalid one."""
    value = number(text)
    return 0 if math.isnan(value) else int(value)


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
        zone: the reader's zone; None: this machine's.
    """
    if not math.isfinite(ms) or not 0 < ms <= _LAST_MS:
        return NULL
    moment, now = (datetime.fromtimestamp(epoch_ms / 1000, UTC).astimezone(zone) for epoch_ms in (ms, now_ms))
    year = f" {moment.year}" if moment.year != now.year else ""
    return f"{moment.day} {moment:%b}{year}, {moment:%H:%M} {moment.tzname()}"


def since(ms: float, now_ms: float, zone: tzinfo | None = None) -> str:
    """The moment, and how long ago."""
    moment_words = moment(ms, now_ms, zone)
    if moment_words == NULL:
        return NULL
    ago = f"in {left((ms - now_ms) / 1000)}" if ms > now_ms else f"{span((now_ms - ms) / 1000)} ago"
    return f"{moment_words} ({ago})"
