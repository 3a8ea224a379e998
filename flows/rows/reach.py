"""Reach: the number of different listeners, exact while they are few, by a mergeable sketch when they are
many.

`Distinct` counts over all time (a flight, a day), `flows.rows.rolling_reach` over the last 5 and 60 minutes.
Both serve all rows of one shard at once, from arrays of (row, listener); adding one twice, or in any order,
changes nothing. A roll-up is fed each of its listeners, so its sketch is the union of its placements'
sketches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from flows.rows.pairs import CHUNK, MAX_LOAD, ROW, WHO, new_pairs
from flows.state import journal
from flows.state.arrays import I64, U8, U32, U64, Int, consumed, longer
from flows.state.hash_table import find_pair
from flows.state.hyperloglog import RANKS, REGISTERS, compressed, decompressed, estimate, rank
from flows.state.journal import Files, Journal
from flows.state.kernel import lean

EXACT_UP_TO: Final = 1_000


@lean
def _raise(registers: U8, histograms: I64, dense: Int, listener_hash: Int) -> Int:
    register, value = rank(listener_hash)
    before = registers[dense, register]
    if value <= before:
        return False
    registers[dense, register] = value
    histograms[dense, before] -= 1
    histograms[dense, value] += 1
    return True


@lean
def _distinct(
    rows: U32,
    listener_hashes: U64,
    table: U64,
    count: I64,
    dense_of: I64,
    registers: U8,
    histograms: I64,
    changed_pairs: U64,
) -> tuple[Int, Int]:
    """Add listeners; returns how many changed a count, whose (listener, row) `changed_pairs` gets, and how
    many of them are new in the table. `changed_pairs` has a line for each of `rows`.
    """
    n = used = 0
    for i in range(len(rows)):
        if listener_hashes[i] == np.uint64(0):
            continue
        row = rows[i]
        dense = dense_of[row]
        if dense >= 0:
            if not _raise(registers, histograms, dense, listener_hashes[i]):
                continue
        else:
            slot = find_pair(table, listener_hashes[i], row, 0)
            if table[slot, WHO] != np.uint64(0):
                continue
            table[slot, WHO] = listener_hashes[i]
            table[slot, ROW] = row
            count[row] += 1
            used += 1
        changed_pairs[n, WHO], changed_pairs[n, ROW] = listener_hashes[i], row
        n += 1
    return n, used


@lean
def _fold(table: U64, dense_of: I64, registers: U8, histograms: I64) -> None:
    for i in range(len(table)):
        dense = dense_of[table[i, ROW]]  # read this first: it is seldom set, while every other slot is empty
        if dense >= 0 and table[i, WHO] != np.uint64(0):
            _raise(registers, histograms, dense, table[i, WHO])


@lean
def _refill(old: U64, dense_of: I64, table: U64) -> None:
    """Put the listeners of `old` who are in no registers in the empty `table`."""
    for i in range(len(old)):
        if old[i, WHO] != np.uint64(0) and dense_of[old[i, ROW]] < 0:
            slot = find_pair(table, old[i, WHO], old[i, ROW], 0)
            table[slot, WHO], table[slot, ROW] = old[i, WHO], old[i, ROW]


@dataclass
class Distinct:
    """Distinct listeners of each row: a set of up to `EXACT_UP_TO`, then 16 KiB of registers.

    A snapshot is the sketches at the last full write, and every listener that has changed a count since.
    Restoring adds those listeners again.
    """

    table: U64 = field(default_factory=lambda: new_pairs(0, 2))
    used: int = 0
    count: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    dense_of: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    registers: U8 = field(default_factory=lambda: np.zeros((0, REGISTERS), np.uint8))
    histograms: I64 = field(default_factory=lambda: np.zeros((0, RANKS), np.int64))
    sketches: Journal = field(default_factory=lambda: Journal(1 + REGISTERS // 8))
    additions: Journal = field(default_factory=lambda: Journal(2))
    _changed_pairs: list[U64] = field(default_factory=list)
    _spent: bool = False

    def add(self, rows: U32, listener_hashes: U64, n_rows: int) -> None:
        """Add listener `listener_hashes[i]`, 0 for none, to row `rows[i]`; all rows are below `n_rows`."""
        self.count, self.dense_of = longer(self.count, n_rows, 0), longer(self.dense_of, n_rows, -1)
        for start in range(0, len(rows), CHUNK):
            row_numbers, hashes = rows[start : start + CHUNK], listener_hashes[start : start + CHUNK]
            if self.used + len(row_numbers) > len(self.table) * MAX_LOAD:
                exact = int(np.count_nonzero(self.dense_of[row_numbers] < 0))
                if self.used + exact > len(self.table) * MAX_LOAD:
                    self._rebuild(exact)
            changed_pairs = np.empty((len(row_numbers), 2), np.uint64)
            new, used = _distinct(
                row_numbers,
                hashes,
                self.table,
                self.count,
                self.dense_of,
                self.registers,
                self.histograms,
                changed_pairs,
            )
            self.used += used
            if new:
                self._changed_pairs.append(
                    changed_pairs[:new] if 2 * new > len(changed_pairs) else changed_pairs[:new].copy()
                )
        over = np.nonzero((self.count > EXACT_UP_TO) & (self.dense_of < 0))[0]
        if len(over):  # all at once, since it scans the whole table
            self._to_registers(over)

    def clear(self, row: int) -> None:
        """Forget a row's listeners."""
        if row >= len(self.count) or (self.count[row] == 0 and self.dense_of[row] < 0):
            return  # a row without listeners skips a scan of the whole table and journal
        self._drop_spent()
        dense = int(self.dense_of[row])
        if dense >= 0:
            self.dense_of[row] = -1
            self.dense_of[self.dense_of > dense] -= 1
            self.registers = np.delete(self.registers, dense, axis=0)
            self.histograms = np.delete(self.histograms, dense, axis=0)
        elif self.count[row]:
            self.table[self.table[:, ROW] == row, WHO] = 0
            self.count[row] = 0
            self._rebuild(0)
        self.count[row] = 0
        self._begin_anew()

    def take_out(self, rows: I64) -> list[tuple[int, bytes, bytes]]:
        """Forget the listeners of `rows`.

        Returns:
            For each row the arguments of `put_back`: count, exact listeners, packed registers.
        """
        self.add(np.zeros(0, np.uint32), np.zeros(0, np.uint64), int(rows.max(initial=-1)) + 1)
        self._drop_spent()
        leaving = np.zeros(len(self.count), bool)
        leaving[rows] = True
        slots = np.flatnonzero(self.table[:, WHO])
        slots = slots[leaving[self.table[slots, ROW].astype(np.int64)]]
        slots = slots[np.argsort(self.table[slots, ROW], kind="stable")]
        owners, listener_hashes = self.table[slots, ROW].astype(np.int64), self.table[slots, WHO]
        bounds = np.searchsorted(owners, rows), np.searchsorted(owners, rows, "right")
        dense = self.dense_of[rows]
        packed = [compressed(self.registers[place]) if place >= 0 else b"" for place in dense.tolist()]
        out = [
            (int(count), listener_hashes[start:end].tobytes(), registers)
            for count, start, end, registers in zip(self.count[rows], *bounds, packed, strict=True)
        ]
        kept_places = np.ones(len(self.registers), bool)
        kept_places[dense[dense >= 0]] = False
        self.registers, self.histograms = self.registers[kept_places], self.histograms[kept_places]
        self.dense_of[rows] = -1
        staying = self.dense_of >= 0
        self.dense_of[staying] = (np.cumsum(kept_places) - 1)[self.dense_of[staying]]
        self.table[slots, WHO] = 0
        self.count[rows] = 0
        self._rebuild(0)
        self._begin_anew()
        return out

    def put_back(self, row: int, listeners_of_row: tuple[int, bytes, bytes], n_rows: int) -> None:
        """Restore to an empty row the listeners that `take_out` returned."""
        count, hash_bytes, registers = listeners_of_row
        listeners = np.frombuffer(hash_bytes, np.uint64).copy()
        self.add(np.full(len(listeners), row, np.uint32), listeners, n_rows)
        if registers:
            self._merge(row, decompressed(registers), n_rows)
            words = self.registers[self.dense_of[row]].view(np.uint64)
            self.sketches.append(np.concatenate([np.array([row], np.uint64), words])[None])
            self.count[row] = count

    def merge(self, row: int, registers: U8, n_rows: int) -> None:
        """Add the listeners of a sketch to a row, which has a sketch from then on."""
        self._merge(row, registers, n_rows)
        self._begin_anew()

    def _merge(self, row: int, registers: U8, n_rows: int) -> None:
        self.add(np.zeros(0, np.uint32), np.zeros(0, np.uint64), n_rows)
        if self.dense_of[row] < 0:
            self._to_registers(np.array([row]))
        dense = self.dense_of[row]
        np.maximum(self.registers[dense], registers, out=self.registers[dense])
        self.histograms[dense] = np.bincount(self.registers[dense], minlength=RANKS)

    def _to_registers(self, rows: I64) -> None:
        dense = len(self.registers) + np.arange(len(rows))
        self.dense_of[rows] = dense
        self.registers = np.vstack([self.registers, np.zeros((len(rows), REGISTERS), np.uint8)])
        fresh = np.zeros((len(rows), RANKS), np.int64)
        fresh[:, 0] = REGISTERS
        self.histograms = np.vstack([self.histograms, fresh])
        places = np.full(len(self.dense_of), -1, np.int64)
        places[rows] = dense
        _fold(self.table, places, self.registers, self.histograms)
        self._spent = True

    def _rebuild(self, spare: int) -> None:
        self.used = int(self.count[self.dense_of < 0].sum())
        old, self.table, self._spent = self.table, new_pairs(self.used + spare, 2), False
        for part in consumed(old):
            _refill(part, self.dense_of, self.table)

    def _drop_spent(self) -> None:
        """Remove the listeners that are in registers from the table, where they stay until it is rebuilt."""
        if self._spent:
            self._rebuild(0)

    def reach(self, rows: I64) -> I64:
        """Distinct listeners of each of `rows`: exact, or the estimate of its registers."""
        out = np.zeros(len(rows), np.int64)
        places = np.flatnonzero(rows < len(self.count))
        out[places] = np.minimum(self.count[rows[places]], EXACT_UP_TO + 1)
        dense = self.dense_of[rows[places]]
        for i, dense_place in zip(places[dense >= 0].tolist(), dense[dense >= 0].tolist(), strict=True):
            # Just above the exact count the bare estimate may be lower, and readers would see it fall.
            out[i] = max(out[i], round(estimate(self.histograms[dense_place])))
        return out

    def memory_of(self, rows: I64) -> int:
        """The bytes that the listeners of `rows` take, at most: a table is over half full."""
        rows = rows[rows < len(self.count)]
        dense = self.dense_of[rows] >= 0
        exact = int(self.count[rows[~dense]].sum())
        return 2 * 16 * exact + int(np.count_nonzero(dense)) * (REGISTERS + 8 * RANKS)

    def registers_of(self, rows: I64) -> U8:
        """The sketches of `rows`, including those of exact sets; (rows, REGISTERS)."""
        out, counts = np.zeros((len(rows), REGISTERS), np.uint8), np.zeros((len(rows), RANKS), np.int64)
        places = np.full(len(self.count), -1, np.int64)
        places[rows] = np.arange(len(rows))
        _fold(self.table, places, out, counts)
        dense = self.dense_of[rows]
        out[dense >= 0] = self.registers[dense[dense >= 0]]
        return out

    def _begin_anew(self) -> None:
        """Write the present state to disk, and drop the earlier pieces."""
        self._drop_spent()
        dense = np.nonzero(self.dense_of >= 0)[0]
        packed, registers = np.empty((len(dense), self.sketches.words), np.uint64), self.registers
        packed[:, 0] = dense
        for sketch, place in zip(packed, self.dense_of[dense].tolist(), strict=True):  # the one copy of each
            sketch[1:] = registers[place].view(np.uint64)
        self.sketches.pieces, self.additions.pieces = [], []
        self.sketches.append(packed)
        self._changed_pairs = [self.table[self.table[:, WHO] != 0]]

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """Plain state: the new additions, and the earlier pieces, which may be in `files`.

        Sketches are rewritten once the additions take twice their room. Only sketches have counts in it,
        since an exact count follows from the listeners.
        """
        self.gather(files)
        pieces = self.sketches.spilled(files), self.additions.spilled(files)
        if files.directory is None:
            self.sketches.pieces, self.additions.pieces = [], []
        dense = np.flatnonzero(self.dense_of >= 0)
        counts = np.column_stack([dense, self.count[dense]]).tobytes()
        return len(self.count), counts, *pieces

    def gather(self, files: Files) -> None:
        """Append the new additions, or begin again, to relieve the next snapshot."""
        exact = int(self.count[self.dense_of < 0].sum())
        room = exact + len(self.registers) * REGISTERS // (8 * self.additions.words)
        addition_count = sum(map(len, self._changed_pairs))
        if (
            files.directory is None
            or self.additions.rows + addition_count > 2 * room + journal.COMPACTION_SLACK
        ):
            self._begin_anew()
        if self._changed_pairs:  # at once: the journal copies its last segment at each append
            self.additions.append(np.concatenate(self._changed_pairs))
        self._changed_pairs = []

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return self.sketches.file_names() + self.additions.file_names()

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """Load the listeners of `snapshot`'s state into an empty table."""
        n_rows, counts, *pieces = state
        self.add(np.zeros(0, np.uint32), np.zeros(0, np.uint64), n_rows)
        for sketches, _ in self.sketches.restore(pieces[0], files):
            for row, registers in zip(sketches[:, 0].tolist(), sketches[:, 1:].copy(), strict=True):
                self._merge(row, registers.view(np.uint8), n_rows)
        for additions, _ in self.additions.restore(pieces[1], files):
            self.add(additions[:, ROW].astype(np.uint32), additions[:, WHO].copy(), n_rows)
        dense, counts = np.frombuffer(counts, np.int64).reshape(-1, 2).T
        self.count[dense], self._changed_pairs = counts, []
