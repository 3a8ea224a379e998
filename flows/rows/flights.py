"""The flights of planned placements. A new or changed plan recounts its placement's flight by the minutes
that are still stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from flows.model.counts import HELD_COLUMN, REPAIRED
from flows.model.events import IMPRESSION, OF_PLAY
from flows.model.messages import Delivered
from flows.rows.cells import FINAL, Cells, split
from flows.rows.reach import Distinct
from flows.rows.rolling_reach import Rolling
from flows.rows.row_columns import RowColumns
from flows.rows.row_conversions import RowConversions
from flows.rows.side_cells import SideCells
from flows.state.arrays import I64

FOREVER: Final = 1 << 40
"""A minute that no flight reaches."""
UNKNOWN: Final = -1
"""The unknown end that a flight counts to."""


@dataclass
class Flights:
    """The tables of a row shard that count a flight. `reached` has the listeners, and `homes` the households,
    of each flight.
    """

    columns: RowColumns
    cells: Cells
    conversions: RowConversions
    sides: SideCells
    rolling: Rolling
    reached: Distinct
    homes: Distinct

    def plan(
        self,
        row: int,
        start: int,
        end: int,
        first_open: int,
        parted: int = 0,
        of_days: Callable[[int], int | None] = lambda minute: None,
    ) -> None:
        """Count a row's flight from the minute `start` on, and its delivery to before the minute `end`; see
        `flows.rows.row_shard.RowShard.plan`.

        Args:
            of_days: returns the row's impressions from a minute on; None if no open day begins at that
                minute.
        """
        columns = self.columns
        before = int(columns.flight_from[row]), int(columns.flight_end[row])
        same = (start, end) == before and parted == columns.parted_from[row]
        if same and columns.planned[row]:
            return
        columns.planned[row], columns.changed[row] = 1, True
        if same:
            return
        oldest = min(first_open, self.rolling.known_from)
        since = self._since(row) if parted == columns.parted_from[row] else None
        if since is not None and end != before[1]:
            since = self._till_another_end(row, since, before[1], end, oldest)
        if (start, end) != before:
            self._move(row, start, end, oldest)
        if parted and since is None:
            since = self._since_minute(row, parted, end, oldest, of_days)
        columns.parted_from[row], columns.parted_known[row] = parted, parted if since is not None else 0
        flown = columns.flight[row, IMPRESSION] - columns.overrun[row]
        columns.before[row] = flown - (since or 0) if parted else 0

    def _move(self, row: int, start: int, end: int, oldest: int) -> None:
        """Set another flight of a row; minutes before `oldest` are forgotten."""
        columns = self.columns
        before = int(columns.flight_from[row]), int(columns.flight_end[row])
        columns.flight_from[row], columns.flight_end[row] = start, end
        if columns.latest[row] or self.conversions.credits.has_counts(row):
            self._recount(row, *before, oldest)
        else:
            columns.counted_from[row], columns.counted_to[row] = start, max(start, end)
        if start < columns.own_from[row]:
            columns.counted_from[row] = max(columns.counted_from[row], columns.own_from[row])

    def _since(self, row: int) -> int | None:
        """The delivery of a row's flight from the minute where it is split on; None if it is not split, or
        the delivery is unknown.
        """
        columns = self.columns
        is_known = columns.parted_from[row] and columns.parted_known[row] == columns.parted_from[row]
        return (
            int(columns.flight[row, IMPRESSION] - columns.overrun[row] - columns.before[row])
            if is_known
            else None
        )

    def _since_minute(
        self, row: int, minute: int, end: int, oldest: int, of_days: Callable[[int], int | None]
    ) -> int | None:
        """The delivery of a row's flight from one of its minutes on, to before the minute `end`; None if it
        cannot be separated.
        """
        columns = self.columns
        if minute < columns.own_from[row]:
            return None
        if minute >= oldest:
            return self._impressions(row, minute, end)
        since, over = of_days(minute), self._impressions(row, end) if end >= oldest else of_days(end)
        if since is not None and over is not None:
            return since - over
        # All impressions of a known flight may be from after the minute.
        is_known = columns.counted_from[row] == columns.flight_from[row] and columns.counted_to[row] == end
        behind = not columns.latest[row] or (
            columns.first[row] > 0 and columns.first[row] // 60_000 >= minute
        )
        return int(columns.flight[row, IMPRESSION] - columns.overrun[row]) if is_known and behind else None

    def _till_another_end(self, row: int, since: int, before: int, end: int, oldest: int) -> int | None:
        """The delivery `since` up to `before`, converted to the end `end`; None if minutes between the two
        ends are forgotten.
        """
        if min(before, end) < oldest:
            return None
        between = self._impressions(
            row, max(min(before, end), int(self.columns.parted_from[row])), max(before, end)
        )
        return since + between if end > before else since - between

    def _impressions(self, row: int, start: int, end: int = FOREVER) -> int:
        """The impressions of a row's stored minutes from `start` on, to before `end`."""
        rows, minutes = split(self.cells.keys)
        chosen = (self.cells.keys != 0) & (rows == row) & (minutes >= start) & (minutes < end)
        return int(self.cells.counts[chosen, IMPRESSION].sum())

    def withdraw(self, row: int, minute: int, first_open: int) -> None:
        """Remove a row's plan, at the watermark's `minute`. A flight that has begun keeps its start: if the
        plan returns, its flight is unchanged. A flight that has not begun becomes a flight of all known
        minutes of the row.
        """
        columns = self.columns
        if columns.flight_from[row] > minute:
            self.plan(row, 0, FOREVER, first_open)
        columns.planned[row], columns.changed[row] = 0, True

    def _recount(self, row: int, before: int, before_end: int, oldest: int) -> None:
        """Recount a row's flight by its new start and end. The flight was counted from `before` to before
        `before_end` (0: without an end). `counted_from` and `counted_to` record the start and end of the
        known counts. Minutes before `oldest` are forgotten.
        """
        columns = self.columns
        start = int(columns.flight_from[row])
        end = max(start, int(columns.flight_end[row]))
        rows, minutes = split(self.cells.keys)
        chosen = (self.cells.keys != 0) & (rows == row) & (minutes >= oldest)
        minutes, counts = minutes[chosen], self._counts(chosen)
        over = counts[minutes >= end, IMPRESSION].sum()
        if max(start, columns.counted_from[row]) >= oldest:  # no forgotten minute is in the flight
            begun = max(start, oldest)
            columns.flight[row] = counts[minutes >= begun].sum(axis=0)
            columns.overrun[row] = counts[minutes >= max(begun, end), IMPRESSION].sum()
            self.conversions.credits.restart_flight(row, begun)
            self.sides.restart_flight(row, begun)
            self._recount_reach(row, begun)
            columns.counted_from[row], columns.counted_to[row] = begun, end
        else:
            last = max(before, before_end) if before_end else FOREVER
            forgotten = columns.flight[row, IMPRESSION] - counts[:, IMPRESSION].sum()
            forgotten_over = columns.overrun[row] - counts[minutes >= last, IMPRESSION].sum()
            columns.overrun[row] = forgotten_over + over
            ends = sorted((end, last))
            between = forgotten_over if end == ends[1] else forgotten - forgotten_over
            # A flight that was counted to an unknown end stays unknown while any of it is forgotten.
            is_known = (int(columns.counted_to[row]) or FOREVER) == last and (
                ends[0] >= oldest or not between
            )
            columns.counted_to[row] = end if is_known or not forgotten else UNKNOWN
        if not columns.first[row] or columns.first[row] // 60_000 >= max(start, columns.counted_from[row]):
            columns.counted_from[row] = start  # no pixel came before either

    def _counts(self, slots: Any) -> I64:
        """The counts of cells that a flight includes; some are added only when the minute is final."""
        counts: I64 = self.cells.counts[slots].copy()
        final = self.cells.flags[slots] & FINAL != 0
        counts[~final, REPAIRED] = 0
        for code in OF_PLAY:
            counts[final, code] += counts[final, code + HELD_COLUMN]
            counts[final, code + HELD_COLUMN] = 0
        return counts

    def _recount_reach(self, row: int, start: int) -> None:
        """Recount a flight's reach by its minutes from `start` on. The rolling table has 60 minutes: with a
        longer lateness, earlier listeners stay counted. The minutes of households are unknown: for a flight
        that has not begun, all earlier households are dropped.
        """
        if start > int(self.columns.latest[row]) // 60_000:
            self.homes.clear(row)
        known_from, n_rows = self.rolling.known_from, len(self.columns)
        if start >= known_from:
            self.reached.clear(row)
        listener_hashes, registers = self.rolling.since(row, max(start, known_from))
        self.reached.add(np.full(len(listener_hashes), row, np.uint32), listener_hashes, n_rows)
        if registers is not None:
            self.reached.merge(row, registers, n_rows)
        if self.columns.published_reach[row]:
            self.columns.published_reach[row] = -1  # the published sketch must be replaced

    def since_ms(self, rows: I64) -> I64:
        """The time from which the flights of `rows` count, in epoch ms: the first pixel of the row, or the
        minute from which its flight is known.
        """
        columns = self.columns
        first, known_ms = columns.first[rows], columns.counted_from[rows] * 60_000
        later = (known_ms > 0) & ((columns.planned[rows] > 0) | (first > 0) & (first < known_ms))
        return np.where(later, known_ms, first)

    def delivered(self, row: int) -> Delivered:
        """The impressions that a planned placement has delivered."""
        columns = self.columns
        start, end = int(columns.flight_from[row]), int(columns.flight_end[row])
        is_known = columns.counted_from[row] == start and columns.counted_to[row] == max(start, end)
        return Delivered(
            start,
            end,
            int(columns.flight[row, IMPRESSION] - columns.overrun[row]) if is_known else None,
            int(columns.parted_from[row]),
            self._since(row),
        )
