"""Terms that the statements share."""

from __future__ import annotations

from typing import Final

from flows.reconcile.fields import CODES, EVENT_NAMES, SCOPES, WHOLE_METRICS

IS: Final = {name: f"event = {code}" for name, code in CODES.items()}
MILESTONES: Final = f"event BETWEEN {CODES['firstQuartile']} AND {CODES['complete']}"
JOINING: Final = ("firstQuartile", "midpoint", "thirdQuartile", "complete", "skip", "mute")
JOINS: Final = f"event IN ({', '.join(str(CODES[name]) for name in JOINING)})"
"""The events that count in the minute of their play's start."""
EVENT_NAME: Final = "[" + ", ".join(f"'{name}'" for name in EVENT_NAMES) + "][event + 1]"
NAMES: Final = ", ".join(SCOPES)
WHOLE: Final = ", ".join(f"'{metric}'" for metric in WHOLE_METRICS)


def remembered(scope: str, name: str, minute: str) -> str:
    """The condition that a minute is not before the restart of its row. Arguments are SQL expressions."""
    return f"NOT EXISTS (FROM restarts WHERE of_scope = {scope} AND of_id = {name} AND {minute} < restart_ms)"
