"""Reach over the last 5 and 60 minutes, as of the watermark's minute: see `flows.reach`."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

import numpy as np

from flows.journal import Files, Journal
from flows.kernel import I64, U8, U32, U64, Int, kernel
from flows.pairs import (
    BITS,
    CHUNK,
    FULLEST,
    MARK,
    NUMBER,
    ROW,
    WHO,
    find_pair,
    longer,
    new_pairs,
    refill,
)
from flows.sketch import RANKS, REGISTERS, compressed, decompressed, estimate, rank

ROLLING_EXACT_UP_TO: Final = 32_768
"""A listener of the hour is 24 bytes, a row's registers of 64 minutes are 1 MiB: from here on the registers
are smaller.
"""
RING: Final = 64
STEPS: Final = 30
"""Calls of `look_ahead` in which a table is counted for the next minute."""


@kernel
def _roll(
    rows: U32,
    minutes: I64,
    who: U64,
    table: U64,
    short: I64,
    long: I64,
    short_mask: Int,
    long_mask: Int,
    ahead: Int,
    next_short: I64,
    next_long: I64,
    next_short_mask: Int,
    next_long_mask: Int,
    dense_of: I64,
    ring: U8,
    touched: U8,
) -> Int:
    used = 0
    for i in range(len(rows)):
        row = rows[i]
        place = minutes[i] & (RING - 1)
        dense = dense_of[row]
        if dense >= 0:
            register, value = rank(who[i])
            if ring[dense, place, register] < value:
                ring[dense, place, register] = value
                touched[dense, place] = 1
            continue
        slot = find_pair(table, who[i], row)
        if table[slot, WHO] == np.uint64(0):
            table[slot, WHO] = who[i]
            table[slot, ROW] = row
            used += 1
        before = table[slot, BITS]
        after = before | (np.uint64(1) << np.uint64(place))
        table[slot, BITS] = after
        if before != after:
            table[slot, ROW] |= MARK
        if not before & short_mask and after & short_mask:
            short[row] += 1
        if not before & long_mask and after & long_mask:
            long[row] += 1
        if slot < ahead:
            if not before & next_short_mask and after & next_short_mask:
                next_short[row] += 1
            if not before & next_long_mask and after & next_long_mask:
                next_long[row] += 1
    return used


@kernel
def _count(
    table: U64, first: Int, end: Int, kept_mask: Int, short_mask: Int, long_mask: Int, short: I64, long: I64
) -> Int:
    """Forget the minutes outside of `kept_mask` of some slots, and count their listeners; returns how many
    listeners have no minute left.
    """
    left = 0
    for i in range(first, end):
        if table[i, WHO] == np.uint64(0):
            continue
        bits = table[i, BITS] & kept_mask
        table[i, BITS] = bits
        row = table[i, ROW] & NUMBER
        if bits & short_mask:
            short[row] += 1
        if bits & long_mask:
            long[row] += 1
        left += bits == np.uint64(0)
    return left


@kernel
def _fold_ring(table: U64, dense_of: I64, ring: U8, touched: U8) -> None:
    """Move the listeners of rows that have registers there; their slots have no minute left."""
    for i in range(len(table)):
        if table[i, WHO] == np.uint64(0):
            continue
        dense = dense_of[table[i, ROW] & NUMBER]
        if dense >= 0:
            register, value = rank(table[i, WHO])
            for place in range(RING):
                if (table[i, BITS] >> np.uint64(place)) & np.uint64(1):
                    ring[dense, place, register] = max(ring[dense, place, register], np.uint8(value))
                    touched[dense, place] = 1
            table[i, BITS] = np.uint64(0)


@kernel
def _taken(table: U64, mark: Int, minute: Int, most: Int) -> U64:
    """(n, 4): the rows that are marked (all: 0), at most so many, with their minute; they are no longer."""
    rows = np.empty((most, 4), np.uint64)
    n = 0
    for i in range(len(table)):
        if table[i, WHO] != np.uint64(0) and table[i, ROW] & mark == mark:
            table[i, ROW] &= NUMBER
            if table[i, BITS] == np.uint64(0):
                continue
            rows[n, WHO], rows[n, ROW], rows[n, BITS] = table[i, WHO], table[i, ROW], table[i, BITS]
            rows[n, 3] = minute
            n += 1
    return rows[:n]


@kernel
def _upsert(rows: U64, table: U64) -> Int:
    """Put rows in, in place of those of their listener and row; returns how many are new."""
    new = 0
    for i in range(len(rows)):
        slot = find_pair(table, rows[i, WHO], rows[i, ROW])
        new += table[slot, WHO] == np.uint64(0)
        for w in range(3):
            table[slot, w] = rows[i, w]
    return new


@kernel
def _unchanged(rows: U64, table: U64, kept_mask: Int) -> U8:
    """Which rows are in the table, with these bits, but for minutes outside of `kept_mask`."""
    same = np.zeros(len(rows), np.uint8)
    for i in range(len(rows)):
        slot = find_pair(table, rows[i, WHO], rows[i, ROW])
        there = table[slot, WHO] != np.uint64(0)
        same[i] = there and table[slot, BITS] & kept_mask == rows[i, BITS] and rows[i, BITS] != np.uint64(0)
    return same


@kernel
def _ring_estimate(ring: U8, mask: Int) -> float:
    union = np.zeros(ring.shape[1], np.uint8)
    for place in range(RING):
        if (mask >> np.uint64(place)) & np.uint64(1):
            for register in range(len(union)):
                union[register] = max(union[register], ring[place, register])
    counts = np.zeros(RANKS, np.int64)
    for register in range(len(union)):
        counts[union[register]] += 1
    return estimate(counts)


def _mask(last: int, minutes: int) -> np.uint64:
    """The ring's bits of the `minutes` minutes up to `last`."""
    bits = 0
    for minute in range(max(0, last - minutes + 1), last + 1):
        bits |= 1 << (minute % RING)
    return np.uint64(bits)


@dataclass
class Rolling:
    """Distinct listeners of each row over the last 5 and 60 minutes up to `minute`.

    A listener of a row is one slot with a bit for each of 63 minutes, from 59 before `minute` to 3 after;
    what is later waits. Rows with more than `ROLLING_EXACT_UP_TO` listeners have registers for each of these
    minutes instead. Which listeners leave with the next minute is counted in small steps before it comes, in
    the slots up to `ahead`.
    """

    minute: int = 0
    table: U64 = field(default_factory=lambda: new_pairs(0, 3))
    used: int = 0
    short: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    long: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    dense_of: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    ring: U8 = field(default_factory=lambda: np.zeros((0, RING, REGISTERS), np.uint8))
    touched: U8 = field(default_factory=lambda: np.zeros((0, RING), np.uint8))
    ahead: int = 0
    left: int = 0
    next_short: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    next_long: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    waiting: list[tuple[U32, I64, U64]] = field(default_factory=list)
    journal: Journal = field(default_factory=lambda: Journal(4))
    _packed: list[list[bytes]] = field(default_factory=list)

    def add(self, rows: U32, minutes: I64, who: U64, n_rows: int) -> None:
        """Listener `who[i]` was heard of in `minutes[i]` (since the epoch) in row `rows[i]`."""
        for name in ("short", "long", "next_short", "next_long"):
            setattr(self, name, longer(getattr(self, name), n_rows, 0))
        self.dense_of = longer(self.dense_of, n_rows, -1)
        later = minutes > self.minute + 3
        if later.any():
            self.waiting.append((rows[later], minutes[later], who[later]))
        now = ~later & (minutes >= self.known_from)
        if not now.all():
            rows, minutes, who = rows[now], minutes[now], who[now]
        for start in range(0, len(rows), CHUNK):
            end = start + CHUNK
            if self.used + min(CHUNK, len(rows) - start) > len(self.table) * FULLEST:
                self._rebuild(CHUNK)
            self.used += _roll(
                rows[start:end],
                minutes[start:end],
                who[start:end],
                self.table,
                self.short,
                self.long,
                _mask(self.minute, 5),
                _mask(self.minute, 60),
                self.ahead,
                self.next_short,
                self.next_long,
                _mask(self.minute + 1, 5),
                _mask(self.minute + 1, 60),
                self.dense_of,
                self.ring,
                self.touched,
            )

    def advance(self, minute: int) -> None:
        """The windows now end with `minute`."""
        if minute <= self.minute:
            return
        kept = self._kept(minute)
        if minute > self.minute + 1:
            self._begin_count()
        self._count_to(len(self.table), minute)
        self.minute = minute
        self.short, self.long = self.next_short, self.next_long
        crowded = 4 * self.left > self.used
        self._begin_count()
        for place in range(RING):
            if not int(kept) >> place & 1:
                self.ring[:, place, :] = 0
                self.touched[:, place] = 1
        over = np.nonzero((self.long > ROLLING_EXACT_UP_TO) & (self.dense_of < 0))[0]
        if len(over):
            self.dense_of[over] = len(self.ring) + np.arange(len(over))
            self.ring = np.concatenate([self.ring, np.zeros((len(over), RING, REGISTERS), np.uint8)])
            self.touched = np.concatenate([self.touched, np.zeros((len(over), RING), np.uint8)])
            self._packed += [[b""] * RING for _ in over]
            _fold_ring(self.table, self.dense_of, self.ring, self.touched)
        if crowded:
            self._rebuild(0)
        waiting, self.waiting = self.waiting, []
        for rows, minutes, who in waiting:
            self.add(rows, minutes, who, len(self.short))

    def look_ahead(self) -> None:
        """A step of the count for the next minute; call it often."""
        self._count_to(min(len(self.table), self.ahead + len(self.table) // STEPS + 1), self.minute + 1)

    def _begin_count(self) -> None:
        self.ahead = self.left = 0
        self.next_short, self.next_long = np.zeros_like(self.short), np.zeros_like(self.long)

    def _count_to(self, end: int, minute: int) -> None:
        masks = self._kept(minute), _mask(minute, 5), _mask(minute, 60)
        self.left += _count(self.table, self.ahead, end, *masks, self.next_short, self.next_long)
        self.ahead = end

    def _kept(self, minute: int) -> np.uint64:
        """The ring's bits that are of use from `minute` on. For the next minute the others may go at once: no
        window of now has them.
        """
        return _mask(self.minute + 3, self.minute + RING - minute)

    def _rebuild(self, spare: int) -> None:
        """Without the listeners who have no minute."""
        self._begin_count()
        self.table[self.table[:, BITS] == 0, WHO] = 0
        kept = int(np.count_nonzero(self.table[:, WHO]))
        table = new_pairs(kept + spare, 3)
        self.used = refill(self.table, table, self.dense_of)
        self.table = table

    def reach(self, rows: I64) -> tuple[I64, I64]:
        """Distinct listeners of each of `rows` in the last 5 and in the last 60 minutes."""
        out = np.zeros((2, len(rows)), np.int64)
        for i, row in enumerate(rows.tolist()):
            if row >= len(self.short):
                continue
            dense = self.dense_of[row]
            if dense < 0:
                out[0, i], out[1, i] = self.short[row], self.long[row]
            else:
                out[0, i] = round(_ring_estimate(self.ring[dense], _mask(self.minute, 5)))
                out[1, i] = round(_ring_estimate(self.ring[dense], _mask(self.minute, 60)))
        return out[0], out[1]

    @property
    def known_from(self) -> int:
        """The first minute of which it knows who was heard, and of all that come behind it."""
        return self.minute - 59

    def since(self, row: int, minute: int) -> tuple[U64, U8 | None]:
        """Who was heard in a row from `minute` on (`known_from` or later): listeners, some maybe twice, and
        the registers of the others where it has registers.
        """
        mask = _mask(self.minute + 3, min(RING, self.minute + 4 - minute))
        who = [some[(rows == row) & (minutes >= minute)] for rows, minutes, some in self.waiting]
        registers = None
        if row < len(self.dense_of) and self.dense_of[row] >= 0:
            places = [place for place in range(RING) if int(mask) >> place & 1]
            registers = self.ring[self.dense_of[row], places].max(axis=0, initial=0)
        else:
            slots = (
                (self.table[:, WHO] != 0)
                & (self.table[:, ROW] & NUMBER == row)
                & (self.table[:, BITS] & mask != 0)
            )
            who.append(self.table[slots, WHO])
        return np.concatenate([np.zeros(0, np.uint64), *who]), registers

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """Plain state; of the table what has changed, beside the pieces of the last hour, which may be in
        `files`.
        """
        self.journal.pieces = [one for one in self.journal.pieces if self.minute - one.mark < RING]
        pieces = self.journal.snapshot(self, files, self.minute)
        for dense, place in np.argwhere(self.touched).tolist():
            registers = self.ring[dense, place]
            self._packed[dense][place] = compressed(registers) if registers.any() else b""
        self.touched[:] = 0
        waiting = [(rows.tobytes(), minutes.tobytes(), who.tobytes()) for rows, minutes, who in self.waiting]
        ring = [list(packed) for packed in self._packed]
        return self.minute, [tuple(piece) for piece in pieces], self.dense_of.tobytes(), ring, waiting

    def __len__(self) -> int:
        return self.used

    def changed(self) -> U64:
        """See `flows.journal.Table`; rows of listener, row, bits, and the minute as of which these are."""
        return _taken(self.table, MARK, self.minute, self.used)

    def current(self, rows: U64) -> U64:
        """See `flows.journal.Table`."""
        rows = self._as_of_now(rows)
        same: U64 = rows[_unchanged(rows, self.table, self._kept(self.minute + 1)) != 0]
        return same

    def whole(self) -> U64:
        """See `flows.journal.Table`."""
        return _taken(self.table, np.uint64(0), self.minute, self.used)

    def _as_of_now(self, rows: U64) -> U64:
        """Take off the minutes that have left the ring since a row's."""
        rows = rows.copy()
        for minute in np.unique(rows[:, 3]).tolist():
            rows[rows[:, 3] == minute, BITS] &= _mask(minute + 3, minute + RING - 1 - self.minute)
        rows[:, 3] = self.minute
        return rows

    @classmethod
    def restored(cls, state: tuple[Any, ...], files: Files) -> Rolling:
        """From `snapshot`'s state."""
        minute, pieces, dense_of, ring, waiting = state
        self = cls(minute=minute, dense_of=np.frombuffer(dense_of, np.int64).copy())
        self.short, self.long = np.zeros_like(self.dense_of), np.zeros_like(self.dense_of)
        self.ring = np.zeros((len(ring), RING, REGISTERS), np.uint8)
        self.touched, self._packed = np.zeros((len(ring), RING), np.uint8), [list(packed) for packed in ring]
        for dense, place in product(range(len(ring)), range(RING)):
            if ring[dense][place]:
                self.ring[dense, place] = decompressed(ring[dense][place])
        for rows, _ in self.journal.restore(pieces, files):
            if self.used + len(rows) > len(self.table) * FULLEST:
                self._rebuild(len(rows))
            self.used += _upsert(self._as_of_now(rows), self.table)
        self._rebuild(0)
        masks = self._kept(minute), _mask(minute, 5), _mask(minute, 60)
        _count(self.table, 0, len(self.table), *masks, self.short, self.long)
        self.waiting = [
            (
                np.frombuffer(a, np.uint32).copy(),
                np.frombuffer(b, np.int64).copy(),
                np.frombuffer(c, np.uint64).copy(),
            )
            for a, b, c in waiting
        ]
        return self
