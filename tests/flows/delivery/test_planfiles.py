"""Files of plans: bad rows out, good rows in, the last good version in force."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import zstandard

from flows.delivery import plan_files
from flows.delivery.plan_columns import COLUMNS
from flows.delivery.plan_files import LOOK_MS, PlanFile, Problem, read_plans
from flows.errors import PlanError
from flows.model.plan import NAMED
from flows.simulate.feed import plans, write_plans
from flows.simulate.traffic import Traffic

DOCS = Path(__file__).parents[3] / "docs"
HEADER = "placement_id,booked,start,end,timezone,pauses\n"
GOOD = "a,1000,2026-11-02T00:00Z,2026-11-03T00:00Z,,\n"


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_example_has_every_column_and_no_problem() -> None:
    book, problems = read_plans(DOCS / "plans.example.csv")
    assert problems == []
    assert len(book) == 4
    with (DOCS / "plans.example.csv").open() as file:
        assert tuple(next(csv.reader(file))) == COLUMNS


def test_the_page_about_plans_lists_the_columns_and_its_json_is_right(tmp_path: Path) -> None:
    page = (DOCS / "plans.md").read_text()
    assert tuple(re.findall(r"^\| `(\w+)` \|", page.partition("## What follows")[0], re.M)) == COLUMNS
    example = page.partition("```json\n")[2].partition("```")[0]
    book, problems = read_plans(written(tmp_path / "plans.json", example))
    assert (list(book), problems) == (["breakfast-uk"], [])


def test_the_simulators_plans_are_readable(tmp_path: Path) -> None:
    traffic = Traffic(seed=3, placements=20, start_ms=1_764_000_000_000)
    write_plans(tmp_path / "plans.csv", plans(traffic, timedelta(hours=6)))
    book, problems = read_plans(tmp_path / "plans.csv")
    assert problems == []
    assert set(book) == {place.id for place in traffic.placements}
    assert {(plan.start_ms, plan.end_ms - plan.start_ms) for plan in book.values()} == {
        (traffic.start_ms, 6 * 3_600_000)
    }


def test_a_row_may_list_all_the_names_that_a_column_takes(tmp_path: Path) -> None:
    names = [f"{number:05}".ljust(128, "x") for number in range(10_000)]
    flight = "1000,2026-11-02T00:00Z,2026-11-03T00:00Z"
    text = (
        f"placement_id,booked,start,end,stations\na,{flight},{'; '.join(names)}\nb,{flight},{';' * 10_000}\n"
    )
    book, problems = read_plans(written(tmp_path / "plans.csv", text))
    assert book["a"].listed[NAMED.index("stations")] == tuple(names)
    assert [(one.line, one.column) for one in problems] == [(3, "stations")]


def test_bad_rows_are_reported_by_line_and_column_and_others_count(tmp_path: Path) -> None:
    path = written(
        tmp_path / "plans.csv",
        HEADER
        + GOOD
        + "b,many,2026-11-02T00:00Z,2026-11-03T00:00Z,,\n"
        + "\n"
        + 'c,5,2026-11-02T00:00,2026-11-03T00:00,Europe/London,"2026-11-02T01:00/\n2026-11-02T02:00"\n'
        + "a,5,2026-11-02T00:00Z,2026-11-03T00:00Z,,\n"
        + "d,5\n"
        + "e,5,2026-10-25T01:30,2026-11-03T00:00,Europe/London,\n",
    )
    book, problems = read_plans(path)
    assert list(book) == ["a", "c"]
    assert book["a"].booked == 1000
    assert [(problem.line, problem.column) for problem in problems] == [
        (3, "booked"), (7, "placement_id"), (8, None), (9, "start"),
    ]  # fmt: skip
    assert str(problems[0]).startswith(f"{path}:3: booked: takes impressions")
    assert "line 2" in problems[1].reason


def test_every_wrong_cell_of_a_row_is_reported(tmp_path: Path) -> None:
    """A wrong time zone makes no time wrong that is read by it."""
    text = HEADER + "a,many,2026-11-02,2026-11-03T00:00Z,Europe/Londn,\nb,5,2026-11-02T00:00,,Nowhere,\n"
    _, problems = read_plans(written(tmp_path / "plans.csv", text))
    assert [(problem.line, problem.column) for problem in problems] == [
        (2, "booked"), (2, "start"), (2, "timezone"), (3, "end"), (3, "timezone"),
    ]  # fmt: skip


def test_bad_json_objects_are_reported_by_line(tmp_path: Path) -> None:
    row = {"placement_id": "a", "booked": 5, "start": "2026-11-02T00:00Z", "end": "2026-11-03T00:00Z"}
    items = [row, {**row, "placement_id": "b", "booked": 5.5}, 7, {**row, "placement_id": "c", "note": "x"}]
    text = "\n\n[\n" + ",\n".join(json.dumps(item) for item in items) + "\n]\n"
    book, problems = read_plans(written(tmp_path / "plans.json", text))
    assert list(book) == ["a", "c"]
    assert [(problem.line, problem.column) for problem in problems] == [(5, "booked"), (6, None), (7, "note")]


@pytest.mark.parametrize("number", ["1e9999999999999999999", "1E-9999999999999999999", "1e1000000", "1e18"])
def test_a_number_beyond_all_others_spoils_its_own_cell_alone(tmp_path: Path, number: str) -> None:
    path = tmp_path / "plans.json"
    times = '"start":"2026-11-01T00:00Z","end":"2026-11-02T00:00Z","booked":1'
    path.write_text(f'[{{"placement_id":"a",{times}}},{{"placement_id":"b",{times},"tolerance":{number}}}]')
    plans = PlanFile(path)
    (problem,) = plans.refresh(0)
    assert ": tolerance: takes a decimal number" in str(problem)
    assert set(plans.book) == {"a"}


def test_a_shared_file_is_parsed_once_per_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed, right = list[object](), plan_files.plan_of
    monkeypatch.setattr(plan_files, "plan_of", lambda row: (parsed.append(row), right(row))[1])
    path = written(tmp_path / "plans.csv", HEADER + GOOD)
    followers = [PlanFile(path) for _ in range(30)]
    told = [file.refresh(0) for file in followers]
    assert len(parsed) == 1
    assert len({id(file.book) for file in followers}) == 1
    written(path, HEADER + GOOD + "a,5,x,y,,\n")
    for now_ms in (LOOK_MS, 2 * LOOK_MS):
        told = [file.refresh(now_ms) for file in followers]
    assert len(parsed) == 3
    assert all(map(bool, told)), "each tells its own step"


@pytest.mark.parametrize(
    "pack", [gzip.compress, zstandard.compress, lambda text: text.decode().encode("utf-16")]
)
def test_a_table_in_its_wrapping_has_the_same_plans(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    text = (DOCS / "plans.example.csv").read_bytes()
    plain, _ = read_plans(written(tmp_path / "plain.csv", text))
    assert read_plans(written(tmp_path / "wrapped.csv", pack(text)))[0].version == plain.version


def test_a_workbook_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        PlanError, match=r"book\.csv: is a zip archive or an Excel workbook: unpack it, or save"
    ):
        read_plans(written(tmp_path / "book.csv", b"PK\x03\x04" + bytes(60)))


def test_an_unknown_column_is_reported_once(tmp_path: Path) -> None:
    text = "\ufeffbooked,start,end,placement_id,pause,\n" + "".join(
        f"5,2026-11-02T00:00Z,2026-11-03T00:00Z,p{n},x,\n" for n in range(3)
    )
    book, problems = read_plans(written(tmp_path / "plans.csv", text))
    assert len(book) == 3
    assert [(problem.line, problem.column) for problem in problems] == [(2, "pause")]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("plans.csv", b"", None),
        ("plans.csv", b"\n\nplacement_id;booked;start;end\n", 3),
        ("plans.csv", b"placement_id,booked,start,end,booked\n", 1),
        ("plans.csv", HEADER + GOOD + 'b,"5,2026-11-02T00:00Z,2026-11-03T00:00Z,,\n', 3),
        ("plans.csv", HEADER.encode() + b"\xff\n", 2),
        ("plans.json", b"", None),
        ("plans.json", b"{}", None),
        ("plans.json", b'[{"placement_id": "a"}\n', 1),
        ("plans.json", b'[\n{"placement_id": "a"},\n{"placement', 3),
        ("plans.json", b'[{"placement_id": "a"},]', 1),
        ("plans.json", b"[] []", None),
        ("plans.json", b"[" * 100_000, 1),
        ("plans.yaml", b"[]", None),
    ],
)
def test_a_file_without_a_list_of_plans_is_refused_whole(
    tmp_path: Path, name: str, content: bytes | str, line: int | None
) -> None:
    with pytest.raises(PlanError) as caught:
        read_plans(written(tmp_path / name, content))
    assert caught.value.line == line
    assert str(caught.value).startswith(f"{tmp_path / name}:{line}: " if line else f"{tmp_path / name}: ")


def test_a_missing_file_is_a_plan_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="No such file"):
        read_plans(tmp_path / "plans.csv")


@pytest.mark.parametrize("text", ["[]", " [ ] \n"])
def test_an_empty_list_is_an_empty_book(tmp_path: Path, text: str) -> None:
    book, problems = read_plans(written(tmp_path / "plans.json", text))
    assert (len(book), problems) == (0, [])


class Clocked:
    """A plan file, looked at a second later each time."""

    def __init__(self, path: Path) -> None:
        self.file = PlanFile(path)
        self.now_ms = 1_000_000

    def look(self, times: int = 1) -> list[Problem]:
        problems = []
        for _ in range(times):
            problems += self.file.refresh(self.now_ms)
            self.now_ms += LOOK_MS
        return problems

    @property
    def placements(self) -> list[str]:
        return list(self.file.book)


def test_a_change_is_in_force_once_it_has_stood_still(tmp_path: Path) -> None:
    path = written(tmp_path / "plans.csv", HEADER + GOOD)
    clocked = Clocked(path)
    assert clocked.look() == []
    assert clocked.placements == ["a"]
    written(path, HEADER + GOOD.replace("a,", "half-writ"))
    assert clocked.look() == []
    written(path, HEADER + GOOD.replace("a,", "b,"))
    assert clocked.look() == []
    assert clocked.placements == ["a"]
    assert clocked.look() == []
    assert clocked.placements == ["b"]


def test_a_replaced_file_of_the_same_size_and_time_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "plans.csv", HEADER + GOOD)
    clocked = Clocked(path)
    clocked.look()
    status = path.stat()
    other = written(tmp_path / "other.csv", HEADER + GOOD.replace("a,", "b,"))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)
    clocked.look(2)
    assert clocked.placements == ["b"]


def test_the_file_is_looked_at_once_a_second_only(tmp_path: Path) -> None:
    path = written(tmp_path / "plans.csv", HEADER + GOOD)
    file = PlanFile(path)
    file.refresh(0)
    path.unlink()
    assert file.refresh(LOOK_MS - 1) == []
    assert len(file.refresh(LOOK_MS)) == 1


def test_the_last_good_plans_stay_and_a_missing_file_is_reported_once(tmp_path: Path) -> None:
    path = written(tmp_path / "plans.csv", HEADER + GOOD)
    clocked = Clocked(path)
    clocked.look()
    before = clocked.file.book
    path.unlink()
    assert [problem.line for problem in clocked.look(5)] == [None]
    assert clocked.file.book is before
    written(path, HEADER + GOOD.replace("a,", "b,"))
    assert clocked.look(2) == []
    assert clocked.placements == ["b"]
    path.unlink()
    assert len(clocked.look(3)) == 1


def test_a_file_missing_twice_is_reported_twice(tmp_path: Path) -> None:
    here, away = tmp_path / "here", tmp_path / "away"
    here.mkdir()
    clocked = Clocked(written(here / "plans.csv", HEADER + GOOD))
    assert clocked.look() == []
    for _ in range(2):
        here.rename(away)
        assert len(clocked.look(2)) == 1
        away.rename(here)
        assert clocked.look(2) == []


def test_the_last_good_plans_stay_and_a_broken_file_is_reported_once(tmp_path: Path) -> None:
    path = written(tmp_path / "plans.csv", HEADER + GOOD)
    clocked = Clocked(path)
    clocked.look()
    written(path, "nonsense\n")
    problems = clocked.look(5)
    assert [problem.line for problem in problems] == [1]
    assert "stay in force" in str(problems[0])
    assert clocked.placements == ["a"]


def test_bad_rows_of_a_changed_file_are_reported_once_and_excluded(tmp_path: Path) -> None:
    path = written(tmp_path / "plans.csv", HEADER + GOOD + GOOD.replace("a,", "b,"))
    clocked = Clocked(path)
    clocked.look()
    written(path, HEADER + GOOD.replace("1000", "x") + GOOD.replace("a,", "b,"))
    assert [(problem.line, problem.column) for problem in clocked.look(4)] == [(2, "booked")]
    assert clocked.placements == ["b"]


def test_an_equivalent_file_leaves_the_book_unchanged(tmp_path: Path) -> None:
    path = written(tmp_path / "plans.csv", HEADER + GOOD)
    clocked = Clocked(path)
    clocked.look()
    before = clocked.file.book
    written(path, HEADER + "\n" + GOOD)
    clocked.look(3)
    assert clocked.file.book is before


def test_a_file_created_later_is_read(tmp_path: Path) -> None:
    clocked = Clocked(tmp_path / "plans.csv")
    assert len(clocked.look(3)) == 1
    written(tmp_path / "plans.csv", HEADER + GOOD)
    assert clocked.look(2) == []
    assert clocked.placements == ["a"]
