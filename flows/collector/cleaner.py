"""The cleaner separates meant values from unreplaced macros, placeholders and sloppy spellings.

Since the edge cleans, all later stages may be strict. Each function returns its action as a word of `How`,
which the collector counts by dialect and parameter; None if it changed nothing.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, Literal

from flows.model.catalogue.events import EVENTS as CATALOGUE

How = Literal[
    "unreplaced", "empty", "placeholder", "time", "playhead", "boolean", "event", "currency", "unreadable"
]

_MACRO: Final = r"""(?:
      \[\[?[^\[\]]+\]\]?        # VAST, Triton
    | %5[Bb](?:(?!%5[BbDd]).)+%5[Dd] # the same, encoded, as in a body of JSON
    | \$\{[^{}]+\} | \$[A-Za-z_]+ # OpenRTB, DV360
    | \{\{?[^{}]+\}\}?            # PRX, AdCP, Kevel
    | @[^@]+@                     # Triton
    | %%[^%]+%% | %[A-Za-z_]+!?    # Google, The Trade Desk; Campaign Manager
    | \(acast-[^()]+\) | \(x-[^()]+\)
    | __[^_](?:(?!__(?:-|\Z)).)*__ # ends where it can: a chain that can be parted in many ways takes for ever
    | \#[^\#]+\# | <[^<>]+>
    | \$ | \$\{?\w+\[.*           # what a templating engine left of {X}, and of a FreeMarker expression
    )"""
_UNREPLACED: Final = re.compile(f"{_MACRO}(?:-{_MACRO})*", re.VERBOSE | re.DOTALL)
_PLACEHOLDERS: Final = frozenset({"-1", "-2", "null", "undefined", "none", "AUDIT"})
NO_UUID: Final = "00000000-0000-0000-0000-000000000000"
"""An id that was withheld."""
_NO_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")
_ZEROS: Final = re.compile(r"-*0[0-]*")
_NUMBER: Final = re.compile(r"\d{1,18}(?:\.\d*)?(?:[eE]\+?\d{1,2})?", re.ASCII)
_AMOUNT: Final = re.compile(r"-?(?:\d+(?:\.\d*)?|\.\d+|\d\.\d+E-?\d{1,3}|\d(?:\.\d+)?e\+\d{1,3})", re.ASCII)
_LONGEST_AMOUNT: Final = 64
"""The greatest length of a conversion's value: the flow counts a value of twenty digits at most."""
_TOO_GREAT: Final = 1e18
"""The least number that is no time and no length in any unit: an event holds 64-bit numbers."""
_LONGEST_SECTIONS: Final = 1_024
_CLOCK: Final = re.compile(r"(\d{1,3}):([0-5]?\d):([0-5]?\d)(?:[.,](\d{1,9}))?", re.ASCII)
_ISO: Final = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})[T ](\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:[.,](\d{1,9}))?)?"
    r"\s*(?:(Z)|([+-]| )?(\d{2}):?(\d{2})?)?",
    re.IGNORECASE | re.ASCII,
)
_BOOLEANS: Final = {"1": True, "0": False, "true": True, "false": False}
_FACTORS: Final = {"s": 1000.0, "ms": 1.0, "us": 0.001}
EVENTS: Final = {name.lower(): event.name for event in CATALOGUE for name in (event.name, *event.aliases)}
"""Events by the names that callers write. `creativeView` and `loaded` are absent: they are no starts."""


def present(value: str) -> tuple[str | None, How | None]:
    """A value as it was meant; None if it carries no meaning."""
    text = value.strip()
    if not text:
        return None, "empty" if not value else "unreadable"
    first = text[0]
    if first in "[${@%(_#<" and _UNREPLACED.fullmatch(text) is not None:
        return None, "unreplaced"
    if len(text) < 10 and (text in _PLACEHOLDERS or text.lower() in ("null", "undefined", "none")):
        return None, "placeholder"
    return (None, "placeholder") if text == NO_UUID else (text, None)


def is_text(text: str) -> bool:
    """True if a decoded value has no control character and only bytes that were UTF-8."""
    return (text.isascii() and text.isprintable()) or _NO_TEXT.search(text) is None


def device_id(value: str) -> tuple[str | None, How | None]:
    """An id of a device. An id of zeros alone is a placeholder: a device sends it to withhold its own id."""
    text, how = present(value)
    if text is not None and _ZEROS.fullmatch(text) is not None:
        return None, "placeholder"
    return text, how


def event_name(value: str) -> tuple[str, How | None]:
    """The canonical name of an event; an unknown name stays as it is."""
    canonical = EVENTS.get(value.lower(), value)
    return canonical, None if canonical == value else "event"


def currency(value: str) -> tuple[str | None, How | None]:
    """A currency code of ISO 4217; a conversion counts without one, too."""
    text = value.strip().upper()
    if len(text) != 3 or not text.isascii() or not text.isalpha():
        return None, "unreadable"
    return text, None if text == value else "currency"


def amount(value: str) -> tuple[str | None, How | None]:
    """A conversion's value: a decimal number, also in the notation of large ones (`1.5E7`). Anything else is
    unreadable, such as 12x4 for 1234.
    """
    if len(value) > _LONGEST_AMOUNT or _AMOUNT.fullmatch(value) is None:
        return None, "unreadable"
    return value, None


def boolean(value: str) -> tuple[bool | None, How | None]:
    """A yes or no, in the spellings of ad servers."""
    if value in _BOOLEANS:
        return _BOOLEANS[value], None
    text = value.strip().lower()
    if text in ("1", "1.0", "true", "yes", "y"):
        return True, None if text in ("1", "true") else "boolean"
    if text in ("0", "0.0", "false", "no", "n"):
        return False, None if text in ("0", "false") else "boolean"
    return None, "unreadable"


def sections(value: str) -> tuple[tuple[int, ...], How | None]:
    """The sections of a GPP string that apply, each once; `unreadable` if the list has a part that is no
    section.
    """
    parts = value[:_LONGEST_SECTIONS].replace("_", ",").split(",")
    named = [part.strip().removesuffix(".0") for part in parts]
    section_ids = [int(part) for part in named if part.isascii() and part.isdigit() and len(part) < 4]
    whole = len(value) <= _LONGEST_SECTIONS and len(section_ids) == sum(map(bool, named))
    return tuple(dict.fromkeys(section_ids)), None if whole else "unreadable"


def epoch_ms(value: str, unit: str = "") -> tuple[int | None, How | None]:
    """A point in time as epoch ms: a number by its magnitude, or the sloppy ISO 8601 of ad servers.

    Args:
        unit: the dialect's unit of a number: `s`, `ms` or `us`. Without a unit, or if the unit makes the time
            implausible, the magnitude decides: ten digits are s, thirteen ms, sixteen µs.

    Returns:
        None if the time cannot be read: a pixel is never refused for its time.
    """
    if len(value) == 13 and value.isdigit() and value.isascii() and value[0] != "0":
        return int(value), None  # ms by its magnitude, whatever the unit
    text = value.strip()
    if _NUMBER.fullmatch(text) is not None:
        number = int(text) if text.isdigit() else float(text)
        if not 0 < number < _TOO_GREAT:
            return None, "unreadable"
        if not unit or not 1e11 < number * _FACTORS[unit] < 1e14:
            unit = "s" if number < 1e11 else "ms" if number < 1e14 else "us"
        return int(number * _FACTORS[unit]) if unit != "ms" else int(number), None if unit == "ms" else "time"
    return _iso_ms(text)


def _iso_ms(text: str) -> tuple[int | None, How | None]:
    match = _ISO.fullmatch(text)
    if match is None:
        return None, "unreadable"
    year, month, day, hour, minute, second, fraction, zulu, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    if sign == "-":
        offset = -offset  # a plus sign may have become a space on its way
    micros = int((fraction or "0")[:6].ljust(6, "0"))
    try:
        moment = datetime(
            int(year),
            int(month),
            int(day),
            int(hour),
            int(minute),
            min(int(second or 0), 59),  # a leap second
            micros,
            UTC if zulu or not hours else timezone(offset),
        )
        return int(moment.timestamp() * 1000), "time"
    except (ValueError, OverflowError):
        return None, "unreadable"


def wall_time(value: str) -> datetime | None:
    """The date and time of a text that names no offset, without a zone; None for any other text."""
    match = _ISO.fullmatch(value.strip())
    if match is None or match[8] or match[10]:
        return None
    *parts, fraction = match.groups("0")[:7]
    year, month, day, hour, minute, second = map(int, parts)
    try:
        return datetime(year, month, day, hour, minute, min(second, 59), int(fraction[:6].ljust(6, "0")))
    except ValueError:
        return None


def playhead_ms(value: str, unit: str = "ms") -> tuple[int | None, How | None]:
    """A position in the ad, or its length, in ms.

    Args:
        unit: the dialect's unit: `hms`, `s` or `ms`. A plain number is in ms, but below 1,000 in s with `s`.
    """
    text = value.strip()
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        hours, minutes, seconds, fraction = clock.groups()
        whole = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
        return whole * 1000 + int((fraction or "0")[:3].ljust(3, "0")), "playhead"
    if _NUMBER.fullmatch(text) is None or (number := float(text)) >= _TOO_GREAT:
        return None, "unreadable"
    if unit == "s" and number < 1000:
        return round(number * 1000), "playhead"
    return int(number), None if text.isdigit() else "playhead"
