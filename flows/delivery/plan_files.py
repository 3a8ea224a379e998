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

from flows.delivery.plan_columns import (
    BALANCE,
    COLUMNS,
    JSON,
    MAX_ID,
    MAX_NAMES,
    NEEDED,
    plan_of,
    plan_to_json,
)
from flows.errors import PlanError
from flows.model.plan import Plan, PlanBook

LOOK_MS: Final = 1000

_HEADER_COLUMNS: Final = frozenset((*COLUMNS, ""))  # "": a comma too many at the end of a header
_SPACE: Final = re.compile(r"\s*")
csv.field_size_limit(MAX_NAMES * (MAX_ID + 2))  # of a cell with so many names; csv's own is a tenth of it


class _Crooked(PlanError):
    """A line with another number of cells than the header."""

    def __init__(self, cells: list[str], columns: int) -> None:
        super().__init__(f"has {len(cells)} cells, the header {columns}")
        self.texts = cells


class Problem(NamedTuple):
    """A plan that was left out of a book, with its reason. Without a line it is the whole file."""

    file: str
    line: int | None
    column: str | None
    reason: str

    def __str__(self) -> str:
        return ": ".join([f"{self.file}:{self.line}" if self.line else self.file, *filter(None, self[2:])])


def read_plans(path: Path) -> tuple[PlanBook, list[Problem]]:
    """The plans of a file, and the problems of rows that are left out. The later of two rows for one
    placement is wrong.

    Args:
        path: `.csv` (UTF-8, with or without a byte-order mark, columns in any order) or `.json`.

    Raises:
        PlanError: the file as a whole cannot be read, or is neither.
    """
    try:
        return parse_plans(path.read_bytes(), path)
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror}") from None
    except PlanError as error:
        raise PlanError(str(Problem(str(path), error.line, None, error.reason)), line=error.line) from None


def parse_plans(data: bytes, path: Path) -> tuple[PlanBook, list[Problem]]:
    """`read_plans` for content that has been read; its PlanError does not name the file."""
    book, problems = _parsed(data, path)
    return book, [*problems]


@lru_cache(maxsize=1)  # each step follows the file for itself
def _parsed(data: bytes, path: Path) -> tuple[PlanBook, tuple[Problem, ...]]:
    readers = {".csv": _csv_rows, ".json": _json_rows}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PlanError("takes the name of a .csv or a .json file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PlanError(
            "not UTF-8: save the file as such", line=data.count(b"\n", 0, error.start) + 1
        ) from None
    plans: dict[str, Plan] = {}
    lines: dict[str, int] = {}
    unknown: dict[str, int] = {}
    unsure = set[str]()
    problems = []
    for line, row in reader(text):
        try:
            if isinstance(row, PlanError):
                raise row
            for name in row.keys() - _HEADER_COLUMNS:
                unknown.setdefault(name, line)
            plan = plan_of(row)
            if plan.placement_id in plans:
                before = lines[plan.placement_id]
                raise PlanError(
                    f"{plan.placement_id!r} has a plan in line {before}, which counts", "placement_id"
                )
        except PlanError as error:
            problems += [Problem(str(path), line, column, reason) for column, reason in error.cells]
            unsure |= _campaigns(row)
        else:
            plans[plan.placement_id], lines[plan.placement_id] = plan, line
    problems += [
        Problem(str(path), line, name, "no such column, ignored here and below")
        for name, line in sorted(unknown.items())
    ]
    return PlanBook(plans.values(), unsure), tuple(problems)


def with_balances(path: Path, plans: Mapping[str, Plan], balances: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The content of a file of plans with other opening balances; the rest of a `.csv` is unchanged.

    Args:
        plans: those of the file, all right.
        balances: by placement the columns of its balance; a missing column is absent.
    """
    emptied = dict.fromkeys(BALANCE, "")
    if path.suffix.lower() == ".json":
        objects = (msgspec.json.decode(plan_to_json(plan)) for plan in plans.values())
        changed = [_with_balance(row, balances.get(row["placement_id"]), {}) for row in objects]
        return b"[\n" + b",\n".join(map(msgspec.json.encode, changed)) + b"\n]\n"
    rows = [row for _, row in _csv_rows(path.read_bytes().decode("utf-8-sig")) if isinstance(row, dict)]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(dict.fromkeys([*rows[0], *BALANCE])), "", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_with_balance(row, balances.get(row["placement_id"].strip()), emptied) for row in rows)
    return file.getvalue().encode()


def _with_balance(
    row: Mapping[str, Any], balance: Mapping[str, Any] | None, emptied: Mapping[str, str]
) -> dict[str, Any]:
    if balance is None:
        return dict(row)
    return {**{name: row[name] for name in row if name not in BALANCE}, **emptied, **balance}


def _campaigns(row: Mapping[str, Any] | PlanError) -> set[str]:
    """The campaigns that a row may name which is no plan."""
    if isinstance(row, _Crooked):
        return set(map(str.strip, row.texts))
    named = None if isinstance(row, PlanError) else row.get("campaign_id")
    return {named.strip()} if isinstance(named, str) else set()


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
                yield line, _Crooked(cells, len(header))
            else:
                yield line, dict(zip(header, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise PlanError(f"not CSV: {error}", line=line) from None
    if header is None:
        raise PlanError("is empty: the first line names the columns")


def _check_header(header: list[str], line: int) -> None:
    missing = [name for name in NEEDED if name not in header]
    if missing:
        raise PlanError(f"no column {', '.join(missing)}; columns are separated by commas", line=line)
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise PlanError(f"column {', '.join(twice)} is there twice", line=line)


def _json_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any] | PlanError]]:
    """The items of a JSON list, one by one: a decoder of the whole list does not give an item's line."""
    place = _skip(text, 0)
    if not text.startswith("[", place):
        raise PlanError("not a JSON list of objects")
    counted, line = 0, 1
    place = _skip(text, place + 1)
    more = not text.startswith("]", place)
    while more:
        line, counted = line + text.count("\n", counted, place), place
        try:
            item, place = JSON.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise PlanError(f"not JSON: {error}", line=getattr(error, "lineno", line)) from None
        yield line, item if isinstance(item, dict) else PlanError("takes a JSON object")
        place = _skip(text, place)
        if text[place : place + 1] not in (",", "]"):
            raise PlanError(
                "not a JSON list: a comma or ] is missing behind the object that starts here", line=line
            )
        more = text[place] == ","
        place = _skip(text, place + more)
    if _skip(text, place + 1) < len(text):
        raise PlanError("there is more behind the end of the JSON list")


def _skip(text: str, place: int) -> int:
    space = _SPACE.match(text, place)
    assert space is not None
    return space.end()


class PlanFile:
    """A file of plans that may change at any time; `book` has the plans in force, `ready` is True once it was
    read.

    The last good version stays in force while the file is missing or cannot be read. A change is read once
    two checks in a row have found the same file, so that a half-written file is not read. Starts no thread
    and keeps no file open; `book` is replaced, never changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.book = PlanBook()
        self.ready = False
        self._looked_ms: int | None = None
        self._seen_stamp: tuple[int, ...] = ()
        self._read: tuple[int, ...] = ()
        self._trouble: str | None = None

    def refresh(self, now_ms: int) -> list[Problem]:
        """Check whether the file has changed, at most once a `LOOK_MS`; the first time it is read at once.

        Args:
            now_ms: by any clock that goes forward.

        Returns:
            The file's problems, once for each change of it.
        """
        first = self._looked_ms is None
        if self._looked_ms is not None and now_ms - self._looked_ms < LOOK_MS:
            return []
        self._looked_ms = now_ms
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            before, self._seen_stamp = self._seen_stamp, stamp
            if stamp == self._read:
                self._trouble = None
            if stamp == self._read or (stamp != before and not first):
                return []
            data = self.path.read_bytes()
        except OSError as error:
            trouble, self._trouble = self._trouble, f"cannot be read: {error.strerror}"
            return [self._problem(self._trouble)] if self._trouble != trouble else []
        self._read, self._trouble = stamp, None
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
