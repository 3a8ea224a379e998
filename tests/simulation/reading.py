"""The right result for one message, by chapters 1 and 6.3 of the specification: its reason of rejection, or
its fields as they count. This module shares no line with the flow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

LONGEST: Final = 64 * 1024
MAX_MS: Final = 4_102_444_800_000
"""The year 2100."""
SCOPES: Final = {
    "placement": "placement_id",
    "campaign": "campaign_id",
    **{name: name for name in ("platform", "station", "podcast", "program")},
    "creative": "creative_id",
    "app": "app",
}
"""A scope to the field that names its rows."""
TEXTS: Final = (
    *SCOPES.values(),
    *("event_id", "play_id", "listener_id", "collector", "client_id", "episode", "household_id"),
)
"""Strings of up to 128 characters."""
TYPES: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(TEXTS, (str,)),
    **dict.fromkeys(("event", "user_agent", "ip", "landing_url", "basis", "invalid_traffic"), (str,)),
    **dict.fromkeys(("consent", "device_confirmed"), (bool,)),
    **dict.fromkeys(("playhead_ms", "duration_ms", "low_ms"), (int,)),
    **dict.fromkeys(("ts", "received_at"), (int, str)),
    "content_category": (str, list),
}
EVENTS: Final = (
    *("impression", "start", "firstQuartile", "midpoint", "thirdQuartile", "complete", "skip", "mute"),
    *("unmute", "pause", "resume", "progress", "error", "click", "conversion", "delivered", "download"),
)
BOUGHT: Final = ("site_visit", "sign_up", "purchase", "app_download", "phone_call", "form_submission")
_MACRO: Final = re.compile(r"\[[^][]+\]|%5B.+%5D|\$\{[^{}]+\}|\{[^{}]+\}|@[^@]+@|-1|-2", re.I | re.S)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def said(value: Any) -> Any:
    """A value, or None where it says nothing."""
    nothing = isinstance(value, str) and (not value or _MACRO.fullmatch(value))
    return None if nothing else value


def read(raw: bytes, at_ms: int) -> tuple[str, dict[str, Any]]:
    """The reason why a message is rejected, `mark` where it is one, or none, and its fields: `own_ms` is its
    event time, those that say nothing are left out.
    """
    reason, fields = _read(raw, at_ms)
    return reason, dict(fields)


@lru_cache(2_048)  # each log of a seed is read once more without faults
def _read(raw: bytes, at_ms: int) -> tuple[str, dict[str, Any]]:
    try:
        document = None if len(raw) > LONGEST else json.loads(raw.decode(), parse_constant=_refused)
    except (ValueError, RecursionError):
        return "malformed", {}
    if not isinstance(document, dict):
        return "malformed", {}
    if (
        "event" not in document
        and said(document.get("collector"))
        and isinstance(document.get("low_ms"), int)
    ):
        return "mark", document
    for name in ("event_id", "event"):
        if not isinstance(document.get(name), str) or said(document[name]) is None:
            return "invalid", {}
    if len(document["event_id"]) > 128:
        return "invalid", {}
    if document["event"] not in EVENTS:
        return "unknown_event", {}
    if not all(map(_fits, document, document.values())):
        return "invalid", {}
    pixel = {name: value for name, value in document.items() if said(value) is not None}
    conversion = pixel["event"] == "conversion"
    if "placement_id" not in pixel and not conversion:
        return "invalid", {}
    if not _bought(document, conversion):
        return "invalid", {}
    try:
        ts, received = (_epoch_ms(pixel.get(name)) for name in ("ts", "received_at"))
    except ValueError:
        return "invalid", {}
    if ts is None or (received is not None and received < 0):
        return "invalid", {}
    bound = at_ms if received is None else min(received, at_ms + 60_000)
    pixel["own_ms"] = max(min(ts, bound + 60_000), bound - 86_400_000)
    pixel["received_ms"] = bound
    return "", pixel


def _refused(constant: str) -> None:
    raise ValueError(constant)


def _fits(name: str, value: Any) -> bool:
    """A known field has its type."""
    if value is None or name not in TYPES:
        return name != "ts" or value is not None
    if isinstance(value, bool) and bool not in TYPES[name]:
        return False
    if isinstance(value, str) and str not in TYPES[name]:
        return said(value) is None
    if name == "content_category" and isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    return isinstance(value, TYPES[name]) and not (name in TEXTS and len(str(value)) > 128)


def _bought(document: Mapping[str, Any], conversion: bool) -> bool:
    """True if a conversion object is valid. The object of another event is only checked for its type."""
    bought = document.get("conversion")
    if not conversion:
        return bought is None or isinstance(bought, dict)
    if not isinstance(bought, dict) or bought.get("type") not in BOUGHT:
        return False
    currency, order = bought.get("currency"), bought.get("order_id")
    if not isinstance(currency, str | None) or not isinstance(order, str | None):
        return False
    if not isinstance(bought.get("claimed"), bool | None):
        return False
    if not _known_before(document.get("previous")):
        return False
    return said(currency) is None or re.fullmatch("[A-Z]{3}", currency or "") is not None


def _known_before(previous: Any) -> bool:
    """True if the fields of the edge's previous key are valid."""
    if previous is None:
        return True
    return isinstance(previous, dict) and all(
        isinstance(previous.get(name), str | None) and len(previous.get(name) or "") <= 128
        for name in ("listener_id", "household_id")
    )


def _epoch_ms(value: Any) -> int | None:
    """A time in ms; None if there is none.

    Raises:
        ValueError: it is none.
    """
    if value is None or isinstance(value, int):
        return value
    if not _TIME.fullmatch(value):
        raise ValueError(value)
    cut = re.sub(r"\.(\d{1,3})\d*", lambda found: f".{found[1]:0<3}", value.upper().replace(" ", "T"))
    return (datetime.fromisoformat(cut) - datetime.fromisoformat("1970-01-01T00:00Z")) // timedelta(
        milliseconds=1
    )
