"""A placement's open day is published in turns, whatever the distance of the cuts' numbers."""

from __future__ import annotations

import numpy as np
import pytest

from flows.rows.day_counts import TURNS, DayCounts
from flows.rows.row_columns import RowColumns
from flows.rows.row_index import Limits, RowIndex
from flows.settings import UNWATCHED


@pytest.mark.parametrize("every", range(1, UNWATCHED + 1))
def test_each_open_day_is_published_within_one_round_of_cuts(every: int) -> None:
    columns, index, rows = RowColumns(), RowIndex(Limits(rows=400)), np.arange(300, dtype=np.uint32)
    columns.make_room(len(rows))
    columns.is_placement[: len(rows)] = True
    index.names = [("placement", f"p{row}") for row in rows]
    counts, published = DayCounts(lambda minute: 700_000), set[str]()
    counts.count(columns, rows, np.full(len(rows), 5, np.uint32), np.ones(len(rows), np.int64))
    for number in range(0, TURNS * every, every):
        for day in counts.due(index, 5, number, everything=False):
            assert published.isdisjoint(day.placements)
            published.update(day.placements)
    assert len(published) == len(rows)
