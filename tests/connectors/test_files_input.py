"""Files: lines at block borders, damage, and an output that is cut back on resume."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from connectors.files import FileInput, NdjsonWriter
from connectors.stream import ConnectError, EndOfInput

PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor(write_checksum=True).compress}
LINES = [b'{"n":%d,"noise":"%s"}' % (n, os.urandom(30).hex().encode()) for n in range(20_000)]


def _write(directory: Path, content: bytes, suffix: str = "") -> str:
    path = directory / f"log.ndjson{suffix}"
    path.write_bytes(PACK[suffix](content))
    return str(path)


def _read(
    path: str, position: int | None = None, block_bytes: int = 8 << 20
) -> tuple[list[bytes], list[int]]:
    reader = FileInput([path], block_bytes).open(path, position)
    values: list[bytes] = []
    positions: list[int] = []
    try:
        while True:
            messages = reader.read(1_000)
            values += messages.values
            positions += messages.positions
            assert messages.next_position == positions[-1]
    except EndOfInput:
        return values, positions
    finally:
        reader.close()


@given(
    lines=st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"|")), min_size=1),
    ends_in_lf=st.booleans(),
    block_bytes=st.integers(1, 30),
    suffix=st.sampled_from(list(PACK)),
)
def test_lines_are_the_same_whatever_the_block_size(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes],
    ends_in_lf: bool,
    block_bytes: int,
    suffix: str,
) -> None:
    lines = [b"{", *lines]  # no other format begins so
    # A blank last line without LF is no line.
    content = b"\n".join(lines) + (b"\n" if ends_in_lf or not lines[-1] else b"")
    path = _write(tmp_path_factory.getbasetemp(), content, suffix)
    for position in (0, 1, len(lines) // 2, len(lines)):
        expected = lines[position:]
        assert _read(path, position, block_bytes) == (expected, list(range(position + 1, len(lines) + 1)))


def test_no_small_batch_follows_each_full_one(tmp_path: Path) -> None:
    path = _write(tmp_path, b"012345678\n" * 1_000)
    for block_lines, sizes in ((110, [100, 10, 98, 98]), (250, [100, 100, 50, 100, 96]), (90, [90, 90, 90])):
        reader = FileInput([path], block_bytes=10 * block_lines).open(path, None)
        assert [len(reader.read(100).values) for _ in sizes] == sizes


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_of_several_members_is_one_log(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log.ndjson{suffix}"
    path.write_bytes(PACK[suffix](b"a\nb") + PACK[suffix](b"") + PACK[suffix](b"c\nd\n"))
    assert _read(str(path))[0] == [b"a", b"bc", b"d"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_cut_short_gives_its_lines_and_then_an_error(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path, b"\n".join(LINES), suffix)
    os.truncate(path, os.path.getsize(path) * 3 // 4)
    reader = FileInput([path], 10_000).open(path, None)
    seen: list[bytes] = []
    with suppress(ConnectError):
        while True:
            seen += reader.read(1_000).values
    assert len(LINES) > len(seen) > len(LINES) // 2
    assert seen == LINES[: len(seen)]
    with pytest.raises(ConnectError, match=f"after line {len(seen)}: .*middle of its compressed data"):
        _read(path, block_bytes=10_000)
    reader.close()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_damaged_compressed_file_is_an_error_and_no_data(tmp_path: Path, suffix: str) -> None:
    path = Path(_write(tmp_path, b"\n".join(LINES), suffix))
    packed = bytearray(path.read_bytes())
    packed[len(packed) // 2 : len(packed) // 2 + 64] = b"\xff" * 64
    path.write_bytes(packed)
    with pytest.raises(ConnectError, match="cannot be read after line") as error:
        _read(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("content", [b"", b"{}\n", os.urandom(1 << 20)])
def test_the_content_decides_the_compression_and_not_the_name(
    tmp_path: Path, suffix: str, content: bytes
) -> None:
    packed = Path(_write(tmp_path, content, suffix))
    for name in ("log", "log.gz", "log.zst"):
        packed = packed.rename(tmp_path / name)
        assert b"\n".join(_read(str(packed))[0]) == content.removesuffix(b"\n")


@pytest.mark.parametrize(
    "beginning", [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh9", b"\x1f\x8b\x08" + bytes(99)]
)
def test_a_log_beginning_like_a_compressed_file_is_read_as_lines(tmp_path: Path, beginning: bytes) -> None:
    assert _read(_write(tmp_path, beginning + b"\n{}\n"))[0] == [beginning, b"{}"]


def test_a_line_of_two_mebibytes_is_delivered_whole(tmp_path: Path) -> None:
    long = b"x" * (2 << 20)
    assert _read(_write(tmp_path, b"a\n" + long + b"\nb\n"), block_bytes=100_000)[0] == [b"a", long, b"b"]


@pytest.mark.parametrize("block_bytes", [1 << 20, 64 << 20])
def test_a_line_over_sixteen_mebibytes_is_refused(tmp_path: Path, block_bytes: int) -> None:
    path = _write(tmp_path, b"a\n" + b"x" * (17 << 20))
    with pytest.raises(ConnectError, match=r"a line after line \d is over 16 MiB"):
        _read(path, block_bytes=block_bytes)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    content = b"".join(os.urandom(133).hex().encode() + b"\n" for _ in range(150_000))
    path = _write(tmp_path, content, ".zst")
    reader = FileInput([path], 1 << 20).open(path, None)
    tracemalloc.start()
    lines = 0
    try:
        while True:
            lines += len(reader.read(10_000).values)
    except EndOfInput:
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        reader.close()
    assert lines == 150_000
    assert peak < 8 << 20  # the file unpacked: 40 MB


def test_a_file_shorter_than_the_saved_position_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, b"a\nb\n")
    with pytest.raises(ConnectError, match="has 2 lines, but 3 were read before"):
        FileInput([path]).open(path, 3)


@pytest.mark.parametrize("left", [0, 30, 4_000])
def test_a_file_cut_while_being_read_does_not_end_at_the_cut(tmp_path: Path, left: int) -> None:
    path = _write(tmp_path, b'{"n":1}\n' * 1_000)
    reader = FileInput([path], block_bytes=1 << 10).open(path, None)
    reader.read(10)
    os.truncate(path, left)

    with pytest.raises(ConnectError, match=r"was cut while it was read, .* it had 8000 bytes"):
        list(iter(lambda: reader.read(10), None))
    reader.close()


def test_a_growing_file_is_read_to_its_new_end(tmp_path: Path) -> None:
    path = _write(tmp_path, b"a\nb\n")
    reader = FileInput([path]).open(path, None)
    found = [bytes(one) for one in reader.read(10).values]
    with open(path, "ab") as file:
        file.write(b"c\n")
    found += reader.read(10).values
    with pytest.raises(EndOfInput):
        reader.read(10)
    reader.close()
    assert found == [b"a", b"b", b"c"]


@pytest.mark.parametrize("position", [1, 2])
def test_a_replaced_file_is_refused_but_a_grown_one_is_read(tmp_path: Path, position: int) -> None:
    path = _write(tmp_path, b"a\nb\n")
    reader = FileInput([path]).open(path, position)
    reader.close()

    _write(tmp_path, b"a\nb\nc\n")
    grown = FileInput([path]).open(path, position, reader.log_id)
    assert (grown.position, grown.log_id) == (position, reader.log_id)
    grown.close()
    _write(tmp_path, b"c\nb\na\n")
    with pytest.raises(ConnectError, match=f"another line .* of which {position} lines .* was replaced"):
        FileInput([path]).open(path, position, reader.log_id)


def test_paths_that_cannot_be_read_are_refused_at_once(tmp_path: Path) -> None:
    log = _write(tmp_path, b"a\n")
    link = tmp_path / "link.ndjson"
    link.symlink_to(log)
    hard = tmp_path / "hard.ndjson"
    hard.hardlink_to(log)
    os.mkfifo(tmp_path / "fifo")
    for paths, reason in (
        ([], "no input files"),
        ([str(tmp_path / "absent")], "absent: no such file"),
        ([str(tmp_path)], "is a directory"),
        ([str(tmp_path / "fifo")], "fifo: not a regular file"),
        ([str(tmp_path / ("x" * 300))], "cannot be read: File name too long"),
        ([log, f"{tmp_path}/./{Path(log).name}"], "the same file"),
        ([log, str(hard)], "hard.ndjson: the same file as"),
        ([log, log], "the same file"),
        ([log, str(link)], "link.ndjson: the same file as"),
    ):
        with pytest.raises(ConnectError, match=reason):
            FileInput(paths)


def test_a_resumed_writer_repeats_and_loses_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "minutes.ndjson")
    writer = NdjsonWriter(path)
    writer.write([b"a", b"b"])
    writer.flush()
    saved = writer.position
    writer.write([b"after the snapshot"])
    writer.close()

    resumed = NdjsonWriter(path, saved)
    resumed.write([])
    resumed.write([b"c"])
    resumed.close()
    assert Path(path).read_bytes() == b"a\nb\nc\n"
    assert resumed.position == len(b"a\nb\nc\n")


def test_a_writer_without_a_position_rewrites_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path, b"old\n")
    NdjsonWriter(path).close()
    assert Path(path).read_bytes() == b""


def test_an_output_shorter_than_the_saved_position_is_refused_and_kept(tmp_path: Path) -> None:
    path = _write(tmp_path, b"a\n")
    with pytest.raises(ConnectError, match="has 2 bytes, but 4 were written before"):
        NdjsonWriter(path, 4)
    assert Path(path).read_bytes() == b"a\n"


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="cannot be written: Is a directory"):
        NdjsonWriter(str(tmp_path))
