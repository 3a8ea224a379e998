"""Reads figures of a row, and writes them as words of a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Final

Row = Mapping[str, str]
LONGEST: Final = 40
"""The greatest length of a name, in characters."""
_LAST_MS: Final = 253_402_300_799_999


def number(row: Row, field: str) -> float:
    """A field's number; NaN if the field is absent, or no finite number."""
    try:
        value = float(row.get(field, "nan"))
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def name_of(text: str) -> str:
    """A name of at most `LONGEST` characters, without unprintable ones. A sender chose its characters."""
    shown = "".join(letter for letter in text[: 4 * LONGEST] if letter.isprintable())
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"


def whole(value: float) -> str:
    """A whole number: `1,996`."""
    return f"{value:,.0f}"


def percent(share: float) -> str:
    """A share in percent: `97 %`."""
    return f"{100 * share:.0f} %"


def money(row: Row, value: float) -> str:
    """An amount in the row's currency: `GBP 136`, below ten `GBP 3.20`."""
    currency = name_of(row.get("delivery.currency", ""))[:8]
    return f"{currency} {value:,.0f}" if value >= 10 else f"{currency} {value:,.2f}"


def clock(ms: float, now_ms: float, zone: tzinfo) -> str:
    """A time: `03:20`, on another day `25 Nov, 03:20`; empty for a time that does not exist."""
    if not 0 < ms <= _LAST_MS:
        return ""
    moment, now = (datetime.fromtimestamp(one / 1000, UTC).astimezone(zone) for one in (ms, now_ms))
    return f"{moment:%H:%M}" if moment.date() == now.date() else f"{moment.day} {moment:%b}, {moment:%H:%M}"


def fell(row: Row) -> bool:
    """True if the last hour has less than half of the impressions that the flight still needs an hour."""
    needed, came = number(row, "delivery.required_rate"), number(row, "1h.impressions")
    return needed >= 1 and came < needed / 2
