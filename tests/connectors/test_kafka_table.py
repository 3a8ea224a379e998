"""A topic as a table: all partitions from their beginning, keys, tombstones, outages."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from kafka_server import ApacheKafka

from connectors.kafka.table import Change, KafkaTable
from connectors.kafka.writer import ensure_topic
from connectors.stream import ConnectError

COMPACTED = {"cleanup.policy": "compact"}
WAIT = timedelta(milliseconds=100)


def topic_on(brokers: str, partitions: int = 1, **config: str) -> str:
    name = f"table-{uuid.uuid4().hex}"
    ensure_topic(brokers, name, partitions, config)
    return name


def put(brokers: str, topic: str, *messages: tuple[int, str | None, str | None]) -> None:
    """Messages as (partition, key, value)."""
    producer = Producer({"bootstrap.servers": brokers, "log_level": 0})
    for partition, key, value in messages:
        producer.produce(topic, value, key, partition)
        assert producer.flush(10) == 0


@contextmanager
def reading(brokers: str, topic: str, **options: str) -> Iterator[KafkaTable]:
    table = KafkaTable(brokers, topic, options)
    try:
        yield table
    finally:
        table.close()


def until(table: KafkaTable, holds: Callable[[], bool], seconds: float = 20) -> list[Change]:
    changes: list[Change] = []
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, table.trouble
        changes += table.read(WAIT)
    return changes


def test_all_partitions_are_read_to_their_end_and_then_followed(brokers: str) -> None:
    topic = topic_on(brokers, 3)
    put(brokers, topic, (0, "a", "1"), (2, "b", "2"), (0, "a", "3"))
    with reading(brokers, topic) as table:
        found = until(table, lambda: table.caught_up)
        assert sorted((one.partition, one.offset, one.key, one.value) for one in found) == [
            (0, 0, b"a", b"1"), (0, 1, b"a", b"3"), (2, 0, b"b", b"2"),
        ]  # fmt: skip
        assert all(abs(one.timestamp_ms / 1000 - time.time()) < 60 for one in found)
        put(brokers, topic, (1, "c", "4"))
        deadline = time.monotonic() + 10
        while not (came := table.read(WAIT)):
            assert time.monotonic() < deadline
        assert [(one.partition, one.offset, one.key, one.value) for one in came] == [(1, 0, b"c", b"4")]
        assert until(table, lambda: table.caught_up) == []


def test_a_tombstone_an_empty_value_and_a_missing_key_differ(brokers: str) -> None:
    topic = topic_on(brokers)
    put(brokers, topic, (0, "a", None), (0, "a", ""), (0, None, "x"))
    with reading(brokers, topic) as table:
        found = until(table, lambda: table.caught_up)
    assert [(one.key, one.value) for one in found] == [(b"a", None), (b"a", b""), (None, b"x")]


def test_a_table_reads_empty_topics_and_thousands_of_keys(brokers: str) -> None:
    topic = topic_on(brokers, 2)
    with reading(brokers, topic) as table:
        assert until(table, lambda: table.caught_up) == []
    producer = Producer({"bootstrap.servers": brokers, "log_level": 0})
    for n in range(3_000):
        producer.produce(topic, b"x" * 300, f"k{n}")
    assert producer.flush(20) == 0
    with reading(brokers, topic) as table:
        assert {one.key for one in until(table, lambda: table.caught_up)} == {
            f"k{n}".encode() for n in range(3_000)
        }


def test_a_missing_topic_or_broker_is_named(brokers: str) -> None:
    with pytest.raises(ConnectError, match=r"no-such-table: .*[Uu]nknown topic"):
        KafkaTable(brokers, "no-such-table")
    with pytest.raises(ConnectError, match=r"Kafka at 127\.0\.0\.1:1, table: "):
        KafkaTable("127.0.0.1:1", "table")


@pytest.mark.apache
def test_a_table_reads_the_compacted_log(apache: ApacheKafka) -> None:
    topic = topic_on(
        apache.brokers,
        **{
            **COMPACTED,
            "segment.ms": "100",
            "min.cleanable.dirty.ratio": "0.01",
            "max.compaction.lag.ms": "100",
        },
    )
    for n in range(20):
        put(apache.brokers, topic, (0, "a", str(n)), (0, "b", str(n)))
        time.sleep(0.05)
    with reading(apache.brokers, topic) as table:
        found = until(table, lambda: table.caught_up)
    assert {one.key: one.value for one in found} == {b"a": b"19", b"b": b"19"}


@pytest.mark.apache
def test_an_outage_ends_at_the_proved_end_without_a_missed_message(apache: ApacheKafka) -> None:
    topic = topic_on(apache.brokers, **COMPACTED)
    put(apache.brokers, topic, (0, "a", "1"))
    with reading(apache.brokers, topic) as table:
        until(table, lambda: table.caught_up)
        apache.kill()
        try:
            assert until(table, lambda: not table.caught_up) == []
            assert f"Kafka at {apache.brokers}, {topic}: " in table.trouble
        finally:
            apache.start()
        put(apache.brokers, topic, (0, "a", None))
        assert [(one.offset, one.value) for one in until(table, lambda: table.caught_up, 40)] == [(1, None)]


@pytest.mark.apache
def test_a_deleted_topic_is_an_error(apache: ApacheKafka) -> None:
    topic = topic_on(apache.brokers)
    put(apache.brokers, topic, (0, "a", "1"))
    impatient = {"topic.metadata.refresh.interval.ms": "500", "topic.metadata.propagation.max.ms": "2000"}
    with reading(apache.brokers, topic, **impatient) as table:
        until(table, lambda: table.caught_up)
        admin = AdminClient({"bootstrap.servers": apache.brokers})
        admin.delete_topics([topic])[topic].result(10)
        with pytest.raises(ConnectError, match=topic):
            until(table, lambda: False, 40)


def test_a_table_with_a_start_time_skips_older_messages(brokers: str) -> None:
    topic = topic_on(brokers, 2)
    put(brokers, topic, (0, "a", "old"), (0, "b", "old"))
    time.sleep(0.01)  # brokers count in milliseconds
    since_ms = time.time_ns() // 1_000_000
    put(brokers, topic, (0, "a", "new"))
    table = KafkaTable(brokers, topic, since_ms=since_ms)
    try:
        assert [one.value for one in until(table, lambda: table.caught_up)] == [b"new"]
    finally:
        table.close()
