"""Frequency: the number of impressions of each campaign that each listener has had, in saturating counters of
16 bytes. An impression is counted when its minute is final, in the order of time.

A bid optimiser caps by these numbers: for each campaign, the listeners with 1, 2, 3, 4–5, 6–10, 11 or more
impressions, and the conversions of these listeners. A listener without impressions for 60 days counts as a
new one afterwards, which bounds the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from flows.model.conversion_columns import CLASSES
from flows.state.arrays import I64, U8, U32, U64, Int
from flows.state.changes import note_change
from flows.state.hash_table import LOW, HashTable, find_pair
from flows.state.interner import Interner
from flows.state.journal import Files
from flows.state.kernel import lean

CLASS_OF: Final[U8] = np.array([0, 0, 1, 2, 3, 3, 4, 4, 4, 4, 4, *[5] * 245], np.uint8)
"""The class of a count; counts saturate at 255, and 0 has no class."""
MOST: Final = 11
"""The least count of the highest class."""
REMEMBERED_DAYS: Final = 60
DAY_MS: Final = 86_400_000
NO_CAMPAIGN: Final = (1 << 32) - 1
"""The number for no campaign, and for campaigns beyond the greatest number: their impressions are not
counted.
"""
LISTENER, COUNTER = WORDS = range(2)
"""The words of a row. COUNTER: from the lowest bit on the campaign's number, the count, the day of the
latest impression, and `CHANGED`.
"""
_COUNT_AT: Final = np.uint64(32)
_DAY_AT: Final = np.uint64(40)
_COUNT: Final = np.uint64((1 << 8) - 1)
_DAY: Final = np.uint64((1 << 16) - 1)
CHANGED: Final = np.uint64(1 << 63)
"""The row has changed since the last snapshot, and is in the list of changes (`flows.state.changes`)."""


@lean
def _count_of(counter: np.uint64) -> Int:
    return np.int64(counter >> _COUNT_AT & _COUNT)


@lean
def _day_of(counter: np.uint64) -> Int:
    """The day of the latest impression, since the epoch."""
    return np.int64(counter >> _DAY_AT & _DAY)


@lean
def _count(
    listeners: U64,
    campaigns: U32,
    rows: I64,
    days: I64,
    slots: U64,
    changes: U32,
    used: I64,
    remembered: Int,
    moved: I64,
    class_of: U8,
) -> None:
    """Count impressions, and add the listeners that each class gains to the `rows` of `moved` (campaigns,
    classes). `used` is the number of counters.
    """
    for i in range(len(listeners)):
        slot = find_pair(slots, listeners[i], campaigns[i], 0)
        counter, count, day = slots[slot, COUNTER], np.int64(0), days[i]
        if slots[slot, LISTENER] == np.uint64(0):
            slots[slot, LISTENER] = listeners[i]
            used[0] += 1
        else:
            if day - _day_of(counter) <= remembered:
                count = _count_of(counter)
            day = max(day, _day_of(counter))
        after = count + 1 if count < 255 else count
        if counter & CHANGED == np.uint64(0):
            note_change(changes, slot)
        dated = np.uint64(day) << _DAY_AT | np.uint64(after) << _COUNT_AT
        slots[slot, COUNTER] = CHANGED | dated | np.uint64(campaigns[i])
        if count == 0:
            moved[rows[i], class_of[1]] += 1
        elif class_of[count] != class_of[after]:
            moved[rows[i], class_of[count]] -= 1
            moved[rows[i], class_of[after]] += 1


@lean
def _up_to(
    listeners: U64,
    campaigns: U32,
    ts: I64,
    open_listeners: U64,
    open_campaigns: U32,
    open_ts: I64,
    slots: U64,
    remembered: Int,
    most: Int,
    out: I64,
) -> None:
    """For each time, count back, up to `most`, over the impressions that are not in the counters yet (sorted
    by listener, campaign and time), then add the counters.
    """
    for n in range(len(listeners)):
        low, high = 0, len(open_listeners)
        while low < high:  # the first impression after the time
            middle = (low + high) // 2
            before = open_listeners[middle] < listeners[n]
            if open_listeners[middle] == listeners[n]:
                before = open_campaigns[middle] < campaigns[n] or (
                    open_campaigns[middle] == campaigns[n] and open_ts[middle] <= ts[n]
                )
            if before:
                low = middle + 1
            else:
                high = middle
        count, day, i, begun = 0, ts[n] // DAY_MS, low - 1, False
        while (
            i >= 0
            and count < most
            and open_listeners[i] == listeners[n]
            and open_campaigns[i] == campaigns[n]
        ):
            then = open_ts[i] // DAY_MS
            begun = day - then > remembered
            if begun:
                break
            count, day = count + 1, then
            i -= 1
        slot = find_pair(slots, listeners[n], campaigns[n], 0)
        counter = slots[slot, COUNTER]
        is_counted = not begun and slots[slot, LISTENER] != np.uint64(0)
        if is_counted and day - _day_of(counter) <= remembered:
            count += _count_of(counter)
        out[n] = min(count, most)


class Frequency:
    """The counters of one listener shard.

    Attributes:
        table: the counters, by listener and campaign.
        campaigns: the names of campaigns, by number.
    """

    def __init__(self) -> None:
        self.table = HashTable(len(WORDS), CHANGED, paired=True)
        self.campaigns = Interner[str](limit=NO_CAMPAIGN)

    def __len__(self) -> int:
        return len(self.table)

    def count(
        self, listeners: U64, ts: I64, campaigns: Sequence[str | None], places: I64
    ) -> list[tuple[str, int, int]]:
        """Count impressions once no earlier impression can still arrive. Returns (campaign, class, listeners
        that the class gains).

        Args:
            places: the place in `campaigns` of each impression's campaign.
        """
        numbers = np.array(
            [NO_CAMPAIGN if name is None else self.campaigns.number(name) for name in campaigns], np.uint32
        )
        named = numbers[places] != NO_CAMPAIGN if len(places) else np.zeros(0, bool)
        if not named.any():
            return []
        listeners, places, days = listeners[named], places[named], ts[named] // DAY_MS
        if days.min() < days.max():
            order = np.argsort(days, kind="stable")
            listeners, places, days = listeners[order], places[order], days[order]
        self.table.make_room(len(listeners))
        moved = np.zeros((len(campaigns), len(CLASSES)), np.int64)
        table = (self.table.slots, self.table.changes, self.table.count)
        _count(listeners, numbers[places], places, days, *table, REMEMBERED_DAYS, moved, CLASS_OF)
        return [
            (campaigns[number] or "", place, int(moved[number, place]))
            for number, place in np.argwhere(moved).tolist()
        ]

    def up_to(
        self,
        listeners: U64,
        ts: I64,
        campaigns: Sequence[str],
        uncounted: tuple[U64, I64, Sequence[str | None], I64],
    ) -> I64:
        """The number of impressions of a campaign that each listener had had at a time; at most `MOST`.

        Args:
            uncounted: the impressions of these listeners that are not counted yet, in the form that `count`
                takes.
        """
        open_listeners, open_ts, names, places = uncounted
        new: dict[str | None, int] = {}
        first = len(self.campaigns)

        def numbers(campaign_names: Sequence[str | None]) -> U32:
            """The numbers of campaigns, with new ones for those that have no counter."""
            known_numbers = self.campaigns.find(campaign_names)
            for place in np.flatnonzero(known_numbers < 0).tolist():
                known_numbers[place] = new.setdefault(campaign_names[place], first + len(new))
            return known_numbers.astype(np.uint32)

        open_of = numbers(names)[places] if len(places) else np.zeros(0, np.uint32)
        order = np.lexsort((open_ts, open_of, open_listeners))
        counts = np.zeros(len(listeners), np.int64)
        impressions = (open_listeners[order], open_of[order], open_ts[order])
        _up_to(
            listeners, numbers(campaigns), ts, *impressions, self.table.slots, REMEMBERED_DAYS, MOST, counts
        )
        return counts

    def sweep(self, today: int) -> None:
        """Drop the counters that are too old on a day (since the epoch), and the names of campaigns without a
        counter.
        """
        before, days = len(self), (self.table.slots[:, COUNTER] >> _DAY_AT & _DAY).astype(np.int64)
        self.table.keep(days + REMEMBERED_DAYS >= today)
        renumbered = self._drop_campaigns()
        if renumbered or len(self) < before:
            self.table.begin_anew()

    def _drop_campaigns(self) -> bool:
        """Drop the campaigns without a counter if they are half or more; returns whether the rest was
        renumbered.
        """
        if not self.campaigns.is_due(turned=True):
            return False
        slots = self.table.slots
        occupied = slots[:, LISTENER] != 0
        former = (slots[occupied, COUNTER] & LOW).astype(np.int64)
        renumbered = self.campaigns.collect(np.unique(former))
        if renumbered is None:
            return False
        slots[occupied, COUNTER] += (renumbered[former] - former).astype(np.uint64)
        return True

    def counts(self, sorted_listeners: U64) -> I64:
        """The number of campaigns with a counter, for each of some sorted listeners."""
        listeners = self.table.slots[:, LISTENER]
        places = np.searchsorted(
            sorted_listeners, listeners[np.isin(listeners, sorted_listeners) & (listeners != 0)]
        )
        return np.bincount(places, minlength=len(sorted_listeners)).astype(np.int64)

    def erase(self, listeners: Sequence[int] | U64) -> None:
        """Drop the counters of these listeners. The distribution stays, since it identifies no listener."""
        before = len(self)
        self.table.keep(~np.isin(self.table.slots[:, LISTENER], listeners))
        if len(self) < before:
            self.table.begin_anew()

    # State

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return [*self.table.file_names(), *self.campaigns.file_names()]

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """The state as plain values, 16 bytes a counter: the changes, and the earlier pieces, which may be in
        `files`.
        """
        return self.campaigns.snapshot(files), self.table.snapshot(files)

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """Restore the state of `snapshot`."""
        names, pieces = state
        self.campaigns.restore(names, files)
        self.table.restore(pieces, files)
