"""Good input, to be spoilt."""

from __future__ import annotations

import itertools
import json
from functools import cache
from typing import Any, Final

from flows.intake.keywords import FIELDS
from flows.model.events import EVENTS
from flows.simulate.traffic import Traffic

T0_MS: Final = 1_764_000_000_000
NAMES: Final = (*FIELDS, "conversion", "bye", "method", "previous", "app", "ga_client_id", "unknown")
"""Fields of an event that the flow, or an export, reads."""
MACROS: Final = ("[X]", "%5BX%5D", "${X}", "{x}", "@X@")


@cache
def pixels() -> tuple[dict[str, Any], ...]:
    """Canonical events, of every kind that the simulator makes, and one of each kind that exists."""
    found = []
    for call in itertools.islice(Traffic(seed=5, placements=20), 600):
        try:
            event = json.loads(call.value)
        except ValueError:
            continue
        if isinstance(event, dict) and event:
            found.append(event)
    return (*found, *(found[0] | {"event": event, "consent": True} for event in EVENTS))


@cache
def conversions() -> tuple[dict[str, Any], ...]:
    """Conversions, with every field that they may have."""
    kinds = ("site_visit", "sign_up", "purchase", "app_download", "phone_call", "form_submission")
    return tuple(
        {
            "event_id": f"e-{number}",
            "event": "conversion",
            "ts": T0_MS + number,
            "campaign_id": "c-1",
            "listener_id": f"l-{number % 7}",
            "household_id": f"h-{number % 3}",
            "consent": True,
            "landing_url": "https://shop.example/a?utm_source=pod&utm_content=pl-1",
            "conversion": {"type": kind, "order_id": f"o-{number}", "value": "12.50", "currency": "GBP"},
            "previous": {"listener_id": "before"},
        }
        for number, kind in enumerate(kinds * 3)
    )


@cache
def marks() -> tuple[dict[str, Any], ...]:
    """Words of collectors: marks, byes, and pixels that say a low mark."""
    said = {"collector": "c-1", "low_ms": T0_MS}
    pixel = {"event_id": "e", "event": "start", "ts": T0_MS, "placement_id": "p"}
    return (
        said,
        said | {"bye": True},
        said | {"method": "0" * 64},
        said | {"collector": "c-2", "low_ms": T0_MS + 60_000, "bye": False, "method": ""},
        said | {"now_ms": T0_MS + 10},
        said | {"now_ms": T0_MS - 900_000, "logged_ms": T0_MS + 20, "bye": None},
        said | pixel,
        said | pixel | {"received_at": T0_MS + 5},
    )
