"""The contract of connectors.stream for every input, tested with files and both brokers."""

from __future__ import annotations

import gzip
import time
import uuid
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard

from connectors.files import FileInput
from connectors.kafka.reader import KafkaInput
from connectors.kafka.writer import KafkaWriter, ensure_topic
from connectors.stream import EndOfInput, Input, Reader

VALUES = [b'{"n":%d}' % n for n in range(5_000)]
MakeInput = Callable[[list[bytes]], Input]


def _files(directory: Path, suffix: str, pack: Callable[[bytes], bytes]) -> MakeInput:
    def make(values: list[bytes]) -> Input:
        path = directory / f"{uuid.uuid4().hex}.ndjson{suffix}"
        path.write_bytes(pack(b"".join(value + b"\n" for value in values)))
        return FileInput([str(path)], block_bytes=10_000)

    return make


def _kafka(brokers: str) -> MakeInput:
    def make(values: list[bytes]) -> Input:
        topic = f"contract-{uuid.uuid4().hex}"
        ensure_topic(brokers, topic, 1)
        writer = KafkaWriter(brokers, topic)
        writer.write([(b"key", value) for value in values])
        writer.flush()
        return KafkaInput(brokers, [topic])

    return make


@pytest.fixture(params=["plain", "gz", "zst", "tansu", pytest.param("apache", marks=pytest.mark.apache)])
def make_input(request: pytest.FixtureRequest, tmp_path: Path) -> MakeInput:
    match request.param:
        case "plain":
            return _files(tmp_path, "", bytes)
        case "gz":
            return _files(tmp_path, ".gz", gzip.compress)
        case "zst":
            return _files(tmp_path, ".zst", zstandard.compress)
        case "tansu":
            return _kafka(request.getfixturevalue("tansu").bootstrap)
        case _:
            return _kafka(request.getfixturevalue("apache").brokers)


def _read(reader: Reader, limit: int, enough: int | None = None) -> tuple[list[bytes], list[int], int | None]:
    """Values, positions and the last `next_position`, to the present end or until there are `enough`."""
    values: list[bytes] = []
    positions: list[int] = []
    following = None
    deadline = time.monotonic() + 30
    while enough is None or len(values) < enough:
        assert time.monotonic() < deadline, f"{len(values)} messages in 30 s"
        try:
            messages = reader.read(limit)
        except EndOfInput:
            break
        if messages is not None:
            assert 0 < len(messages.values) == len(messages.positions) <= limit
            assert messages.next_position >= messages.positions[-1]
            values += messages.values
            positions += messages.positions
            following = messages.next_position
        elif reader.caught_up:
            break
        else:
            time.sleep(0.005)
    return values, positions, following


def test_every_message_comes_once_and_in_order_at_growing_positions(make_input: MakeInput) -> None:
    source = make_input(VALUES)
    [partition] = source.partitions()
    reader = source.open(partition, None)
    values, positions, _ = _read(reader, 700)
    reader.close()
    assert values == VALUES
    assert all(a < b for a, b in pairwise(positions))


def test_partitions_keep_their_names(make_input: MakeInput) -> None:
    source = make_input(VALUES[:1])
    assert source.partitions() == source.partitions() != []


@pytest.mark.parametrize("limit", [1, 7, 1_000])
def test_a_reader_resumes_at_its_saved_position(make_input: MakeInput, limit: int) -> None:
    source = make_input(VALUES)
    [partition] = source.partitions()
    first = source.open(partition, None)
    values, positions, saved = _read(first, limit, enough=2_000 if limit > 1 else 3)
    first.close()

    second = source.open(partition, saved)
    rest, rest_positions, _ = _read(second, 1_000)
    second.close()
    assert rest[0] == VALUES[len(values)]
    assert rest_positions[0] == positions[-1] + 1
    assert values + rest == VALUES


def test_a_reader_opened_at_the_end_finds_nothing_more(make_input: MakeInput) -> None:
    source = make_input(VALUES[:10])
    [partition] = source.partitions()
    first = source.open(partition, None)
    _, _, saved = _read(first, 100)
    first.close()
    second = source.open(partition, saved)
    assert _read(second, 100) == ([], [], None)
    second.close()


def test_an_empty_message_is_a_message(make_input: MakeInput) -> None:
    source = make_input([b"a", b"", b"", b"b"])
    [partition] = source.partitions()
    reader = source.open(partition, None)
    assert _read(reader, 100)[0] == [b"a", b"", b"", b"b"]
    reader.close()


def test_an_empty_partition_ends_without_a_message(make_input: MakeInput) -> None:
    source = make_input([])
    [partition] = source.partitions()
    reader = source.open(partition, None)
    assert _read(reader, 100) == ([], [], None)
    reader.close()
