"""Files of plans: CSV with a header line, or a JSON list of objects. Bad rows are reported and left out."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from connectors.stream import ConnectError
from connectors.wrapping import table_of
from flows.delivery.plan_columns import (
    BALANCE,
    COLUMNS,
    JSON,
    MAX_ID,
    MAX_NAMES,
    REQUIRED,
    plan_of,
    plan_to_json,
)
from flows.errors import PlanError
from flows.model.plan import Plan, PlanBook

LOOK_MS: Final = 1000
"""The least time between two checks of a file for changes."""

_HEADER_COLUMNS: Final = frozenset((*COLUMNS, ""))  # "": one comma too many at the end of a header
_SPACE: Final = re.compile(r"\s*")
# A cell may have `MAX_NAMES` ids. The limit of `csv` is a tenth of this.
csv.field_size_limit(MAX_NAMES * (MAX_ID + 2))


class _CellCountError(PlanError):
    """A line that has another number of cells than the header."""

    def __init__(self, cells: list[str], columns: int) -> None:
        super().__init__(f"has {len(cells)} cells, and the header has {columns}")
        self.cells_of_line = cells


class Problem(NamedTuple):
    """The reason why a plan of a file was left out of a book. Without a line it is about the whole file."""

    file: str
    line: int | None
    column: str | None
    reason: str

    def __str__(self) -> str:
        return ": ".join([f"{self.file}:{self.line}" if self.line else self.file, *filter(None, self[2:])])


def read_plans(path: Path) -> tuple[PlanBook, list[Problem]]:
    """The plans of a file, and the problems of the rows that are left out. If two rows are of one placement,
    the later one is left out.

    Args:
        path: `.csv` (UTF-8, with or without a byte-order mark, columns in any order) or `.json`.

    Raises:
        PlanError: the file as a whole cannot be read, or has another suffix.
    """
    try:
        return parse_plans(path.read_bytes(), path)
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}") from None
    except PlanError as error:
        raise PlanError(str(Problem(str(path), error.line, None, error.reason)), line=error.line) from None


def parse_plans(data: bytes, path: Path) -> tuple[PlanBook, list[Problem]]:
    """`read_plans` for the content of a file; its PlanError does not name the file."""
    book, problems = _parsed(data, path)
    return book, [*problems]


@lru_cache(maxsize=1)  # each step of a process parses the same content
def _parsed(data: bytes, path: Path) -> tuple[PlanBook, tuple[Problem, ...]]:
    readers = {".csv": _csv_rows, ".json": _json_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PlanError("takes the name of a .csv or a .json file")
    if reader is _csv_rows:
        data = _table(path, data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PlanError("not UTF-8: save the file as such", line=line) from None
    plans: dict[str, Plan] = {}
    lines: dict[str, int] = {}
    unknown_columns: dict[str, int] = {}
    unsure = set[str]()
    problems = []
    for line, row in reader(text):
        try:
            if isinstance(row, PlanError):
                raise row
            for name in row.keys() - _HEADER_COLUMNS:
                unknown_columns.setdefault(name, line)
            plan = plan_of(row)
            if plan.placement_id in plans:
                first_line = lines[plan.placement_id]
                reason = f"{plan.placement_id!r} has a plan in line {first_line}, which counts"
                raise PlanError(reason, "placement_id")
        except PlanError as error:
            problems += [Problem(str(path), line, column, reason) for column, reason in error.cells]
            unsure |= _campaigns(row)
        else:
            plans[plan.placement_id], lines[plan.placement_id] = plan, line
    problems += [
        Problem(str(path), line, name, "no such column, ignored in this and later lines")
        for name, line in sorted(unknown_columns.items())
    ]
    return PlanBook(plans.values(), unsure), tuple(problems)


def _table(path: Path, data: bytes) -> bytes:
    try:
        return table_of(str(path), data)
    except ConnectError as error:
        raise PlanError(str(error).removeprefix(f"{path}: ")) from None


def with_balances(path: Path, plans: Mapping[str, Plan], balances: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The content of a file of plans with other opening balances. Other columns of a `.csv` stay the same.

    Args:
        plans: the plans of the file, which has no problem.
        balances: by placement, the columns of its balance; a column that is not among them becomes empty.
    """
    blank_columns = dict.fromkeys(BALANCE, "")
    if path.suffix.lower() == ".json":
        objects = (msgspec.json.decode(plan_to_json(plan)) for plan in plans.values())
        changed = [_with_balance(row, balances.get(row["placement_id"]), {}) for row in objects]
        return b"[\n" + b",\n".join(map(msgspec.json.encode, changed)) + b"\n]\n"
    rows = [row for _, row in _csv_rows(_table(path, path.read_bytes()).decode()) if isinstance(row, dict)]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(dict.fromkeys([*rows[0], *BALANCE])), "", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        _with_balance(row, balances.get(row["placement_id"].strip()), blank_columns) for row in rows
    )
    return file.getvalue().encode()


def _with_balance(
    row: Mapping[str, Any], balance: Mapping[str, Any] | None, blank_columns: Mapping[str, str]
) -> dict[str, Any]:
    if balance is None:
        return dict(row)
    return {**{name: row[name] for name in row if name not in BALANCE}, **blank_columns, **balance}


def _campaigns(row: Mapping[str, Any] | PlanError) -> set[str]:
    """The campaigns that a refused row may name. In a line with a wrong number of cells, any may be one."""
    if isinstance(row, _CellCountError):
        return set(map(str.strip, row.cells_of_line))
    campaign = None if isinstance(row, PlanError) else row.get("campaign_id")
    return {campaign.strip()} if isinstance(campaign, str) else set()


def _csv_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any] | PlanError]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if not any(map(str.strip, cells)):
                pass
            elif header is None:
                header = [name.strip() for name in cells]
                _check_header(header, line)
            elif len(cells) != len(header):
                yield line, _CellCountError(cells, len(header))
            else:
                yield line, dict(zip(header, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise PlanError(f"not CSV: {error}", line=line) from None
    if header is None:
        raise PlanError("is empty: the first line names the columns")


def _check_header(header: list[str], line: int) -> None:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise PlanError(f"no column {', '.join(missing)}: columns are separated by commas", line=line)
    repeats = sorted({name for name in header if name and header.count(name) > 1})
    if repeats:
        raise PlanError(f"column {', '.join(repeats)} is there twice: remove one", line=line)


def _json_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any] | PlanError]]:
    """The items of a JSON list with their lines, one by one: a decoder of the whole list returns no lines."""
    place = _skip(text, 0)
    if not text.startswith("[", place):
        raise PlanError("not a JSON list of objects")
    line_place, line = 0, 1
    place = _skip(text, place + 1)
    has_more = not text.startswith("]", place)
    while has_more:
        line, line_place = line + text.count("\n", line_place, place), place
        try:
            item, place = JSON.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise PlanError(f"not JSON: {error}", line=getattr(error, "lineno", line)) from None
        yield line, item if isinstance(item, dict) else PlanError("takes a JSON object")
        place = _skip(text, place)
        if text[place : place + 1] not in (",", "]"):
            raise PlanError(
                "not a JSON list: a comma or ] is missing after the object of this line", line=line
            )
        has_more = text[place] == ","
        place = _skip(text, place + has_more)
    if _skip(text, place + 1) < len(text):
        raise PlanError("there is text after the end of the JSON list: remove it")


def _skip(text: str, place: int) -> int:
    """The place of the first character from `place` on that is no space."""
    space = _SPACE.match(text, place)
    assert space is not None
    return space.end()


class PlanFile:
    """A file of plans that may change at any time.

    The last good version stays in force while the file is missing or cannot be read. A change is read once
    two checks in a row have found the same file, so a half-written file is not read. A `PlanFile` starts no
    thread and leaves no file open.

    Attributes:
        book: the plans in force; replaced, never changed.
        ready: whether the file has been read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.book = PlanBook()
        self.ready = False
        self._checked_ms: int | None = None
        self._seen_stamp: tuple[int, ...] = ()
        self._read_stamp: tuple[int, ...] = ()
        self._trouble: str | None = None

    def refresh(self, now_ms: int) -> list[Problem]:
        """Check whether the file has changed, at most once in `LOOK_MS`. The first call reads the file at
        once.

        Args:
            now_ms: by any clock that goes forward.

        Returns:
            The file's problems, once for each change of the file.
        """
        is_first = self._checked_ms is None
        if self._checked_ms is not None and now_ms - self._checked_ms < LOOK_MS:
            return []
        self._checked_ms = now_ms
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            before, self._seen_stamp = self._seen_stamp, stamp
            if stamp == self._read_stamp:
                self._trouble = None
            if stamp == self._read_stamp or (stamp != before and not is_first):
                return []
            data = self.path.read_bytes()
        except OSError as error:
            trouble, self._trouble = self._trouble, f"cannot be read: {error.strerror}"
            return [self._problem(self._trouble)] if self._trouble != trouble else []
        self._read_stamp, self._trouble = stamp, None
        try:
            book, problems = parse_plans(data, self.path)
        except PlanError as error:
            return [self._problem(error.reason, error.line)]
        self.ready = True
        if (book.version, book.unsure) != (self.book.version, self.book.unsure):
            self.book = book
        return problems

    def _problem(self, reason: str, line: int | None = None) -> Problem:
        return Problem(str(self.path), line, None, f"{reason}; the plans read last stay in force")
