"""Sorted runs: rows as immutable columns, sorted by the key in the first column.

Rows come in batches. Each batch becomes a run, and runs of similar size are merged, so that a look-up is a
binary search in each of few runs. A snapshot lists small runs by value and large runs by the names of their
files. A file is written once.

The owner defines the columns, and passes the function that merges the columns of two runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from flows.state.arrays import I64, U64, Int, mapped_copy, mapped_zeros
from flows.state.journal import Body, Files, body_of
from flows.state.kernel import lean

RATIO: Final = 2
"""A run is merged with the run before it, unless the earlier run has at least `RATIO` times as many rows and
`FEW_ROWS` more.
"""
FEW_ROWS: Final = 256
"""The number of rows that are always merged: one search in them costs more than one copy of them."""
SPILL_ROWS: Final = 1 << 13
"""The number of rows from which a run becomes a file."""

Columns: TypeAlias = tuple[npt.NDArray[Any], ...]
"""Arrays of one length. The first has the keys, sorted."""
Merge: TypeAlias = Callable[[Columns, Columns], Columns]
"""The columns of an older and a newer run in one run; rows may be left out."""


def columns_at(columns: Columns, rows: Any) -> Columns:
    """The columns of some rows."""
    return tuple(column[rows] for column in columns)


def appended(parts: Iterable[Columns]) -> Columns:
    """The columns of all parts, one after another."""
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def rows_of_both(older: Columns, newer: Columns, rows: I64) -> Columns:
    """The columns at some places of two runs, the older run's places first.

    A long column gets pages of its own, since the merged column does not fit into the memory that the two old
    columns free. The columns are merged one after another, so that only one of them is in memory twice.
    """
    return tuple(_taken(np.concatenate(pair), rows) for pair in zip(older, newer, strict=True))


def _taken(column: npt.NDArray[Any], rows: I64) -> npt.NDArray[Any]:
    out: npt.NDArray[Any] = mapped_zeros((len(rows),), column.dtype.type)
    return column.take(rows, out=out, mode="clip")  # with "raise" numpy makes a copy first


def all_rows(older: Columns, newer: Columns) -> Columns:
    """Merge two runs and keep all rows, of equal keys the older run's first."""
    order = np.argsort(np.concatenate([older[0], newer[0]]), kind="stable")  # a merge: both are sorted
    return rows_of_both(older, newer, order)


def latest_rows(older: Columns, newer: Columns) -> Columns:
    """Merge two runs of unique keys and one more word; equal keys have the newer run's word."""
    (old_keys, old_words), (new_keys, new_words) = older, newer
    most = len(old_keys) + len(new_keys)
    keys, words = np.empty(most, new_keys.dtype), np.empty(most, new_words.dtype)
    n = _merge_latest(old_keys, old_words, new_keys, new_words, keys, words)
    return keys[:n], words[:n]


@lean
def _merge_latest(a_keys: U64, a_words: Any, b_keys: U64, b_words: Any, keys: U64, words: Any) -> Int:
    i = j = n = 0
    while i < len(a_keys) or j < len(b_keys):
        if j == len(b_keys) or (i < len(a_keys) and a_keys[i] < b_keys[j]):
            keys[n], words[n] = a_keys[i], a_words[i]
            i += 1
        else:
            if i < len(a_keys) and a_keys[i] == b_keys[j]:
                i += 1
            keys[n], words[n] = b_keys[j], b_words[j]
            j += 1
        n += 1
    return n


@lean
def _ranges(keys: U64, lows: U64, highs: U64, begins: I64, counts: I64) -> Int:
    """Find the keys in each range from `lows[n]` to `highs[n]`, of which `lows` is sorted. Writes the place
    of the first key of each range to `begins`, and the number of its keys to `counts`. Returns the sum of
    these.
    """
    total = begin = 0
    for n in range(len(lows)):
        end = len(keys)
        while begin < end:
            middle = (begin + end) // 2
            if keys[middle] < lows[n]:
                begin = middle + 1
            else:
                end = middle
        begins[n] = begin
        while begin < len(keys) and keys[begin] <= highs[n]:
            begin += 1
        counts[n] = begin - begins[n]
        total += counts[n]
    return total


class Run:
    """The columns of one run. `name` is the name of its file, or empty; `mark` is the owner's number."""

    def __init__(self, columns: Columns, name: str, mark: int) -> None:
        self._columns, self.name, self.mark = columns, name, mark
        self._taken = np.zeros(0, np.uint8)
        """A bit for each row, set if the row is taken out; empty if none is."""
        self._taken_rows = 0

    def __len__(self) -> int:
        return len(self._columns[0]) - self._taken_rows

    @property
    def columns(self) -> Columns:
        """The columns, without the rows that are taken out."""
        if self._taken_rows:
            self._drop_taken()
        return self._columns

    def _drop_taken(self) -> None:
        is_taken = np.unpackbits(self._taken, count=len(self._columns[0]), bitorder="little")
        self._columns = columns_at(self._columns, is_taken == 0)
        self._taken, self._taken_rows, self.name = self._taken[:0], 0, ""

    @property
    def nbytes(self) -> int:
        """The size of the columns in bytes, including the rows that are taken out and their bits."""
        return sum(column.nbytes for column in (*self._columns, self._taken))

    def rows(self, lows: U64, highs: U64) -> Columns:
        """The rows whose keys are in one of several sorted ranges, both ends included."""
        return columns_at(self.columns, self._places(lows, highs))

    def find(self, keys: U64) -> tuple[npt.NDArray[np.bool_], Columns]:
        """Find the rows of sorted keys, if a key has at most one: a flag for each key, and the rows found."""
        columns = self.columns
        begins, counts, _ = self._ranges(keys, keys)
        return (is_present := counts != 0), columns_at(columns, begins[is_present])

    def row(self, key: np.uint64) -> tuple[Any, ...] | None:
        """The row of a key, if a key has at most one."""
        keys = self._columns[0]
        place = int(keys.searchsorted(key))
        if (
            place == len(keys)
            or keys[place] != key
            or (len(self._taken) and self._taken[place >> 3] >> (place & 7) & 1)
        ):
            return None
        return tuple(column[place] for column in self._columns)

    def take(self, keys: U64) -> Columns:
        """Take out the rows of sorted keys. The memory is freed once over half of the run is taken out."""
        places = self._places(keys, keys)
        if len(self._taken):
            places = places[self._taken[places >> 3] >> (places & 7) & 1 == 0]
        elif len(places):
            self._taken = np.zeros(len(self._columns[0]) + 7 >> 3, np.uint8)
        rows = columns_at(self._columns, places)
        np.bitwise_or.at(self._taken, places >> 3, (1 << (places & 7)).astype(np.uint8))
        self._taken_rows += len(places)
        if 2 * self._taken_rows > len(self._columns[0]):
            self._drop_taken()
        return rows

    def _ranges(self, lows: U64, highs: U64) -> tuple[I64, I64, int]:
        begins, counts = np.empty(len(lows), np.int64), np.empty(len(lows), np.int64)
        return begins, counts, _ranges(self._columns[0], lows, highs, begins, counts)

    def _places(self, lows: U64, highs: U64) -> I64:
        begins, counts, total = self._ranges(lows, highs)
        if not total:
            return begins[:0]
        return np.repeat(begins - (np.cumsum(counts) - counts), counts) + np.arange(total)


class Runs:
    """The runs of one table, the oldest and longest first.

    Args:
        dtypes: of the columns; the keys are np.uint64.
        mark: the mark of a run, by its columns, such as its latest time.
        ratio: see `RATIO`. A higher ratio copies rows more often, and stores fewer outdated rows.
    """

    def __init__(
        self, *dtypes: Any, mark: Callable[[Columns], int] = lambda _: 0, ratio: int = RATIO
    ) -> None:
        self._dtypes, self._mark, self._ratio = [np.dtype(dtype) for dtype in dtypes], mark, ratio
        self._runs: list[Run] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    @property
    def nbytes(self) -> int:
        """The size of all columns, in bytes."""
        return sum(run.nbytes for run in self._runs)

    @property
    def no_rows(self) -> Columns:
        """The columns of no rows."""
        return tuple(np.zeros(0, dtype) for dtype in self._dtypes)

    def add(self, rows: Columns, merge: Merge) -> None:
        """Add sorted rows as the newest run, merged with the runs of similar size before it.

        Args:
            merge: is called while neither of its two runs is among the runs.
        """
        if not len(rows[0]):
            return
        while self._runs and len(self._runs[-1]) < self._ratio * len(rows[0]) + FEW_ROWS:
            rows = merge(self._runs.pop().columns, rows)
        self._append(rows)

    def _append(self, rows: Columns, name: str = "") -> None:
        if len(rows[0]):
            self._runs.append(Run(tuple(map(mapped_copy, rows)), name, self._mark(rows)))

    def rows(self, lows: U64, highs: U64) -> Columns:
        """The rows of all runs whose keys are in one of several sorted ranges, both ends included."""
        return appended([self.no_rows, *(run.rows(lows, highs) for run in self._runs)])

    def latest(self, keys: U64) -> tuple[I64, Columns]:
        """The newest row of each of the sorted `keys`, if a run has at most one row a key: the places in
        `keys` that have a row, and these rows.
        """
        missing, places, rows = np.arange(len(keys)), [np.zeros(0, np.int64)], [self.no_rows]
        for run in reversed(self._runs):
            is_present, run_rows = run.find(keys[missing])
            places.append(missing[is_present])
            rows.append(run_rows)
            missing = missing[~is_present]
        return np.concatenate(places), appended(rows)

    def latest_row(self, key: int) -> tuple[Any, ...] | None:
        """The row of `latest` for one key, without the overhead of arrays."""
        hashed_key = np.uint64(key)
        rows = (run.row(hashed_key) for run in reversed(self._runs))
        return next((row for row in rows if row is not None), None)

    def take(self, keys: U64) -> Columns:
        """Take out the rows of sorted keys."""
        rows = appended([self.no_rows, *(run.take(keys) for run in self._runs)])
        self._runs = [run for run in self._runs if len(run)]
        return rows

    def take_all(self, merge: Merge) -> Columns:
        """Take out all rows, as the columns of one run."""
        rows = self._runs.pop().columns if self._runs else self.no_rows
        while self._runs:
            rows = merge(self._runs.pop().columns, rows)
        return rows

    def drop(self, is_removed: Callable[[Columns], npt.NDArray[np.bool_]]) -> None:
        """Drop the rows that `is_removed` marks."""
        runs, self._runs = self._runs, []
        for run in runs:
            if (dropped := is_removed(run.columns)).any():
                self._append(columns_at(run.columns, ~dropped))
            else:
                self._runs.append(run)

    def drop_before(self, mark: int) -> None:
        """Drop the runs of lesser marks."""
        self._runs = [run for run in self._runs if run.mark >= mark]

    def clear(self) -> None:
        """Drop all rows."""
        self._runs = []

    def change(self, changed: Callable[[Columns], Columns]) -> None:
        """Replace the columns of each run; the keys stay as they are."""
        runs, self._runs = self._runs, []
        for run in runs:
            self._append(changed(run.columns))

    def gather(self, files: Files) -> None:
        """Write large runs to files, so that the next snapshot need not."""
        for run in self._runs:
            columns = run.columns
            if not run.name and files.directory is not None and len(run) >= SPILL_ROWS:
                run.name = files.write(*map(body_of, columns))

    def snapshot(self, files: Files) -> list[tuple[str, Body]]:
        """Plain state: small runs by value, large ones by the names of their files. The caller calls
        `files.keep` with `file_names`.
        """
        self.gather(files)
        return [(run.name, b"" if run.name else b"".join(map(body_of, run.columns))) for run in self._runs]

    def file_names(self) -> list[str]:
        """The names of the runs that are files."""
        return [run.name for run in self._runs if run.name]

    def restore(self, state: Iterable[tuple[str, Body]], files: Files) -> None:
        """Restore the state of `snapshot`; the columns are read-only.

        Raises:
            StateError: a file that the state lists is missing or damaged.
        """
        self._runs = []
        width = sum(dtype.itemsize for dtype in self._dtypes)
        for name, by_value in state:
            body, columns, start = files.read(name) if name else by_value, [], 0
            for dtype in self._dtypes:
                columns.append(np.frombuffer(body, dtype, len(body) // width, start))
                start += columns[-1].nbytes
            self._append(tuple(columns), name)
