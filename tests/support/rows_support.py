"""Messages of a placement shard to a row shard, for tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flows.model.counts import CONSENTED_PLAYS, FLIGHT_COUNTS, MINUTE_COUNTS
from flows.model.events import IMPRESSION
from flows.model.fields import WINDOWS
from flows.model.messages import RowBatch
from flows.model.ticks import Cut
from flows.rows.sparse_cells import SparseWindows

MINUTE = 60_000
ROW = ("placement", "a")

Impressions = list[tuple[int, int]]
"""(minute, listener) each."""


def batch(cut: Cut, impressions: Impressions, row: tuple[str, str] = ROW) -> RowBatch:
    minutes = np.array([minute for minute, _ in impressions], np.uint32)
    who = np.array([listener for _, listener in impressions], np.uint64)
    n, none = len(impressions), np.zeros(0, np.uint32)
    counts, rows = np.zeros((n, MINUTE_COUNTS), np.int64), np.zeros(n, np.uint32)
    counts[:, [IMPRESSION, CONSENTED_PLAYS]] = 1
    latest = np.array([int(minutes.max(initial=0)) * MINUTE] if n else [], np.int64)
    first = np.array([int(minutes.min()) * MINUTE] if n else [], np.int64)
    totals = np.zeros((0, FLIGHT_COUNTS), np.int64)
    names = [row] if n else []
    return RowBatch(
        0, 0, cut, names, latest, rows, minutes, counts, none, totals, rows, minutes, who, [], first, latest
    )


def windows_of(sparse: SparseWindows, place: int) -> list[npt.NDArray[np.int64] | None]:
    """The counts of the row at a place by window of `WINDOWS`; None for a row without counts."""
    (found,) = np.nonzero(sparse.rows == place)
    sums = [sparse.sums[name][found] if name in sparse.sums else np.zeros((0, 0)) for name in WINDOWS]
    return [of[0] if len(of) else None for of in sums]
