"""The three windows of the IAB, decided over events in the order of their time, and the loops of their store.

Guidelines: Podcast Measurement 2.3, 5.5.1 (https://iabtechlab.com/standards/podcast-measurement-guidelines/).
An event exactly 24 h later counts: the text leaves it open.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.model.clients import KEY
from flows.model.ticks import DAY_MS
from flows.state.arrays import I64, U8, U64, Int
from flows.state.kernel import kernel, lean

CALENDAR, FIRST_TOUCH, LAST_TOUCH = (1 << place for place in range(3))
"""Bits of a verdict, in the order of `flows.model.clients.WINDOWS`: the event counts."""
NEVER: Final = -1
"""Stands for the latest event of a key that has had none."""
TAKEN: Final = 1 << 7
"""Stands for the verdict of an event that was taken."""


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


@lean
def merge(a_keys: U64, a_words: U64, b_keys: U64, b_words: U64, keys: U64, words: U64) -> Int:
    """Merge two sorted runs into room for both; equal keys get the word of `b`. Returns the number of
    keys.
    """
    i = j = n = 0
    while i < len(a_keys) or j < len(b_keys):
        if j == len(b_keys) or (i < len(a_keys) and a_keys[i] < b_keys[j]):
            keys[n], words[n] = a_keys[i], a_words[i]
            i += 1
        else:
            if i < len(a_keys) and a_keys[i] == b_keys[j]:
                i += 1
            keys[n], words[n] = b_keys[j], b_words[j]
            j += 1
        n += 1
    return n


@kernel
def places_of(events: U64, verdicts: U8, keys: U64) -> I64:
    """The places of the events of some sorted keys among events sorted by key, without those taken."""
    places, n, at = np.empty(len(keys), np.int64), 0, 0
    for key in keys:
        high = len(events)
        while at < high:
            middle = (at + high) >> 1
            if events[middle, KEY] < key:
                at = middle + 1
            else:
                high = middle
        while at < len(events) and events[at, KEY] == key:
            if verdicts[at] != TAKEN:
                if n == len(places):
                    places = np.concatenate((places, np.empty(n + 1, np.int64)))
                places[n] = at
                n += 1
            at += 1
    return places[:n].copy()
