"""Minutes and windows: one shard of rows. A row is a placement, or a roll-up of placements.

A pure core. It takes the increments of the placement shards, and returns at each tick the changed rows and
the due minutes. It owns the cells (row, minute), the totals of days and flights, and the reach
(`flows.rows.reach`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flows.model.client_counts import SideIncrements
from flows.model.counts import HELD_COLUMN, MINUTE_COUNTS
from flows.model.day_parts import AlikeDays
from flows.model.dimensions import OTHER_NAME, SCOPES
from flows.model.events import IMPRESSION, OF_PLAY
from flows.model.messages import CreditBatch, EndedMinutes, RowBatch
from flows.model.ticks import Cut, open_from
from flows.rows.cells import add_cells, add_lines, split, window
from flows.rows.crowds import WIDTHS
from flows.rows.days import days_of
from flows.rows.ended import RowName
from flows.rows.minutes import due_minutes
from flows.rows.row_index import DEFAULT_LIMITS, Limits
from flows.rows.row_tables import RowTables
from flows.rows.side_cells import UNKEYED_COLUMNS
from flows.rows.values import Minutes, Windows
from flows.state.arrays import I64, U8, U32, U64

SKETCHES_AT_ONCE: Final = 256


class RowShard(RowTables):
    """The rows of one shard.

    Args:
        index, shards: the number of this shard, and of all shards.
        lateness_ms, mature_ms: see `flows.settings`.
        day_of: calendar day number of a minute since the epoch, in the configured zone.
        minutes_every: least ticks between two provisional values of a minute; 0 for no minutes.
        recovery: the directory that snapshots may put files in.
        limits: of the rows.

    Attributes:
        first_open: the first minute that is not final.
        in_parts: whether turned rows may be published in parts; False while readers have later rows of an
            earlier execution.
        ended_rows: the rows that ended at the latest cut.
        due_days: the placements' days that are due at the latest cut.
        ended_minutes: the planned placements' minutes that became final at the latest cut.
    """

    def __init__(
        self,
        index: int,
        shards: int,
        lateness_ms: int,
        mature_ms: int,
        day_of: Callable[[int], int],
        minutes_every: int = 0,
        recovery: Path | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        super().__init__(index, shards, day_of, recovery, limits)
        self.lateness_ms, self.mature_ms, self.minutes_every = lateness_ms, mature_ms, minutes_every
        self.in_parts, self.ended_rows = True, list[RowName]()
        self.due_days: list[AlikeDays] = []
        self.ended_minutes: EndedMinutes | None = None
        self._sketched = -1

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
        """Apply the messages of all placement shards and the credit book for one cut. Returns the rows that
        changed since the last published cut, if this cut is published, and the due minutes.

        Args:
            provisional_from: the first minute of which provisional values are due. Earlier minutes are due
                only as final: an earlier execution may have published greater values of them.
        """
        before = self.minute
        self.watermark_ms = max(self.watermark_ms, cut.watermark_ms)
        self._memory_left = self.ended_minutes = None
        minute = self.minute
        turned = minute > before or cut.ended or self._final_before > self.first_open
        if minute > before:
            self.rolling.advance(minute)
            for had in self.days.advance(minute):
                self.columns.turned[: len(had)] |= had
        self._add(batches)
        if credits is not None:
            self._credit(credits)
        if turned:
            self._end_minutes(before, cut.ended)
        self.ended_rows, due = [], list[Minutes]()
        if self.minutes_every:
            about = self.cells, (self.conversions.credits, self.sides), self.columns, self.row_index
            due = due_minutes(*about, cut.number, self.minutes_every, provisional_from)
        if turned:
            self._drop_expired()
        self.ended_rows, self.due_days = [], []
        if minute // 60 > before // 60 or cut.ended:
            self._end_quiet(cut.number)
        self.due_days += self.day_counts.due(self.row_index, minute, cut.number, cut.ended)
        if cut.ended:
            self.mark_all_unpublished()  # every row shows that it is final
        changed, by_time = self.take_changed(cut.publish, whole=cut.last or not self.in_parts)
        if not len(changed):
            return None, due
        return self.numbers_of(changed)._replace(turned=by_time), due

    def _add(self, batches: Sequence[RowBatch]) -> None:
        batches = [batch for batch in batches if batch.rows or batch.refused or batch.delays]
        if not batches:
            return
        where = [self.numbers(batch.rows) for batch in batches]
        for batch, rows in zip(batches, where, strict=True):
            for row, ts, combo in batch.labels:
                self.labels.note(int(rows[row]), ts, combo[1:])

        def rows_at(column: str) -> U32:
            parts = [
                row_numbers[getattr(batch, column)] for batch, row_numbers in zip(batches, where, strict=True)
            ]
            joined: U32 = np.concatenate(parts)
            return joined

        def joined(column: str) -> Any:
            return np.concatenate([getattr(batch, column) for batch in batches])

        for batch, rows in zip(batches, where, strict=True):
            self.day_counts.take(self.columns, batch, rows, self.row_index.numbers)
        times = joined("latest"), joined("first"), joined("newest")
        self.columns.note(np.concatenate(where), *times)
        if len(rows := rows_at("cell_rows")):
            self._add_cells(rows, joined("cell_minutes"), joined("cell_counts"))
        if len(rows := rows_at("total_rows")):
            add_lines(self.columns.totals, rows, joined("total_counts"))
        if len(rows := rows_at("touch_rows")):
            homes = np.zeros(0, np.uint64)
            if any(len(batch.homes) for batch in batches):
                nobody = np.zeros(max(len(batch.touch_rows) for batch in batches), np.uint64)
                parts = [
                    touched.homes if len(touched.homes) else nobody[: len(touched.touch_rows)]
                    for touched in batches
                ]
                homes = np.concatenate(parts)
            self._reach(rows, joined("touch_minutes").astype(np.int64), joined("touch_listeners"), homes)
        noted = self.delays.take(batches, self.number)
        self.columns.unsaved[noted] = True
        if len(rows := rows_at("side_rows")):
            sides = joined("sides")
            self.sides.take(rows, sides, self.columns, self.days.day_of)
            self.day_counts.add_sides(self.columns, rows, sides)
            if len(shown := np.flatnonzero(np.isin(sides[:, 1], UNKEYED_COLUMNS))):
                self._have_minutes(rows[shown], sides[shown, 0].astype(np.uint32))

    def _reach(self, rows: U32, minutes: I64, listener_hashes: U64, household_hashes: U64) -> None:
        n_rows, flown = len(self.columns), minutes >= self.columns.flight_from[rows]
        self.days.reach(rows, minutes, listener_hashes, household_hashes, n_rows)
        known_rows, known_minutes, listeners = _chosen(listener_hashes != 0, rows, minutes, listener_hashes)
        self.rolling.add(known_rows, known_minutes, listeners, n_rows)
        rows, *people = _chosen(
            flown, rows, listener_hashes, *([household_hashes] if len(household_hashes) else [])
        )
        for reached, reachers in zip((self.reached, self.homes), people, strict=False):
            reached.add(rows, reachers, n_rows)

    def _credit(self, batch: CreditBatch) -> None:
        """Add decided conversions, downloads and deliveries to their minutes, which become final only after
        this.
        """
        row_columns = self.columns
        self._take_sides(batch.sides)
        rows, noted = self.numbers(batch.rows), list(self.conversions.note(batch, self.number))
        valued = [self.number(name) for name, _ in batch.currencies]
        row_columns.changed[noted] = row_columns.unsaved[valued] = True
        row_numbers, minutes = rows[batch.row_places], batch.minutes.astype(np.int64)
        columns, amounts = self.conversions.counts(batch, self.number, row_numbers)
        if not len(row_numbers):
            return
        row_columns.changed[rows] = True
        np.maximum.at(row_columns.last_minutes, row_numbers, minutes)
        places = np.unique((row_numbers.astype(np.int64) << 32) | minutes)
        self._have_minutes((places >> 32).astype(np.uint32), (places & 0xFFFFFFFF).astype(np.uint32))
        days, flown = days_of(minutes, self.days.day_of), minutes >= row_columns.flight_from[row_numbers]
        self.conversions.credits.add(row_numbers, minutes, days, flown, columns, amounts)

    def _take_sides(self, sides: SideIncrements) -> None:
        if not len(sides.row_places):
            return
        rows = self.numbers(sides.rows)[sides.row_places]
        self._have_minutes(rows, sides.minutes)
        table = np.column_stack([sides.minutes, sides.columns, sides.amounts]).astype(np.int64)
        self.sides.take(rows, table, self.columns, self.days.day_of)
        self.day_counts.add_sides(self.columns, rows, table)
        np.maximum.at(self.columns.last_minutes, rows, sides.minutes)

    def _have_minutes(self, rows: U32, minutes: U32) -> None:
        """Mark the minutes as due whose counts are all outside the cells."""
        self._add_cells(rows, minutes, np.zeros((len(rows), MINUTE_COUNTS), np.int64))

    def _add_cells(self, rows: U32, minutes: U32, deltas: I64) -> None:
        columns = self.columns
        self.cells.make_room(len(rows))
        new = add_cells(
            rows,
            minutes,
            deltas,
            self.cells.keys,
            self.cells.counts,
            self.cells.flags,
            columns.flight,
            columns.flight_from,
            columns.flight_end,
            columns.overrun,
            columns.parted_from,
            columns.before,
            self.first_open,
        )
        assert new >= 0, "a final minute was changed"
        self.cells.used += new
        self.days.add(rows, minutes.astype(np.int64), deltas, len(columns))
        self.day_counts.count(columns, rows, minutes, deltas[:, IMPRESSION])

    def _end_minutes(self, before: int, ended: bool) -> None:
        """Advance the rolling windows from the minute `before`, and make minutes final."""
        columns = self.columns
        rows, minutes = split(self.cells.keys[self.cells.keys != 0])
        columns.turned[rows[self._moved(minutes, before)]] = True
        if self._new_day(before):
            columns.turned[self.sides.recent_rows()] = True  # a delivery of the new day may have no cell
        self.first_open = max(self.first_open, self._final_before)
        if ended:
            self.first_open = max(self.minute + 1, int(minutes.max(initial=0)) + 1)
        rows, minutes, settled, impressions = self.cells.close(self.first_open)
        columns.turned[rows] = True
        self._note_ended(rows, minutes, impressions)
        moved = settled.any(axis=1)
        rows, minutes, settled = rows[moved], minutes[moved], settled[moved]
        columns.changed[rows] = True  # counted changes are never left for a later part
        flown = minutes >= columns.flight_from[rows]
        np.add.at(columns.flight, rows[flown], settled[flown])
        for code in OF_PLAY:
            np.subtract.at(columns.flight[:, code + HELD_COLUMN], rows[flown], settled[flown, code])
        self.days.add_final(rows, minutes, settled, len(columns))

    def _note_ended(self, rows: I64, minutes: I64, impressions: I64) -> None:
        """Take the impressions of planned placements in minutes that became final."""
        columns = self.columns
        planned = columns.is_placement[rows] & (columns.planned[rows] > 0) & (impressions > 0)
        if not planned.any():
            return
        unique, places = np.unique(rows[planned], return_inverse=True)
        names = [self.row_index.name(row)[1] for row in unique.tolist()]
        self.ended_minutes = EndedMinutes(names, places, minutes[planned], impressions[planned])

    def _moved(self, minutes: I64, before: int) -> npt.NDArray[np.bool_]:
        """Mark the minutes that enter a rolling window, leave it or become mature in it when the watermark
        leaves the minute `before`. Other minutes change no window. On a new day all minutes of the last hour
        and later are marked: a row may have counts of that day already.
        """
        if self._new_day(before):
            recent: npt.NDArray[np.bool_] = minutes >= before - WIDTHS[-1]
            return recent
        ends = [(before - width, self.minute - width) for width in (0, *WIDTHS)]
        ends.append((self._mature_before(before * 60_000) - 1, self._mature_before(self.watermark_ms) - 1))
        moved = np.zeros(len(minutes), bool)
        for had, has in ends:
            moved |= (minutes > had) & (minutes <= has)
        return moved

    def _new_day(self, before: int) -> bool:
        return self.days.day_of(before) != self.days.today

    @property
    def _final_before(self) -> int:
        """The minute before which all minutes are final by the watermark."""
        return open_from(self.watermark_ms, self.lateness_ms)

    def _mature_before(self, watermark_ms: int) -> int:
        """The minute before which starts are old enough to have completed."""
        return (watermark_ms - self.mature_ms) // 60_000

    def _drop_expired(self) -> None:
        """Drop the cells that are final and outside every window. Rows that lose a day are marked as
        changed.
        """
        oldest, today = self.oldest, self.days.day_of(self.minute)
        for cells in (self.conversions.credits, self.sides):
            self.columns.turned[cells.drop_expired(oldest, today)] = True
        self.cells.drop_expired(oldest)

    def _end_quiet(self, cut: int) -> None:
        """End the rows without a pixel for longer than their stay, counted from the end of the last pixel's
        minute. Their counts are stored.
        """
        columns, minute = self.columns, self.minute
        planned = columns.alive & (columns.last_minutes == 0)
        columns.last_minutes[planned], columns.unsaved[planned] = minute, True
        quiet = columns.alive & (columns.planned == 0) & (columns.last_minutes + self.limits.stays < minute)
        rows, minutes = split(self.cells.keys[self.cells.keys != 0])
        quiet[rows[minutes >= self.oldest]] = False
        self.days.clear(quiet)
        for sparse in (self.conversions.credits, self.sides):
            quiet[sparse.recent_rows()] = False
        leaving = [
            row
            for row in np.flatnonzero(quiet).tolist()
            if (name := self.row_index.name(row)) not in self.row_index.planned and name[0] != OTHER_NAME
        ]
        self.row_index.ended.drop_expired(minute - self.limits.remembered)
        if leaving:
            self.due_days = self.day_counts.due(self.row_index, minute, cut, everything=True)
            self.ended_rows = self.take_out(leaving)

    def plan(self, placement: str, start: int, end: int, parted: int = 0) -> None:
        """Set a planned placement's flight, which counts from the minute `start` on, since the epoch. Its
        delivery counts to before the minute `end`, and is split at the minute `parted` (0: not split).
        Minutes that are still stored, those of the last hour and open ones, are recounted. A flight may also
        be split at the border of an open day.
        """
        row = self.number((SCOPES[0], placement))
        since = partial(self.day_counts.since, row, now=self.minute)
        self.flights.plan(row, start, end, self.first_open, parted, since)

    def have_plans(self, planned: Iterable[RowName], labels: Iterable[RowName] = ()) -> None:
        """Set the rows that have plans. A placement that is no longer among them counts without a plan.
        `labels` are other rows that plans name.
        """
        self.row_index.plan(planned, labels)
        for row in np.flatnonzero(self.columns.planned).tolist():
            if self.row_index.name(row) not in self.row_index.planned:
                self.flights.withdraw(row, self.minute, self.first_open)

    def bring_back(self, row: RowName) -> None:
        """Resume an ended row that has a plan, or of which readers may have an older version."""
        if row not in self.row_index.numbers and self.row_index.ended.has(row):
            number = self.number(row)  # first, since it may enlarge the columns
            self.columns.changed[number] = True

    def sketches(self, ended: bool) -> Iterator[tuple[str, U8]]:
        """(placement, registers of its flight's reach), at most once a watermark minute. A sketch is due if
        the reach has grown by over 1 %, or a day after its publication if the placement had pixels since. At
        the log's end all that grew are due.
        """
        minute = self.minute
        if minute == self._sketched and not ended:
            return
        self._sketched = minute
        rows = np.nonzero(self.columns.is_placement)[0]
        rows = rows[self.columns.due_sketches(rows, self.reached.reach(rows), minute, ended)]
        for start in range(0, len(rows), SKETCHES_AT_ONCE):
            part = rows[start : start + SKETCHES_AT_ONCE]
            for row, registers in zip(part.tolist(), self.reached.registers_of(part), strict=True):
                yield self.row_index.name(row)[1], registers

    def numbers_of(self, rows: I64) -> Windows:
        """The present numbers of `rows`."""
        row_columns, cells, conversions, minute = self.columns, self.cells, self.conversions, self.minute
        mature_before = self._mature_before(self.watermark_ms)
        sums = [np.zeros((len(rows), MINUTE_COUNTS), np.int64) for _ in range(2)]
        mature = [np.zeros((len(rows), 2), np.int64) for _ in range(2)]
        for width, of_window, of_mature in zip(WIDTHS, sums, mature, strict=True):
            window(rows, minute, width, cells.keys, cells.counts, of_window, of_mature, mature_before)
        today, reached_today, homes_today = self.days.of_today(len(row_columns))
        short, long = self.rolling.reach(rows)
        row_list, day = rows.tolist(), self.days.day_of(minute)
        return Windows(
            rows=self.row_index.names_of(row_list),
            labels=list(map(self.labels.names_of, row_list)),
            latest=row_columns.latest[rows],
            since=self.flights.since_ms(rows),
            sums=(sums[0], sums[1], today[rows], row_columns.flight[rows]),
            mature=(mature[0], mature[1]),
            reach=(short, long, reached_today.reach(rows), self.reached.reach(rows)),
            totals=row_columns.totals[rows],
            credits=conversions.credits.windows_of(rows, minute, day),
            currencies=list(map(row_columns.currencies.get, row_list)),
            frequency=list(map(row_columns.frequencies.get, row_list)),
            accounts=list(map(row_columns.accounts.get, row_list)),
            delivered=[
                self.flights.delivered(row) if planned else None
                for row, planned in zip(row_list, row_columns.planned[rows].tolist(), strict=True)
            ],
            bases=row_columns.bases[rows],
            sides=self.sides.windows_of(rows, minute, day),
            delays=list(map(self.delays.median_s, row_list)),
            homes=(homes_today.reach(rows), self.homes.reach(rows)),
            turned=np.zeros(len(rows), bool),
        )


def _chosen(chosen: Any, *columns: Any) -> Any:
    """The chosen places of columns. If all are chosen, as usual, nothing is copied."""
    return columns if chosen.all() else tuple(column[chosen] for column in columns)
