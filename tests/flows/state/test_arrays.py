"""Arrays with pages of their own (`flows.state.arrays`)."""

from __future__ import annotations

import errno
import mmap
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.state.arrays import consumed, mapped_copy, mapped_zeros
from flows.state.runs import all_rows


@given(st.integers(1, 40_000), st.integers(1, 5))
def test_a_consumed_table_yields_each_row_once_in_order(rows: int, words: int) -> None:
    for table in (mapped_zeros((rows * 8, words), np.uint64), np.zeros((rows, words), np.uint64)):
        table[:, 0] = np.arange(len(table))
        parts = [part[:, 0].copy() for part in consumed(table)]
        assert np.array_equal(np.concatenate(parts), np.arange(len(table)))


@pytest.mark.skipif(sys.platform != "linux", reason="freed pages read as zeros on Linux alone")
def test_the_pages_of_a_consumed_table_are_free() -> None:
    table = mapped_zeros((1 << 20, 4), np.uint64)
    table[:] = 7
    parts = consumed(table)
    next(parts)
    next(parts)
    assert not table[: (1 << 22) // 32].any(), "the first part, which reads as zeros now"
    assert table[(1 << 22) // 32 :].all()
    list(parts)
    assert not table.any()


def test_a_table_works_where_the_system_refuses_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without huge pages refuses that advice, and locked pages are not freed, both with `EINVAL`."""

    class Refusing(mmap.mmap):
        def madvise(self, *_: Any) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Refusing)
    table = mapped_zeros((1 << 20, 4), np.uint64)
    assert not table.any()
    table[:, 0] = np.arange(1 << 20)
    assert np.array_equal(np.concatenate([part[:, 0] for part in consumed(table)]), np.arange(1 << 20))


def test_a_view_of_a_mapped_table_is_not_freed() -> None:
    table = mapped_zeros((1 << 20, 4), np.uint64)
    table[:] = 7
    list(consumed(table[: 1 << 19]))
    assert table.all()


def test_a_merged_run_has_pages_of_its_own_once() -> None:
    keys = np.arange(1 << 18, dtype=np.uint64)
    merged, words = all_rows((keys, keys), (keys, keys + np.uint64(1)))
    assert np.array_equal(merged, np.repeat(keys, 2))
    assert np.array_equal(words, (keys[:, None] + np.array([0, 1], np.uint64)).ravel())
    assert mapped_copy(merged) is merged
    assert mapped_copy(keys) is not keys
