"""The numbers of rows and minutes at a cut, which `flows.rows.row_shard` counts and `flows.rows` shows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flows.model.messages import ConversionAccount, Delivered
from flows.rows.row_columns import Frequency
from flows.rows.sparse_cells import SparseWindows
from flows.state.arrays import I64


class Windows(NamedTuple):
    """The numbers of some rows at one cut. The windows are 5m, 1h, 1d and flight.

    Attributes:
        since: the flight's first event time, or the plan's start for a planned placement; 0 without one.
        sums: by window, (rows, MINUTE_COUNTS).
        mature: (rows, 2) starts and completes of 5m and 1h.
        reach: by window, (rows,).
        totals: (rows, FLIGHT_COUNTS).
        credits: the columns of `flows.model.conversion_columns.COLUMNS`.
        currencies: the currency of the credits' value.
        frequency: by class listeners and millionths of conversions; None for a row that is no campaign.
        accounts: the conversions that name the row; None for a row that is no campaign.
        delivered: None without a plan.
        bases: the bases of valid impressions, one bit each.
        sides: the columns of `flows.model.basis.SIDES`.
        delays: medians in seconds; None for a row that is no platform.
        homes: (rows,) households reached in 1d and flight.
        turned: the rows that time alone has changed.
    """

    rows: list[tuple[str, str]]
    labels: list[tuple[str | None, ...]]
    latest: I64
    since: I64
    sums: tuple[I64, I64, I64, I64]
    mature: tuple[I64, I64]
    reach: tuple[I64, I64, I64, I64]
    totals: I64
    credits: SparseWindows
    currencies: list[str | None]
    frequency: list[Frequency | None]
    accounts: list[ConversionAccount | None]
    delivered: list[Delivered | None]
    bases: I64
    sides: SparseWindows
    delays: list[str | None]
    homes: tuple[I64, I64]
    turned: npt.NDArray[np.bool_]

    def part(self, places: slice) -> Windows:
        """The numbers of some of the rows."""
        return Windows(*(_part(column, places) for column in self))


def _part(column: Any, places: slice) -> Any:
    """The chosen part of an array by row, or of each array in a tuple."""
    if isinstance(column, SparseWindows):
        return column.part(places)
    return tuple(array[places] for array in column) if isinstance(column, tuple) else column[places]


class Minutes(NamedTuple):
    """Placements' minutes that are due at a cut.

    Attributes:
        placements, minutes: ids, and minutes since the epoch.
        credits: None without credits.
        clients: the counts of `flows.model.client_counts.FINAL_AT`; None without counts.
    """

    placements: list[str]
    minutes: list[int]
    counts: I64
    credits: list[I64 | None]
    final: bool
    clients: list[list[int] | None]
