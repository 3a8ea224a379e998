"""Rows by minute: each is taken once, at its minute, whenever it came."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flows.state.by_minute import ByMinute


@given(st.lists(st.tuples(st.lists(st.integers(0, 20)), st.integers(0, 25), st.booleans())))
def test_each_row_is_returned_once_in_order_of_arrival(
    steps: list[tuple[list[int], int, bool]],
) -> None:
    waiting, expected, number = ByMinute(), list[tuple[int, int]](), 0
    for minutes, end, saves in steps:
        numbers = np.arange(number, number + len(minutes))
        number += len(minutes)
        waiting.add(np.array(minutes, np.int64), np.array(minutes, np.int64), numbers)
        expected += zip(minutes, numbers.tolist(), strict=True)
        if saves:
            packed = [[np.frombuffer(body, np.int64).tolist() for body in one] for one in waiting.packed()]
            saved = [pair for one in packed for pair in zip(*one, strict=True)]
            assert sorted(saved) == sorted(expected)
        taken = [pair for one in waiting.take(end) for pair in zip(*(c.tolist() for c in one), strict=True)]
        assert taken == sorted(pair for pair in expected if pair[0] < end)
        expected = [pair for pair in expected if pair[0] >= end]
        assert len(waiting) == len(expected)
