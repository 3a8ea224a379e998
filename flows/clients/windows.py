"""The three windows of the IAB, decided over events in the order of their time.

Guidelines: Podcast Measurement 2.3, 5.5.1 (https://iabtechlab.com/standards/podcast-measurement-guidelines/).
An event exactly 24 h later counts, which the guidelines leave open.
"""

from __future__ import annotations

from typing import Final

from flows.model.ticks import DAY_MS
from flows.state.arrays import I64, U8, Int
from flows.state.kernel import lean

CALENDAR, FIRST_TOUCH, LAST_TOUCH = (1 << place for place in range(3))
"""Bits of a verdict, in the order of `flows.model.client_counts.WINDOWS`. A set bit means that the event
counts.
"""
NEVER: Final = -1
"""The time of the latest event of a key without an event."""


@lean
def decide(
    ts: I64, days: I64, bounds: I64, last: I64, anchor: I64, day: I64, end_ms: Int, verdicts: U8, changed: U8
) -> None:
    """Decide which events count. Events before `end_ms` update the state by which later events are decided.

    Args:
        ts, days: (events,) times in ms and calendar days, sorted by key and time.
        bounds: (keys + 1,) the place at which each key's events begin, then the number of events.
        last: (keys,) the time of the latest event before these, or `NEVER`; updated.
        anchor: (keys,) the time of the event that began the first-touch window; updated.
        day: (keys,) the calendar day of `last`.
        verdicts: (events,) is filled.
        changed: (keys,) is set to 1 for each key whose `last` is updated.
    """
    for key in range(len(bounds) - 1):
        latest, window_begin, today = last[key], anchor[key], day[key]
        for i in range(bounds[key], bounds[key + 1]):
            is_first, verdict = latest == NEVER, 0
            if is_first or days[i] != today:
                verdict |= CALENDAR
            if is_first or ts[i] - window_begin >= DAY_MS:
                verdict |= FIRST_TOUCH
                window_begin = ts[i]
            if is_first or ts[i] - latest >= DAY_MS:
                verdict |= LAST_TOUCH
            latest, today = ts[i], days[i]
            verdicts[i] = verdict
            if ts[i] < end_ms:
                last[key], anchor[key], changed[key] = latest, window_begin, 1
