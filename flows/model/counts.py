"""Columns of counts: an order that plays, windows and rows share (part of the state's format)."""

from __future__ import annotations

from typing import Final

BY_MINUTE: Final = (
    "impressions",
    "starts",
    "first_quartiles",
    "midpoints",
    "third_quartiles",
    "completes",
    "skips",
    "mutes",
    "clicks",
    "errors",
    "orphans",
    "repaired",
    "unlinked_starts",
    "unlinked_first_quartiles",
    "unlinked_midpoints",
    "unlinked_third_quartiles",
    "unlinked_completes",
    "consented_plays",
    "held_skips",
    "held_mutes",
)
"""Counted in a minute. The first ten are in the order of `flows.model.events.EVENTS`: an event's code is its
column.

`held_skips` and `held_mutes` belong to plays whose start has not come, and become `skips` and `mutes` when
their own minute is final or the start comes, which takes them to its minute. `repaired` falls when a
milestone's own pixel comes, so days and flights count it when its minute is final.
"""

BY_FLIGHT: Final = ("pixels", "consented", "repeated", "too_late", "invalid_traffic", "blocked_impressions")
"""Counted for a row as a whole: accepted valid pixels, those with consent, what was kept out, and impressions
in content that the plan blocks.
"""

MINUTE_COUNTS: Final = len(BY_MINUTE)
FLIGHT_COUNTS: Final = len(BY_FLIGHT)
ORPHANS, REPAIRED, UNLINKED, CONSENTED_PLAYS, HELD = 10, 11, 11, 17, 12
"""`UNLINKED` and `HELD` are added to an event's code to find its column."""
PIXELS, CONSENTED, REPEATED, TOO_LATE, INVALID_TRAFFIC, BLOCKED_IMPRESSIONS = range(FLIGHT_COUNTS)
