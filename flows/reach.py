"""Reach: how many different listeners, exact while they are few, by a mergeable sketch when they are many.

`Distinct` counts since ever (a flight, a day); `Rolling` counts over the last 5 and 60 minutes. Both serve
all rows of one shard at once, from arrays of (row, listener); adding one twice, or in any order, changes
nothing. A roll-up is fed each of its listeners, which is the union of its placements' sketches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from flows.kernel import I64, U8, U32, U64, Int, kernel, mixed
from flows.sketch import RANKS, REGISTERS, compressed, decompressed, estimate, rank

EXACT_UP_TO: Final = 1_000
ROLLING_EXACT_UP_TO: Final = 32_768
"""A listener of the hour is 24 bytes, a row's registers of 64 minutes are 1 MiB: from here on the registers
are smaller.
"""
CHUNK: Final = 1 << 16
RING: Final = 64
_LOAD = 0.7


@kernel
def _find(table: U64, who: Int, row: Int) -> Int:
    mask = np.uint64(len(table) - 1)
    slot = mixed(who, np.uint64(row) + np.uint64(1)) & mask
    while table[slot, 0] != np.uint64(0) and (
        table[slot, 0] != np.uint64(who) or table[slot, 1] != np.uint64(row)
    ):
        slot = (slot + np.uint64(1)) & mask
    return np.int64(slot)


@kernel
def _refill(old: U64, table: U64, dense_of: I64) -> Int:
    """Move what is not in registers to the empty `table`; returns how much that is."""
    used = 0
    for i in range(len(old)):
        if old[i, 0] != np.uint64(0) and dense_of[old[i, 1]] < 0:
            slot = _find(table, old[i, 0], old[i, 1])
            used += 1
            for w in range(old.shape[1]):
                table[slot, w] = old[i, w]
    return used


@kernel
def _raise(registers: U8, counts: I64, who: Int) -> Int:
    register, value = rank(who)
    before = registers[register]
    if value <= before:
        return False
    registers[register] = value
    counts[before] -= 1
    counts[value] += 1
    return True


@kernel
def _distinct(
    rows: U32, who: U64, table: U64, count: I64, dense_of: I64, registers: U8, histograms: I64, changed: U8
) -> Int:
    used = 0
    for i in range(len(rows)):
        row = rows[i]
        dense = dense_of[row]
        if dense >= 0:
            if _raise(registers[dense], histograms[dense], who[i]):
                changed[dense] = 1
            continue
        slot = _find(table, who[i], row)
        if table[slot, 0] == np.uint64(0):
            table[slot, 0] = who[i]
            table[slot, 1] = row
            count[row] += 1
            used += 1
    return used


@kernel
def _fold(table: U64, dense_of: I64, registers: U8, histograms: I64, changed: U8) -> None:
    for i in range(len(table)):
        if table[i, 0] != np.uint64(0):
            dense = dense_of[table[i, 1]]
            if dense >= 0:
                _raise(registers[dense], histograms[dense], table[i, 0])
                changed[dense] = 1


def _table(entries: int, words: int) -> U64:
    capacity = 256
    while capacity * _LOAD < entries:
        capacity *= 2
    return np.zeros((capacity, words), np.uint64)


@dataclass
class Distinct:
    """Distinct listeners of each row: a set of up to `EXACT_UP_TO`, then 16 KiB of registers."""

    table: U64 = field(default_factory=lambda: _table(0, 2))
    used: int = 0
    count: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    dense_of: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    registers: U8 = field(default_factory=lambda: np.zeros((0, REGISTERS), np.uint8))
    histograms: I64 = field(default_factory=lambda: np.zeros((0, RANKS), np.int64))
    changed: U8 = field(default_factory=lambda: np.zeros(0, np.uint8))
    _packed: list[bytes] = field(default_factory=list)

    def add(self, rows: U32, who: U64, n_rows: int) -> None:
        """Add listener `who[i]` to row `rows[i]`, rows being below `n_rows`."""
        self.count, self.dense_of = _longer(self.count, n_rows, 0), _longer(self.dense_of, n_rows, -1)
        for start in range(0, len(rows), CHUNK):
            some, them = rows[start : start + CHUNK], who[start : start + CHUNK]
            if self.used + len(some) > len(self.table) * _LOAD:
                self._rebuild(len(some))
            self.used += _distinct(
                some,
                them,
                self.table,
                self.count,
                self.dense_of,
                self.registers,
                self.histograms,
                self.changed,
            )
        over = np.nonzero((self.count > EXACT_UP_TO) & (self.dense_of < 0))[0]
        if len(over):  # all at once: it goes through the whole table
            self._to_registers(over)

    def _to_registers(self, rows: I64) -> None:
        dense = len(self.registers) + np.arange(len(rows))
        self.dense_of[rows] = dense
        self.registers = np.vstack([self.registers, np.zeros((len(rows), REGISTERS), np.uint8)])
        fresh = np.zeros((len(rows), RANKS), np.int64)
        fresh[:, 0] = REGISTERS
        self.histograms = np.vstack([self.histograms, fresh])
        self.changed = np.append(self.changed, np.ones(len(rows), np.uint8))
        self._packed += [b""] * len(rows)
        _fold(self.table, self.dense_of, self.registers, self.histograms, self.changed)
        self._rebuild(0)

    def _rebuild(self, spare: int) -> None:
        kept = int(np.count_nonzero(self.table[:, 0]))
        table = _table(kept + spare, 2)
        self.used = _refill(self.table, table, self.dense_of)
        self.table = table

    def reach(self, rows: I64) -> I64:
        """Distinct listeners of each of `rows`: exact, or the estimate of its registers."""
        out = np.zeros(len(rows), np.int64)
        for i, row in enumerate(rows.tolist()):
            if row < len(self.count):
                dense = self.dense_of[row]
                # Just beyond the exact count the bare estimate may lie below it: readers would see it fall.
                out[i] = (
                    self.count[row]
                    if dense < 0
                    else max(EXACT_UP_TO + 1, round(estimate(self.histograms[dense])))
                )
        return out

    def registers_of(self, rows: I64) -> U8:
        """The sketches of `rows`, of exact sets too; (rows, REGISTERS)."""
        out, counts = np.zeros((len(rows), REGISTERS), np.uint8), np.zeros((len(rows), RANKS), np.int64)
        places = np.full(len(self.count), -1, np.int64)
        places[rows] = np.arange(len(rows))
        _fold(self.table, places, out, counts, np.zeros(len(rows), np.uint8))
        dense = self.dense_of[rows]
        out[dense >= 0] = self.registers[dense[dense >= 0]]
        return out

    def snapshot(self) -> tuple[Any, ...]:
        """Plain state; registers are packed anew only where they changed."""
        for dense in np.nonzero(self.changed)[0].tolist():
            self._packed[dense] = compressed(self.registers[dense])
        self.changed[:] = 0
        held = self.table[self.table[:, 0] != 0]
        return held.tobytes(), self.count.tobytes(), self.dense_of.tobytes(), list(self._packed)

    @classmethod
    def restored(cls, state: tuple[Any, ...]) -> Distinct:
        """From `snapshot`'s state."""
        held, count, dense_of, packed = state
        self = cls(
            count=np.frombuffer(count, np.int64).copy(), dense_of=np.frombuffer(dense_of, np.int64).copy()
        )
        self.registers = np.zeros((len(packed), REGISTERS), np.uint8)
        for dense, registers in enumerate(packed):
            self.registers[dense] = decompressed(registers)
        self.histograms = np.array(
            [np.bincount(one, minlength=RANKS) for one in self.registers], np.int64
        ).reshape(-1, RANKS)
        self.changed, self._packed = np.zeros(len(packed), np.uint8), list(packed)
        rows = np.frombuffer(held, np.uint64).reshape(-1, 2).copy()
        self.table = _table(len(rows), 2)
        self.used = _refill(rows, self.table, self.dense_of)
        return self


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
    dense_of: I64,
    ring: U8,
) -> Int:
    used = 0
    for i in range(len(rows)):
        row = rows[i]
        place = minutes[i] & 63
        dense = dense_of[row]
        if dense >= 0:
            register, value = rank(who[i])
            ring[dense, place, register] = max(ring[dense, place, register], np.uint8(value))
            continue
        slot = _find(table, who[i], row)
        if table[slot, 0] == np.uint64(0):
            table[slot, 0] = who[i]
            table[slot, 1] = row
            used += 1
        before = table[slot, 2]
        after = before | (np.uint64(1) << np.uint64(place))
        table[slot, 2] = after
        if not before & short_mask and after & short_mask:
            short[row] += 1
        if not before & long_mask and after & long_mask:
            long[row] += 1
    return used


@kernel
def _leave(table: U64, kept_mask: Int, short_mask: Int, long_mask: Int, short: I64, long: I64) -> Int:
    """Forget the minutes outside of `kept_mask`, count anew; returns how many listeners are left without a
    minute.
    """
    gone = 0
    for i in range(len(table)):
        if table[i, 0] == np.uint64(0):
            continue
        bits = table[i, 2] & kept_mask
        table[i, 2] = bits
        row = table[i, 1]
        if bits & short_mask:
            short[row] += 1
        if bits & long_mask:
            long[row] += 1
        if bits == np.uint64(0):
            gone += 1
            table[i, 0] = np.uint64(0)
    return gone


@kernel
def _fold_ring(table: U64, dense_of: I64, ring: U8) -> None:
    for i in range(len(table)):
        if table[i, 0] == np.uint64(0):
            continue
        dense = dense_of[table[i, 1]]
        if dense >= 0:
            register, value = rank(table[i, 0])
            for place in range(64):
                if (table[i, 2] >> np.uint64(place)) & np.uint64(1):
                    ring[dense, place, register] = max(ring[dense, place, register], np.uint8(value))


@kernel
def _ring_estimate(ring: U8, mask: Int) -> float:
    union = np.zeros(ring.shape[1], np.uint8)
    for place in range(64):
        if (mask >> np.uint64(place)) & np.uint64(1):
            for register in range(len(union)):
                union[register] = max(union[register], ring[place, register])
    counts = np.zeros(52, np.int64)
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

    A listener of a row is one slot with a bit for each of 64 minutes, from 60 before `minute` to 3 after;
    what is later waits. Rows with more than `ROLLING_EXACT_UP_TO` listeners have registers for each of these
    minutes instead.
    """

    minute: int = 0
    table: U64 = field(default_factory=lambda: _table(0, 3))
    used: int = 0
    short: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    long: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    dense_of: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    ring: U8 = field(default_factory=lambda: np.zeros((0, RING, REGISTERS), np.uint8))
    waiting: list[tuple[U32, I64, U64]] = field(default_factory=list)

    def add(self, rows: U32, minutes: I64, who: U64, n_rows: int) -> None:
        """Listener `who[i]` was heard of in `minutes[i]` (since the epoch) in row `rows[i]`."""
        self.short, self.long = _longer(self.short, n_rows, 0), _longer(self.long, n_rows, 0)
        self.dense_of = _longer(self.dense_of, n_rows, -1)
        later = minutes > self.minute + 3
        if later.any():
            self.waiting.append((rows[later], minutes[later], who[later]))
        now = ~later & (minutes >= self.minute - 60)
        if not now.all():
            rows, minutes, who = rows[now], minutes[now], who[now]
        for start in range(0, len(rows), CHUNK):
            end = start + CHUNK
            if self.used + min(CHUNK, len(rows) - start) > len(self.table) * _LOAD:
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
                self.dense_of,
                self.ring,
            )

    def advance(self, minute: int) -> None:
        """The windows now end with `minute`."""
        if minute <= self.minute:
            return
        kept = _mask(self.minute + 3, self.minute + RING - minute)  # from 60 before the new minute on
        self.minute = minute
        self.short[:] = 0
        self.long[:] = 0
        gone = _leave(self.table, kept, _mask(minute, 5), _mask(minute, 60), self.short, self.long)
        for place in range(RING):
            if not int(kept) >> place & 1:
                self.ring[:, place, :] = 0
        over = np.nonzero((self.long > ROLLING_EXACT_UP_TO) & (self.dense_of < 0))[0]
        if len(over):
            self.dense_of[over] = len(self.ring) + np.arange(len(over))
            self.ring = np.concatenate([self.ring, np.zeros((len(over), RING, REGISTERS), np.uint8)])
            _fold_ring(self.table, self.dense_of, self.ring)
        if gone or len(over):
            self._rebuild(0)
        waiting, self.waiting = self.waiting, []
        for rows, minutes, who in waiting:
            self.add(rows, minutes, who, len(self.short))

    def _rebuild(self, spare: int) -> None:
        kept = int(np.count_nonzero(self.table[:, 0]))
        table = _table(kept + spare, 3)
        self.used = _refill(self.table, table, self.dense_of)
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

    def snapshot(self) -> tuple[Any, ...]:
        """Plain state."""
        held = self.table[self.table[:, 0] != 0]
        ring = [compressed(one) for one in self.ring]
        waiting = [(rows.tobytes(), minutes.tobytes(), who.tobytes()) for rows, minutes, who in self.waiting]
        return self.minute, held.tobytes(), self.dense_of.tobytes(), ring, waiting

    @classmethod
    def restored(cls, state: tuple[Any, ...]) -> Rolling:
        """From `snapshot`'s state."""
        minute, held, dense_of, ring, waiting = state
        self = cls(minute=minute, dense_of=np.frombuffer(dense_of, np.int64).copy())
        self.short, self.long = np.zeros_like(self.dense_of), np.zeros_like(self.dense_of)
        self.ring = np.zeros((len(ring), RING, REGISTERS), np.uint8)
        for dense, one in enumerate(ring):
            self.ring[dense] = decompressed(one).reshape(RING, REGISTERS)
        rows = np.frombuffer(held, np.uint64).reshape(-1, 3).copy()
        self.table = _table(len(rows), 3)
        self.used = _refill(rows, self.table, self.dense_of)
        everything = np.uint64(0xFFFFFFFFFFFFFFFF)
        _leave(self.table, everything, _mask(minute, 5), _mask(minute, 60), self.short, self.long)
        self.waiting = [
            (
                np.frombuffer(a, np.uint32).copy(),
                np.frombuffer(b, np.int64).copy(),
                np.frombuffer(c, np.uint64).copy(),
            )
            for a, b, c in waiting
        ]
        return self


def _longer(array: Any, length: int, fill: int) -> Any:
    """`array` with at least `length` places, doubling."""
    if len(array) >= length:
        return array
    return np.concatenate([array, np.full(max(length, 2 * len(array), 64) - len(array), fill, array.dtype)])
