"""Reads another party's counts: a file with a row for each placement or campaign and day or flight."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from connectors.files import regular
from connectors.stream import ConnectError
from connectors.wrapping import table_of
from flows.errors import UsageError
from flows.model.basis import BASES
from flows.model.client_counts import WINDOWS
from flows.waterfall.signed_parts import INVALID, NAMES

FLIGHT: Final = "flight"
MAX_ROWS: Final = 100_000
MAX_BYTES: Final = 64 << 20
_PARQUET_MB: Final = 256
"""The greatest memory for a Parquet file. One of a kilobyte may have a cell of a megabyte 100,000 times."""
_MAX_ID: Final = 128
_MAX_COUNT: Final = 10**12
_MAX_DIGITS: Final = 20
_IDS: Final = (str, int, float, Decimal, UUID)
"""The types of an id: a text or number in JSON, or in a column of Parquet."""
_WRITABLE: Final = re.compile("[^\ud800-\udfff]*")
COUNTED: Final = ("impressions", "deliveries", "downloads")
"""The kinds of counts. A row has one of them."""
COLUMNS: Final = ("placement_id", "campaign_id", "day", *COUNTED, "excludes", "basis", "window")


class Claim(NamedTuple):
    """A row of another party's report.

    Attributes:
        scope: `placement` or `campaign`.
        name: its id.
        day: the counted day; None for the whole flight.
        number: the other party's count.
        excludes: the names of parts that the other party leaves out as we do. They explain no difference.
        basis: the only kind of impression that the other party counts; None for all.
        counted: one of `COUNTED`.
        window: the IAB's window by which deliveries or downloads count once a client; None if each counts.
    """

    scope: str
    name: str
    day: date | None
    number: int
    excludes: frozenset[str] = frozenset()
    basis: str | None = None
    counted: str = COUNTED[0]
    window: str | None = None

    @property
    def metric(self) -> str:
        """The name of our metric of the same events."""
        return self.counted if self.window is None else f"{self.counted}_{self.window}"

    @property
    def subject(self) -> tuple[object, ...]:
        """The subject of the count. Two rows of a file may not have the same one."""
        return self.scope, self.name, self.day, self.metric, self.basis, self.excludes


def read_claims(path: Path) -> list[Claim]:
    """The rows of a file: `.csv` with a header, `.json` (a list of objects), or `.parquet`.

    Raises:
        UsageError: the file cannot be read. The error names the line and the column.
    """
    readers = {".csv": _csv, ".json": _json, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path}: takes a .csv, .json or .parquet file")
    try:
        if regular(str(path)).st_size > MAX_BYTES:
            raise UsageError(f"{path}: is over {MAX_BYTES >> 20} MB")
        return _claims(str(path), reader(path), MAX_ROWS)
    except ConnectError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def read_csv(data: bytes, name: str, most: int) -> list[Claim]:
    """The rows of a CSV with a header.

    Args:
        name: the name of the CSV in errors.
        most: the greatest number of rows.

    Raises:
        UsageError: the CSV cannot be read. The error names the line and the column.
    """
    return _claims(name, _csv_rows(name, data), most)


def _claims(name: str, rows: Iterator[tuple[int, Mapping[str, Any]]], most: int) -> list[Claim]:
    claims = list[Claim]()
    lines: dict[tuple[object, ...], int] = {}
    for line, row in rows:
        if len(claims) >= most:
            raise UsageError(f"{name}: takes at most {most:,} rows")
        claims.append(claim := _claim(f"{name}:{line}", row))
        if (before := lines.setdefault(claim.subject, line)) != line:
            raise UsageError(f"{name}:{line}: counts the same as line {before}: add the two up")
    if not claims:
        raise UsageError(f"{name}: has no rows")
    return claims


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    return _csv_rows(str(path), table_of(str(path), path.read_bytes()))


def _csv_rows(path: str, data: bytes) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        text = data.decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = list(reader.fieldnames or ())
        if len(header) == 1 and header[0] not in COLUMNS:
            raise UsageError(f"{path}: has one column: columns are separated by commas")
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise UsageError(f"{path}: column {twice[0][:40]} is there twice")
        for row in reader:
            if any(map(str.strip, filter(None, map(_cell, row.values())))):
                yield reader.line_num, row
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8: save the file as such") from None
    except csv.Error as error:
        raise UsageError(f"{path}: is not CSV: {error}") from None


def _cell(value: object) -> str:
    return value if isinstance(value, str) else ""


def _json(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not JSON: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: takes a list of objects")
    yield from enumerate(rows, 1)


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import duckdb

    bounds: dict[str, str | bool | int | float | list[str]]
    bounds = {"threads": 1, "memory_limit": f"{_PARQUET_MB}MB", "temp_directory": ""}
    try:
        with duckdb.connect(":memory:", config=bounds) as database:
            answer = database.execute("SELECT * FROM read_parquet($1) LIMIT $2", [str(path), MAX_ROWS + 1])
            names = [column[0] for column in answer.description or ()]
            for line, row in enumerate(answer.fetchall(), 1):
                yield line, dict(zip(names, row, strict=True))
    except duckdb.OutOfMemoryException:
        raise UsageError(f"{path}: takes over {_PARQUET_MB} MB of memory: some cells are too long") from None
    except duckdb.Error as error:
        raise UsageError(f"{path}: is not Parquet: {str(error).splitlines()[0]}") from None


def _claim(where: str, row: Mapping[str, Any]) -> Claim:
    if unknown := sorted(str(name) for name in row if name not in COLUMNS):
        raise UsageError(f"{where}: no such column: {unknown[0][:40]}; takes {' '.join(COLUMNS)}")
    names = {scope: _name(where, scope, row.get(f"{scope}_id")) for scope in ("placement", "campaign")}
    present_names = {scope: name for scope, name in names.items() if name}
    if len(present_names) != 1:
        raise UsageError(f"{where}: takes either placement_id or campaign_id")
    ((scope, name),) = present_names.items()
    counted_columns = [kind for kind in COUNTED if str("" if row.get(kind) is None else row[kind]).strip()]
    if len(counted_columns) > 1:
        raise UsageError(f"{where}: takes one of {', '.join(COUNTED)}")
    (counted,) = counted_columns or COUNTED[:1]
    basis = _one_of(where, "basis", row.get("basis"), BASES)
    window = _one_of(where, "window", row.get("window"), WINDOWS)
    if basis and counted != COUNTED[0]:
        raise UsageError(f"{where}: basis: belongs to impressions, and the row counts {counted}")
    if window and counted == COUNTED[0]:
        raise UsageError(
            f"{where}: window: belongs to deliveries and downloads, and the row counts {counted}"
        )
    return Claim(
        scope,
        name,
        _day(where, row.get("day")),
        _count(where, counted, row.get(counted)),
        _excludes(where, row.get("excludes")),
        basis,
        counted,
        window,
    )


def _one_of(where: str, column: str, value: object, kinds: Sequence[str]) -> str | None:
    text = str(value or "").strip()
    if text and text not in kinds:
        raise UsageError(f"{where}: {column}: no such kind: {text[:40]}; takes {' '.join(kinds)}")
    return text or None


def _name(where: str, scope: str, value: object) -> str:
    if value is not None and (isinstance(value, bool) or not isinstance(value, _IDS)):
        raise UsageError(f"{where}: {scope}_id: takes a text or a number")
    name = str(value).strip() if value is not None else ""
    if len(name) > _MAX_ID:
        raise UsageError(f"{where}: {scope}_id: takes at most {_MAX_ID} characters")
    if not _WRITABLE.fullmatch(name):
        raise UsageError(f"{where}: {scope}_id: has a lone surrogate (half a character)")
    return name


def _day(where: str, value: object) -> date | None:
    if (
        isinstance(value, datetime) and value.timetz() == time.min
    ):  # a day as tables often have it: its midnight
        return value.date()
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    text = str(value or "").strip()
    if text == FLIGHT:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{where}: day: takes a date, such as 2026-11-25, or {FLIGHT}") from None


def _count(where: str, counted: str, value: object) -> int:
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    digits = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    if isinstance(value, bool) or not digits or int(text) > _MAX_COUNT:
        raise UsageError(f"{where}: {counted}: takes a whole number, in digits alone")
    return int(text)


def _excludes(where: str, value: object) -> frozenset[str]:
    words = value if isinstance(value, list) else str(value or "").replace(";", " ").split()
    names = frozenset(str(word) for word in words)
    for name in sorted(names):
        if name.partition(".")[0] not in NAMES or ("." in name and not name.startswith(f"{INVALID}.")):
            raise UsageError(f"{where}: excludes: no such part: {name[:40]}; takes {' '.join(NAMES)}")
    return names
