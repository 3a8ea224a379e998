"""Registers of crowded rows, by which `flows.rows.rolling_reach` estimates where exact counting would be
expensive.

A minute of a row that has more than `flows.rows.rolling_reach.MINUTE_EXACT_UP_TO` listeners is crowded. The
minute has registers of its own, and its row two unions: of all its minutes of the last 5 and of the last 60.
An hour after its last crowded minute a row has no registers any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from flows.rows.pair_log import log_pair
from flows.rows.pairs import BITS, NUMBER, ROW, WHO, Pairs, minute_of
from flows.state.arrays import I64, U8, U64, Int, longer
from flows.state.hyperloglog import REGISTERS, estimate, histogram, rank
from flows.state.journal import Files, Journal
from flows.state.kernel import kernel, lean

RING: Final = 64
"""The places of minutes, which are known modulo this number: 59 before the present one and `AHEAD`
after it.
"""
AHEAD: Final = 3
WIDTHS: Final = (5, 60)
UNIONS: Final = len(WIDTHS)
_ROW: Final = np.uint64(32)


@lean
def place_of(minute: Int) -> Int:
    """The place of a row's registers of a minute, after those of its unions."""
    return UNIONS + (minute & (RING - 1))


@lean
def unite(registers: U8, places: I64, now: Int, minute: Int, register: Int, value: Int) -> None:
    """Raise a register in those unions of a row that include `minute`."""
    for width in range(UNIONS):
        if now - WIDTHS[width] < minute <= now and registers[places[width], register] < value:
            registers[places[width], register] = value


@kernel
def _fold(
    table: U64, log: U64, now: Int, dense_of: I64, due: U8, places: I64, registers: U8, touched: U8
) -> None:
    """Rebuild the unions of the rows that are `due`. The listeners of their crowded minutes leave the table
    for these minutes' registers.
    """
    for dense in range(len(due)):
        if due[dense]:
            for width in range(UNIONS):
                registers[places[dense, width]] = 0
    for i in range(len(table)):
        if table[i, WHO] == np.uint64(0):
            continue
        dense = dense_of[table[i, ROW] & NUMBER]
        if dense < 0 or not due[dense]:
            continue
        register, value = rank(table[i, WHO])
        latest, bits = minute_of(table[i, ROW]), table[i, BITS]
        for back in range(min(RING, latest - now + WIDTHS[-1])):
            if not (bits >> np.uint64(back)) & np.uint64(1):
                continue
            own = places[dense, place_of(latest - back)]
            if own < 0:
                unite(registers, places[dense], now, latest - back, register, value)
                continue
            if registers[own, register] < value:
                registers[own, register] = value
                touched[own] = 1
            table[i, BITS] &= ~(np.uint64(1) << np.uint64(back))
        if table[i, BITS] != bits:
            log_pair(log, table, i)
    for dense in range(len(due)):
        if due[dense]:
            for width in range(UNIONS):
                union = registers[places[dense, width]]
                for minute in range(now - WIDTHS[width] + 1, now + 1):
                    own = places[dense, place_of(minute)]
                    if own >= 0:
                        for register in range(REGISTERS):
                            union[register] = max(union[register], registers[own, register])


@dataclass
class Crowds:
    """The registers of one shard's crowded rows.

    Attributes:
        dense_of: by row, its line in `places`; -1 if it has none.
        places: (crowded rows, UNIONS + RING) places in `registers`; -1 for none.
        registers: (room, REGISTERS).
        touched: by place in `registers`: it has changed since the last snapshot.
        due: by line in `places`: its unions are behind, until `unite` rebuilds them. Only published rows need
            unions, and most cuts of a replay publish none.
        minute: the windows end with it.
    """

    dense_of: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    places: I64 = field(default_factory=lambda: np.zeros((0, UNIONS + RING), np.int64))
    registers: U8 = field(default_factory=lambda: np.zeros((0, REGISTERS), np.uint8))
    touched: U8 = field(default_factory=lambda: np.zeros(0, np.uint8))
    due: U8 = field(default_factory=lambda: np.zeros(0, np.uint8))
    _free: list[int] = field(default_factory=list)
    minute: int = 0
    journal: Journal = field(default_factory=lambda: Journal(1 + REGISTERS // 8))

    def grow(self, n_rows: int) -> None:
        """Make room for the rows."""
        self.dense_of = longer(self.dense_of, n_rows, -1)

    def memory_of(self, rows: I64) -> int:
        """The bytes that the registers of `rows` take."""
        dense = self.dense_of[rows[rows < len(self.dense_of)]]
        return int(np.count_nonzero(self.places[dense[dense >= 0]] >= 0)) * REGISTERS

    def begin(self, crowded: Iterable[tuple[int, int]], now: int) -> None:
        """Give registers to minutes, as (row, minute), that have become crowded."""
        before, self.minute = len(self.places), now
        for row, minute in crowded:
            if self.dense_of[row] < 0:
                self.dense_of[row] = len(self.places)
                self.places = np.vstack([self.places, np.full((1, UNIONS + RING), -1)])
                self.places[-1, :UNIONS] = self._room(), self._room()
            self.places[self.dense_of[row], UNIONS + minute % RING] = self._room()
        self.due = np.concatenate([self.due, np.ones(len(self.places) - before, np.uint8)])

    def advance(self, gone: list[int], now: int) -> None:
        """Free these places of the ring, whose minutes are over; the windows end with `now`."""
        self.minute = now
        if not len(self.places):
            return
        columns = UNIONS + np.array(gone)
        self._release(self.places[:, columns])
        self.places[:, columns] = -1
        over = (self.places[:, UNIONS:] < 0).all(axis=1)
        if over.any():
            self._release(self.places[over, :UNIONS])
            numbers = np.where(over, -1, np.cumsum(~over) - 1)
            has = self.dense_of >= 0
            self.dense_of[has] = numbers[self.dense_of[has]]
            self.places = self.places[~over]
        self._shrink()
        self.due = np.ones(len(self.places), np.uint8)

    def estimate(self, row: int, width: int, now: int) -> int | None:
        """Distinct listeners of a row in the last `WIDTHS[width]` minutes; None if no minute of them is
        crowded. No union may be due.
        """
        places = self.places[self.dense_of[row]]
        minutes = np.arange(now - WIDTHS[width] + 1, now + 1)
        if (places[UNIONS + minutes % RING] < 0).all():
            return None
        return round(estimate(histogram(self.registers[places[width]])))

    def since(self, row: int, minute: int, now: int) -> U8 | None:
        """The registers of a row's crowded minutes from `minute` on; None if there are none."""
        if row >= len(self.dense_of) or self.dense_of[row] < 0:
            return None
        minutes = np.arange(minute, now + AHEAD + 1)
        places = self.places[self.dense_of[row], UNIONS + minutes % RING]
        places = places[places >= 0]
        return self.registers[places].max(axis=0) if len(places) else None

    def _minutes(self) -> tuple[U64, I64]:
        """Each crowded minute as row and minute in one word, and its place."""
        rows = np.zeros(len(self.places), np.uint64)
        rows[self.dense_of[self.dense_of >= 0]] = np.nonzero(self.dense_of >= 0)[0]
        dense, ring = np.nonzero(self.places[:, UNIONS:] >= 0)
        last = self.minute + AHEAD
        minutes = (last - (last - ring) % RING).astype(np.uint64)
        return rows[dense] << _ROW | minutes, self.places[dense, UNIONS + ring]

    def __len__(self) -> int:
        return int(np.count_nonzero(self.places[:, UNIONS:] >= 0))

    def _rows(self, keys: U64, places: I64) -> U64:
        rows: U64 = np.column_stack([keys, self.registers[places].view(np.uint64)])
        return rows

    def changed(self) -> U64:
        """See `flows.state.journal.Table`; a row and its minute in one word, and registers."""
        keys, places = self._minutes()
        new = self.touched[places] != 0
        self.touched[:] = 0
        return self._rows(keys[new], places[new])

    def live(self, rows: U64) -> U64:
        """See `flows.state.journal.Table`."""
        place_of_key = dict(zip(*(values.tolist() for values in self._minutes()), strict=True))
        live_places = [
            number
            for number, key in enumerate(rows[:, 0].tolist())
            if key in place_of_key
            and np.array_equal(self.registers[place_of_key[key]].view(np.uint64), rows[number, 1:])
        ]
        return rows[live_places]

    def whole(self) -> U64:
        """See `flows.state.journal.Table`."""
        return self._rows(*self._minutes())

    def gather(self, files: Files) -> None:
        """See `flows.rows.cells.Cells.gather`."""
        if files.directory is not None:
            self.journal.compact(self, files, self.minute)

    def snapshot(self, files: Files) -> list[tuple[Any, ...]]:
        """Plain state: the registers that have changed, with the pieces of the last hour, which may be in
        `files`.
        """
        self.journal.drop_before(self.minute - RING + 1)
        return self.journal.snapshot(self, files, self.minute)

    def restore(self, state: list[tuple[Any, ...]], files: Files, now: int) -> list[tuple[int, int]]:
        """Load `snapshot`'s registers, of known rows; returns row and minute of each."""
        register_words = {
            int(row[0]): row[1:] for rows, _ in self.journal.restore(state, files) for row in rows
        }
        crowded = [(key >> 32, key & 0xFFFFFFFF) for key in register_words]
        crowded = [row_minute for row_minute in crowded if row_minute[1] > now - WIDTHS[-1]]
        self.begin(crowded, now)
        for row, minute in crowded:
            registers = register_words[row << 32 | minute].view(np.uint8)
            self.registers[self.places[self.dense_of[row], UNIONS + minute % RING]] = registers
        self.touched[:] = 0
        return crowded

    def unite(self, table: Pairs) -> None:
        """Rebuild the unions that are due. The listeners of their crowded minutes leave the table."""
        _fold(*table, self.minute, self.dense_of, self.due, self.places, self.registers, self.touched)
        self.due[:] = 0

    def _room(self) -> int:
        """An empty place in `registers`."""
        if not self._free:
            used = len(self.registers)
            self._resize(np.arange(used), max(4, 2 * used))
            self._free = list(range(len(self.registers) - 1, used - 1, -1))
        place = self._free.pop()
        self.registers[place], self.touched[place] = 0, 1
        return place

    def _release(self, places: I64) -> None:
        self._free += places[places >= 0].tolist()

    def _shrink(self) -> None:
        """Free the room that the crowds of an hour have left."""
        used = np.unique(self.places[self.places >= 0])
        if 4 * len(used) >= len(self.registers):
            return
        self._resize(used, 2 * len(used))
        has = self.places >= 0
        self.places[has] = np.searchsorted(used, self.places[has])
        self._free = list(range(len(self.registers) - 1, len(used) - 1, -1))

    def _resize(self, dense_places: I64, room: int) -> None:
        registers, touched = np.empty((room, REGISTERS), np.uint8), np.zeros(room, np.uint8)
        registers[: len(dense_places)] = self.registers[dense_places]
        touched[: len(dense_places)] = self.touched[dense_places]
        self.registers, self.touched = registers, touched
