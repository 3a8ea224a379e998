"""The three windows of the IAB, decided over events in the order of their time.

Guidelines: Podcast Measurement 2.3, 5.5.1 (https://iabtechlab.com/standards/podcast-measurement-guidelines/).
An event exactly 24 h later counts; the guidelines leave it open.
"""

from __future__ import annotations

from typing import Final

from flows.model.ticks import DAY_MS
from flows.state.arrays import I64, U8, Int
from flows.state.kernel import lean

CALENDAR, FIRST_TOUCH, LAST_TOUCH = (1 << place for place in range(3))
"""Bits of a verdict, in the order of `flows.model.client_counts.WINDOWS`: the event counts."""
NEVER: Final = -1
"""Stands for the latest event of a key that has had none."""


@lean
def decide(
    ts: I64, days: I64, bounds: I64, last: I64, anchor: I64, day: I64, end_ms: Int, verdicts: U8, changed: U8
) -> None:
    """Decide which events count. Events before `end_ms` update the state that later ones need.

    Args:
        ts, days: (events,) times in ms and calendar days, sorted by key and time.
        bounds: (keys + 1,) where each key's events begin.
        last, anchor, day: (keys,) the latest event before them, or `NEVER`; the event that the first-touch
            window began with; and the day of the latest. The first two are moved on.
        verdicts: (events,) filled in.
        changed: (keys,) 1 where `last` was moved on.
    """
    for key in range(len(bounds) - 1):
        latest, began, today = last[key], anchor[key], day[key]
        for i in range(bounds[key], bounds[key + 1]):
            new, verdict = latest == NEVER, 0
            if new or days[i] != today:
                verdict |= CALENDAR
            if new or ts[i] - began >= DAY_MS:
                verdict |= FIRST_TOUCH
                began = ts[i]
            if new or ts[i] - latest >= DAY_MS:
                verdict |= LAST_TOUCH
            latest, today = ts[i], days[i]
            verdicts[i] = verdict
            if ts[i] < end_ms:
                last[key], anchor[key], changed[key] = latest, began, 1
