"""Sorted runs against a plain list of rows, whatever is added, taken, dropped and restored."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.errors import StateError
from flows.state import runs
from flows.state.journal import Files
from flows.state.runs import Columns, Runs, all_rows, columns_at, latest_rows
from flows.state.saves import decode, encode

Row = tuple[int, int]
"""Key and word."""
SPILL_ROWS = 6


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "SPILL_ROWS", SPILL_ROWS)
    monkeypatch.setattr(runs, "FEW_ROWS", 0)


def columns_of(rows: list[Row]) -> Columns:
    some = np.array(sorted(rows), np.uint64).reshape(-1, 2)
    return some[:, 0].copy(), some[:, 1].astype(np.uint16)


def rows_of(columns: Columns) -> list[Row]:
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def as_keys(*keys: int) -> Any:
    return np.array(sorted(set(keys)), np.uint64)


def restored(before: Runs, files: Files) -> Runs:
    after = Runs(np.uint64, np.uint16)
    after.restore(decode(encode(before.snapshot(files))), files)
    files.keep(after.file_names())
    return after


KEYS = st.integers(1, 12)
DOINGS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.tuples(KEYS, st.integers(0, 99)), max_size=9)),
        st.tuples(st.sampled_from(("take", "drop", "restart", "all")), st.lists(KEYS, max_size=4)),
    ),
    max_size=30,
)


@given(DOINGS, st.booleans())
def test_runs_equal_a_plain_list_of_rows(doings: list[tuple[str, list[Any]]], on_disk: bool) -> None:
    table, rows = Runs(np.uint64, np.uint16), list[Row]()
    with TemporaryDirectory() as name:
        files = Files(Path(name) if on_disk else None)
        for doing, some in doings:
            if doing == "add":
                table.add(columns_of(some), all_rows)
                rows += some
            elif doing == "take":
                assert rows_of(table.take(as_keys(*some))) == sorted(row for row in rows if row[0] in some)
                rows = [row for row in rows if row[0] not in some]
            elif doing == "drop":
                table.drop(lambda columns, some=some: np.isin(columns[1], some))  # type: ignore[misc]
                rows = [row for row in rows if row[1] not in some]
            elif doing == "restart":
                table = restored(table, files)
            else:
                table.add(table.take_all(all_rows), all_rows)
                assert len(list(table)) <= 1
            assert len(table) == len(rows)
            low, high = 3, 7
            assert rows_of(table.rows(as_keys(low), as_keys(high))) == sorted(
                row for row in rows if low <= row[0] <= high
            )
            wanted = as_keys(1, 4, 12)
            assert rows_of(table.rows(wanted, wanted)) == sorted(row for row in rows if row[0] in wanted)


@given(
    st.lists(
        st.tuples(st.dictionaries(KEYS, st.integers(0, 99), max_size=9), st.lists(KEYS, max_size=2)),
        max_size=12,
    )
)
def test_the_newest_row_of_a_key_is_found(batches: list[tuple[dict[int, int], list[int]]]) -> None:
    table, newest = Runs(np.uint64, np.uint16), dict[int, int]()
    for batch, gone in batches:
        table.take(as_keys(*gone))
        newest = {key: word for key, word in newest.items() if key not in gone}
        table.add(columns_of(list(batch.items())), latest_rows)
        newest |= batch
        keys = as_keys(*range(13))
        rows = {key: table.latest_row(key) for key in range(13)}
        assert {key: row[1] for key, row in rows.items() if row is not None} == newest
        places, (found, words) = table.latest(keys)
        assert dict(zip(found.tolist(), words.tolist(), strict=True)) == newest
        assert (keys[places] == found).all()


def test_few_runs_are_searched_and_few_rows_copied() -> None:
    table, copied = Runs(np.uint64, np.uint16), 0
    rng = np.random.default_rng(1)

    def counting(older: Columns, newer: Columns) -> Columns:
        nonlocal copied
        copied += len(older[0]) + len(newer[0])
        return all_rows(older, newer)

    for number in range(1, 1_001):
        keys = rng.integers(0, 1 << 60, 10).astype(np.uint64)
        table.add(columns_at((np.sort(keys), np.zeros(10, np.uint16)), slice(None)), counting)
        assert len(list(table)) <= np.log2(10 * number)
    assert len(table) == 10_000
    assert copied < 10_000 * 2 * np.log2(1_000)


def test_a_file_is_written_once_and_again_after_losing_rows(tmp_path: Path) -> None:
    files, table = Files(tmp_path), Runs(np.uint64, np.uint16)
    table.add(columns_of([(key, 7) for key in range(40)]), all_rows)
    table.add(columns_of([(1, 8)]), all_rows)
    (name, by_value), (no_name, small) = table.snapshot(files)
    files.keep(table.file_names())
    assert (bool(name), by_value, no_name, len(small)) == (True, b"", "", 10)
    first = (tmp_path / name).stat().st_mtime_ns
    assert table.snapshot(files)[0][0] == name
    files.keep(table.file_names())
    assert (tmp_path / name).stat().st_mtime_ns == first
    table.take(as_keys(3))
    assert table.snapshot(files)[0][0] not in (name, "")
    files.keep(table.file_names())
    table.change(lambda columns: (columns[0], columns[1] + np.uint16(1)))
    (_, word) = table.rows(as_keys(1), as_keys(1))
    assert word.tolist() == [8, 9]
    table.clear()
    assert (len(table), table.nbytes, table.file_names()) == (0, 0, [])


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    files, table = Files(tmp_path), Runs(np.uint64, np.uint16)
    table.add(columns_of([(key, 7) for key in range(40)]), all_rows)
    state = table.snapshot(files)
    files.keep(table.file_names())
    path = tmp_path / state[0][0]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StateError, match="is damaged"):
        table.restore(state, Files(tmp_path))


def test_runs_before_a_mark_go_whole() -> None:
    table = Runs(np.uint64, np.uint16, mark=lambda columns: int(columns[1].max()))
    table.add(columns_of([(key, 5) for key in range(8)]), all_rows)
    table.add(columns_of([(1, 9), (2, 1)]), all_rows)
    table.drop_before(6)
    assert rows_of(table.take_all(all_rows)) == [(1, 9), (2, 1)]
    assert len(table) == 0
