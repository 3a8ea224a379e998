"""One client shard: which downloads and deliveries count, by each window, once their minute is final.

By then all events that may lie between have come, so that arrival order does not matter: events are decided
in the order of their times, and of equal times by a hash of their ids. What is not final is decided too, once
a minute, as if nothing more came: an estimate, of which what is final takes the place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from flows.clients.store import ClientStore
from flows.clients.windows import decide
from flows.model.clients import (
    AT,
    COMBO_SHIFT,
    KEY,
    KIND_SHIFT,
    OF_KIND,
    PROVISIONAL,
    WHAT,
    WINDOWS,
    ClientBatch,
    ClientCounts,
)
from flows.model.dimensions import FORGET_AT, LOOK_AT, Dimensions
from flows.model.ticks import MINUTE_MS, Cut, open_from, turned_hour
from flows.state.journal import Files
from flows.state.kernel import I64, U8, U64
from flows.state.names import NameJournal
from flows.state.snapshot import check_format

FORMAT: Final = 2
STEP: Final = "clients"
"""Its files' place in the recovery directory."""
KEPT: Final = ("index", "watermark_ms")
"""The plain attributes of a shard that are in its snapshot."""
_COLUMN_BITS: Final = 5
_MINUTE_BITS: Final = 27
_PLACE_BITS: Final = _COLUMN_BITS + _MINUTE_BITS
"""Of a place, 64 bits: dimensions, minute, column."""
_WORDS: Final = 3
_NO_PLACES: Final[I64] = np.zeros(0, np.int64)


@dataclass
class ClientShard:
    """The keys and waiting events of one client shard.

    Args:
        lateness_ms: allowed lateness, after which a minute is final.
        day_of: calendar day number of a minute since the epoch, in the configured zone.
        recovery: the directory that snapshots may put files in.
        names: the dimensions of waiting events, by number.
    """

    index: int
    shards: int
    lateness_ms: int
    day_of: Callable[[int], int]
    recovery: Path | None = None
    watermark_ms: int = 0
    names: list[Dimensions] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = ClientStore()
        self.pending: U64 = np.zeros((0, _WORDS), np.uint64)
        self._have(self.names)
        # What the rows have as an estimate: by place, and how much.
        self._told = _NO_PLACES, _NO_PLACES
        self._files = Files(None)

    def apply(self, cut: Cut, batches: Sequence[ClientBatch]) -> ClientCounts:
        """Take the events of all placement shards for one cut, and decide those whose minute has become
        final.
        """
        before_ms = self.watermark_ms
        self.watermark_ms = max(self.watermark_ms, cut.watermark_ms)
        if some := [batch for batch in batches if len(batch.sent)]:
            self.pending = np.concatenate([self.pending, *map(self._numbered, some)])
        places, amounts = _NO_PLACES, _NO_PLACES
        turned = cut.ended or self.watermark_ms // MINUTE_MS > before_ms // MINUTE_MS
        final_ms = self._final_ms(cut.ended)
        if (turned or final_ms > self.store.decided_ms) and (len(self.pending) or len(self._told[0])):
            places, amounts = self._decide(final_ms)
        hourly = turned_hour(before_ms, self.watermark_ms, self.index)
        if hourly:
            self.store.drop_old(self._final_ms(False))
        combos, local = np.unique(places >> _PLACE_BITS, return_inverse=True)
        counts = ClientCounts(
            self.index,
            cut,
            [self.names[number] for number in combos.tolist()],
            local.astype(np.uint32),
            (places >> _COLUMN_BITS & (1 << _MINUTE_BITS) - 1).astype(np.uint32),
            (places & (1 << _COLUMN_BITS) - 1).astype(np.uint8),
            amounts,
        )
        if len(self.names) >= (LOOK_AT if hourly else FORGET_AT):
            self._drop_names()
        return counts

    def _numbered(self, batch: ClientBatch) -> U64:
        """A batch's events, with this shard's numbers of their dimensions."""
        own = np.array([self._number(combo) for combo in batch.names], np.uint64)
        return _with_combos(batch.sent.copy(), own[_combos(batch.sent)])

    def _number(self, combo: Dimensions) -> int:
        number = self._numbers.get(combo)
        if number is None:
            number = self._numbers[combo] = len(self.names)
            self.names.append(combo)
        return number

    def _final_ms(self, ended: bool) -> int:
        """The time before which events can be decided: no event before it can still come."""
        final_ms = open_from(self.watermark_ms, self.lateness_ms) * MINUTE_MS
        if ended and len(self.pending):
            final_ms = max(final_ms, int(self.pending[:, AT].max()) + 1)
        return max(final_ms, self.store.decided_ms)

    def _decide(self, end_ms: int) -> tuple[I64, I64]:
        """Decide the events of a time before `end_ms`, and estimate the others; returns what rows gain by
        that: places and amounts.
        """
        events = self._in_order()
        ts, what = events[:, AT].astype(np.int64), events[:, WHAT].astype(np.int64)
        keys, firsts = np.unique(events[:, KEY], return_index=True)
        last, anchor = self.store.of(keys)
        verdicts, changed = np.zeros(len(events), np.uint8), np.zeros(len(keys), np.uint8)
        bounds = np.append(firsts, len(events))
        decide(ts, self._days(ts), bounds, last, anchor, self._days(last), end_ms, verdicts, changed)
        moved = changed != 0
        self.store.put(keys[moved], last[moved], anchor[moved], end_ms)
        final = ts < end_ms
        counted, sure = _counts(what, ts // MINUTE_MS, verdicts, final)
        estimated, some = _summed(counted[~sure], np.ones(int((~sure).sum()), np.int64))
        gained = np.concatenate([counted[sure], estimated, self._told[0]])
        by = np.concatenate([np.ones(int(sure.sum()), np.int64), some, -self._told[1]])
        self._told, self.pending = (estimated, some), events[~final]
        return _summed(gained, by)

    def _in_order(self) -> U64:
        """The waiting events by key, time and hash of the id; of equals, by names."""
        events, ties = self.pending, self.pending[:, WHAT] & np.uint64((1 << KIND_SHIFT) - 1)
        order = np.lexsort((ties, events[:, AT], events[:, KEY]))
        known = np.column_stack([events[order, :WHAT], ties[order]])
        if (known[1:] == known[:-1]).all(axis=1).any():
            ranks = np.empty(len(self.names), np.int64)
            by_name = sorted(range(len(self.names)), key=lambda one: _rank(self.names[one]))
            ranks[by_name] = np.arange(len(ranks))
            order = np.lexsort((ranks[_combos(events)], ties, events[:, AT], events[:, KEY]))
        return events[order]

    def _days(self, ts: I64) -> I64:
        """The calendar days of times; of `NEVER`, any."""
        minutes, which = np.unique(np.maximum(ts, 0) // MINUTE_MS, return_inverse=True)
        days: I64 = np.array([self.day_of(minute) for minute in minutes.tolist()], np.int64)[which]
        return days

    def _drop_names(self) -> None:
        """Drop the dimensions of no waiting event and no estimate, and number the rest anew."""
        combos, (places, amounts) = _combos(self.pending), self._told
        kept = np.union1d(combos, places >> _PLACE_BITS)
        self.pending = _with_combos(self.pending, np.searchsorted(kept, combos).astype(np.uint64))
        rest = places & (1 << _PLACE_BITS) - 1
        self._told = np.searchsorted(kept, places >> _PLACE_BITS) << _PLACE_BITS | rest, amounts
        self._have([self.names[number] for number in kept.tolist()])

    def _have(self, names: Sequence[Dimensions]) -> None:
        self.names, self._journal = list(names), NameJournal()
        self._numbers = {combo: number for number, combo in enumerate(self.names)}

    def snapshot(self) -> tuple[Any, ...]:
        """The state as plain values, with its format."""
        self._files = self._files if self._files.directory else Files.of(self.recovery, STEP, self.index)
        state = {name: getattr(self, name) for name in KEPT}
        state["names"] = self._journal.snapshot(self.names, self._files)
        state["pending"] = self.pending.tobytes()
        state["told"] = [column.tobytes() for column in self._told]
        state["store"] = self.store.snapshot(self._files)
        self._files.keep([*self.store.names(), *self._journal.names()])
        return FORMAT, self.shards, state

    def restore(self, state: tuple[Any, ...]) -> None:
        """Restore the state that `snapshot` gave.

        Raises:
            StateError: another format's, or made for another number of shards, or a file is missing.
        """
        check_format("clients", state, FORMAT, self.shards)
        *_, of = state
        for name in KEPT:
            setattr(self, name, of[name])
        self._files, journal = Files.of(self.recovery, STEP, self.index), NameJournal()
        self._have(journal.restore(of["names"], self._files))
        self._journal = journal
        self.pending = np.frombuffer(of["pending"], np.uint64).reshape(-1, _WORDS).copy()
        places, amounts = (np.frombuffer(column, np.int64) for column in of["told"])
        self._told = places, amounts
        self.store.restore(of["store"], self._files)


def _combos(events: U64) -> I64:
    return (events[:, WHAT] >> np.uint64(COMBO_SHIFT)).astype(np.int64)


def _with_combos(events: U64, combos: U64) -> U64:
    low = np.uint64((1 << COMBO_SHIFT) - 1)
    events[:, WHAT] = (events[:, WHAT] & low) | combos << np.uint64(COMBO_SHIFT)
    return events


def _counts(what: I64, minutes: I64, verdicts: U8, final: Any) -> tuple[I64, Any]:
    """The place of each count of each event, and whether it is final."""
    kinds, combos = what >> KIND_SHIFT & 1, what >> COMBO_SHIFT
    columns = kinds * OF_KIND + np.where(final, 0, PROVISIONAL)
    places = combos << _PLACE_BITS | minutes << _COLUMN_BITS
    by_window = [verdicts >> window & 1 != 0 for window in range(len(WINDOWS))]
    found = [places[some] | columns[some] + window for window, some in enumerate(by_window)]
    return np.concatenate(found), np.concatenate([final[some] for some in by_window])


def _summed(places: I64, amounts: I64) -> tuple[I64, I64]:
    """The sum at each place, where it is not 0."""
    some, which = np.unique(places, return_inverse=True)
    sums = np.zeros(len(some), np.int64)
    np.add.at(sums, which, amounts)
    return some[sums != 0], sums[sums != 0]


def _rank(combo: Dimensions) -> list[bytes]:
    return [(name or "").encode() for name in combo]
