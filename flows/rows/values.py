"""The numbers of rows and minutes at a cut: what `flows.rows.shard` counts and `flows.rows` shows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flows.model.messages import ConversionAccount, Delivered
from flows.state.kernel import I64


class Windows(NamedTuple):
    """The numbers of some rows at one cut.

    `sums[w]` are (rows, MINUTE_COUNTS) by window, `mature[w]` (rows, 2) starts and completes, `reach[w]`
    (rows,), for w in 5m, 1h, 1d, flight (no `mature` for the last two); `since` is the flight's first event
    time, of a planned placement the plan's start, 0 for none; `totals` are (rows, FLIGHT_COUNTS);
    `credits[row][w]` are what `flows.attribution.credit_book.COLUMNS` name, None for nothing;
    `currencies[row]` is that of their value; `frequency[row]` are (2, classes) listeners and millionths of
    conversions, and `accounts[row]` the conversions that name it, None for what is no campaign;
    `delivered[row]` is None for what has no plan; `bases` are of valid impressions, a bit each, and
    `sides[row][w]` the counts of `flows.model.basis.SIDES`, None for nothing; `delays` are medians in
    seconds, None for what is no platform; `homes` are (rows,) households reached in 1d and flight;
    `turned` are those that time alone has changed.
    """

    rows: list[tuple[str, str]]
    labels: list[tuple[str | None, ...]]
    latest: I64
    since: I64
    sums: tuple[I64, I64, I64, I64]
    mature: tuple[I64, I64]
    reach: tuple[I64, I64, I64, I64]
    totals: I64
    credits: list[list[I64 | None]]
    currencies: list[str | None]
    frequency: list[I64 | None]
    accounts: list[ConversionAccount | None]
    delivered: list[Delivered | None]
    bases: I64
    sides: list[list[I64 | None]]
    delays: list[str | None]
    homes: tuple[I64, I64]
    turned: npt.NDArray[np.bool_]

    def part(self, some: slice) -> Windows:
        """The numbers of some of the rows."""
        return Windows(*(_part(of, some) for of in self))


def _part(of: Any, some: slice) -> Any:
    """Of what is by row, or of each of several that are."""
    return tuple(one[some] for one in of) if isinstance(of, tuple) else of[some]


class Minutes(NamedTuple):
    """Placements' minutes that are due at a cut: ids, minutes since the epoch, counts, credits (None for
    nothing), whether final, and the counts of `flows.model.clients.FINAL_AT` (None for nothing).
    """

    placements: list[str]
    minutes: list[int]
    counts: I64
    credits: list[I64 | None]
    final: bool
    clients: list[list[int] | None]
