"""Reach over the last 5 and 60 minutes, as of the watermark's minute: see `flows.rows.reach`.

A minute in which a listener was active keeps them in the windows that end with it and with the next 4 or 59
minutes. One more minute therefore changes a count at two moments at most, when the listener enters and
leaves. Both moments are noted in advance, so that nothing is counted again as time goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flows.rows.crowds import AHEAD, RING, UNIONS, WIDTHS, Crowds, place_of, unite
from flows.rows.pair_log import PairLog, log_pair
from flows.rows.pairs import (
    BITS,
    CHUNK,
    MAX_LOAD,
    NUMBER,
    ROW,
    WHO,
    minute_of,
    new_pairs,
    refilled,
    tidy,
    useful,
)
from flows.state.arrays import I64, U8, U32, U64, Int, longer
from flows.state.bits import lowest
from flows.state.by_minute import ByMinute
from flows.state.hash_table import find_pair, put, unchanged_rows
from flows.state.hyperloglog import rank
from flows.state.journal import Files, Journal
from flows.state.kernel import kernel, lean

I16 = npt.NDArray[np.int16]

MINUTE_EXACT_UP_TO: Final = 1_000
"""A minute of a row with more listeners is crowded. This depends on the listeners of the minute alone, never
on their order or on when it is looked at, and a window without a crowded minute is exact. Every window of up
to this number is therefore exact. A crowded minute's registers take 16 KiB; its listeners would take 24 bytes
each.
"""
HEARD: Final = UNIONS
"""The line of `ring` after the changes of the two windows: the listeners of a minute."""
TIDY_EVERY: Final = WIDTHS[-1]
"""Minutes between two resizings of the table. Meanwhile new listeners take the slots of those who have left
the hour.
"""
_ONE: Final = np.uint64(1)


@lean
def _cover(row: Int, minute: Int, before: Int, after: Int, now: Int, counts: I64, ring: I16) -> None:
    """Count a listener's minute in the present and later windows that include neither `before` nor `after`,
    its nearest minutes.
    """
    for width in range(UNIONS):
        first = max(minute, before + WIDTHS[width], now)
        last = min(minute + WIDTHS[width], after) - 1
        if first <= last:
            if first == now:
                counts[width, row] += 1
            else:
                ring[width, first & (RING - 1), row] += 1
            ring[width, (last + 1) & (RING - 1), row] -= 1


@lean
def _roll(
    rows: U32,
    minutes: I64,
    listener_hashes: U64,
    now: Int,
    most: Int,
    table: U64,
    log: U64,
    counts: I64,
    ring: I16,
    dense_of: I64,
    places: I64,
    registers: U8,
    touched: U8,
    due: U8,
) -> tuple[Int, Int]:
    """Add listeners' minutes; returns the number of empty slots taken, and of minutes that have become
    crowded.
    """
    used = crowded = 0
    for i in range(len(rows)):
        row, minute = rows[i], minutes[i]
        dense = dense_of[row]
        if dense >= 0:
            register, value = rank(listener_hashes[i])
            own = places[dense, place_of(minute)]
            if own >= 0:
                if registers[own, register] >= value:
                    continue
                registers[own, register] = value
                touched[own] = 1
            if not due[dense]:
                unite(registers, places[dense], now, minute, register, value)
            if own >= 0:
                continue
        # The slot may be that of a listener who has left.
        slot = find_pair(table, listener_hashes[i], row, now - WIDTHS[-1] + 1)
        latest, bits = minute, np.uint64(0)
        if table[slot, WHO] == listener_hashes[i] and table[slot, ROW] & NUMBER == row:
            latest, bits = minute_of(table[slot, ROW]), table[slot, BITS]
        else:
            used += table[slot, WHO] == np.uint64(0)
            table[slot, WHO] = listener_hashes[i]
        if minute > latest:
            bits = bits << np.uint64(minute - latest) if minute - latest < RING else np.uint64(0)
            latest = minute
        own_bit = _ONE << np.uint64(latest - minute)
        if bits & own_bit:
            continue
        table[slot, BITS] = bits | own_bit
        table[slot, ROW] = np.uint64(row) | np.uint64(latest) << np.uint64(32)
        log_pair(log, table, slot)
        heard = ring[HEARD, minute & (RING - 1), row]
        if heard > most:
            continue
        ring[HEARD, minute & (RING - 1), row] += 1
        crowded += heard == most
        before, after = minute - RING, minute + RING
        older, newer = bits & ~(own_bit | (own_bit - _ONE)), bits & (own_bit - _ONE)
        if older:
            before = latest - lowest(older)
        while newer:  # seldom, and then seldom more than one
            after = latest - lowest(newer)
            newer &= newer - _ONE
        _cover(row, minute, before, after, now, counts, ring)
    return used, crowded


@kernel
def _recount(table: U64, now: Int, most: Int, counts: I64, ring: I16) -> None:
    """Count a whole table."""
    for i in range(len(table)):
        if table[i, WHO] == np.uint64(0):
            continue
        row, latest, before = np.int64(table[i, ROW] & NUMBER), minute_of(table[i, ROW]), -RING
        for back in range(min(RING - 1, latest - now + WIDTHS[-1] - 1), -1, -1):
            if (table[i, BITS] >> np.uint64(back)) & _ONE:
                minute = latest - back
                _cover(row, minute, before, minute + RING, now, counts, ring)
                ring[HEARD, minute & (RING - 1), row] = min(
                    ring[HEARD, minute & (RING - 1), row] + 1, most + 1
                )
                before = minute


@dataclass
class Rolling:
    """Distinct listeners of each row over the last 5 and 60 minutes up to `minute`.

    A listener of a row is one slot: the latest minute in which they were active, and a bit for it and for
        each of the 63 before. Minutes are taken from 59 before `minute` to 3 after; what is later waits by
        its minute.

    Attributes:
        counts: (2, rows) listeners of the windows that end with `minute`, but for crowded minutes.
        ring: (3, RING, rows) by how much these change with each of the coming minutes, and the number of
            listeners of each minute, up to one more than `MINUTE_EXACT_UP_TO`.
        waiting: rows, minutes and listeners of what is later.
    """

    minute: int = 0
    table: U64 = field(default_factory=lambda: new_pairs(0, 3))
    used: int = 0
    counts: I64 = field(default_factory=lambda: np.zeros((UNIONS, 0), np.int64))
    ring: I16 = field(default_factory=lambda: np.zeros((HEARD + 1, RING, 0), np.int16))
    crowds: Crowds = field(default_factory=Crowds)
    waiting: ByMinute = field(default_factory=ByMinute)
    journal: Journal = field(default_factory=lambda: Journal(3))
    _tidied: int = 0

    def __post_init__(self) -> None:
        self._log = PairLog()
        self.journal.load(self)

    def add(self, rows: U32, minutes: I64, listener_hashes: U64, n_rows: int) -> None:
        """Add listener `listener_hashes[i]` to row `rows[i]` in `minutes[i]` (since the epoch)."""
        self._grow(n_rows)
        later = minutes > self.minute + AHEAD
        if later.any():
            self.waiting.add(minutes[later], rows[later], minutes[later], listener_hashes[later])
        now = ~later & (minutes >= self.known_from)
        if not now.all():
            rows, minutes, listener_hashes = rows[now], minutes[now], listener_hashes[now]
        crowds, crowded = self.crowds, 0
        for start in range(0, len(rows), CHUNK):
            end = min(start + CHUNK, len(rows))
            if self.used + end - start > len(self.table) * MAX_LOAD:
                self._rebuild(end - start)
            used, more = _roll(
                rows[start:end],
                minutes[start:end],
                listener_hashes[start:end],
                self.minute,
                MINUTE_EXACT_UP_TO,
                self.table,
                self._log.room(end - start, self.used // 2),
                self.counts,
                self.ring,
                crowds.dense_of,
                crowds.places,
                crowds.registers,
                crowds.touched,
                crowds.due,
            )
            self.used += used
            crowded += more
        if crowded:
            self._crowd()

    def _crowd(self) -> None:
        """Give registers to the crowded minutes that have none."""
        places, rows = np.nonzero(self.ring[HEARD] > MINUTE_EXACT_UP_TO)
        dense = self.crowds.dense_of[rows]
        without = dense < 0
        has = np.flatnonzero(~without)
        without[has] = self.crowds.places[dense[has], UNIONS + places[has]] < 0
        last = self.minute + AHEAD
        minutes = last - (last - places[without]) % RING
        self.crowds.begin(zip(rows[without].tolist(), minutes.tolist(), strict=True), self.minute)

    def _unite(self) -> None:
        """Rebuild the unions of crowded rows that are behind; each slot of the table may change."""
        if self.crowds.due.any():
            self.crowds.unite((self.table, self._log.room(self.used, self.used // 2)))

    def _grow(self, n_rows: int) -> None:
        self.counts, self.ring = longer(self.counts, n_rows, 0), longer(self.ring, n_rows, 0)
        self.crowds.grow(n_rows)

    def advance(self, minute: int) -> None:
        """Move the end of the windows to `minute`."""
        if minute <= self.minute:
            return
        gone = []
        for end_minute in range(max(self.minute, minute - RING) + 1, minute + 1):
            self.counts += self.ring[:HEARD, end_minute % RING]
            self.ring[:HEARD, end_minute % RING] = 0
            gone.append((end_minute - WIDTHS[-1]) % RING)
        self.ring[HEARD, gone] = 0
        self.minute = minute
        if minute - self._tidied >= TIDY_EVERY:
            self._rebuild(0)
        self.crowds.advance(gone, minute)
        for rows, minutes, listener_hashes in self.waiting.take(minute + AHEAD + 1):
            self.add(rows, minutes, listener_hashes, self.counts.shape[1])

    def _rebuild(self, spare: int) -> None:
        """Rebuild the table without the listeners who have no minute left."""
        self._unite()  # listeners of crowded minutes leave with it
        self._tidied = self.minute
        self.used = tidy(self.table, self.known_from)
        self.table = refilled(self.table, self.used + spare)

    def reach(self, rows: I64) -> tuple[I64, I64]:
        """Distinct listeners of each of `rows` in the last 5 and in the last 60 minutes. The number is exact,
        or the estimate of the registers if one of the minutes was crowded.
        """
        places = np.nonzero(rows < self.counts.shape[1])[0]
        out = np.zeros((UNIONS, len(rows)), np.int64)
        out[:, places] = self.counts[:, rows[places]]
        if len(crowded := places[self.crowds.dense_of[rows[places]] >= 0]):
            self._unite()
        for i in crowded.tolist():
            for width in range(UNIONS):
                estimate = self.crowds.estimate(int(rows[i]), width, self.minute)
                if estimate is not None:
                    out[width, i] = max(estimate, MINUTE_EXACT_UP_TO + 1)  # a bare estimate may be lower
        return out[0], out[1]

    def memory_of(self, rows: I64) -> int:
        """The bytes that the listeners of `rows` take, at most: a table is over half full."""
        known_rows = rows[rows < self.counts.shape[1]]
        return 2 * 24 * int(self.counts[-1, known_rows].sum()) + self.crowds.memory_of(rows)

    @property
    def known_from(self) -> int:
        """The first minute whose listeners are known; those of all later minutes are, too."""
        return self.minute - WIDTHS[-1] + 1

    def since(self, row: int, minute: int) -> tuple[U64, U8 | None]:
        """The listeners that a row reached from `minute` on (`known_from` or later), some maybe twice. The
        registers have the listeners of crowded minutes.
        """
        listener_hashes = [
            hashes[(rows == row) & (minutes >= minute)] for rows, minutes, hashes in self.waiting
        ]
        row_slots = self.table[(self.table[:, WHO] != 0) & (self.table[:, ROW] & NUMBER == row)]
        older = np.clip(row_slots[:, ROW].astype(np.int64) // (1 << 32) - minute + 1, 0, RING - 1)
        recent = row_slots[:, BITS] & ((_ONE << older.astype(np.uint64)) - _ONE)
        listener_hashes.append(row_slots[recent != 0, WHO])
        return np.concatenate(listener_hashes), self.crowds.since(row, minute, self.minute)

    def gather(self, files: Files) -> None:
        """See `flows.state.journal.Journal.gather`."""
        self.journal.drop_before(self.minute - RING + 1)
        self.journal.gather(self, files, self.minute)
        self.crowds.gather(files)

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """Plain state: the changes of the table, with the pieces of the last hour, which may be in
        `files`.
        """
        self.journal.drop_before(self.minute - RING + 1)
        pieces = self.journal.snapshot(self, files, self.minute)
        crowds = self.crowds.snapshot(files)
        return self.minute, self.counts.shape[1], pieces, crowds, self.waiting.packed()

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return self.journal.file_names() + self.crowds.journal.file_names()

    def __len__(self) -> int:
        return self.used

    def changed(self) -> U64:
        """See `flows.state.journal.Table`; rows of listener, row and latest minute, bits."""
        logged_rows = self._log.take(self.known_from)
        return self.whole() if logged_rows is None else logged_rows

    def live(self, rows: U64) -> U64:
        """See `flows.state.journal.Table`."""
        recent = (rows[:, ROW] >> np.uint64(32)).astype(np.int64) >= self.known_from
        return unchanged_rows(rows[recent], self.table, True)

    def whole(self) -> U64:
        """See `flows.state.journal.Table`."""
        return useful(self.table, self.known_from, self.used)

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """Load the listeners of `snapshot`'s state into an empty table."""
        self.minute, n_rows, pieces, crowds, waiting = state
        minute = self.minute
        self._grow(n_rows)
        for rows, _ in self.journal.restore(pieces, files):
            if self.used + len(rows) > len(self.table) * MAX_LOAD:
                self._rebuild(len(rows))
            self.used += put(rows, self.table, True)
        self._rebuild(0)
        crowded_minutes = self.crowds.restore(crowds, files, minute)
        self._unite()
        _recount(self.table, minute, MINUTE_EXACT_UP_TO, self.counts, self.ring)
        for row, crowded in crowded_minutes:
            self.ring[HEARD, crowded % RING, row] = MINUTE_EXACT_UP_TO + 1
        for packed in waiting:
            columns = zip(packed, (np.uint32, np.int64, np.uint64), strict=True)
            row_numbers, minutes, listener_hashes = (np.frombuffer(body, dtype) for body, dtype in columns)
            self.waiting.add(minutes, row_numbers, minutes, listener_hashes)
