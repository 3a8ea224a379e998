"""A segment: what goes in comes out, every reader of zstd reads it, and a changed byte is found."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from connectors.files import FileInput
from connectors.stream import EndOfInput
from flows.archive.segments import Builder, Content, Segment, opened
from flows.errors import StateError

LINES = [b'{"n":%d}' % n for n in range(1_000)]


def built_segment(lines: list[bytes] | None = None) -> tuple[bytes, Segment]:
    builder = Builder(10, 0)
    told = LINES if lines is None else lines
    builder.add(told, [10 + 2 * n for n in range(len(told))], [5_000 - n for n in range(len(told))], [])
    return builder.close(10 + 2 * len(told), "segments/00000/a.ndjson.zst")


def test_segments_return_messages_with_offsets_and_timestamps() -> None:
    content: Content = opened(*built_segment())
    assert list(content.lines) == LINES
    assert content.offsets.tolist() == [10 + 2 * n for n in range(1_000)]
    assert content.stamps_ms.tolist() == [5_000 - n for n in range(1_000)]


def test_a_log_reader_and_duckdb_read_the_file_as_a_log(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson.zst"
    path.write_bytes(built_segment()[0])
    reader = FileInput([str(path)]).open(str(path), None)
    assert list(reader.read(2_000).values) == LINES
    with pytest.raises(EndOfInput):
        reader.read(1)
    assert duckdb.sql(f"select count(*), sum(n) from read_ndjson('{path}')").fetchall() == [(1_000, 499_500)]


def test_a_malformed_message_is_an_empty_line_with_its_length_and_digest() -> None:
    builder = Builder(0, 0)
    builder.add([b'{"a":1}'], [0], [1])
    builder.add([b"", b'{"a":2}'], [1, 2], [2, 3], [(0, 9, "ab")])
    body, segment = builder.close(3, "p")
    assert (segment.messages, segment.malformed) == (3, 1)
    content = opened(body, segment)
    assert list(content.lines) == [b'{"a":1}', b"", b'{"a":2}']
    assert content.malformed == [(1, 9, "ab")]


@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_changed_byte_is_found(place: int) -> None:
    body, segment = built_segment()
    damaged = bytearray(body)
    damaged[place] ^= 1
    with pytest.raises(StateError, match="is damaged"):
        opened(bytes(damaged), segment)
    with pytest.raises(StateError, match="is damaged"):
        opened(body[:-5], segment)
