"""A log that lost its end may reach its former length again. A reader of lost messages fails, or continues
where the former log ends.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka_server import ApacheKafka
from structlog.testing import capture_logs

from connectors.kafka import KafkaInput, KafkaTrouble, KafkaWriter
from connectors.kafka.mark import Mark, marked
from connectors.kafka.reader import KafkaReader
from connectors.kafka.writer import ensure_topic

pytestmark = pytest.mark.apache


@pytest.fixture
def broker(apache: ApacheKafka) -> Iterator[ApacheKafka]:
    """A broker that a test may stop: it runs again afterwards."""
    yield apache
    if apache.process is None:
        apache.start()


@pytest.fixture
def topic(broker: ApacheKafka) -> str:
    """A topic with sixty messages, in six batches."""
    name = f"truncated-{uuid.uuid4().hex[:8]}"
    ensure_topic(broker.brokers, name, 1)
    for _ in range(6):
        send(broker, name, 10)
    return name


def send(broker: ApacheKafka, topic: str, count: int) -> None:
    writer = KafkaWriter(broker.brokers, topic)
    writer.write([(b"", b"pixel")] * count)
    writer.close()


def opened(
    broker: ApacheKafka,
    topic: str,
    position: int | None = None,
    log_id: str = "",
    on_lost: Literal["stop", "earliest", "latest"] = "stop",
) -> KafkaReader:
    return KafkaInput(broker.brokers, [topic], on_lost=on_lost).open(f"{topic}/0", position, log_id)


def drained(reader: KafkaReader, until: Callable[[], bool] | None = None) -> list[int]:
    """The offsets of what a reader gives, to the end or until a condition holds."""
    offsets: list[int] = []
    deadline = time.monotonic() + 60
    while not (until() if until else reader.caught_up):
        assert time.monotonic() < deadline, f"at {reader.position}"
        if messages := reader.read(1_000):
            offsets += messages.positions
        time.sleep(0.01)
    return offsets


def read_to_the_end(broker: ApacheKafka, topic: str) -> KafkaReader:
    """A reader that has read all, and was closed."""
    reader = opened(broker, topic)
    drained(reader)
    reader.close()
    return reader


def wiped(broker: ApacheKafka, topic: str) -> None:
    """The broker's disk has lost the log, of a topic that it knows still."""
    broker.stop()
    shutil.rmtree(broker.data / f"{topic}-0")
    broker.start()


def cut_off(broker: ApacheKafka, topic: str) -> int:
    """The broker's disk has lost the last of the log's batches in a crash; returns where it ends now."""
    broker.kill()
    (log,) = (broker.data / f"{topic}-0").glob("*.log")
    os.truncate(log, log.stat().st_size * 4 // 6)
    for index in Path(log.parent).glob("*index"):
        index.unlink()
    broker.start()
    reader = KafkaInput(broker.brokers, [topic], start="latest").open(f"{topic}/0", None)
    reader.close()
    assert 0 < reader.position < 55
    return reader.position


def test_a_log_id_contains_the_topic_id_and_an_optional_mark() -> None:
    assert marked(Mark(3, 60).log_id("A-b_c")) == ("A-b_c", Mark(3, 60))
    assert marked(Mark(3, 60).log_id("")) == ("", Mark(3, 60))
    assert marked("A-b_c") == ("A-b_c", None)
    assert marked("") == ("", None)


@pytest.mark.parametrize("count", [80, 20])
def test_a_position_of_a_lost_log_is_refused_by_its_successor(
    broker: ApacheKafka, topic: str, count: int
) -> None:
    """Whether it is longer or shorter; the topic's id is the same."""
    read = read_to_the_end(broker, topic)
    wiped(broker, topic)
    send(broker, topic, count)

    stopped = opened(broker, topic, 60, read.log_id)
    with pytest.raises(
        KafkaTrouble, match=f"has 0 to {count} .from 0 on .*: was the topic created again"
    ) as raised:
        drained(stopped)
    assert raised.value.kind == "lost"
    stopped.close()

    earliest = opened(broker, topic, 60, read.log_id, "earliest")
    with capture_logs() as said:
        assert drained(earliest) == list(range(count))
    assert earliest.skipped == 0
    assert [(one["log_level"], one["offset"]) for one in said] == [("warning", 0)]
    earliest.close()

    latest = opened(broker, topic, 60, read.log_id, "latest")
    with capture_logs() as said:
        assert drained(latest, until=lambda: latest.position == count and latest.caught_up) == []
    assert latest.skipped == count
    assert [(one["log_level"], one["skipped"]) for one in said] == [("warning", count)]
    latest.close()


def test_a_truncated_log_moves_its_reader_to_the_end_with_a_report(broker: ApacheKafka, topic: str) -> None:
    """The reader has read the remaining messages: none comes twice."""
    reader = opened(broker, topic, None, on_lost="earliest")
    assert drained(reader) == list(range(60))
    end = cut_off(broker, topic)
    send(broker, topic, 5)

    with capture_logs() as said:
        assert drained(reader, until=lambda: reader.position == end + 5) == list(range(end, end + 5))
    assert reader.skipped == 0
    assert [(one["log_level"], one["offset"]) for one in said] == [("warning", end)]
    reader.close()


def test_a_reader_of_a_truncated_log_stops_by_default(broker: ApacheKafka, topic: str) -> None:
    """Also where the log is longer again before it looks."""
    reader = opened(broker, topic)
    drained(reader)
    end = cut_off(broker, topic)
    send(broker, topic, 60)

    with pytest.raises(KafkaTrouble, match=f"offset 60 is not in the log.*from {end} on it has other"):
        drained(reader, until=lambda: reader.position > 60)
    reader.close()


def test_a_broker_that_starts_again_loses_nothing(broker: ApacheKafka, topic: str) -> None:
    """Its log is of several leaders' epochs, and a transaction's end is of another one than its messages."""
    producer = Producer({"bootstrap.servers": broker.brokers, "transactional.id": topic})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b"pixel", partition=0)
    producer.flush()
    broker.stop()
    broker.start()
    producer.commit_transaction()
    read = read_to_the_end(broker, topic)
    assert read.position == 62  # the transaction's end has an offset
    assert marked(read.log_id)[1] == Mark(0, 61)

    again = opened(broker, topic, 62, read.log_id)
    send(broker, topic, 3)
    assert drained(again, until=lambda: again.position == 65) == [62, 63, 64]
    again.close()
    assert again.log_id != read.log_id


def test_a_deleted_transaction_marker_counts_as_no_lost_message(broker: ApacheKafka, topic: str) -> None:
    producer = Producer({"bootstrap.servers": broker.brokers, "transactional.id": topic})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(topic, b"pixel", partition=0)
    producer.commit_transaction()
    read = read_to_the_end(broker, topic)
    admin = AdminClient({"bootstrap.servers": broker.brokers})
    for done in admin.delete_records([TopicPartition(topic, 0, -1)]).values():
        assert done.result(10).low_watermark == read.position == 62

    again = opened(broker, topic, 62, read.log_id)
    assert drained(again) == []
    assert (again.position, again.skipped) == (62, 0)
    again.close()
