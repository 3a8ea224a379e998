"""A producer that tells of each message: where it stands, that it found no room, that it failed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from kafka_mock import MockKafka
from kafka_server import ApacheKafka

from connectors.embedded import EmbeddedBroker
from connectors.kafka_reports import Produced, Report, ReportingProducer
from connectors.stream import ConnectError


@pytest.fixture
def topic(tansu: EmbeddedBroker) -> str:
    name = f"t{uuid.uuid4().hex[:8]}"
    tansu.create_topic(name, 3)
    return name


@contextmanager
def producing(
    brokers: str, topic: str, **options: str
) -> Iterator[tuple[ReportingProducer, list[Report], Callable[[int], None]]]:
    told: list[Report] = []
    named = {name.replace("_", "."): value for name, value in options.items()}
    producer = ReportingProducer(brokers, topic, named, told.extend, timedelta(seconds=2))

    def wait(count: int) -> None:
        deadline_s = time.monotonic() + 20
        while len(told) < count:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)

    yield producer, told, wait
    producer.close()


def test_a_message_goes_into_its_partition(tansu: EmbeddedBroker, topic: str) -> None:
    with producing(tansu.bootstrap, topic) as (producer, told, wait):
        meant = [n % 3 for n in range(60)]
        sent = [((n, one), Produced(b"{}", None, one)) for n, one in enumerate(meant)]
        assert producer.produce(sent) == []
        wait(60)
    assert {(report.token[0], report.partition) for report in told} == set(enumerate(meant))


def test_messages_of_one_key_go_into_one_partition(tansu: EmbeddedBroker, topic: str) -> None:
    with producing(tansu.bootstrap, topic) as (producer, told, wait):
        assert producer.produce([(n % 7, Produced(b"{}", b"%d" % (n % 7))) for n in range(70)]) == []
        wait(70)
    assert len({(report.token, report.partition) for report in told}) == 7
    assert len({report.partition for report in told}) > 1


def test_partitions_of_a_slow_broker_do_not_wait_for_each_other() -> None:
    with MockKafka(1, px=20) as kafka, producing(kafka.bootstrap, "px") as (producer, told, wait):
        producer.produce([(n, Produced(b"{}", None, n)) for n in range(20)])
        wait(20)
        kafka.late(300)
        began_s = time.monotonic()
        producer.produce([(n, Produced(b"{}", None, n)) for n in range(20)])
        wait(40)
        assert time.monotonic() - began_s < 3  # each for all before it: 6 s, and the last would be given up
    assert not any(report.error for report in told)


@pytest.mark.parametrize("partition", [None, 1])
def test_a_full_queue_refuses_at_once_and_reports_each_message_once(partition: int | None) -> None:
    with producing("127.0.0.1:1", "away", queue_buffering_max_messages="3") as (producer, told, wait):
        left = producer.produce([(n, Produced(b"{}", None, partition)) for n in range(10)])
        assert left == list(range(3, 10))
        wait(3)
    assert sorted(report.token for report in told) == [0, 1, 2]
    assert all(report.error for report in told)


def test_a_message_too_large_for_any_broker_is_reported_at_once(tansu: EmbeddedBroker, topic: str) -> None:
    with producing(tansu.bootstrap, topic, message_max_bytes="2000") as (producer, told, wait):
        assert producer.produce([(0, Produced(b"x" * 3_000)), (1, Produced(b"{}"))]) == [0]
        wait(1)
    assert [(report.token, report.error) for report in told] == [(1, "")]


def test_a_hung_broker_takes_messages_after_its_recovery(topic: str) -> None:
    with EmbeddedBroker() as broker:
        broker.create_topic(topic, 3)
        with producing(broker.bootstrap, topic, socket_timeout_ms="1000") as (producer, told, wait):
            producer.produce([(0, Produced(b"{}", b"a"))])
            wait(1)
            broker.pause()
            producer.produce([(1, Produced(b"{}", b"a"))])
            wait(2)
            broker.resume()
            deadline_s = time.monotonic() + 15
            while told[-1].error:
                assert time.monotonic() < deadline_s
                count = len(told)
                producer.produce([(2, Produced(b"{}", b"a"))])
                wait(count + 1)
    assert not told[0].error
    assert told[1].error
    assert told[-1].token == 2


def test_a_producer_creates_no_topic_but_finds_a_created_one(tansu: EmbeddedBroker, topic: str) -> None:
    missing = f"{topic}-missing"
    with producing(tansu.bootstrap, missing) as (producer, told, wait):
        producer.produce([(0, Produced(b"{}", b"a"))])
        wait(1)
        with pytest.raises(ConnectError, match=r"[Uu]nknown topic"):
            producer.partitions()
        tansu.create_topic(missing, 2)  # this broker would have made 4
        assert producer.partitions() == [0, 1]
        producer.produce([(1, Produced(b"{}", b"a"))])
        wait(2)
    assert [bool(report.error) for report in told] == [True, False]


@pytest.mark.apache
@pytest.mark.parametrize("kind", ["LogAppendTime", "CreateTime"])
def test_a_report_has_broker_time_only_for_broker_stamped_topics(apache: ApacheKafka, kind: str) -> None:
    topic = f"t{uuid.uuid4().hex[:8]}"
    made = NewTopic(topic, 1, 1, config={"message.timestamp.type": kind})
    admin = AdminClient({"bootstrap.servers": apache.brokers})
    admin.create_topics([made])[topic].result(20)
    began_ms = int(time.time() * 1000)
    with producing(apache.brokers, topic) as (producer, told, wait):
        assert producer.durability().stamped_by_brokers == (kind == "LogAppendTime")
        assert producer.produce([(0, Produced(b"{}", b"a")), (1, Produced(b"{}", None, 0))]) == []
        wait(2)
    for report in told:
        if kind == "LogAppendTime":
            assert began_ms - 5_000 < report.logged_ms < began_ms + 30_000
        else:
            assert report.logged_ms == 0
