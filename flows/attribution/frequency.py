"""Frequency: the number of impressions that each listener has had of each campaign, in a counter of 14 bytes
that saturates. An impression is counted when its minute is final, in the order of time.

A bid optimiser caps by these numbers: for each campaign, the listeners who have had 1, 2, 3, 4–5, 6–10, 11 or
more impressions, and the conversions of listeners with so many. A listener who has had none for 60 days
counts as another one afterwards, which bounds the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from flows.model.conversions import CLASSES
from flows.state.arrays import I64, U8, U16, U32, U64, Int
from flows.state.changes import marked, note_change
from flows.state.interner import Interner
from flows.state.journal import Files, Journal
from flows.state.kernel import brief, kernel, lean, mixed

CLASS_OF: Final[U8] = np.array([0, 0, 1, 2, 3, 3, 4, 4, 4, 4, 4, *[5] * 245], np.uint8)
"""The class of a count, which stays at 255; a count of 0 has none."""
MOST: Final = 11
"""The least count of the highest class."""
REMEMBERED_DAYS: Final = 60
DAY_MS: Final = 86_400_000
MAX_LOAD: Final = 0.75
MIN_SLOTS: Final = 64
NO_CAMPAIGN: Final = 0xFFFFFFFF
MARK: Final = np.uint16(1 << 15)
"""A flag above a counter's day: it has changed since the last snapshot, and is listed
(`flows.state.changes`).
"""
DAY: Final = np.uint16((1 << 15) - 1)


@kernel
def _slot(who: Any, campaign: Any, held_who: U64, held: U32) -> Any:
    capacity: Any = np.uint64(len(held_who))
    slot = ((mixed(who, campaign) >> np.uint64(32)) * capacity) >> np.uint64(32)
    while held_who[slot] != np.uint64(0) and (
        held_who[slot] != np.uint64(who) or held[slot] >> 8 != campaign
    ):
        slot += np.uint64(1)
        if slot == capacity:
            slot = np.uint64(0)
    return slot


@lean
def _count(
    who: U64,
    campaigns: U32,
    rows: I64,
    days: U16,
    held_who: U64,
    held: U32,
    held_day: U16,
    changes: U32,
    remembered: Int,
    moved: I64,
    class_of: U8,
) -> Int:
    """Count impressions, and add to the `rows` of `moved` (campaigns, classes) the listeners that each class
    gains; returns the number of new slots.
    """
    new = 0
    for i in range(len(who)):
        slot = _slot(who[i], campaigns[i], held_who, held)
        count = np.int64(0)
        if held_who[slot] == np.uint64(0):
            held_who[slot] = who[i]
            held_day[slot] = days[i]
            new += 1
        elif np.int64(days[i]) - np.int64(held_day[slot] & DAY) <= remembered:
            count = np.int64(held[slot] & np.uint32(255))
        after = count + 1 if count < 255 else count
        if held_day[slot] & MARK == np.uint16(0):
            note_change(changes, slot)
        held[slot] = (np.uint32(campaigns[i]) << np.uint32(8)) | np.uint32(after)
        held_day[slot] = max(held_day[slot] & DAY, days[i]) | MARK
        if count == 0:
            moved[rows[i], class_of[1]] += 1
        elif class_of[count] != class_of[after]:
            moved[rows[i], class_of[count]] -= 1
            moved[rows[i], class_of[after]] += 1
    return new


@lean
def _up_to(
    who: U64,
    campaigns: U32,
    ts: I64,
    open_who: U64,
    open_campaigns: U32,
    open_ts: I64,
    held_who: U64,
    held: U32,
    held_day: U16,
    remembered: Int,
    most: Int,
    out: I64,
) -> None:
    """Count back from each time, up to `most`, over impressions that are not in the counters, sorted by
    listener, campaign and time; then add the counters.
    """
    for n in range(len(who)):
        low, high = 0, len(open_who)
        while low < high:  # the first after the time
            middle = (low + high) // 2
            before = open_who[middle] < who[n]
            if open_who[middle] == who[n]:
                before = open_campaigns[middle] < campaigns[n] or (
                    open_campaigns[middle] == campaigns[n] and open_ts[middle] <= ts[n]
                )
            if before:
                low = middle + 1
            else:
                high = middle
        count, day, i, begun = 0, ts[n] // DAY_MS, low - 1, False
        while i >= 0 and count < most and open_who[i] == who[n] and open_campaigns[i] == campaigns[n]:
            then = open_ts[i] // DAY_MS
            begun = day - then > remembered
            if begun:
                break
            count, day = count + 1, then
            i -= 1
        slot = _slot(who[n], campaigns[n], held_who, held)
        here = not begun and held_who[slot] != np.uint64(0)
        if here and day - np.int64(held_day[slot] & DAY) <= remembered:
            count += int(held[slot] & np.uint32(255))
        out[n] = min(count, most)


@kernel
def _refill(old_who: U64, old: U32, old_day: U16, held_who: U64, held: U32, held_day: U16) -> None:
    for i in range(len(old_who)):
        slot = _slot(old_who[i], old[i] >> np.uint32(8), held_who, held)
        held_who[slot], held[slot], held_day[slot] = old_who[i], old[i], old_day[i]


@kernel
def _put(rows: U64, held_who: U64, held: U32, held_day: U16) -> Int:
    """Insert packed rows, replacing those of their listener and campaign; returns the number of new ones."""
    new = 0
    for i in range(len(rows)):
        packed = np.uint32(rows[i, 1] & np.uint64(0xFFFFFFFF))
        slot = _slot(rows[i, 0], packed >> np.uint32(8), held_who, held)
        new += held_who[slot] == np.uint64(0)
        held_who[slot], held[slot] = rows[i, 0], packed
        held_day[slot] = np.uint16(rows[i, 1] >> np.uint64(32))
    return new


@brief
def _drain(held_who: U64, held: U32, held_day: U16, changes: U32) -> U64:
    """The packed rows of the listed slots; empties the list."""
    rows = np.empty((changes[0], 2), np.uint64)
    for n in range(len(rows)):
        slot = changes[n + 1]
        held_day[slot] &= DAY
        rows[n, 0] = held_who[slot]
        rows[n, 1] = np.uint64(held_day[slot]) << np.uint64(32) | np.uint64(held[slot])
    changes[0] = np.uint32(0)
    return rows


@kernel
def _still(rows: U64, held_who: U64, held: U32, held_day: U16) -> U8:
    """Mark the packed rows that the table has unchanged."""
    same = np.zeros(len(rows), np.uint8)
    for i in range(len(rows)):
        packed = np.uint32(rows[i, 1] & np.uint64(0xFFFFFFFF))
        slot = _slot(rows[i, 0], packed >> np.uint32(8), held_who, held)
        there = held_who[slot] != np.uint64(0) and held[slot] == packed
        same[i] = there and np.uint64(held_day[slot]) == rows[i, 1] >> np.uint64(32)
    return same


class Frequency:
    """The counters of one listener shard: open addressing in three columns."""

    def __init__(self) -> None:
        self.campaigns = Interner[str]()
        self.used = 0
        self.journal = Journal(2)
        self._fill(np.zeros(0, np.uint64), np.zeros(0, np.uint32), np.zeros(0, np.uint16), 0)
        self.journal.load(self)

    def _fill(self, who: U64, packed: U32, day: U16, spare: int) -> None:
        capacity = max(MIN_SLOTS, int((len(who) + spare) / MAX_LOAD * 1.25) + 1)
        self._who, self._packed, self._day = (
            np.zeros(capacity, np.uint64),
            np.zeros(capacity, np.uint32),
            np.zeros(capacity, np.uint16),
        )
        _refill(who, packed, day, self._who, self._packed, self._day)
        self.changes = marked(self._day, MARK)
        self.used = len(who)

    @property
    def nbytes(self) -> int:
        """The memory of the counters, in bytes."""
        return self._who.nbytes + self._packed.nbytes + self._day.nbytes

    def _held(self) -> tuple[U64, U32, U16]:
        some = self._who != 0
        return self._who[some], self._packed[some], self._day[some]

    def count(
        self, who: U64, ts: I64, campaigns: Sequence[str | None], of: I64
    ) -> list[tuple[str, int, int]]:
        """Count impressions that no earlier ones can follow; returns (campaign, class, listeners that it
        gains).

        Args:
            of: which of `campaigns` each is of.
        """
        numbers = np.array(
            [NO_CAMPAIGN if name is None else self.campaigns.number(name) for name in campaigns], np.uint32
        )
        some = numbers[of] != NO_CAMPAIGN if len(of) else np.zeros(0, bool)
        if not some.any():
            return []
        who, of, days = who[some], of[some], (ts[some] // DAY_MS).astype(np.uint16)
        if days.min() < days.max():
            order = np.argsort(days, kind="stable")
            who, of, days = who[order], of[order], days[order]
        if self.used + len(who) > MAX_LOAD * len(self._who):
            self._fill(*self._held(), len(who))
        moved = np.zeros((len(campaigns), len(CLASSES)), np.int64)
        table = (self._who, self._packed, self._day)
        self.used += _count(
            who, numbers[of], of, days, *table, self.changes, REMEMBERED_DAYS, moved, CLASS_OF
        )
        return [
            (campaigns[number] or "", place, int(moved[number, place]))
            for number, place in np.argwhere(moved).tolist()
        ]

    def up_to(
        self,
        who: U64,
        ts: I64,
        campaigns: Sequence[str],
        uncounted: tuple[U64, I64, Sequence[str | None], I64],
    ) -> I64:
        """The number of impressions that each listener had had of a campaign at a time, `MOST` at most.

        Args:
            uncounted: the impressions of these listeners that are not counted yet, as `count` takes them.
        """
        open_who, open_ts, names, of = uncounted
        new: dict[str | None, int] = {}
        first = len(self.campaigns)

        def numbers(some: Sequence[str | None]) -> U32:
            """The numbers of campaigns, with new ones for those that have no counter."""
            found = self.campaigns.find(some)
            for place in np.flatnonzero(found < 0).tolist():
                found[place] = new.setdefault(some[place], first + len(new))
            return found.astype(np.uint32)

        open_of = numbers(names)[of] if len(of) else np.zeros(0, np.uint32)
        order = np.lexsort((open_ts, open_of, open_who))
        counts = np.zeros(len(who), np.int64)
        heard = (open_who[order], open_of[order], open_ts[order])
        table = (self._who, self._packed, self._day)
        _up_to(who, numbers(campaigns), ts, *heard, *table, REMEMBERED_DAYS, MOST, counts)
        return counts

    def sweep(self, today: int) -> None:
        """Drop counters that are too old on a day (since the epoch), and names of campaigns without a
        counter.
        """
        who, packed, day = self._held()
        kept, renumbered = (day & DAY).astype(np.int64) + REMEMBERED_DAYS >= today, None
        if self.campaigns.is_due(turned=True):
            renumbered = self.campaigns.collect(np.unique(packed[kept] >> 8).astype(np.int64))
        if kept.all() and renumbered is None:
            return
        who, packed, day = who[kept], packed[kept], day[kept]
        if renumbered is not None:
            packed = (renumbered[packed >> 8] << 8).astype(np.uint32) | (packed & np.uint32(255))
        self._fill_anew(who, packed, day)

    def counts(self, who: U64) -> I64:
        """The number of campaigns with a counter for each of these listeners, which are sorted."""
        held, _, _ = self._held()
        places = np.searchsorted(who, held[np.isin(held, who)])
        return np.bincount(places, minlength=len(who)).astype(np.int64)

    def erase(self, who: Sequence[int] | U64) -> None:
        """Drop the counters of these listeners. The distribution stays, since it identifies no listener."""
        held, packed, day = self._held()
        kept = ~np.isin(held, who)
        if not kept.all():
            self._fill_anew(held[kept], packed[kept], day[kept])

    def _fill_anew(self, who: U64, packed: U32, day: U16) -> None:
        """Restart the journal after rows were removed: a journal cannot record a removal."""
        self._fill(who, packed, day | MARK, 0)
        self.journal.pieces = []

    def __len__(self) -> int:
        return self.used

    def changed(self) -> U64:
        """See `flows.state.journal.Table`; rows of listener, and day above campaign and count."""
        return _drain(self._who, self._packed, self._day, self.changes)

    def live(self, rows: U64) -> U64:
        """See `flows.state.journal.Table`."""
        same: U64 = rows[_still(rows, self._who, self._packed, self._day) != 0]
        return same

    def whole(self) -> U64:
        """See `flows.state.journal.Table`."""
        who, packed, day = self._held()
        rows: U64 = np.column_stack([who, (day & DAY).astype(np.uint64) << np.uint64(32) | packed])
        return rows

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return [*self.journal.names(), *self.campaigns.file_names()]

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """Plain state, 16 bytes a counter: the changes, with the earlier pieces, which may be in `files`."""
        return self.campaigns.snapshot(files), self.journal.snapshot(self, files)

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """Restore the state of `snapshot`."""
        names, pieces = state
        self.campaigns.restore(names, files)
        for rows, _ in self.journal.restore(pieces, files):
            if self.used + len(rows) > MAX_LOAD * len(self._who):
                self._fill(*self._held(), len(rows))
            self.used += _put(rows, self._who, self._packed, self._day)
