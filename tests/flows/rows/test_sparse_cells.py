"""Counts that few pixels add to equal those of a plain dictionary, over drops, row ends and restarts."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from flows.rows.sparse_cells import SparseCells
from flows.state import journal
from flows.state.journal import Files

DAY, BEGIN, COLUMNS, ROWS = 20, 29_000_000, 3, 4
WIDTHS = {"5m": 5, "1h": 60}


@pytest.mark.parametrize("seed", range(12))
def test_windows_are_those_of_all_increments(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 500)
    monkeypatch.setattr(journal, "COMPACTION_SLACK", 4)
    rng, sparse, files = random.Random(seed), SparseCells(COLUMNS), Files(tmp_path)
    every: list[tuple[int, int, int, int]] = []
    flight = {row: Counter[int]() for row in range(ROWS)}
    seen = set[int]()
    for minute in range(BEGIN, BEGIN + 150):
        some = [
            (rng.randrange(ROWS), minute - rng.randrange(30), rng.randrange(COLUMNS), rng.randint(-1, 3))
            for _ in range(rng.choice((0, 0, 1, 5)))
        ]
        every += some
        rows, minutes, columns, amounts = np.array(some, np.int64).reshape(-1, 4).T.copy()
        flown = minutes > BEGIN
        sparse.add(rows.astype(np.uint32), minutes, minutes // DAY, flown, columns, amounts)
        for row, at, column, amount in some:
            flight[row][column] += amount * (at > BEGIN)
            seen.add(row)
        if rng.random() < 0.1 and seen:
            row, start = rng.choice(sorted(seen)), minute - 10
            sparse.restart_flight(row, start)
            flight[row] = Counter()
            for of, at, column, amount in every:
                flight[row][column] += amount * (of == row and at >= start)
        sparse.drop_expired(minute - 60, (minute - 30) // DAY)
        if rng.random() < 0.3:
            state = sparse.cells.snapshot(files)
            files.keep(sparse.cells.journal.file_names())
            sparse = SparseCells(COLUMNS)
            sparse.cells.restore(state, files)
            sparse.drop_expired(minute - 60, (minute - 30) // DAY)
        shown = sparse.windows_of(np.arange(ROWS), minute, minute // DAY)
        assert shown.rows.tolist() == sorted(seen)
        for place, row in enumerate(shown.rows.tolist()):
            for name, sums in shown.sums.items():
                want = Counter[int]()
                for of, at, column, amount in every:
                    if name in WIDTHS:
                        inside = minute - WIDTHS[name] < at <= minute
                    else:
                        inside = at // DAY == minute // DAY
                    want[column] += amount * (of == row and inside)
                want = flight[row] if name == "flight" else want
                assert sums[place].tolist() == [want[column] for column in range(COLUMNS)], name


def test_a_row_that_ends_takes_its_flight_along_and_leaves_none(tmp_path: Path) -> None:
    sparse, files = SparseCells(COLUMNS), Files(tmp_path)
    one, at = np.ones(2, np.int64), np.full(2, BEGIN)
    sparse.add(np.array([0, 1], np.uint32), at, at // DAY, one, one, 7 * one)
    sparse.cells.snapshot(files)
    sparse.drop_expired(BEGIN + 1, BEGIN)
    taken = sparse.cells.take_out([1])
    sparse.cells.put_back(2, taken[1])
    state = sparse.cells.snapshot(files)
    again = SparseCells(COLUMNS)
    again.cells.restore(state, files)
    again.drop_expired(BEGIN + 1, BEGIN)
    shown = again.windows_of(np.arange(3), BEGIN + 1, BEGIN + 1)
    assert shown.rows.tolist() == [0, 2]
    assert shown.sums["flight"].tolist() == [[0, 7, 0], [0, 7, 0]]


def test_a_part_of_the_rows_has_their_sums() -> None:
    sparse = SparseCells(COLUMNS)
    rows = np.array([1, 3, 4])
    sparse.add(rows.astype(np.uint32), 0 * rows, 0 * rows, 1, 0 * rows, rows)
    part = sparse.windows_of(np.arange(6), 0, 0).part(slice(3, 5))
    assert part.rows.tolist() == [0, 1]
    assert part.sums["flight"][:, 0].tolist() == [3, 4]
