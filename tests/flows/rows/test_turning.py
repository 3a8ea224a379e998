"""Rows that only time has changed are given out in parts, in turn, whatever turns meanwhile."""

from __future__ import annotations

import numpy as np

from flows.rows.turning import Turning


def test_rows_turning_again_come_last() -> None:
    turning, rows = Turning(most=2), np.arange(5)
    given = [(turning.part(rows, now).tolist(), turning.whole_ms) for now in range(10, 17)]
    assert given == [
        ([0, 1], 0),
        ([2, 3], 0),
        ([4], 10),
        ([0, 1], 10),
        ([2, 3], 10),
        ([4], 13),
        ([0, 1], 13),
    ]


def test_few_rows_are_no_part() -> None:
    turning = Turning(most=2)
    assert (turning.part(np.array([3, 7]), 10).tolist(), turning.whole_ms) == ([3, 7], 10)
    assert (turning.part(np.array([], np.int64), 11).tolist(), turning.whole_ms) == ([], 11)


def test_the_last_cut_waits_for_no_part() -> None:
    turning = Turning(most=2)
    assert turning.part(np.arange(5), 10).tolist() == [0, 1]
    given = turning.part(np.arange(2, 5), 11, whole=True)
    assert (given.tolist(), turning.whole_ms) == ([2, 3, 4], 11)


def test_rows_changed_by_pixels_meanwhile_end_a_round() -> None:
    turning = Turning(most=2)
    assert turning.part(np.array([1, 3, 5]), 10).tolist() == [1, 3]
    assert (turning.part(np.array([0, 1, 2]), 11).tolist(), turning.whole_ms) == ([], 10)
    assert (turning.part(np.array([0, 1, 2]), 12).tolist(), turning.whole_ms) == ([0, 1], 10)
