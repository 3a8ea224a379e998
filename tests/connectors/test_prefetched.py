"""Prefetched messages come the same by librdkafka's C API and by the package's objects."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from structlog.testing import capture_logs

from connectors.embedded import EmbeddedBroker
from connectors.kafka import KafkaInput, KafkaWriter, prefetched
from connectors.kafka.prefetched import Block, Objects
from connectors.stream import Lines

VALUES = [b"", b"{}", b"two\nlines", b"\x00\xff", b"x" * 70_000, *(b"%d" % number for number in range(3_000))]
"""A tombstone is written as no value, and read as an empty one."""


@pytest.fixture(scope="module")
def brokers() -> Iterator[str]:
    with EmbeddedBroker() as broker:
        broker.create_topic("t", 1)
        writer = KafkaWriter(broker.bootstrap, "t")
        for number, value in enumerate(VALUES):
            writer.send(0, b"key", value, 0 if number == 1 else 1_764_000_000_000 + number)
        writer.close()
        yield broker.bootstrap


def _read(brokers: str, limit: int) -> tuple[list[bytes], list[int], list[int], Any]:
    reader = KafkaInput(brokers, ["t"]).open("t/0", None)
    values, offsets, times_ms = list[bytes](), list[int](), list[int]()
    deadline = time.monotonic() + 30
    while not (reader.caught_up and len(values) == len(VALUES)):
        assert time.monotonic() < deadline
        messages = reader.read(limit)
        if messages is not None:
            assert len(messages.values) <= limit
            values += messages.values
            offsets += messages.positions
            times_ms += messages.timestamps_ms or []
    made = reader._prefetched
    assert reader.lag == 0
    reader.close()
    return values, offsets, times_ms, made


@pytest.mark.parametrize("limit", [1, 999, 20_000])
def test_both_ways_read_the_same(brokers: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    *by_block, made = _read(brokers, limit)
    assert isinstance(made, Block)
    monkeypatch.setattr(prefetched, "_library", lambda: None)
    *by_objects, made = _read(brokers, limit)
    assert isinstance(made, Objects)
    assert by_block == by_objects
    assert by_block[0] == VALUES
    assert by_block[1] == list(range(len(VALUES)))


def test_payloads_are_a_block_of_lines(brokers: str) -> None:
    reader = KafkaInput(brokers, ["t"]).open("t/0", None)
    deadline = time.monotonic() + 30
    while (messages := reader.read(10)) is None:
        assert time.monotonic() < deadline
    assert isinstance(messages.values, Lines)
    reader.close()


def test_a_process_that_reads_no_partition_loads_no_compiler() -> None:
    code = "import sys, connectors.kafka; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_another_library_than_the_packages_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    prefetched._library.cache_clear()
    monkeypatch.setattr(confluent_kafka, "libversion", lambda: ("0.0.0", 0))
    with capture_logs() as logs:
        assert prefetched._library() is None
    prefetched._library.cache_clear()
    assert [line["event"] for line in logs] == [
        "messages are read as objects, for a third more processor time"
    ]


def test_an_unexpected_client_handle_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    prefetched._library.cache_clear()
    monkeypatch.setattr(prefetched, "_handle_of", lambda consumer: 0)
    assert prefetched._library() is None
    prefetched._library.cache_clear()
