"""Files of a source: compressed, cut, damaged, and tables with quotes."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import zstandard

from connectors.stream import ConnectError
from flows.sources import Source
from flows.sources.messages import MAX_MESSAGE_BYTES, of_file
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
def test_a_compressed_file_that_was_cut_is_refused(suffix: str, left: float, tmp_path: Path) -> None:
    packed = PACKS[suffix](LINES)
    with pytest.raises(ConnectError, match="cannot be read"):
        read(tmp_path / f"x{suffix}", packed[: int(left * len(packed))])


@pytest.mark.parametrize("suffix", PACKS)
def test_a_compressed_file_that_is_damaged_is_refused(suffix: str, tmp_path: Path) -> None:
    packed = bytearray(PACKS[suffix](LINES))
    packed[30:60] = b"\xff" * 30
    with pytest.raises(ConnectError, match="cannot be read"):
        read(tmp_path / f"x{suffix}", bytes(packed))


def test_a_quote_that_nobody_closes_takes_no_row_for_its_cell(tmp_path: Path) -> None:
    rows = table(tmp_path, b'e,note\nstart,x\nstart,"oops\nstart,y\nstart,z\n')
    assert rows == [{"e": "start", "note": "x"}, None]
    rows = table(tmp_path, b'e,note\nstart,"oops\nstart,y\nstart,"z"\nstart,last\n')
    assert rows == [None, {"e": "start", "note": "last"}]
    rows = table(tmp_path, b'e,note\nstart,"two\nlines, and ""quotes"""\nstart,y\n')
    assert rows == [{"e": "start", "note": 'two\nlines, and "quotes"'}, {"e": "start", "note": "y"}]


def test_a_row_that_is_too_long_is_malformed_and_the_next_is_read(tmp_path: Path) -> None:
    rows = table(tmp_path, b"e,note\n" + b"x," * MAX_MESSAGE_BYTES + b"\nstart,y\n")
    assert rows == [None, {"e": "start", "note": "y"}]


def test_a_table_without_a_header_that_can_be_read_is_refused(tmp_path: Path) -> None:
    for content in (b"x" * 200_000, b'"never closed\nstart,a\n'):
        with pytest.raises(ConnectError, match=r"x\.csv: its first row names no columns"):
            table(tmp_path, content)
