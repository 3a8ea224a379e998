"""Writes hours of an archive as Parquet for a warehouse, by DuckDB.

An hour is written, whole or not at all, once every partition of the archive has passed its end. A file next
to it holds a digest of its segments. If segments are later written again without forgotten people, the digest
differs, and the hour is written again.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
import zstandard

from connectors.objects import NotThere, Objects
from flows.archive.manifest import part_paths, parts
from flows.archive.message_lines import Forgetting
from flows.archive.segments import HOUR_MS, Segment, opened
from flows.errors import UNREADABLE
from flows.model.catalogue.fields import FIELDS, Kind

_TEXTS: Final = (Kind.ID, Kind.TEXT, Kind.CATEGORIES, Kind.OBJECT)


def _names_of(*kinds: Kind) -> tuple[str, ...]:
    return tuple(field.name for field in FIELDS if field.kind in kinds)


TEXTS: Final = (*_names_of(*_TEXTS), "ga_client_id")
NUMBERS, TRUTHS, TIMES = _names_of(Kind.WHOLE), _names_of(Kind.TRUTH), _names_of(Kind.MOMENT)
"""Columns by type: text as received and objects as JSON; integers; booleans; times in UTC, to the
millisecond.
"""
_ALL: Final = (*TEXTS, *NUMBERS, *TRUTHS, *TIMES)
_SEPARATOR: Final = b"\x1f"
"""A character that JSON always escapes."""


class Hour(msgspec.Struct):
    """The file that describes an hour.

    Attributes:
        hour: the begin, in RFC 3339.
        sources: a digest of the segments, which changes if a segment is written again.
        messages, pixels, marks, others, malformed: counts. `messages` = `pixels` + `marks` + `others` +
            `malformed`; `others` are JSON objects that are no pixels.
    """

    hour: str
    sources: str
    messages: int
    pixels: int
    marks: int
    others: int
    malformed: int


@dataclass
class WrittenHours:
    """The result of a run.

    Attributes:
        written: the begins of the hours that were written, in RFC 3339.
        pixels: the number of pixels in them.
        unchanged: the number of hours that the warehouse already had.
    """

    written: list[str] = field(default_factory=list)
    pixels: int = 0
    unchanged: int = 0


def write_hours(
    archive: Objects,
    warehouse: Objects,
    forgetting: Forgetting,
    report: Callable[[str], None] = lambda step: None,
) -> WrittenHours:
    """Write the whole hours that the warehouse lacks, or whose segments have changed.

    Args:
        warehouse: the store of the hours.
        forgetting: removes the people of the present deny-list.

    Raises:
        StateError: the archive has a gap, or is damaged.
        ConnectError: a store does not answer.
    """
    segments: dict[int, list[tuple[int, Segment]]] = {}
    through: list[int] = []
    for partition, paths in part_paths(archive).items():
        newest = None
        for newest in parts(archive, paths):
            for segment in newest.segments:
                segments.setdefault(segment.hour_ms, []).append((partition, segment))
        if newest is not None:
            through.append(newest.through_ms)
    result = WrittenHours()
    for hour_ms in sorted(segments):
        if hour_ms + HOUR_MS > min(through):
            break
        name, folder = _names(hour_ms)
        sources = _digest(segments[hour_ms])
        if _has(warehouse, folder, sources):
            result.unchanged += 1
            continue
        report(f"writing the hour {name}")
        hour = _write(archive, warehouse, folder, name, segments[hour_ms], sources, forgetting)
        result.written.append(name)
        result.pixels += hour.pixels
    return result


def _names(hour_ms: int) -> tuple[str, str]:
    """The begin of an hour, and its folder."""
    begin = datetime.fromtimestamp(hour_ms / 1000, UTC)
    return f"{begin:%Y-%m-%dT%H}:00Z", f"pixels/day={begin:%Y-%m-%d}/hour={begin:%H}"


def _digest(segments: Sequence[tuple[int, Segment]]) -> str:
    names = "".join(f"{partition} {one.first} {one.sha256}\n" for partition, one in segments)
    return hashlib.sha256(names.encode()).hexdigest()


def _has(warehouse: Objects, folder: str, sources: str) -> bool:
    try:
        return msgspec.json.decode(warehouse.get(f"{folder}/_hour.json")[0], type=Hour).sources == sources
    except (NotThere, *UNREADABLE):
        return False


def _write(
    archive: Objects,
    warehouse: Objects,
    folder: str,
    name: str,
    segments: Sequence[tuple[int, Segment]],
    sources: str,
    forgetting: Forgetting,
) -> Hour:
    with tempfile.TemporaryDirectory(prefix="audiopixel-hours-") as directory:
        lines, file = Path(directory) / "lines.zst", Path(directory) / "pixels.parquet"
        with zstandard.open(lines, "wb", cctx=zstandard.ZstdCompressor(level=1)) as out:
            for chunk in _lines(archive, segments, forgetting):
                out.write(chunk)
        messages, pixels, marks, others = _parquet(lines, file, Path(directory))
        warehouse.put_file(f"{folder}/pixels.parquet", file)
    malformed = sum(one.malformed for _, one in segments)
    hour = Hour(name, sources, messages + malformed, pixels, marks, others, malformed)
    warehouse.put(f"{folder}/_hour.json", msgspec.json.format(msgspec.json.encode(hour), indent=2) + b"\n")
    return hour


def _lines(
    archive: Objects, segments: Sequence[tuple[int, Segment]], forgetting: Forgetting
) -> Iterator[bytes]:
    """Messages as rows of partition, offset, timestamp and JSON, without malformed ones."""
    for partition, segment in segments:
        content = opened(archive.get(segment.path)[0], segment)
        rows = zip(content.offsets.tolist(), content.stamps_ms.tolist(), content.lines, strict=True)
        yield b"".join(
            b"%d%b%d%b%d%b%b\n"
            % (partition, _SEPARATOR, offset, _SEPARATOR, stamp, _SEPARATOR, forgetting.redacted(line))
            for offset, stamp, line in rows
            if line
        )


def _parquet(lines: Path, file: Path, directory: Path) -> tuple[int, int, int, int]:
    """Write the pixels. Returns the numbers of messages, pixels, marks and other messages."""
    paths = ", ".join(f"'$.{name}'" for name in _ALL)
    columns = [f"v[{place}] as {name}" for place, name in enumerate(TEXTS, 1)]
    for names, type_ in ((NUMBERS, "bigint"), (TRUTHS, "boolean")):
        columns += [f"try_cast(v[{_ALL.index(name) + 1}] as {type_}) as {name}" for name in names]
    for name in TIMES:
        text = f"v[{_ALL.index(name) + 1}]"
        columns.append(
            f"coalesce(try(make_timestamp(try_cast({text} as bigint) * 1000)), "
            f"try_cast({text} as timestamptz) at time zone 'UTC') as {name}"
        )
    with duckdb.connect(config={"temp_directory": str(directory), "threads": 2}) as database:
        database.execute("set TimeZone = 'UTC'; set preserve_insertion_order = true")
        database.execute(
            'create temp view messages as select partition, "offset", stamp, value, '
            "case when json_valid(value) then json_type(value, '$.event') end as event, "
            "case when json_valid(value) then json_type(value, '$.collector') end as collector from "
            "read_csv($1, delim = chr(31), quote = '', escape = '', header = false, compression = 'zstd', "
            "max_line_size = 1048576, auto_detect = false, columns = {'partition': 'INTEGER', "
            "'offset': 'BIGINT', 'stamp': 'BIGINT', 'value': 'VARCHAR'})".replace("$1", _quoted(lines))
        )
        database.execute(
            f'copy (select partition, "offset", make_timestamp(stamp * 1000) as broker_time, '
            f"{', '.join(columns)} from (select *, json_extract_string(value, [{paths}]) as v from messages "
            f"where event = 'VARCHAR')) to {_quoted(file)} (format parquet, compression zstd)"
        )
        ((messages, pixels, marks),) = database.execute(
            "select count(*), count(*) filter (event = 'VARCHAR'), count(*) filter "
            "((event is null or event <> 'VARCHAR') and collector = 'VARCHAR') from messages"
        ).fetchall()
    return messages, pixels, marks, messages - pixels - marks


def _quoted(path: Any) -> str:
    return "'" + str(path).replace("'", "''") + "'"
