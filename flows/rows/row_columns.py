"""The numbers of a shard's rows, as arrays by row number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flows.model.counts import FLIGHT_COUNTS, MINUTE_COUNTS
from flows.state import snapshot
from flows.state.arrays import I64, U32, doubled
from flows.state.kernel import lean

ROOM: Final = 64
SKETCH_FROM: Final = 100
"""The number of listeners from which on a placement without a plan has a published sketch: fewer have no
overlap.
"""
KEPT: Final = (
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
    "parted_from",
    "parted_known",
    "before",
    "heard",
    "bases",
    "planned",
)
"""The columns of a snapshot and of an ended row."""
OTHERS: Final = (
    "given_reach",
    "published_at",
    "changed",
    "turned",
    "unpublished",
    "fresh",
    "unsaved",
    "is_placement",
    "alive",
)
ROW_BYTES: Final = 8 * (MINUTE_COUNTS + FLIGHT_COUNTS + len(KEPT) - 2)
"""The size of a row's columns in a snapshot."""


@lean
def _note(
    rows: U32, latest: I64, first: I64, came: I64, latest_of: I64, first_of: I64, heard: I64, changed: Any
) -> None:
    """Take the times of some rows' pixels. `came` is the time of the last of all pixels, including repeated,
    late or invalid ones. This time is 0 without a pixel, as when an orphan is settled.
    """
    for i in range(len(rows)):
        row = rows[i]
        changed[row] = True
        latest_of[row] = max(latest_of[row], latest[i])
        if first[i] != 0 and (first_of[row] == 0 or first[i] < first_of[row]):
            first_of[row] = first[i]
        heard[row] = max(heard[row], came[i] // 60_000)


class RowColumns:
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
        heard: the minute of the last pixel or credit.
        bases: of its valid impressions, a bit each.
        planned: 1 while a plan is in force.
        given_reach, published_at: reach and minute of the sketch that readers have.
        changed: since the last cut, by new messages.
        turned: since the last cut, by time.
        unpublished: changed or turned since the last cut that readers got.
        fresh: changed since then.
        unsaved: the journal (`flows.rows.row_journal`) lacks its present values.
        alive: the row exists.
    """

    def __init__(self) -> None:
        self.flight, self.totals = (
            np.zeros((ROOM, columns), np.int64) for columns in (MINUTE_COUNTS, FLIGHT_COUNTS)
        )
        self.latest, self.first, self.heard, self.overrun, self.own_from = _numbers(5)
        self.parted_from, self.parted_known, self.before = _numbers(3)
        self.flight_from, self.flight_end, self.counted_from, self.counted_to = _numbers(4)
        self.given_reach, self.published_at, self.bases, self.planned = _numbers(4)
        self.changed, self.unpublished, self.unsaved = (np.zeros(ROOM, bool) for _ in range(3))
        self.turned, self.fresh, self.is_placement, self.alive = (np.zeros(ROOM, bool) for _ in range(4))

    def __len__(self) -> int:
        return len(self.latest)

    def make_room(self, rows: int) -> None:
        """Make room for `rows` rows."""
        while len(self) < rows:
            for name in (*KEPT, *OTHERS):
                setattr(self, name, doubled(getattr(self, name)))

    def note(self, rows: U32, latest: I64, first: I64, came: I64) -> None:
        """Take the times of the latest and first pixels of `rows`, and of the last of all; see `RowBatch`."""
        _note(rows, latest, first, came, self.latest, self.first, self.heard, self.changed)

    def due_sketches(self, rows: I64, reach: I64, minute: int, ended: bool) -> npt.NDArray[np.bool_]:
        """Mark the rows whose sketch is to be published at a minute, and note it as published."""
        given, at = self.given_reach[rows], self.published_at[rows]
        due = reach > given * (1.0 if ended else 1.01)
        due |= (reach > 0) & (minute - at >= 1440) & (self.latest[rows] // 60_000 > at)
        due &= (reach >= SKETCH_FROM) | (self.planned[rows] > 0) | (given != 0)
        self.given_reach[rows[due]], self.published_at[rows[due]] = reach[due], minute
        return due

    def clear(self, rows: list[int]) -> None:
        """Clear places that no longer have a row."""
        for name in (*KEPT, *OTHERS):
            getattr(self, name)[rows] = 0
        self.unsaved[rows] = True

    def of(self, row: int) -> list[Any]:
        """A row's numbers, as plain values."""
        return [getattr(self, name)[row].tolist() for name in KEPT]

    def put(self, row: int, numbers: Iterable[Any]) -> None:
        """Restore the values that `of` returned."""
        for name, number in zip(KEPT, numbers, strict=True):
            getattr(self, name)[row] = number

    def snapshot(self, rows: I64) -> dict[str, Any]:
        """The numbers of `rows` as plain state."""
        return snapshot.pack({name: snapshot.narrow(getattr(self, name)[rows]) for name in KEPT})

    def restore(self, rows: I64, state: dict[str, Any]) -> None:
        """Load `snapshot`'s state of `rows`."""
        self.make_room(int(rows.max(initial=-1)) + 1)
        for name, numbers in snapshot.unpack(state).items():
            getattr(self, name)[rows] = numbers


def _numbers(columns: int) -> Iterable[npt.NDArray[np.int64]]:
    return (np.zeros(ROOM, np.int64) for _ in range(columns))
