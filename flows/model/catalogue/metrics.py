"""The names of metrics that are not those of an event, each declared once."""

from __future__ import annotations

from typing import Final

CONVERSION_TYPES: Final = (
    "site_visit",
    "sign_up",
    "purchase",
    "app_download",
    "phone_call",
    "form_submission",
)
WAYS: Final = ("click", "listen", "utm", "declared")
"""The ways in which a conversion is credited."""
JOINED: Final = ("listener", "household")
"""The ids by which a touch joins a conversion: its own listener before its household."""
CREDITED: Final = (
    "conversions",
    *(f"conversions_{kind}" for kind in CONVERSION_TYPES),
    *(f"conversions_{way}" for way in WAYS),
    *(f"conversions_by_{name}" for name in JOINED),
    "conversions_claimed",
    "conversions_confirmed",
    "conversion_value",
    "conversion_value_claimed",
    "conversion_value_other_count",
)
"""Counts that a row has of credited conversions, in the order of its columns."""
WHOLE: Final = ("pixels", "consented", "repeated", "too_late", "invalid_traffic", "blocked_impressions")
"""Counted for a row as a whole: accepted valid pixels, those with consent, what was kept out, and impressions
in content that the plan blocks.
"""
