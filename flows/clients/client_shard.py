"""A client shard decides which downloads and deliveries count, by each window, once their minute is final.

By then all earlier events have arrived, so that the order of arrival does not matter. Events are decided in
the order of their times, and events of one time in the order of a hash of their ids. Events that are not
final are decided, too, once a minute, as if no more followed. This is an estimate, which the final decision
replaces. The estimate is recomputed only for keys with an event that has arrived or become final. A turn of
the minute therefore costs only the new events, however many wait during a hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from flows.clients.store import ClientStore
from flows.clients.waiting_events import Events, Sums, Waiting, summed
from flows.clients.windows import decide
from flows.model.client_counts import (
    COLUMNS_PER_KIND,
    COMBO_SHIFT,
    KIND_SHIFT,
    PROVISIONAL,
    WINDOWS,
    ClientBatch,
    ClientCounts,
)
from flows.model.dimensions import Dimensions
from flows.model.ticks import MINUTE_MS, Cut, open_from, turned_hour
from flows.state.arrays import I64, U8, U64
from flows.state.interner import Interner
from flows.state.shard import Shard, Stored

_COLUMN_BITS: Final = 5
_MINUTE_BITS: Final = 27
_PLACE_BITS: Final = _COLUMN_BITS + _MINUTE_BITS
"""The layout of a place, 64 bits: dimensions, minute, column."""
_NO_PLACES: Final[I64] = np.zeros(0, np.int64)


@dataclass
class ClientShard(Shard):
    """The keys and waiting events of one client shard.

    Args:
        lateness_ms: the allowed lateness, after which a minute is final.
        day_of: the number of the calendar day of a minute since the epoch, in the configured zone.
        recovery: the directory that snapshots may put files in.

    Attributes:
        names: the dimensions of waiting events, by number.
    """

    STEP = "clients"
    FORMAT = 4
    PLAIN = ("index", "watermark_ms")
    index: int
    shards: int
    lateness_ms: int
    day_of: Callable[[int], int]
    recovery: Path | None = None
    watermark_ms: int = 0

    def __post_init__(self) -> None:
        self.store = ClientStore()
        self.waiting = Waiting()
        self.names = Interner[Dimensions]()
        # The amounts that the rows have now as an estimate, by place.
        self._estimate = Sums()
        # True after a restart, until all waiting events are estimated again.
        self._restored = False

    def apply(self, cut: Cut, batches: Sequence[ClientBatch]) -> ClientCounts:
        """Add the events of all placement shards for one cut, and decide those whose minute has become
        final.
        """
        before_ms = self.watermark_ms
        self.watermark_ms = max(self.watermark_ms, cut.watermark_ms)
        for batch in batches:
            if len(batch.sent):
                self.waiting.add(self._numbered(batch))
        places, amounts = _NO_PLACES, _NO_PLACES
        turned = cut.ended or self.watermark_ms // MINUTE_MS > before_ms // MINUTE_MS
        final_ms = self._final_ms(cut.ended)
        if (turned or final_ms > self.store.decided_ms) and len(self.waiting):
            places, amounts = self._decide(final_ms)
        hourly = turned_hour(before_ms, self.watermark_ms, self.index)
        if hourly:
            self.store.drop_old(self._final_ms(False))
        combos, local = _NO_PLACES, _NO_PLACES
        if len(places):
            combos, local = np.unique(places >> _PLACE_BITS, return_inverse=True)
        counts = ClientCounts(
            self.index,
            cut,
            [self.names.names[number] for number in combos.tolist()],
            local.astype(np.uint32),
            (places >> _COLUMN_BITS & (1 << _MINUTE_BITS) - 1).astype(np.uint32),
            (places & (1 << _COLUMN_BITS) - 1).astype(np.uint8),
            amounts,
        )
        if self.names.is_due(hourly):
            self._drop_names()
        return counts

    def _numbered(self, batch: ClientBatch) -> Events:
        """A batch's events, with this shard's numbers of their dimensions."""
        combos = self.names.numbers(batch.names).astype(np.uint64)
        keys, times, details = batch.sent.T.copy()
        return Events(
            keys, times, _with_combos(details, combos[_combos(details)]), np.zeros(len(keys), np.uint8)
        )

    def _final_ms(self, ended: bool) -> int:
        """The time, epoch ms, before which events can be decided, since no earlier event can still arrive."""
        final_ms = open_from(self.watermark_ms, self.lateness_ms) * MINUTE_MS
        if ended:
            final_ms = max(final_ms, self.waiting.latest_ms() + 1)
        return max(final_ms, self.store.decided_ms)

    def _decide(self, end_ms: int) -> tuple[I64, I64]:
        """Decide the events before `end_ms`, and estimate the others. Returns the increments of rows, as
        places and amounts.
        """
        events = self.waiting.take(end_ms)
        events = events.rows(self._in_order(events))
        ts, details = events.times.astype(np.int64), events.details.astype(np.int64)
        keys, firsts = np.unique(events.keys, return_index=True)
        last, anchor = self.store.latest(keys)
        verdicts, changed = np.zeros(len(ts), np.uint8), np.zeros(len(keys), np.uint8)
        bounds = np.append(firsts, len(ts))
        decide(ts, self._days(ts), bounds, last, anchor, self._days(last), end_ms, verdicts, changed)
        is_changed = changed != 0
        self.store.put(keys[is_changed], last[is_changed], anchor[is_changed], end_ms)
        final, minutes = ts < end_ms, ts // MINUTE_MS
        self.waiting.put(events._replace(verdicts=verdicts).rows(~final))
        final_places = _counts(details[final], minutes[final], verdicts[final], 0)
        new_places = _counts(details[~final], minutes[~final], verdicts[~final], PROVISIONAL)
        old_places = _counts(details, minutes, events.verdicts, PROVISIONAL)
        former = self._estimate.columns() if self._restored else (_NO_PLACES, _NO_PLACES)
        estimated = summed(
            np.concatenate([new_places, old_places, former[0]]),
            np.concatenate([np.repeat([1, -1], [len(new_places), len(old_places)]), -former[1]]),
        )
        self._estimate.add(*estimated)
        self._restored = False
        return summed(
            np.concatenate([final_places, estimated[0]]),
            np.concatenate([np.ones(len(final_places), np.int64), estimated[1]]),
        )

    def _in_order(self, events: Events) -> I64:
        """The order of events by key, time and hash of the id; of equal events by their dimensions."""
        columns = events.details & np.uint64((1 << KIND_SHIFT) - 1), events.times, events.keys
        order = np.lexsort(columns)
        equal = [column[order[1:]] == column[order[:-1]] for column in columns]
        if np.logical_and.reduce(equal).any():
            combos, places = np.unique(_combos(events.details), return_inverse=True)
            sort_keys = [_sort_key(self.names.names[combo]) for combo in combos.tolist()]
            ranks = np.empty(len(combos), np.int64)
            ranks[sorted(range(len(sort_keys)), key=sort_keys.__getitem__)] = np.arange(len(sort_keys))
            order = np.lexsort((ranks[places], *columns))
        return order

    def _days(self, ts: I64) -> I64:
        """The numbers of the calendar days of times; for `NEVER` an arbitrary one."""
        minutes, places = np.unique(np.maximum(ts, 0) // MINUTE_MS, return_inverse=True)
        days: I64 = np.array([self.day_of(minute) for minute in minutes.tolist()], np.int64)[places]
        return days

    def _drop_names(self) -> None:
        """Drop the dimensions that no waiting event and no estimate has, once they are half of all."""
        places, amounts = self._estimate.summed()
        used = np.unique(np.concatenate([_combos(self.waiting.all().details), places >> _PLACE_BITS]))
        renumbered = self.names.collect(used)
        if renumbered is not None:
            self.waiting.change(
                lambda details: _with_combos(details, renumbered[_combos(details)].astype(np.uint64))
            )
            self._estimate, low_bits = Sums(), places & (1 << _PLACE_BITS) - 1
            self._estimate.add(renumbered[places >> _PLACE_BITS] << _PLACE_BITS | low_bits, amounts)

    def stored(self) -> dict[str, Stored]:
        """See `Shard.stored`."""
        return {"names": self.names, "store": self.store}

    def plain(self) -> dict[str, Any]:
        """See `Shard.plain`."""
        sums = [column.tobytes() for column in self._estimate.columns()]
        return super().plain() | {"waiting": self.waiting.snapshot(), "estimate": sums}

    def restore(self, state: tuple[Any, ...]) -> None:
        """See `Shard.restore`."""
        super().restore(state)
        fields = state[-1]
        self.waiting, self._estimate = Waiting(), Sums()
        self.waiting.restore(fields["waiting"])
        places, amounts = (np.frombuffer(column, np.int64) for column in fields["estimate"])
        self._estimate.add(places, amounts)
        self._restored = True


def _combos(details: U64) -> I64:
    return (details >> np.uint64(COMBO_SHIFT)).astype(np.int64)


def _with_combos(details: U64, combos: U64) -> U64:
    return (details & np.uint64((1 << COMBO_SHIFT) - 1)) | combos << np.uint64(COMBO_SHIFT)


def _counts(details: I64, minutes: I64, verdicts: U8, first: int) -> I64:
    """The place of each count of each event; `first` is the column of the kind's first window."""
    places = details >> COMBO_SHIFT << _PLACE_BITS | minutes << _COLUMN_BITS
    columns = places + (details >> KIND_SHIFT & 1) * COLUMNS_PER_KIND + first
    return np.concatenate([columns[verdicts >> window & 1 != 0] + window for window in range(len(WINDOWS))])


def _sort_key(combo: Dimensions) -> list[bytes]:
    return [(name or "").encode() for name in combo]
