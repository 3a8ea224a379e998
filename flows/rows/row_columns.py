"""The columns of a shard's rows, by row number."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from flows.model.counts import FLIGHT_COUNTS, MINUTE_COUNTS
from flows.model.messages import ConversionAccount
from flows.state.arrays import I64, U32
from flows.state.kernel import lean
from flows.state.rows import Rows, flags, numbers, unsaved_numbers, values

ROOM: Final = 64
Frequency: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]
SKETCH_FROM: Final = 100
"""The number of listeners from which a placement without a plan has a published sketch. With fewer, its
overlap means nothing.
"""


@lean
def _note(
    rows: U32,
    latest: I64,
    first: I64,
    newest: I64,
    latest_of: I64,
    first_of: I64,
    last_minutes: I64,
    changed: Any,
) -> None:
    """Take the times of the pixels of some rows. `newest` is the time of the last pixel, including repeated,
    late and invalid pixels; 0 without a pixel, as when an orphan is settled.
    """
    for i in range(len(rows)):
        row = rows[i]
        changed[row] = True
        latest_of[row] = max(latest_of[row], latest[i])
        if first[i] != 0 and (first_of[row] == 0 or first[i] < first_of[row]):
            first_of[row] = first[i]
        last_minutes[row] = max(last_minutes[row], newest[i] // 60_000)


class RowColumns(Rows):
    """The columns, by row number. All minutes are counted since the epoch.

    Attributes:
        flight: (rows, MINUTE_COUNTS) counts of the flight.
        totals: (rows, FLIGHT_COUNTS).
        latest, first: greatest and least event time, ms; 0 without one.
        flight_from, flight_end: minutes of the present or last plan; 0 without a plan so far.
        counted_from, counted_to: the first minute of the flight's counts, and the end that they are split by.
        own_from: before this minute the row may have had pixels that it does not count.
        overrun: impressions after the flight's end.
        parted_from: the minute from which impressions are added to the plan's opening balance; 0 without one.
        parted_known: the `parted_from` by which `before` is known.
        before: impressions of the flight, without those of `overrun`, in minutes before `parted_known`.
        last_minutes: the minute of the last pixel or credit.
        bases: the bases of the row's valid impressions, one bit each.
        planned: 1 while a plan is in force.
        published_reach, published_at: reach and minute of the last published sketch.
        changed: changed since the last cut by new messages.
        turned: changed since the last cut by time.
        unpublished: changed or turned since the last published cut.
        fresh: changed since the last published cut.
        unsaved: the journal (`flows.state.record_journal`) lacks its present values.
        alive: the row exists.
        label_names: of a placement, the names of `SCOPES` after its own, up to the last known name.
        label_times: the event time of each label, ms.
        currencies: the currency of the credits' value.
        frequencies: of a campaign, listeners and millionths of conversions by class.
        accounts: of a campaign, the conversions that name it.
        delays: of a platform, its pixels by class of `flows.model.delays`.
    """

    flight = numbers(MINUTE_COUNTS)
    totals = numbers(FLIGHT_COUNTS)
    latest, first = numbers(), numbers()
    flight_from, flight_end = numbers(), numbers()
    counted_from, counted_to = numbers(), numbers()
    own_from, overrun = numbers(), numbers()
    parted_from, parted_known = numbers(), numbers()
    before, last_minutes = numbers(), numbers()
    bases, planned = numbers(), numbers()
    label_names: dict[int, tuple[str | None, ...]] = values()
    label_times: dict[int, tuple[int, ...]] = values()
    currencies: dict[int, str] = values()
    frequencies: dict[int, Frequency] = values()
    accounts: dict[int, ConversionAccount] = values(lambda account: ConversionAccount(*account))
    delays: dict[int, tuple[int, ...]] = values()
    published_reach, published_at = unsaved_numbers(), unsaved_numbers()
    changed, turned, unpublished, fresh, unsaved = flags(), flags(), flags(), flags(), flags()
    is_placement, alive = flags(), flags()

    def __init__(self) -> None:
        super().__init__(ROOM)

    def note(self, rows: U32, latest: I64, first: I64, newest: I64) -> None:
        """Take the times of the latest and first pixels of `rows`, and of the last pixel of all; see
        `RowBatch`.
        """
        _note(rows, latest, first, newest, self.latest, self.first, self.last_minutes, self.changed)

    def due_sketches(self, rows: I64, reach: I64, minute: int, ended: bool) -> npt.NDArray[np.bool_]:
        """Mark the rows whose sketch is due at a minute, and record these sketches as published."""
        published_reach, published_at = self.published_reach[rows], self.published_at[rows]
        due = reach > published_reach * (1.0 if ended else 1.01)
        due |= (reach > 0) & (minute - published_at >= 1440) & (self.latest[rows] // 60_000 > published_at)
        due &= (reach >= SKETCH_FROM) | (self.planned[rows] > 0) | (published_reach != 0)
        self.published_reach[rows[due]], self.published_at[rows[due]] = reach[due], minute
        return due
