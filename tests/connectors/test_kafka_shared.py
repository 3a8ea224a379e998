"""Processes that share a topic's partitions: partitions move, and every message is read."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Final

import pytest
from kafka_server import ApacheKafka

from connectors.kafka import KafkaWriter, Record, SharedReader
from connectors.kafka.writer import ensure_topic

pytestmark = pytest.mark.apache
WAIT: Final = timedelta(seconds=0.1)
PARTITIONS: Final = 4


def send(apache: ApacheKafka, topic: str, first: int, count: int) -> None:
    writer = KafkaWriter(apache.brokers, topic)
    for number in range(first, first + count):
        writer.send(number % PARTITIONS, b"", b"%d" % number, int(time.time() * 1000))
    writer.close()


def read(readers: dict[str, SharedReader], found: list[Record], until: int, seconds: float = 40) -> None:
    """Read with all, and commit, until so many different messages were found."""
    deadline_s = time.monotonic() + seconds
    while len({one.value for one in found}) < until:
        assert time.monotonic() < deadline_s, sorted(one.value for one in found)
        for reader in readers.values():
            records = reader.read(1_000, WAIT)
            assert {(one.topic, one.partition) for one in records} <= reader.places.keys()
            found += records
            reader.commit(reader.places)


def test_partitions_move_with_their_places(apache: ApacheKafka) -> None:
    topic = f"shared-{uuid.uuid4().hex[:8]}"
    ensure_topic(apache.brokers, topic, PARTITIONS)
    send(apache, topic, 0, 5)  # a group that is new begins behind these
    found: list[Record] = []
    readers = {"a": SharedReader(apache.brokers, topic, group=topic, start="latest")}
    send(apache, topic, 5, 40)
    read(readers, found, 40)
    assert len(readers["a"].places) == readers["a"].partitions == PARTITIONS

    readers["b"] = SharedReader(apache.brokers, topic, group=topic, start="latest")
    deadline_s = time.monotonic() + 40
    while not all(len(one.places) == PARTITIONS / 2 for one in readers.values()):
        assert time.monotonic() < deadline_s
        read(readers, found, 0)
        for reader in readers.values():
            found += reader.read(1_000, WAIT)
    send(apache, topic, 45, 40)
    read(readers, found, 80)
    assert not readers["a"].places.keys() & readers["b"].places.keys()

    readers.pop("a").close()
    send(apache, topic, 85, 40)
    read(readers, found, 120)
    assert len(readers["b"].places) == PARTITIONS
    readers.pop("b").close()
    assert sorted(int(one.value) for one in found) == list(range(5, 125)), (
        "each once, since nobody was killed"
    )


def test_a_commit_skips_reassigned_partitions(apache: ApacheKafka) -> None:
    topic = f"shared-{uuid.uuid4().hex[:8]}"
    ensure_topic(apache.brokers, topic, PARTITIONS)
    first = SharedReader(apache.brokers, topic, group=topic)
    send(apache, topic, 0, 8)
    read({"first": first}, [], 8)
    places = dict(first.places)
    second = SharedReader(apache.brokers, topic, group=topic)
    deadline_s = time.monotonic() + 40
    while len(first.places) == PARTITIONS or not second.places:
        assert time.monotonic() < deadline_s
        first.read(10, WAIT)
        second.read(10, WAIT)
    first.commit(places)
    second.close()
    first.close()
