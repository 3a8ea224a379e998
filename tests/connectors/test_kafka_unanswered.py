"""Questions that a leader leaves unanswered while it serves metadata: no answer says nothing of a log."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from functools import partial

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo
from kafka_between import DESCRIBE_CONFIGS, FETCH, LIST_OFFSETS, METADATA, Between

from connectors import kafka_reports
from connectors.kafka import (
    GroupReader,
    KafkaInput,
    KafkaTrouble,
    KafkaWriter,
    ensure_topic,
    group,
    reader,
    topic_id,
)
from connectors.kafka.client import Cluster, offset_of
from connectors.kafka.reader import KafkaReader
from connectors.kafka_reports import ReportingProducer

WAIT = timedelta(seconds=0.1)
BRIEF = {"socket.timeout.ms": "2000"}


@pytest.fixture
def between(brokers: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:
    for module in (reader, group, topic_id, kafka_reports):
        monkeypatch.setattr(module, "TIMEOUT_S", 1.0)
    with Between(int(brokers.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture
def topic(brokers: str) -> str:
    """A topic with three messages."""
    name = f"unanswered-{uuid.uuid4().hex[:8]}"
    ensure_topic(brokers, name, 1)
    send(brokers, name, 3)
    return name


def send(brokers: str, topic: str, count: int) -> None:
    writer = KafkaWriter(brokers, topic)
    writer.write([(b"key", b"value")] * count)
    writer.close()


def proven(reading: KafkaReader, seconds: float) -> bool:
    """True if the end was proved within that time, by a question that was put within it."""
    while reading._end_request is not None:
        reading.proven()
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s:
        reading.read(100)
        if reading.proven():
            return True
        time.sleep(0.01)
    return False


def until_passed(reading: GroupReader) -> None:
    ends, deadline_s = reading.ends(), time.monotonic() + 20
    while not reading.passed(ends):
        assert time.monotonic() < deadline_s
        reading.read(100, WAIT)


@pytest.mark.parametrize("offset", [-1001, -1])
def test_an_answer_without_an_offset_is_none(offset: int) -> None:
    asked = Future[ListOffsetsResultInfo]()
    asked.set_result(ListOffsetsResultInfo(offset, -1, -1))
    with pytest.raises(KafkaException, match="Timed out"):
        offset_of(asked)


def test_an_end_without_the_leaders_answer_is_not_proved(brokers: str, between: Between, topic: str) -> None:
    reading = KafkaInput(between.bootstrap, [topic], options=BRIEF).open(f"{topic}/0", None)
    assert proven(reading, 20)
    between.deaf = {FETCH, LIST_OFFSETS}
    send(brokers, topic, 7)
    failed = reading.errors
    assert not proven(reading, 4)
    assert reading.position == 3
    assert reading.errors > failed
    between.deaf = set()
    assert proven(reading, 20)
    assert reading.position == 10
    reading.close()


def test_a_group_without_an_answer_about_the_end_has_not_passed_it(
    brokers: str, between: Between, topic: str
) -> None:
    reading = GroupReader(between.bootstrap, [topic], BRIEF, group=topic)
    until_passed(reading)
    between.deaf = {FETCH, LIST_OFFSETS}
    send(brokers, topic, 7)
    for _ in range(3):
        with pytest.raises(KafkaTrouble, match="Timed out") as raised:
            reading.ends()
        assert raised.value.kind == "away", raised.value
    between.deaf = set()
    until_passed(reading)
    assert reading.places == {(topic, 0): 10}
    reading.close()


def test_a_request_without_a_timely_result_reports_the_broker_away() -> None:
    cluster = Cluster("127.0.0.1:9", {})
    with pytest.raises(KafkaTrouble, match="t: no answer") as raised:
        cluster.call(cluster.client(AdminClient, {}, {}), "t", partial(Future[int]().result, 0))
    assert raised.value.kind == "away", raised.value


@pytest.mark.parametrize("question", ["id", "ends", "durability"])
def test_an_unanswered_request_has_the_clients_reason(between: Between, topic: str, question: str) -> None:
    producer = ReportingProducer(between.bootstrap, topic, BRIEF, lambda _: None)
    reading = GroupReader(between.bootstrap, [topic], BRIEF, group=topic)
    pixels = KafkaInput(between.bootstrap, [topic], options=BRIEF)
    pixels.topic_ids()
    asked: dict[str, tuple[int, Callable[[], object]]] = {
        "id": (METADATA, pixels.topic_ids),
        "ends": (LIST_OFFSETS, reading.ends),
        "durability": (DESCRIBE_CONFIGS, producer.durability),
    }
    key, ask = asked[question]
    ask()
    between.deaf = {key}
    pixels._ids.clear()
    for _ in range(2):
        with pytest.raises(KafkaTrouble, match="imed out") as raised:
            ask()
        assert raised.value.kind == "away", raised.value
    reading.close()
    producer.close()
