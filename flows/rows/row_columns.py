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
"""The number of listeners from which on a placement without a plan has a published sketch: fewer have no
overlap.
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
    """Take the times of some rows' pixels. `newest` is the time of the last of all pixels, repeated,
    late or invalid ones included. This time is 0 without a pixel, as when an orphan is settled.
    """
    for i in range(len(rows)):
        row = rows[i]
        changed[row] = True
        latest_of[row] = max(latest_of[row], latest[i])
        if first[i] != 0 and (first_of[row] == 0 or first[i] < first_of[row]):
            first_of[row] = first[i]
        last_minutes[row] = max(last_minutes[row], newest[i] // 60_000)


class RowColumns(Rows):
    """The columns; all times of minutes are since the epoch.

    Attributes:
        flight: (rows, MINUTE_COUNTS) counts of the flight.
        totals: (rows, FLIGHT_COUNTS).
        latest, first: greatest and least event time, ms; 0 without one.
        flight_from, flight_end: minutes of the plan, or of the latest one; 0 if there never was one.
        counted_from, counted_to: the ones by which the flight is known.
        own_from: the minute up to which a row may have had pixels that it does not count.
        overrun: impressions after the flight's end.
        parted_from: the minute of the plan from which on impressions count on top of its opening balance; 0
            without one.
        parted_known: the `parted_from` by which `before` is known.
        before: impressions of the flight, without those of `overrun`, in minutes before `parted_known`.
        last_minutes: the minute of the last pixel or credit.
        bases: of its valid impressions, a bit each.
        planned: 1 while a plan is in force.
        given_reach, published_at: reach and minute of the sketch that readers have.
        changed: since the last cut, by new messages.
        turned: since the last cut, by time.
        unpublished: changed or turned since the last cut that readers got.
        fresh: changed since then.
        unsaved: the journal (`flows.state.record_journal`) lacks its present values.
        alive: the row exists.
        label_names: of a placement, the names of `SCOPES` behind its own, up to the last known one.
        label_times: the event time of each, ms.
        currencies: of the credits' value.
        frequencies: of a campaign, listeners and millionths of conversions by class.
        accounts: of a campaign.
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
    given_reach, published_at = unsaved_numbers(), unsaved_numbers()
    changed, turned, unpublished, fresh, unsaved = flags(), flags(), flags(), flags(), flags()
    is_placement, alive = flags(), flags()

    def __init__(self) -> None:
        super().__init__(ROOM)

    def note(self, rows: U32, latest: I64, first: I64, newest: I64) -> None:
        """Take the times of the latest and first pixels of `rows`, and of the last of all; see `RowBatch`."""
        _note(rows, latest, first, newest, self.latest, self.first, self.last_minutes, self.changed)

    def due_sketches(self, rows: I64, reach: I64, minute: int, ended: bool) -> npt.NDArray[np.bool_]:
        """Mark the rows whose sketch is to be published at a minute, and note it as published."""
        given_reach, published_at = self.given_reach[rows], self.published_at[rows]
        due = reach > given_reach * (1.0 if ended else 1.01)
        due |= (reach > 0) & (minute - published_at >= 1440) & (self.latest[rows] // 60_000 > published_at)
        due &= (reach >= SKETCH_FROM) | (self.planned[rows] > 0) | (given_reach != 0)
        self.given_reach[rows[due]], self.published_at[rows[due]] = reach[due], minute
        return due
