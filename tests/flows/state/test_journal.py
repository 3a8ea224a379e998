"""The journal of a table's changes against the table itself, and its files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.errors import StateError
from flows.state import journal
from flows.state.arrays import U64
from flows.state.journal import KEEP_SNAPSHOTS, Files, Journal
from flows.state.saves import decode, encode

COMPACTION_SLACK, SPILL_ROWS = 4, 3


class Numbers:
    """A table of one number a key, none of which is ever taken away."""

    def __init__(self) -> None:
        self.now: dict[int, int] = {}
        self._changed: set[int] = set()

    def set(self, key: int, value: int) -> None:
        self.now[key] = value
        self._changed.add(key)

    def __len__(self) -> int:
        return len(self.now)

    def _rows(self, keys: Any) -> U64:
        return np.array([(key, self.now[key]) for key in keys], np.uint64).reshape(-1, 2)

    def changed(self) -> U64:
        keys, self._changed = self._changed, set()
        return self._rows(sorted(keys))

    def live(self, rows: U64) -> U64:
        return self._rows([key for key, value in rows.tolist() if self.now[key] == value])

    def whole(self) -> U64:
        return self._rows(self.now)


class Owner:
    """A table with its journal and files, as a shard has them."""

    def __init__(self, directory: Path | None, state: bytes | None = None) -> None:
        self.table, self.journal, self.files = Numbers(), Journal(2), Files(directory)
        if state is not None:
            for rows, _ in self.journal.restore(decode(state), self.files):
                self.table.now.update(rows.tolist())

    def change(self, changes: list[tuple[int, int]]) -> None:
        for key, value in changes:
            self.table.set(key, value)

    def gather(self) -> None:
        self.journal.gather(self.table, self.files)

    def snapshot(self) -> bytes:
        state = encode(self.journal.snapshot(self.table, self.files))
        self.files.keep(self.journal.file_names())
        return state


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "COMPACTION_SLACK", COMPACTION_SLACK)
    monkeypatch.setattr(journal, "SPILL_BYTES", 16 * SPILL_ROWS)


CHANGES = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), max_size=12)


@given(
    epochs=st.lists(
        st.tuples(
            st.lists(CHANGES, max_size=2), CHANGES, st.sampled_from(["go on", "go on", "restart", "crash"])
        ),
        max_size=25,
    ),
    in_files=st.booleans(),
)
def test_every_snapshot_restores_the_table(
    epochs: list[tuple[list[list[tuple[int, int]]], list[tuple[int, int]], str]], in_files: bool
) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name) if in_files else None
        owner = Owner(directory)
        taken = [(owner.snapshot(), dict(owner.table.now))]
        for gathered, changes, then in epochs:
            for some in gathered:
                owner.change(some)
                owner.gather()
            owner.change(changes)
            taken.append((owner.snapshot(), dict(owner.table.now)))
            for state, held in taken[-KEEP_SNAPSHOTS:]:
                assert Owner(directory, state).table.now == held
            if then == "crash":  # before the latest snapshot was committed
                taken = taken[:-1] or taken
            if then != "go on":
                taken = taken[-1:]
                owner = Owner(directory, taken[-1][0])
            listed = set(owner.journal.file_names())
            assert not listed or in_files
            assert owner.journal.rows <= 2 * len(owner.table) + COMPACTION_SLACK + 48 * len(epochs)
        if in_files:
            for _ in range(KEEP_SNAPSHOTS + 1):
                owner.snapshot()
            assert {path.name for path in Path(name).iterdir()} == set(owner.journal.file_names())


def test_outdated_entries_are_cleaned_up_in_instalments(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    for key in range(1000):
        owner.table.set(key, 0)
    owner.snapshot()
    most = 0
    for epoch in range(400):
        for key in range(10):
            owner.table.set(key * epoch % 1000, epoch)
        before = owner.journal.rows
        owner.snapshot()
        most = max(most, owner.journal.rows - before)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    print(f"{owner.journal.rows} rows, {len(owner.journal.pieces)} pieces, {size} bytes, at most {most} more")
    assert owner.journal.rows <= 2 * 1000 + COMPACTION_SLACK + 10
    assert size <= 16 * (owner.journal.rows + 1000 + 100), "and what is not listed has gone"
    assert most <= 10


def test_a_snapshot_finishes_copies_and_cleanups_of_earlier_cuts(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    owner.snapshot()
    for number in range(20):
        owner.change([(key, number) for key in range(8)])
        owner.gather()
        before = owner.journal.rows
        assert before <= 2 * 8 + COMPACTION_SLACK, "cleaned up at the cut"
        owner.change([(0, 100 + number)])
        owner.snapshot()
        assert owner.journal.rows == before + 1


def test_an_unlisted_file_is_not_written(tmp_path: Path) -> None:
    files = Files(tmp_path / "of")
    files.write(b"of use between two snapshots alone")
    with journal.taking(1) as listed:
        files.keep([name := files.write(b"listed")])
    journal.settle(listed)
    assert files.directory is not None
    assert [path.name for path in files.directory.iterdir()] == [name]


def test_a_quiet_table_writes_nothing(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    for key in range(10):
        owner.table.set(key, 0)
    first = owner.snapshot()
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert [owner.snapshot() for _ in range(5)] == [first] * 5
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


def test_a_state_without_its_directory_stops_with_advice(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    for key in range(10):
        owner.table.set(key, 0)
    state = owner.snapshot()
    with pytest.raises(StateError, match="no recovery directory"):
        Owner(None, state)
    with pytest.raises(StateError, match="restore the whole recovery directory"):
        Owner(tmp_path / "elsewhere", state)


def test_a_file_waits_in_memory_until_its_save_is_settled(tmp_path: Path) -> None:
    files = Files(tmp_path / "of")
    name, whole = files.write(b"first, ", memoryview(b"second")), b"first, second"
    assert files.directory is not None
    assert files.read(name) == whole
    assert not files.directory.exists()  # a thread that wrote it would take the lock from the flow
    with journal.taking(1) as listed:
        files.keep([name])
    assert not files.directory.exists()
    journal.settle(listed)
    assert (files.directory / name).read_bytes() == whole


@pytest.mark.parametrize("damage", [b"", b"the bodY", b"the body and more"])
def test_a_damaged_file_is_rewritten_from_its_content(tmp_path: Path, damage: bytes) -> None:
    for number in range(2):
        files = Files(tmp_path / "of")
        with journal.taking(number) as listed:
            files.keep([name := files.write(b"the body")])
        journal.settle(listed)
        assert (tmp_path / "of" / name).read_bytes() == b"the body"
        (tmp_path / "of" / name).write_bytes(damage)
