"""One placement shard: the table of plays with what it has counted since the last tick, and the messages it
sends to the rows.

A pure core: batches in, messages out, and a state that can be packed. No engine in it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from secrets import randbits
from typing import Any, Final

import numpy as np

from flows.errors import StateError
from flows.model.counts import FLIGHT_COUNTS, MINUTE_COUNTS
from flows.model.dimensions import FORGET_AT, Dimensions
from flows.model.events import EVENTS
from flows.model.messages import (
    CLICK_TOUCH,
    REACH_ONLY,
    Late,
    PendingConversion,
    PixelOutcomes,
    Pixels,
    RowBatch,
    TouchBatch,
    frozen_pending,
    thawed_pending,
)
from flows.model.pixel import COMBO, INFO, KEY, LISTENER, MOST_REASONS, POSITION, TS, ConversionPixel
from flows.model.ticks import ENDED, Cut
from flows.plays import cohort
from flows.plays.dimension_index import DimensionIndex
from flows.plays.expiry import expire, sweep
from flows.plays.slots import (
    ACCEPTED,
    CELLS_USED,
    CHANGED,
    COMBO_SHIFT,
    FLAGS,
    INVALID_OUT,
    LATE_OUT,
    LOW,
    MINUTES,
    MOST_CELLS,
    SECRET,
    SLOT_KEY,
    SLOTS_USED,
    TIMES,
    TOUCHES,
)
from flows.state.hash_table import MAX_LOAD, WORDS, drain_changed, new_table, put, resized, still
from flows.state.homes import Homes
from flows.state.journal import Files, Journal
from flows.state.kernel import I64, U64, doubled
from flows.state.snapshot import check_format

FORMAT: Final = 6
STEP: Final = "plays"
"""Its files' place in the recovery directory."""


@dataclass
class PlayShard:
    """The plays of one placement shard: once, start cohort, lateness.

    Args:
        index, shards: which of how many.
        lateness_ms, horizon_ms, conversion_horizon_ms: see `flows.settings`.
        touching: whether touches are wanted.
        recovery: the directory that snapshots may put files in.
        secret: see `flows.state.homes`.
    """

    index: int
    shards: int
    lateness_ms: int
    horizon_ms: int
    conversion_horizon_ms: int
    touching: bool = True
    recovery: Path | None = None
    watermark_ms: int = 0
    table: U64 = field(default_factory=new_table)
    outcomes: dict[str, I64] = field(default_factory=dict)
    secret: bytes = b""

    def __post_init__(self) -> None:
        self.forget_at = FORGET_AT
        self.used = np.zeros(4, np.int64)
        self.used[SECRET] = randbits(63)
        self._homes = Homes(self.secret, self.shards)
        self.names = DimensionIndex(self._homes)
        self.totals = np.zeros((64, FLIGHT_COUNTS), np.int64)
        self.times = np.zeros((64, 2), np.int64)
        self.cells, self.counts = cohort.new_cells()
        self.touch_where = np.zeros((1024, 3), np.uint32)
        self.touch_who = np.zeros(1024, np.uint64)
        self.touch_ts = np.zeros(1024, np.int64)
        self.conversions: list[PendingConversion] = []
        # What is final already stays so when the allowed lateness is made longer at a restart.
        self.first_open = 0
        self.swept = (0, 0)
        self.journal, self._files = Journal(WORDS), Files(None)

    @property
    def plays(self) -> int:
        """The number of plays, events and held milestones that are remembered."""
        return int(self.used[SLOTS_USED])

    # Pixels in

    def apply(self, batch: Pixels) -> list[Late]:
        """Count a batch by the table of plays; returns the pixels that are too late.

        A pixel is repeated, too late or accepted. An accepted pixel adds to cells, which `cut` sends. A
        milestone counts in the minute of its play's start, or is held until the start comes.
        """
        combo_of = np.fromiter((self._number(combo) for combo in batch.combos), np.int32, len(batch.combos))
        pixels = batch.pixels
        outcomes = _no_outcomes()
        late = np.empty(len(pixels), np.int64)
        done = 0
        while done < len(pixels):
            done = cohort.apply(
                pixels,
                done,
                combo_of,
                self.table,
                self.cells,
                self.counts,
                self.totals,
                self.times,
                self.touch_where,
                self.touch_who,
                self.touch_ts,
                self.used,
                outcomes,
                late,
                self._final_ms,
                self.lateness_ms,
                self.horizon_ms,
            )
            if done < len(pixels):
                self._make_room()
        lates = [
            Late(
                batch.sender,
                int(pixels[i, POSITION]),
                EVENTS[int(pixels[i, INFO]) & 0xFF],
                int(pixels[i, TS]),
                int(pixels[i, KEY]),
                batch.combos[int(pixels[i, COMBO])],
            )
            for i in late[: outcomes[LATE_OUT]].tolist()
        ]
        if batch.conversions:
            self._convert(batch.sender, batch.conversions, outcomes, lates)
        total = self.outcomes.setdefault(batch.sender, _no_outcomes())
        total += outcomes
        return lates

    def _convert(
        self, sender: str, conversions: list[tuple[U64, ConversionPixel]], outcomes: I64, lates: list[Late]
    ) -> None:
        """Count conversions, each once by its own key and horizon."""
        pixels = np.array([pixel for pixel, _ in conversions], np.uint64)
        numbers = np.array([self._number(conversion.combo) for _, conversion in conversions], np.int32)
        verdicts = np.zeros(len(pixels), np.uint8)
        done = 0
        while done < len(pixels):
            done = cohort.convert(
                pixels,
                done,
                numbers,
                self.table,
                self.totals,
                self.times,
                self.used,
                outcomes,
                verdicts,
                self._final_ms,
                self.lateness_ms,
                self.conversion_horizon_ms,
            )
            if done < len(pixels):
                self._make_room()
        keys, listeners, ts, positions = (
            pixels[:, column].tolist() for column in (KEY, LISTENER, TS, POSITION)
        )
        for n, verdict in enumerate(verdicts.tolist()):
            conversion = conversions[n][1]
            if verdict == ACCEPTED:
                self.conversions.append(PendingConversion(ts[n], listeners[n], keys[n], conversion))
            elif verdict == LATE_OUT:
                lates.append(Late(sender, positions[n], "conversion", ts[n], keys[n], conversion.combo))

    def _number(self, combo: Dimensions) -> int:
        number = self.names.number(combo)
        if number >= cohort.MOST_COMBOS:
            raise StateError(
                f"one shard holds more than {cohort.MOST_COMBOS:,} combinations of names: recompute with "
                "more AUDIOPIXEL_SHARDS"
            )
        if number == len(self.times):
            self.totals, self.times = doubled(self.totals), doubled(self.times)
        return number

    def _make_room(self) -> None:
        if self.used[SLOTS_USED] + 3 > len(self.table) * 0.99 * MAX_LOAD:
            self.table = resized(self.table, int(self.used[SLOTS_USED]))
        if self.used[TOUCHES] + 1 > len(self.touch_who):
            self.touch_where, self.touch_who = doubled(self.touch_where), doubled(self.touch_who)
            self.touch_ts = doubled(self.touch_ts)
        if self.used[CELLS_USED] + MOST_CELLS > len(self.cells) * 3 // 4:
            self._grow_cells()

    def _grow_cells(self) -> None:
        cells, counts = cohort.new_cells(2 * len(self.cells))
        cohort.regrow(self.cells, self.counts, cells, counts, self.used)
        self.cells, self.counts = cells, counts

    # Messages out

    def cut(
        self, cut: Cut, forgotten: Collection[int] = ()
    ) -> tuple[list[RowBatch], list[TouchBatch], list[PixelOutcomes]]:
        """Send all that was counted since the last cut: a message to every row shard and every listener
        shard, empty or not, and outcomes by source partition.

        In a new minute of the watermark the table is swept first, so that orphans are in this very message.

        Args:
            forgotten: listeners who are in no pixel that is still to come.
        """
        turned = cut.watermark_ms // 60_000 > self.watermark_ms // 60_000
        self.watermark_ms = max(self.watermark_ms, cut.watermark_ms)
        self.first_open = max(self.first_open, (self.watermark_ms - self.lateness_ms) // 60_000)
        if cut.ended or turned:
            self._sweep(cut.ended)
        batches, touches = self._row_batches(cut), self._touch_batches(cut, forgotten)
        outcomes = []
        for sender, counts in self.outcomes.items():
            accepted, repeated, too_late, *invalid = counts.tolist()
            outcomes.append(PixelOutcomes(sender, accepted, repeated, too_late, tuple(invalid)))
        self.outcomes.clear()
        self.totals[:] = 0
        self.times[:] = 0
        if self.used[CELLS_USED]:
            self.cells, self.counts = cohort.new_cells(max(256, len(self.cells) // 2))
        self.used[CELLS_USED] = self.used[TOUCHES] = 0
        self.conversions = []
        if len(self.names) > self.forget_at:
            self._forget_combos()
            self.forget_at = max(FORGET_AT, 2 * len(self.names))
        return batches, touches, outcomes

    @property
    def _final_ms(self) -> int:
        """The watermark by which all that is final is so by the allowed lateness, too."""
        return max(self.watermark_ms, self.first_open * 60_000 + self.lateness_ms)

    def _sweep(self, ended: bool) -> None:
        self.swept = (ENDED, ENDED) if ended else (self.watermark_ms, self.first_open)
        if self.recovery is None:
            self.table[:, FLAGS] &= ~CHANGED
        done, before = 0, int(self.used[SLOTS_USED])
        while done < len(self.table):
            done = sweep(
                self.table,
                self.cells,
                self.counts,
                self.used,
                done,
                *self._ages(),
            )
            if done < len(self.table):
                self._grow_cells()
        if self.used[SLOTS_USED] < before:
            self.table = resized(self.table, int(self.used[SLOTS_USED]))

    def _ages(self) -> tuple[int, int, int, int]:
        """The horizons of the latest sweep; after the end of the log no slot is dropped."""
        if self.swept[0] == ENDED:
            return *self.swept, ENDED, ENDED
        return *self.swept, self.horizon_ms, self.conversion_horizon_ms

    def _row_batches(self, cut: Cut) -> list[RowBatch]:
        combos = len(self.names)
        filled = np.nonzero(self.cells)[0]
        cell_keys = self.cells[filled] - np.uint64(1)
        cell_rows, cell_source = self.names.spread((cell_keys >> np.uint64(32)).astype(np.int64))
        touched = np.nonzero(self.totals[:combos].any(axis=1))[0]
        total_rows, total_source = self.names.spread(touched)
        touches = int(self.used[TOUCHES])
        reached = np.nonzero(self.touch_where[:touches, 1] != CLICK_TOUCH)[0]
        touch_rows, touch_source = self.names.spread(self.touch_where[reached, 0].astype(np.int64))
        times = np.zeros((len(self.names.rows), 2), np.int64)
        seen = np.nonzero(self.times[:combos, cohort.LATEST])[0]
        timed_rows, timed_source = self.names.spread(seen)
        np.maximum.at(times, timed_rows, self.times[seen][timed_source])
        latest, first = times[:, cohort.LATEST], cohort.BACKWARDS - times[:, cohort.FIRST]
        first[times[:, cohort.FIRST] == 0] = 0

        named = np.zeros(len(self.names.rows), bool)
        for rows in (cell_rows, total_rows, touch_rows, timed_rows):
            named[rows] = True
        order = np.nonzero(named)[0]
        sorting, bounds = self.names.by_shard(order)
        order = order[sorting]
        place = np.zeros(len(self.names.rows), np.uint32)
        for start, end in pairwise(bounds):
            place[order[start:end]] = np.arange(end - start, dtype=np.uint32)
        names = list(self.names.rows)
        labels: dict[int, list[tuple[int, int, Dimensions]]] = {}
        for number in seen.tolist():
            if (row := self.names.placement_row(number)) >= 0:
                label = (int(place[row]), int(self.times[number, cohort.LATEST]), self.names.combos[number])
                labels.setdefault(self.names.shard_of(row), []).append(label)
        cells_to, cell_bounds = self.names.by_shard(cell_rows)
        totals_to, total_bounds = self.names.by_shard(total_rows)
        touches_to, touch_bounds = self.names.by_shard(touch_rows)
        cell_rows, cell_source = cell_rows[cells_to], cell_source[cells_to]
        minutes = (cell_keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)[cell_source]
        cell_counts = self.counts[filled][cell_source]
        total_rows, total_counts = total_rows[totals_to], self.totals[touched][total_source[totals_to]]
        touch_rows, touch_source = touch_rows[touches_to], touch_source[touches_to]
        touch_minutes = (self.touch_ts[reached] // 60_000).astype(np.uint32)[touch_source]
        touch_who = self.touch_who[reached][touch_source]
        batches = []
        for shard in range(self.shards):
            rows = order[bounds[shard] : bounds[shard + 1]]
            a, b = cell_bounds[shard], cell_bounds[shard + 1]
            c, d = total_bounds[shard], total_bounds[shard + 1]
            e, f = touch_bounds[shard], touch_bounds[shard + 1]
            batches.append(
                RowBatch(
                    self.index,
                    shard,
                    cut,
                    [names[row] for row in rows.tolist()],
                    latest[rows],
                    place[cell_rows[a:b]],
                    minutes[a:b],
                    cell_counts[a:b],
                    place[total_rows[c:d]],
                    total_counts[c:d],
                    place[touch_rows[e:f]],
                    touch_minutes[e:f],
                    touch_who[e:f],
                    labels.get(shard, []),
                    first[rows],
                )
            )
        return batches

    def _touch_batches(self, cut: Cut, forgotten: Collection[int]) -> list[TouchBatch]:
        touches = int(self.used[TOUCHES]) if self.touching else 0
        given = np.nonzero(self.touch_where[:touches, 1] != REACH_ONLY)[0]
        who = self.touch_who[given]
        shards = (who % np.uint64(self.shards)).astype(np.uint16)
        order = np.argsort(shards, kind="stable")
        bounds: list[int] = np.searchsorted(shards[order], np.arange(self.shards + 1)).tolist()
        given, who = given[order], who[order]
        ts, combos = self.touch_ts[given], self.touch_where[given, 0]
        kinds, halves = self.touch_where[given, 1].astype(np.uint8), self.touch_where[given, 2]
        conversions: list[list[PendingConversion]] = [[] for _ in range(self.shards)]
        for one in self.conversions:
            conversions[(one.listener or one.key) % self.shards].append(one)
        batches = []
        for shard in range(self.shards):
            a, b = bounds[shard], bounds[shard + 1]
            named, numbers = np.unique(combos[a:b], return_inverse=True)
            batches.append(
                TouchBatch(
                    self.index,
                    shard,
                    cut,
                    [self.names.combos[number] for number in named.tolist()],
                    who[a:b],
                    ts[a:b],
                    kinds[a:b],
                    numbers.astype(np.uint32),
                    halves[a:b],
                    conversions[shard],
                    np.array([one for one in forgotten if one % self.shards == shard], np.uint64),
                )
            )
        return batches

    def _forget_combos(self) -> None:
        """Drop the dimensions that no play refers to, and number the rest anew."""
        used = self.table[:, SLOT_KEY] != 0
        flags, times = self.table[used, FLAGS], self.table[used, TIMES]
        minutes = self.table[used, MINUTES]
        reached = cohort.reached_combo(minutes, times)
        kept = np.union1d(flags >> COMBO_SHIFT, reached)
        renumber = np.zeros(len(self.names) + 1, np.uint64)
        renumber[kept] = np.arange(len(kept), dtype=np.uint64)
        self.table[used, FLAGS] = (flags & LOW) | (renumber[flags >> COMBO_SHIFT] << COMBO_SHIFT)
        self.table[used, MINUTES], self.table[used, TIMES] = cohort.with_combo(
            minutes, times, renumber[reached]
        )
        self.names = DimensionIndex(self._homes, [self.names.combos[number] for number in kept.tolist()])
        self.table[used, FLAGS] |= CHANGED
        self.journal.pieces = []

    # State

    def snapshot(self) -> tuple[Any, ...]:
        """The state as plain values, with its format; of the table the rows that changed, beside the files of
        earlier snapshots.
        """
        cells = np.nonzero(self.cells)[0]
        touches = int(self.used[TOUCHES])
        combos = len(self.names)
        self._files = self._files if self._files.directory else Files.of(self.recovery, STEP, self.index)
        pieces = self.journal.snapshot(self, self._files)
        self._files.keep(self.journal.names())
        return (
            FORMAT,
            self.shards,
            self.index,
            self.watermark_ms,
            (self.first_open, self.swept, [tuple(piece) for piece in pieces]),
            self.names.combos,
            {sender: counts.tolist() for sender, counts in self.outcomes.items()},
            (self.cells[cells].tobytes(), self.counts[cells].tobytes()),
            (self.totals[:combos].tobytes(), self.times[:combos].tobytes()),
            tuple(touch[:touches].tobytes() for touch in (self.touch_where, self.touch_who, self.touch_ts)),
            [frozen_pending(one) for one in self.conversions],
        )

    def __len__(self) -> int:
        return self.plays

    def changed(self) -> U64:
        """See `flows.state.journal.Table`."""
        return drain_changed(self.table, CHANGED, len(self))

    def current(self, rows: U64) -> U64:
        """See `flows.state.journal.Table`."""
        return still(rows, self.table)

    def whole(self) -> U64:
        """See `flows.state.journal.Table`; without the empty slots, 32 bytes a play."""
        # Taken by number: a third of the time of a mask.
        return self.table.take(np.flatnonzero(self.table[:, SLOT_KEY]), axis=0)

    def restore(self, state: tuple[Any, ...]) -> None:
        """Restore the state that `snapshot` gave.

        Raises:
            StateError: another format's, or made for another number of shards.
        """
        check_format("plays", state, FORMAT, self.shards)
        _, _, self.index, self.watermark_ms, table, combos, outcomes, cells, totals, touches, conversions = (
            state
        )
        self._restore_table(*table)
        for combo in combos:
            self._number(tuple(combo))
        self.outcomes = {sender: np.array(counts, np.int64) for sender, counts in outcomes.items()}
        keys = np.frombuffer(cells[0], np.uint64).copy()
        self.used[CELLS_USED] = len(keys)
        capacity = 256
        while capacity * 3 // 4 < len(keys) + MOST_CELLS:
            capacity *= 2
        self.cells, self.counts = cohort.new_cells(capacity)
        cohort.regrow(
            keys,
            np.frombuffer(cells[1], np.int64).reshape(-1, MINUTE_COUNTS).copy(),
            self.cells,
            self.counts,
            self.used,
        )
        self.totals[: len(combos)] = np.frombuffer(totals[0], np.int64).reshape(-1, FLIGHT_COUNTS)
        self.times[: len(combos)] = np.frombuffer(totals[1], np.int64).reshape(-1, 2)
        who = np.frombuffer(touches[1], np.uint64)
        room = 2 * len(who) + 1024
        self.used[TOUCHES] = len(who)
        self.touch_where, self.touch_who = np.zeros((room, 3), np.uint32), np.zeros(room, np.uint64)
        self.touch_ts = np.zeros(room, np.int64)
        self.touch_where[: len(who)] = np.frombuffer(touches[0], np.uint32).reshape(-1, 3)
        self.touch_who[: len(who)] = who
        self.touch_ts[: len(who)] = np.frombuffer(touches[2], np.int64)
        self.conversions = [thawed_pending(one) for one in conversions]

    def _restore_table(self, first_open: int, swept: tuple[int, int], pieces: list[Any]) -> None:
        """Restore the table from its segments: a later version of a row replaces an earlier one, and slots
        that were swept since are dropped.
        """
        self.first_open, self.swept = first_open, swept
        self._files = Files.of(self.recovery, STEP, self.index)
        used = 0
        for rows, _ in self.journal.restore(pieces, self._files):
            if used + len(rows) > MAX_LOAD * len(self.table):
                self.table = resized(self.table, used, used + len(rows))
            used += put(rows, self.table)
        used = expire(self.table, *self._ages())
        self.table = resized(self.table, used)
        self.used[SLOTS_USED] = used


def _no_outcomes() -> I64:
    return np.zeros(INVALID_OUT + MOST_REASONS, np.int64)
