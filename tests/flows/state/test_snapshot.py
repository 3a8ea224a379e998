"""Arrays in snapshots: as small as their numbers are, and the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from flows.rows.row_columns import RowColumns
from flows.state import snapshot

EDGES = [0, 1, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1, -1, -(2**63)]


@given(
    arrays(
        np.int64,
        array_shapes(max_dims=2, min_side=0),
        elements=st.sampled_from(EDGES) | st.integers(-(2**63), 2**63 - 1),
    )
)
def test_narrow_keeps_every_number(numbers: np.ndarray) -> None:
    packed = snapshot.pack({"of": snapshot.narrow(numbers)})
    assert snapshot.unpack(packed)["of"].tolist() == numbers.tolist()


@pytest.mark.parametrize(
    ("most", "size"), [(255, 1), (256, 2), (65_535, 2), (65_536, 4), (2**32, 8), (2**62, 8)]
)
def test_narrow_takes_the_smallest_type(most: int, size: int) -> None:
    assert snapshot.narrow(np.array([0, most])).itemsize == size
    assert snapshot.narrow(np.array([-1, most])).itemsize == 8


def test_columns_of_small_counts_are_small_and_restored_exactly() -> None:
    columns, again, rows = RowColumns(), RowColumns(), np.arange(50)
    columns.flight[rows], columns.totals[rows] = rows[:, None], 200
    columns.latest[rows] = columns.first[rows] = 1_790_000_000_000 + rows
    columns.own_from[3], columns.overrun[4] = -5, 2**40
    state = columns.snapshot(rows)
    assert sum(len(body) for _, _, body in state["numbers"].values()) < len(rows) * columns.row_bytes / 3
    again.restore(rows, state)
    assert again.flight.dtype == columns.flight.dtype
    assert again.take_out(rows.tolist()) == columns.take_out(rows.tolist())
