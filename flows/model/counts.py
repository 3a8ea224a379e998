"""Columns of counts, in the one order of plays, windows and rows, which is part of the state's format."""

from __future__ import annotations

from typing import Final
from zlib import crc32

from flows.model.catalogue.events import EVENTS, Way
from flows.model.catalogue.metrics import WHOLE, names
from flows.model.dimensions import SCOPES
from flows.model.events import CODES, OF_PLAY, START

_COUNTED: Final = tuple(event.counts for event in EVENTS if event.counts)
_UNLINKED: Final = tuple(
    f"unlinked_{event.counts}" for event in EVENTS if event.way in (Way.START, Way.MILESTONE)
)
_HELD: Final = tuple(f"held_{event.counts}" for event in EVENTS if event.way is Way.OF_PLAY)
BY_MINUTE: Final = (*_COUNTED, "orphans", "repaired", *_UNLINKED, "consented_plays", *_HELD)
"""Counts of a minute. The first are those of `flows.model.catalogue.events`: an event's code is its column.

`held_skips` and `held_mutes` belong to plays whose start has not come. They become `skips` and `mutes` when
their own minute is final, or when the start comes, in the minute of the start. `repaired` falls when a
milestone's own pixel comes, so days and flights count it when its minute is final.
"""

BY_FLIGHT: Final = names(WHOLE)
MINUTE_COUNTS: Final = len(BY_MINUTE)
FLIGHT_COUNTS: Final = len(BY_FLIGHT)
ORPHANS: Final = BY_MINUTE.index("orphans")
REPAIRED: Final = BY_MINUTE.index("repaired")
CONSENTED_PLAYS: Final = BY_MINUTE.index("consented_plays")
UNLINKED: Final = BY_MINUTE.index(_UNLINKED[0]) - START
HELD_COLUMN: Final = BY_MINUTE.index(_HELD[0]) - OF_PLAY[0]
"""`UNLINKED` and `HELD_COLUMN` are added to an event's code to find its column."""
PIXELS, CONSENTED, REPEATED, TOO_LATE, INVALID_TRAFFIC, BLOCKED_IMPRESSIONS = range(FLIGHT_COUNTS)
LAYOUT: Final = f"{crc32(' '.join((*CODES, *BY_MINUTE, *BY_FLIGHT, *SCOPES)).encode()):08x}"
"""A hash of codes, columns and scopes. The hash is part of each state's format, so that a state with other
codes, columns or scopes is refused.
"""
