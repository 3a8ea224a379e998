"""Files of a source: compressed, cut, damaged, and tables with quotes."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import zstandard
from collector_support import understanding

from connectors.stream import ConnectError
from flows.settings import Settings
from flows.sources import Source
from flows.sources.batch import pixels_of
from flows.sources.live import Ledger
from flows.sources.messages import MAX_MESSAGE_BYTES, id_of_file, of_file
from flows.sources.paths import Message

Pack = Callable[[bytes], bytes]
LINES: Final = b"".join(b'{"n":%d,"random":"%s"}\n' % (n, os.urandom(8).hex().encode()) for n in range(5_000))
PACKS: Final[dict[str, Pack]] = {".gz": gzip.compress, ".zst": zstandard.compress}


def read(path: Path, content: bytes, **source: Any) -> list[Message]:
    path.write_bytes(content)
    return list(of_file(Source(name="x", files=str(path), **source), str(path)))


def table(directory: Path, content: bytes) -> list[Any]:
    return [message.document for message in read(directory / "x.csv", content, format="csv")]


@pytest.mark.parametrize("suffix", PACKS)
def test_a_compressed_file_is_read_whole_all_its_frames(suffix: str, tmp_path: Path) -> None:
    packed = PACKS[suffix](LINES)
    assert len(read(tmp_path / f"x{suffix}", packed + packed)) == 10_000


@pytest.mark.parametrize("left", [0.3, 0.999])
@pytest.mark.parametrize("suffix", PACKS)
def test_a_truncated_compressed_file_is_refused(suffix: str, left: float, tmp_path: Path) -> None:
    packed = PACKS[suffix](LINES)
    with pytest.raises(ConnectError, match="cannot be read"):
        read(tmp_path / f"x{suffix}", packed[: int(left * len(packed))])


@pytest.mark.parametrize("suffix", PACKS)
def test_a_damaged_compressed_file_is_refused(suffix: str, tmp_path: Path) -> None:
    packed = bytearray(PACKS[suffix](LINES))
    packed[30:60] = b"\xff" * 30
    with pytest.raises(ConnectError, match="cannot be read"):
        read(tmp_path / f"x{suffix}", bytes(packed))


def test_an_unclosed_quote_absorbs_no_later_row(tmp_path: Path) -> None:
    rows = table(tmp_path, b'e,note\nstart,x\nstart,"oops\nstart,y\nstart,z\n')
    assert rows == [{"e": "start", "note": "x"}, None]
    rows = table(tmp_path, b'e,note\nstart,"oops\nstart,y\nstart,"z"\nstart,last\n')
    assert rows == [None, {"e": "start", "note": "last"}]
    rows = table(tmp_path, b'e,note\nstart,"two\nlines, and ""quotes"""\nstart,y\n')
    assert rows == [{"e": "start", "note": 'two\nlines, and "quotes"'}, {"e": "start", "note": "y"}]


def test_an_overlong_row_is_malformed_and_the_next_is_read(tmp_path: Path) -> None:
    rows = table(tmp_path, b"e,note\n" + b"x," * MAX_MESSAGE_BYTES + b"\nstart,y\n")
    assert rows == [None, {"e": "start", "note": "y"}]


def test_a_table_without_a_readable_header_is_refused(tmp_path: Path) -> None:
    for content in (b"x" * (MAX_MESSAGE_BYTES + 1), b'"never closed\nstart,a\n'):
        with pytest.raises(ConnectError, match=r"x\.csv: its first row names no columns"):
            table(tmp_path, content)
    with pytest.raises(ConnectError, match=r"x\.csv: its first row is not UTF-8: encoding = .latin-1., or"):
        table(tmp_path, "Événement,p\nstart,a\n".encode("latin-1"))


@pytest.mark.parametrize("glob", ["exports/**/part.ndjson", "*/*/part.ndjson"])
def test_lines_of_files_of_one_name_in_several_directories_count_each(
    glob: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for day in ("1", "2"):
        Path("exports", day).mkdir(parents=True)
        Path("exports", day, "part.ndjson").write_text('{"event":"start","p":"a","at":1795600800000}\n' * 2)
    names = {"event": "event", "placement_id": "p", "ts": "at"}
    ledger = Ledger()
    lines = pixels_of(
        Source(name="x", files=glob, names=names), Settings(), understanding(), ledger, lambda *_: None
    )
    assert len({json.loads(line.body)["event_id"] for line in lines}) == ledger.pixels == 4


def test_a_moved_tree_of_files_keeps_its_ids(tmp_path: Path) -> None:
    for root in ("/data/old", "new"):
        source = Source(name="x", files=f"{root}/*/part-?.csv")
        assert id_of_file(source, f"{root}/day=1/part-0.csv") == "day=1/part-0.csv"
        assert id_of_file(Source(name="x", files=f"{root}/x.csv"), f"{root}/x.csv") == "x.csv"


def test_a_table_with_semicolons_needs_the_setting(tmp_path: Path) -> None:
    content = b'Event;Line item\nstart;"a;b"\n'
    (row,) = read(tmp_path / "x.csv", content, format="csv", separator=";")
    assert row.document == {"Event": "start", "Line item": "a;b"}
    with pytest.raises(ConnectError, match='one column with semicolons: separator = ";"'):
        table(tmp_path, content)
    assert table(tmp_path, b"Event\nstart\n") == [{"Event": "start"}]
