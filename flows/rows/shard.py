"""Minutes and windows: one shard of rows, a row being a placement or one of the things that placements roll
up to.

A pure core: the placement shards' increments in, at each tick the rows that changed and the minutes that are
due. It owns the cells (row, minute), the totals of days and flights, and, by `flows.rows.reach`, who was
reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flows.model.conversions import COLUMNS, HIGH, OTHER, VALUE, new_frequency
from flows.model.counts import CONSENTED_PLAYS, FLIGHT_COUNTS, HELD, MINUTE_COUNTS, REPAIRED
from flows.model.dimensions import OTHER_NAME, SCOPES
from flows.model.events import IMPRESSION, MUTE, SKIP
from flows.model.messages import ConversionAccount, CreditBatch, Delivered, RowBatch
from flows.model.ticks import Cut
from flows.rows.cells import CHANGED, DIRTY, FINAL, Cells, add_cells, split, window
from flows.rows.credit_cells import CreditCells
from flows.rows.ended import RowName
from flows.rows.reach import Distinct
from flows.rows.rolling_reach import Rolling
from flows.rows.row_index import DEFAULT_LIMITS, Limits, RowIndex
from flows.rows.values import Minutes, Windows
from flows.state.journal import Files
from flows.state.kernel import I64, U8, U32
from flows.state.snapshot import check_format

FORMAT: Final = 11
STEP: Final = "rows"
"""Its files' place in the recovery directory."""
GROWING: Final = (
    "flight",
    "totals",
    "latest",
    "first",
    "flight_from",
    "flight_end",
    "counted_from",
    "counted_to",
    "own_from",
    "overrun",
    "heard",
    "given_reach",
    "published_at",
    "dirty",
    "is_placement",
    "alive",
)
"""The arrays of a shard that have a place a row."""
KEPT: Final = GROWING[: GROWING.index("given_reach")]
"""Those that are in its snapshot."""
SKETCHES_AT_ONCE: Final = 256
SKETCH_FROM: Final = 100
"""Listeners from which on a placement without a plan has a sketch for readers: fewer have no overlap."""
FOREVER: Final = 1 << 40
"""A minute that no flight reaches."""
NO_ACCOUNT: Final = ConversionAccount(0, 0, 0, 0)


@dataclass
class RowShard:
    """The rows of one shard.

    Args:
        index, shards: which of how many.
        lateness_ms, mature_ms: see `flows.settings`.
        day_of: calendar day number of a minute since the epoch, in the configured zone.
        minutes_every: least ticks between two provisional values of a minute; 0: minutes are not wanted.
        recovery: the directory that snapshots may put files in.
        limits: of the rows.

    Attributes:
        left: the rows that ended at the latest cut.
    """

    index: int
    shards: int
    lateness_ms: int
    mature_ms: int
    day_of: Callable[[int], int]
    minutes_every: int = 0
    recovery: Path | None = None
    limits: Limits = DEFAULT_LIMITS
    watermark_ms: int = 0
    first_open: int = 0
    left: list[RowName] = field(default_factory=list)
    labels: dict[int, list[tuple[int, str] | None]] = field(default_factory=dict)
    days: dict[int, tuple[I64, Distinct]] = field(default_factory=dict)
    reached: Distinct = field(default_factory=Distinct)
    rolling: Rolling = field(default_factory=Rolling)

    def __post_init__(self) -> None:
        self.row_index = RowIndex(self.limits.rows)
        self.cells = Cells()
        self.credits = CreditCells()
        self.currencies: dict[int, str] = {}
        self.frequency: dict[int, I64] = {}
        self.accounts: dict[int, ConversionAccount] = {}
        self.flight = np.zeros((64, MINUTE_COUNTS), np.int64)
        self.totals = np.zeros((64, FLIGHT_COUNTS), np.int64)
        self.latest, self.first = np.zeros(64, np.int64), np.zeros(64, np.int64)
        self.flight_from, self.flight_end = np.zeros(64, np.int64), np.zeros(64, np.int64)
        self.counted_from, self.counted_to = np.zeros(64, np.int64), np.zeros(64, np.int64)
        self.overrun, self.heard = np.zeros(64, np.int64), np.zeros(64, np.int64)
        self.own_from = np.zeros(64, np.int64)
        self.given_reach, self.published_at, self.sketched = (
            np.zeros(64, np.int64),
            np.zeros(64, np.int64),
            -1,
        )
        self.dirty = np.zeros(64, bool)
        self.is_placement, self.alive = np.zeros(64, bool), np.zeros(64, bool)
        self._files = Files(None)

    @property
    def final_through_ms(self) -> int:
        """The end of the last final minute, epoch ms."""
        return self.first_open * 60_000

    def apply(
        self,
        cut: Cut,
        batches: Sequence[RowBatch],
        credits: CreditBatch | None = None,
        provisional_from: int = 0,
    ) -> tuple[Windows | None, list[Minutes]]:
        """Apply the messages of all placement shards and the credit book for one cut; returns the rows that
        changed, and the minutes due.

        Args:
            provisional_from: of a minute before, an earlier execution may have told more: only what is final
                is due, which is what it was, and what is not waits.
        """
        before = self.watermark_ms // 60_000
        self.watermark_ms = max(self.watermark_ms, cut.watermark_ms)
        minute = self.watermark_ms // 60_000
        if minute > before:
            self.rolling.advance(minute)
        self._add(batches)
        if credits is not None:
            self._credit(credits)
        if minute > before or cut.ended:
            self._advance_minute(before, minute, cut.ended)
        due = self._due(cut, provisional_from)
        if minute > before or cut.ended:
            self._forget(minute)
        self.left = []
        if minute // 60 > before // 60 or cut.ended:
            self._end_quiet(minute)
        if cut.ended:
            self.mark_all_changed()  # all rows say that they are final
        changed = np.nonzero(self.dirty)[0]
        self.dirty[:] = False
        return (self.numbers_of(changed) if len(changed) else None), due

    def _add(self, batches: Sequence[RowBatch]) -> None:
        where = [np.fromiter(map(self._number, batch.rows), np.uint32, len(batch.rows)) for batch in batches]
        for batch, rows in zip(batches, where, strict=True):
            self.dirty[rows] = True
            self.latest[rows] = np.maximum(self.latest[rows], batch.latest)
            self.first[rows] = _earlier(self.first[rows], batch.first)
            # Pixels that are repeated, late or invalid have no time of their own here.
            heard = np.where(batch.latest > 0, batch.latest, self.watermark_ms) // 60_000
            self.heard[rows] = np.maximum(self.heard[rows], heard)
            for row, ts, combo in batch.labels:
                self._label(int(rows[row]), ts, combo[1:])
        rows = _joined([of[batch.cell_rows] for batch, of in zip(batches, where, strict=True)])
        minutes = _joined([batch.cell_minutes for batch in batches])
        deltas = _joined([batch.cell_counts for batch in batches])
        if len(rows):
            self._add_cells(rows, minutes, deltas)
        total_rows = _joined([of[batch.total_rows] for batch, of in zip(batches, where, strict=True)])
        if len(total_rows):
            np.add.at(self.totals, total_rows, _joined([batch.total_counts for batch in batches]))
        touch_rows = _joined([of[batch.touch_rows] for batch, of in zip(batches, where, strict=True)])
        if len(touch_rows):
            touched = _joined([batch.touch_minutes for batch in batches]).astype(np.int64)
            who = _joined([batch.touch_who for batch in batches])
            flown = touched >= self.flight_from[touch_rows]
            self.reached.add(touch_rows[flown], who[flown], len(self.row_index.names))
            self.rolling.add(touch_rows, touched, who, len(self.row_index.names))
            for day, these in self._by_day(touched):
                self._day(day)[1].add(touch_rows[these], who[these], len(self.row_index.names))

    def _credit(self, batch: CreditBatch) -> None:
        """Add decided conversions to their minutes, which become final only after this."""
        for name, place, listeners, millionths in batch.frequency:
            row = self._number(name)
            self.dirty[row] = True
            self.frequency.setdefault(row, new_frequency())[:, place] += (listeners, millionths)
        foreign = []
        for name, currency in batch.currencies:
            row = self._number(name)
            if self.currencies.setdefault(row, currency) != currency:
                foreign.append(row)
        for name, account in batch.accounts:
            row = self._number(name)
            self.dirty[row] = True
            self.accounts[row] = self.accounts.get(row, NO_ACCOUNT).plus(account)
        if not len(batch.at):
            return
        rows = np.fromiter(map(self._number, batch.rows), np.uint32, len(batch.rows))
        self.dirty[rows] = True
        keys = (rows[batch.at].astype(np.int64) << 32) | batch.minutes
        places, inverse = np.unique(keys, return_inverse=True)
        counts = np.zeros((len(places), len(COLUMNS)), np.int64)
        columns, amounts = batch.columns, batch.amounts
        if foreign:  # the book has forgotten a row's currency, and found another
            theirs = np.isin(rows[batch.at], foreign)
            values, rest = theirs & (columns == VALUE), theirs & (columns == HIGH)
            columns, amounts = np.where(values, OTHER, columns), np.where(values, 1, amounts)
            amounts = np.where(rest, 0, amounts)
        np.add.at(counts, (inverse, columns), amounts)
        at, minutes = (places >> 32).astype(np.uint32), (places & 0xFFFFFFFF).astype(np.uint32)
        self._add_cells(at, minutes, np.zeros((len(places), MINUTE_COUNTS), np.int64))
        for row, minute, of_place in zip(at.tolist(), minutes.tolist(), counts, strict=True):
            flown = minute >= int(self.flight_from[row])
            self.credits.add(row, minute, self.day_of(minute), of_place, flown)
            self.heard[row] = max(int(self.heard[row]), minute)

    def _add_cells(self, rows: U32, minutes: U32, deltas: I64) -> None:
        self.cells.make_room(len(rows))
        new = add_cells(
            rows,
            minutes,
            deltas,
            self.cells.keys,
            self.cells.counts,
            self.cells.flags,
            self.flight,
            self.flight_from,
            self.flight_end,
            self.overrun,
            self.first_open,
        )
        assert new >= 0, "a final minute was changed"
        self.cells.used += new
        for day, these in self._by_day(minutes.astype(np.int64)):
            by_day = deltas[these].copy()
            by_day[:, REPAIRED] = by_day[:, CONSENTED_PLAYS + 1 :] = 0
            np.add.at(self._day(day)[0], rows[these], by_day)

    def _by_day(self, minutes: I64) -> list[tuple[int, Any]]:
        """(day, which of `minutes` are in it), without the days that are over."""
        unique = np.unique(minutes)
        days = np.array([self.day_of(minute) for minute in unique.tolist()])
        today = self.day_of(self.watermark_ms // 60_000)
        found = [day for day in np.unique(days).tolist() if day >= today]
        if len(found) == 1 and (days == found[0]).all():
            return [(found[0], slice(None))]
        of = days[np.searchsorted(unique, minutes)] if found else days
        return [(day, of == day) for day in found]

    def _day(self, day: int) -> tuple[I64, Distinct]:
        counts, reached = self.days.get(day) or (np.zeros((0, MINUTE_COUNTS), np.int64), Distinct())
        if len(counts) < len(self.latest):
            more = np.zeros((len(self.latest) - len(counts), MINUTE_COUNTS), np.int64)
            counts = np.concatenate([counts, more])
        self.days[day] = (counts, reached)
        return self.days[day]

    def _number(self, row: RowName) -> int:
        number = self.row_index.numbers.get(row)
        if number is None:
            oldest = self.watermark_ms // 60_000 - self.limits.remembered
            number, kept = self.row_index.admit(row, oldest)
            if number == len(self.latest):
                for name in GROWING:
                    self._make_room(name, number + 1)
            self.is_placement[number] = self.row_index.name(number)[0] == SCOPES[0]
            self.alive[number] = True
            if kept is not None:
                self._take_up(number, kept)
            self._note_elsewhere(number, kept is None)
        return number

    def _note_elsewhere(self, row: int, new: bool) -> None:
        """Note up to when a row that has just come may have had pixels that it does not count: in `other`,
        or before it was forgotten.
        """
        scope, _ = self.row_index.name(row)
        if new:
            self.own_from[row] = self.row_index.ended.forgotten
        other = self.row_index.numbers.get((OTHER_NAME, scope))
        if other is not None and (last := int(self.latest[other]) // 60_000) >= self.heard[row]:
            self.own_from[row] = last + 1

    def _make_room(self, name: str, rows: int) -> None:
        while len(old := getattr(self, name)) < rows:
            setattr(self, name, np.concatenate([old, np.zeros_like(old)]))

    def _label(self, row: int, ts: int, names: Sequence[str | None]) -> None:
        """Keep of each label the value with the latest event time; of two with the same time, the greater."""
        labels = self.labels.setdefault(row, [None] * len(names))
        for place, name in enumerate(names):
            if name is not None and (labels[place] is None or (ts, name) > labels[place]):  # type: ignore[operator]  # not None here
                labels[place] = (ts, name)

    def _advance_minute(self, before: int, minute: int, ended: bool) -> None:
        """Advance to the watermark's new minute: rolling windows move, days end, minutes become final."""
        placed = self.cells.keys != 0
        rows, minutes = self.cells.at(placed)
        self.dirty[rows[minutes >= before - 60]] = True
        today = self.day_of(minute)
        for day in [day for day in self.days if day < today]:
            self.dirty[: len(self.days[day][0])] |= self.days[day][0].any(axis=1)
            del self.days[day]
        open_from = max(self.first_open, (self.watermark_ms - self.lateness_ms) // 60_000)
        if ended:
            open_from = max([minute + 1, *(minutes + 1).tolist()])
        self.first_open = open_from
        slots = np.nonzero(placed)[0]
        closing = slots[(minutes < open_from) & (self.cells.flags[slots] & FINAL == 0)]
        self.cells.flags[closing] |= DIRTY | FINAL | CHANGED
        closed_rows, closed_minutes = self.cells.at(closing)
        settled = np.zeros((len(closing), MINUTE_COUNTS), np.int64)
        settled[:, REPAIRED] = self.cells.counts[closing, REPAIRED]
        for code in (SKIP, MUTE):
            settled[:, code] = self.cells.counts[closing, code + HELD]
        moved = settled.any(axis=1)
        flown = moved & (closed_minutes >= self.flight_from[closed_rows])
        np.add.at(self.flight, closed_rows[flown], settled[flown])
        for code in (SKIP, MUTE):
            np.subtract.at(self.flight[:, code + HELD], closed_rows[flown], settled[flown, code])
        for day, these in self._by_day(closed_minutes[moved]):
            np.add.at(self._day(day)[0], closed_rows[moved][these], settled[moved][these])
        self.dirty[closed_rows] = True

    def _due(self, cut: Cut, provisional_from: int) -> list[Minutes]:
        if not self.minutes_every:
            return []
        slots = np.nonzero(self.cells.flags & DIRTY)[0]
        rows, _ = self.cells.at(slots)
        slots = slots[self.is_placement[rows]]
        slots = slots[self._says_something(slots)]
        final = self.cells.flags[slots] & FINAL != 0
        _, minutes_of = self.cells.at(slots)
        waited = cut.number - self.cells.given[slots] >= self.minutes_every
        waited &= minutes_of >= provisional_from
        due = []
        for some, is_final in ((slots[final], True), (slots[~final & waited], False)):
            if len(some):
                rows, minutes = self.cells.at(some)
                names = [self.row_index.name(row)[1] for row in rows.tolist()]
                credits = [
                    self.credits.of(*place) for place in zip(rows.tolist(), minutes.tolist(), strict=True)
                ]
                due.append(Minutes(names, minutes.tolist(), self.cells.counts[some], credits, is_final))
                self.cells.flags[some] = self.cells.flags[some] & ~np.uint8(DIRTY) | CHANGED
                self.cells.given[some] = cut.number
        return due

    def _end_quiet(self, minute: int) -> None:
        """End the rows that have had no pixel for long, and keep their counts, packed."""
        self.heard[self.alive & (self.heard == 0)] = minute  # made by a plan
        quiet = self.alive & (self.heard + self.limits.stays <= minute)
        rows, _ = self.cells.at(self.cells.keys != 0)
        quiet[rows] = False
        for counts, reached in self.days.values():
            quiet[: len(counts)] &= ~counts.any(axis=1)
            quiet[: len(reached.count)] &= reached.count[: len(quiet)] == 0
        quiet[[*self.credits.minutes, *(row for row, _ in self.credits.days)]] = False
        leaving = [
            row
            for row in np.flatnonzero(quiet).tolist()
            if (name := self.row_index.name(row)) not in self.row_index.planned and name[0] != OTHER_NAME
        ]
        self.row_index.ended.forget(minute - self.limits.remembered)
        if leaving:
            for row, reached_by in zip(leaving, self.reached.take_out(np.array(leaving)), strict=True):
                kept = self._given_up(row)
                self.left.append(self.row_index.leave(row))
                self.row_index.ended.put(self.left[-1], int(self.heard[row]), (*kept, reached_by))
            for array in GROWING:
                getattr(self, array)[leaving] = 0

    def _given_up(self, row: int) -> list[Any]:
        """Take a row's counts out of the shard, as plain values."""
        credited, frequency = self.credits.flight.pop(row, None), self.frequency.pop(row, None)
        return [
            [getattr(self, name)[row].tolist() for name in KEPT],
            self.labels.pop(row, None),
            None if credited is None else credited.tolist(),
            self.currencies.pop(row, None),
            None if frequency is None else frequency.tolist(),
            self.accounts.pop(row, None),
        ]

    def _take_up(self, row: int, kept: list[Any]) -> None:
        """Restore an ended row's counts to a new row of its name."""
        arrays, labels, credited, currency, frequency, account, reached_by = kept
        for name, values in zip(KEPT, arrays, strict=True):
            getattr(self, name)[row] = values
        if labels is not None:
            self.labels[row] = [label and (label[0], label[1]) for label in labels]
        if credited is not None:
            self.credits.flight[row] = np.array(credited, np.int64)
        if currency is not None:
            self.currencies[row] = currency
        if frequency is not None:
            self.frequency[row] = np.array(frequency, np.int64)
        if account is not None:
            self.accounts[row] = ConversionAccount(*account)
        self.reached.put_back(row, tuple(reached_by), len(self.latest))

    def _says_something(self, slots: I64) -> npt.NDArray[np.bool_]:
        """Mark the cells that have a count, a credit, or readers who were given one.

        A milestone, a skip or a play that went to another minute leaves a cell of zeros, if it came first.
        """
        something = self.cells.counts[slots].any(axis=1) | (self.cells.given[slots] > 0)
        for place in np.flatnonzero(~something).tolist():
            row, minute = self.cells.at(slots[place])
            something[place] = self.credits.of(int(row), int(minute)) is not None
        return something

    def _forget(self, minute: int) -> None:
        """Drop the cells that are final and out of every rolling window, without a change of any number."""
        oldest = self._oldest(minute)
        self.credits.forget(oldest, self.day_of(minute))
        _, minutes = split(self.cells.keys)
        self.cells.keep(minutes >= oldest)

    def _oldest(self, minute: int) -> int:
        """The first minute that a window still needs; all before it are final."""
        return min(self.first_open, minute - 60)

    def plan(self, placement: str, start: int, end: int) -> None:
        """A planned placement's flight counts from the minute `start` on, since the epoch; what it delivers,
        to before the minute `end`. Minutes that are still kept, those of the last hour and open ones, are
        counted anew.
        """
        row = self._number((SCOPES[0], placement))
        before = int(self.flight_from[row]), int(self.flight_end[row])
        if (start, end) == before:
            return
        self.dirty[row] = True
        self.flight_from[row], self.flight_end[row] = start, end
        if self.latest[row] or row in self.credits.flight:
            self._cut_anew(row, *before)
        else:
            self.counted_from[row], self.counted_to[row] = start, max(start, end)
        if start < self.own_from[row]:
            self.counted_from[row] = max(self.counted_from[row], self.own_from[row])

    def _cut_anew(self, row: int, before: int, before_end: int) -> None:
        """Count a row's flight, which it counted from `before` and over from `before_end` on (0: never), by
        its new start and end; `counted_from` and `counted_to` say by which it is known.
        """
        oldest = min(self.first_open, self.rolling.known_from)
        start, end = int(self.flight_from[row]), max(int(self.flight_from[row]), int(self.flight_end[row]))
        rows, minutes = split(self.cells.keys)
        kept = (self.cells.keys != 0) & (rows == row) & (minutes >= oldest)
        minutes, counts = minutes[kept], self._flown(kept)
        over = counts[minutes >= end, IMPRESSION].sum()
        if max(start, self.counted_from[row]) >= oldest:  # nothing that is forgotten is in the flight
            begun = max(start, oldest)
            self.flight[row] = counts[minutes >= begun].sum(axis=0)
            self.overrun[row] = counts[minutes >= max(begun, end), IMPRESSION].sum()
            self.credits.restart_flight(row, begun)
            self._reach_anew(row, begun)
            self.counted_from[row], self.counted_to[row] = begun, end
        else:
            last = max(before, before_end) if before_end else FOREVER
            forgotten = self.flight[row, IMPRESSION] - counts[:, IMPRESSION].sum()
            forgotten_over = self.overrun[row] - counts[minutes >= last, IMPRESSION].sum()
            self.overrun[row] = forgotten_over + over
            ends = sorted((end, int(self.counted_to[row]) or FOREVER))
            between = forgotten_over if end == ends[1] else forgotten - forgotten_over
            if ends[0] >= oldest or not between:
                self.counted_to[row] = end
        if not self.first[row] or self.first[row] // 60_000 >= max(start, self.counted_from[row]):
            self.counted_from[row] = start  # nothing ever was before either

    def _flown(self, slots: Any) -> I64:
        """Add cells to a flight; `_advance_minute` adds the parts that come when a minute is final."""
        counts: I64 = self.cells.counts[slots].copy()
        final = self.cells.flags[slots] & FINAL != 0
        counts[~final, REPAIRED] = 0
        for code in (SKIP, MUTE):
            counts[final, code] += counts[final, code + HELD]
            counts[final, code + HELD] = 0
        return counts

    def _reach_anew(self, row: int, start: int) -> None:
        """Count a flight's reach anew from its minutes from `start` on. The rolling table knows 60 minutes:
        with a longer lateness, earlier listeners stay counted.
        """
        known_from = self.rolling.known_from
        if start >= known_from:  # else earlier listeners stay counted: the table knows no more
            self.reached.clear(row)
        who, registers = self.rolling.since(row, max(start, known_from))
        self.reached.add(np.full(len(who), row, np.uint32), who, len(self.row_index.names))
        if registers is not None:
            self.reached.merge(row, registers, len(self.row_index.names))
        if self.given_reach[row]:
            self.given_reach[row] = -1  # the sketch that readers have is due anew, even if nobody is left

    def mark_all_changed(self) -> None:
        """Mark all rows as changed, so that the next cut publishes them: after a resume it is not known what
        readers have.
        """
        self.dirty |= self.alive

    def sketches(self, ended: bool) -> Iterator[tuple[str, U8]]:
        """(placement, registers of its flight's reach), at most once a watermark minute: where it has grown
        by over 1 %, or a day after it was given if it was heard since; at the log's end all that grew.
        """
        minute = self.watermark_ms // 60_000
        if minute == self.sketched and not ended:
            return
        self.sketched = minute
        rows = np.nonzero(self.is_placement[: len(self.row_index.names)])[0]
        reach, given, at = self.reached.reach(rows), self.given_reach[rows], self.published_at[rows]
        due = reach > given * (1.0 if ended else 1.01)
        due |= (reach > 0) & (minute - at >= 1440) & (self.latest[rows] // 60_000 > at)
        due &= (reach >= SKETCH_FROM) | (self.flight_end[rows] > 0) | (given != 0)
        self.given_reach[rows[due]], self.published_at[rows[due]] = reach[due], minute
        rows = rows[due]
        for start in range(0, len(rows), SKETCHES_AT_ONCE):
            some = rows[start : start + SKETCHES_AT_ONCE]
            for row, registers in zip(some.tolist(), self.reached.registers_of(some), strict=True):
                yield self.row_index.name(row)[1], registers

    def numbers_of(self, rows: I64) -> Windows:
        """The present numbers of `rows`."""
        minute = self.watermark_ms // 60_000
        mature_before = (self.watermark_ms - self.mature_ms) // 60_000
        sums = [np.zeros((len(rows), MINUTE_COUNTS), np.int64) for _ in range(2)]
        mature = [np.zeros((len(rows), 2), np.int64) for _ in range(2)]
        for place, minutes in enumerate((5, 60)):
            window(
                rows,
                minute,
                minutes,
                self.cells.keys,
                self.cells.counts,
                sums[place],
                mature[place],
                mature_before,
            )
        today, reached_today = self._day(self.day_of(minute))
        short, long = self.rolling.reach(rows)
        none: tuple[str | None, ...] = (None,) * (len(SCOPES) - 1)
        return Windows(
            [self.row_index.name(row) for row in rows.tolist()],
            [
                tuple(label and label[1] for label in self.labels[row]) if row in self.labels else none
                for row in rows.tolist()
            ],
            self.latest[rows],
            np.where(self.counted_from[rows] > 0, self.counted_from[rows] * 60_000, self.first[rows]),
            (sums[0], sums[1], today[rows], self.flight[rows]),
            (mature[0], mature[1]),
            (short, long, reached_today.reach(rows), self.reached.reach(rows)),
            self.totals[rows],
            [self.credits.windows(row, minute, self.day_of(minute)) for row in rows.tolist()],
            [self.currencies.get(row) for row in rows.tolist()],
            [self.frequency.get(row) for row in rows.tolist()],
            [self.accounts.get(row) for row in rows.tolist()],
            [self._delivered(row) for row in rows.tolist()],
        )

    def _delivered(self, row: int) -> Delivered | None:
        if not self.flight_end[row]:
            return None
        start, end = int(self.flight_from[row]), int(self.flight_end[row])
        known = self.counted_from[row] == start and self.counted_to[row] == max(start, end)
        delivered = int(self.flight[row, IMPRESSION] - self.overrun[row]) if known else None
        return Delivered(start, end, delivered)

    def snapshot(self) -> tuple[Any, ...]:
        """The state as plain values, with its format."""
        alive = np.flatnonzero(self.alive)
        self._files = self._files if self._files.directory else Files.of(self.recovery, STEP, self.index)
        cells = self.cells.snapshot(self._files)
        rolling, reached = self.rolling.snapshot(self._files), self.reached.snapshot(self._files)
        days = []
        for day in list(self.days):
            counts, of = self._day(day)
            days.append((day, counts[alive].tobytes(), of.snapshot(self._files)))
        index = self.row_index.snapshot(self._files)
        counted = [self.reached, *(of for _, of in self.days.values())]
        names = [*self.row_index.ended.names(), *(name for of in counted for name in of.names())]
        self._files.keep([*self.cells.journal.names(), *self.rolling.journal.names(), *names])
        return (
            FORMAT,
            self.shards,
            self.index,
            self.watermark_ms,
            self.first_open,
            index,
            self.labels,
            cells,
            tuple(getattr(self, name)[alive].tobytes() for name in KEPT),
            days,
            reached,
            rolling,
            self.credits.snapshot(),
            dict(self.currencies),
            {row: counts.tolist() for row, counts in self.frequency.items()},
            {row: tuple(account) for row, account in self.accounts.items()},
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Restore the state that `snapshot` gave; every row is published anew.

        Raises:
            StateError: another format's, or made for another number of shards.
        """
        check_format("rows", state, FORMAT, self.shards)
        (
            _,
            _,
            self.index,
            self.watermark_ms,
            self.first_open,
            index,
            labels,
            cells,
            totals,
            days,
            reached,
            rolling,
            credits,
            currencies,
            frequency,
            accounts,
        ) = state
        self._files = Files.of(self.recovery, STEP, self.index)
        self.row_index = RowIndex.restored(self.limits.rows, index, self._files)
        for array in GROWING:
            self._make_room(array, len(self.row_index.names))
        rows = np.array(sorted(self.row_index.numbers.values()), np.int64)
        self.alive[rows] = True
        self.is_placement[rows] = [self.row_index.name(row)[0] == SCOPES[0] for row in rows.tolist()]
        self.labels = {row: list(of) for row, of in labels.items()}
        self.cells = Cells.restored(cells, self._files, self._oldest(self.watermark_ms // 60_000))
        for name, packed in zip(KEPT, totals, strict=True):
            array = getattr(self, name)
            array[rows] = np.frombuffer(packed, np.int64).reshape((len(rows), *array.shape[1:]))
        for day, packed, of in days:
            self.days[day] = (np.zeros((0, MINUTE_COUNTS), np.int64), Distinct.restored(of, self._files))
            self._day(day)[0][rows] = np.frombuffer(packed, np.int64).reshape(-1, MINUTE_COUNTS)
        self.reached = Distinct.restored(reached, self._files)
        self.rolling = Rolling.restored(rolling, self._files)
        self.credits = CreditCells.restored(credits)
        self.currencies = dict(currencies)
        self.frequency = {row: np.array(counts, np.int64) for row, counts in frequency.items()}
        self.accounts = {row: ConversionAccount(*counts) for row, counts in accounts.items()}
        self.mark_all_changed()


def _earlier(a: I64, b: I64) -> I64:
    """The lesser of two times each, 0 being none."""
    return np.where((a == 0) | (b == 0), np.maximum(a, b), np.minimum(a, b))


def _joined(arrays: list[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
