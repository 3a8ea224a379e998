"""A save writes what changed of a shard's rows, and its journal holds no more than twice what there is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from rows_support import batch

from flows.model.basis import DELIVERIES
from flows.model.client_counts import SideIncrements
from flows.model.counts import FLIGHT_COUNTS
from flows.model.messages import CreditBatch, RowBatch
from flows.model.ticks import Cut
from flows.rows.ended import RowName
from flows.rows.row_index import Limits
from flows.rows.row_shard import RowShard
from flows.state import journal, record_journal
from flows.state.saves import decode, encode

MINUTE, BEGIN, DAY = 60_000, 29_000_000, 1440


class Line:
    """A row shard with a recovery directory, and its cuts."""

    def __init__(self, recovery: Path) -> None:
        self.shard = RowShard(
            0,
            1,
            600_000,
            90_000,
            lambda minute: minute // DAY,
            0,
            recovery,
            Limits(rows=1 << 20, unplanned=1 << 20, unplanned_bytes=1 << 40),
        )
        self.recovery, self.number = recovery, 0

    def cut(self, names: Iterable[str], minute: int = BEGIN, by: int = 1, publish: bool = True) -> None:
        """A number of impressions of each placement."""
        rows = [("placement", name) for name in names]
        self.number += 1
        here = Cut(self.number, minute * MINUTE, False, (), publish=publish)
        self.shard.apply(here, [impressions(here, rows, minute, by)] if rows else [])

    def save(self) -> int:
        """The size of a save."""
        return len(encode(self.shard.snapshot()))

    def again(self) -> RowShard:
        """The shard after a restart."""
        again = Line(self.recovery).shard
        again.restore(decode(encode(self.shard.snapshot())))
        return again

    def restored(self) -> dict[RowName, int]:
        """The impressions of all rows after a restart."""
        again = self.again()
        return {row: int(again.columns.flight[at, 0]) for row, at in again.row_index.numbers.items()}


def impressions(cut: Cut, rows: list[RowName], minute: int, by: int) -> RowBatch:
    one, each, times = (
        batch(cut, [(minute, 7)] * len(rows)),
        np.arange(len(rows), dtype=np.uint32),
        np.full(len(rows), minute * MINUTE),
    )
    labels = [(at, minute * MINUTE, (name, "c", *[None] * 6)) for at, (_, name) in enumerate(rows)]
    return one._replace(
        rows=rows, latest=times, newest=times, first=times, cell_rows=each, touch_rows=each, total_rows=each,
        total_counts=np.ones((len(rows), FLIGHT_COUNTS), np.int64), labels=labels,
        cell_counts=by * one.cell_counts,
    )  # fmt: skip


def names(number: int) -> list[str]:
    return [f"p{at:05}" for at in range(number)]


def test_quiet_rows_do_not_grow_a_save_of_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 10_000)  # a save copies the ends of journals
    sizes = []
    for quiet in (5_000, 10_000):
        line = Line(tmp_path / str(quiet))
        line.cut(names(quiet))
        line.save()
        line.cut(["p00000"], BEGIN + 180)  # no cell of the others is left
        line.save()
        line.cut(["p00000"], BEGIN + 180)
        sizes.append(line.save())
    assert sizes[1] - sizes[0] < 500
    assert sizes[1] < 20_000


def test_past_side_counts_do_not_grow_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 10_000)

    def counted(line: Line, rows: list[RowName]) -> None:
        line.number += 1
        here, each = Cut(line.number, BEGIN * MINUTE, False, ()), np.arange(len(rows), dtype=np.uint32)
        minutes, one = np.full(len(rows), BEGIN, np.uint32), np.ones(len(rows), np.int64)
        sides = SideIncrements(rows, each, minutes, np.full(len(rows), DELIVERIES, np.uint8), one)
        conversions = rows, each, minutes, np.zeros(len(rows), np.uint8), 1_000_000 * one
        line.shard.apply(here, [], CreditBatch(0, here, *conversions, [], [], [], sides))

    sizes = []
    for quiet in (5_000, 10_000):
        line = Line(tmp_path / str(quiet))
        counted(line, [("placement", name) for name in names(quiet)])
        for _ in range(2):
            counted(line, [("placement", "p00000")])
            size = line.save()
        sizes.append(size)
        again = line.again().numbers_of(np.arange(2))
        for of, column, amount in ((again.sides, DELIVERIES, 1), (again.credits, 0, 1_000_000)):
            assert of.sums["flight"][:, column].tolist() == of.sums["1d"][:, column].tolist()
            assert of.sums["flight"][:, column].tolist() == [3 * amount, amount]
    assert sizes[1] - sizes[0] < 500
    assert sizes[1] < 40_000


def test_a_save_writes_only_changed_rows(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.cut(names(5_000))
    line.save()
    assert len(line.shard.records.journal) == 5_000
    for records, changed in ((5_001, "p00007"), (5_002, "p00008")):
        line.cut([changed], publish=False)
        line.save()
        assert len(line.shard.records.journal) == records
    line.shard.gather()
    line.save()
    assert len(line.shard.records.journal) == 5_002


def test_a_restart_marks_no_row_as_changed(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.cut(names(50))
    line.shard = line.again()
    line.cut(["p00007"])
    line.save()
    assert len(line.shard.records.journal) == 51


@pytest.mark.parametrize("quiet", [3, 300])
def test_a_journal_of_constantly_changing_rows_stays_bounded(
    quiet: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 2_000)
    monkeypatch.setattr(journal, "COMPACTION_SLACK", 10)
    monkeypatch.setattr(record_journal, "CHUNK_RECORDS", 16)
    line = Line(tmp_path)
    line.cut(names(quiet))
    for cut in range(quiet + 100):
        line.cut(["p00000", "p00001"])
        if cut % 3:
            line.shard.gather()
        else:
            line.save()
        # Current rows are written again four times as fast as others become outdated.
        assert len(line.shard.records.journal) <= 2 * quiet + quiet // 4 + line.shard.records.journal.slack
    assert line.restored() == {
        ("placement", name): 1 + (name < "p00002") * (cut + 1) for name in names(quiet)
    }
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) < 2 * quiet + 40


def test_ended_rows_leave_the_journal_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 2_000)
    monkeypatch.setattr(journal, "COMPACTION_SLACK", 10)
    line = Line(tmp_path)
    line.cut(names(100))
    line.save()
    line.cut(["steady"], BEGIN + 4 * DAY)
    assert len(line.shard.ended_rows) == 100
    line.save()
    assert line.restored() == {("placement", "steady"): 1}
    line.cut(["p00000", "new"], BEGIN + 4 * DAY)
    back = {("placement", "steady"): 1, ("placement", "p00000"): 2, ("placement", "new"): 1}
    assert line.restored() == back
    for _ in range(60):
        line.cut(["steady"], BEGIN + 4 * DAY)
        line.shard.gather()
        back["placement", "steady"] += 1
        assert line.restored() == back
    assert len(line.shard.records.journal) <= 2 * 3 + line.shard.records.journal.slack


def test_a_new_unchanged_row_is_saved(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.cut(["a"])
    line.save()
    assert line.shard.number(("placement", "b")) == 1
    assert line.again().row_index.numbers == {("placement", "a"): 0, ("placement", "b"): 1}


def test_the_first_minute_of_a_row_kept_by_its_plan_is_saved(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.cut([])
    line.shard.plan("planned", BEGIN, BEGIN + 5)
    line.cut([])
    line.save()
    line.cut([], BEGIN + 60)
    assert (
        line.shard.columns.last_minutes[:1].tolist()
        == line.again().columns.last_minutes[:1].tolist()
        == [BEGIN + 60]
    )


def test_a_days_zero_counts_stay_zero_after_a_restart(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.cut(["a"])
    line.save()
    line.cut(["a"], by=-1)
    again = line.again()
    counts, *_ = again.days.of_today(1)
    assert not counts[0].any()
    assert not again.columns.flight[0].any()
