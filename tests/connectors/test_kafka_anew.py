"""A topic that is deleted and created again begins at offset 0 again: readers of the earlier topic fail."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest
from confluent_kafka.admin import AdminClient
from kafka_server import ApacheKafka

from connectors.kafka import GroupReader, KafkaInput, KafkaTable, KafkaTrouble, KafkaWriter, topic_id
from connectors.kafka.client import Cluster
from connectors.kafka.writer import ensure_topic
from connectors.stream import ConnectError

pytestmark = pytest.mark.apache
WAIT = timedelta(seconds=0.1)
NONE: Final = "A" * 22
"""The id of a broker that gives none."""


@pytest.fixture
def topic(apache: ApacheKafka, monkeypatch: pytest.MonkeyPatch) -> str:
    """A topic with five messages, whose reader asks for the id all the time."""
    monkeypatch.setattr(topic_id, "ASK_EVERY_S", 0.0)
    name = f"anew-{uuid.uuid4().hex[:8]}"
    ensure_topic(apache.brokers, name, 1)
    send(apache, name, 5)
    return name


def send(apache: ApacheKafka, topic: str, count: int) -> None:
    writer = KafkaWriter(apache.brokers, topic)
    writer.write([(b"key", b"%d" % n) for n in range(count)])
    writer.close()


def recreate_topic(apache: ApacheKafka, topic: str, count: int) -> None:
    admin = AdminClient({"bootstrap.servers": apache.brokers})  # held until it has answered
    admin.delete_topics([topic])[topic].result(10)
    ensure_topic(apache.brokers, topic, 1)
    send(apache, topic, count)


def wait_for_error(read: Callable[[], object], words: str = "was deleted and created again") -> ConnectError:
    def often() -> None:
        for _ in range(1_000):
            read()

    with pytest.raises(ConnectError, match=words) as raised:
        often()
    return raised.value


class Broker:
    """Answers questions for a topic's id, one after the other."""

    def __init__(self, *ids: str) -> None:
        self._ids = iter(ids)

    def describe_topics(self, topics: object, **_: object) -> dict[str, Future[SimpleNamespace]]:
        answer = Future[SimpleNamespace]()
        answer.set_result(SimpleNamespace(topic_id=next(self._ids)))
        return {"t": answer}


@pytest.mark.parametrize(
    ("first", "then", "anew"), [("a", "a", False), ("a", "b", True), (NONE, "b", False), ("a", NONE, False)]
)
def test_a_missing_topic_id_proves_nothing_about_the_topic(
    first: str, then: str, anew: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some of a cluster do that is upgraded broker by broker."""
    monkeypatch.setattr(topic_id, "ASK_EVERY_S", 0.0)
    asked = topic_id.TopicId(Cluster("nobody:1", {}), cast(Any, Broker(first, then, then)), "t")
    assert (asked.changed(), asked.seen_to_change()) == (anew, anew)


def test_an_old_topics_position_is_lost_in_a_longer_new_topic(apache: ApacheKafka, topic: str) -> None:
    reader = KafkaInput(apache.brokers, [topic]).open(f"{topic}/0", 5)
    reader.close()
    recreate_topic(apache, topic, 9)

    told = wait_for_error(lambda: KafkaInput(apache.brokers, [topic]).open(f"{topic}/0", 5, reader.log_id))
    assert isinstance(told, KafkaTrouble)
    assert told.kind == "lost"
    for on_lost, position, skipped in (("earliest", 0, 0), ("latest", 9, 9)):
        again = KafkaInput(apache.brokers, [topic], on_lost=on_lost)  # type: ignore[arg-type]
        found = again.open(f"{topic}/0", 5, reader.log_id)
        assert (found.position, found.skipped) == (position, skipped)
        assert found.log_id not in ("", reader.log_id)
        found.close()


def test_a_position_of_the_same_or_an_unknown_topic_stays(apache: ApacheKafka, topic: str) -> None:
    log_id = ""
    for position in (1, 4):
        reader = KafkaInput(apache.brokers, [topic]).open(f"{topic}/0", position, log_id)
        assert reader.position == position
        log_id = reader.log_id
        reader.close()


@pytest.mark.parametrize("count", [9, 1])
def test_a_reader_goes_on_in_no_topic_but_its_own(apache: ApacheKafka, topic: str, count: int) -> None:
    reader = KafkaInput(apache.brokers, [topic], on_lost="earliest").open(f"{topic}/0", 5)
    recreate_topic(apache, topic, count)

    wait_for_error(lambda: (reader.read(10), time.sleep(0.02)))
    reader.close()


def test_a_table_of_a_recreated_topic_raises(apache: ApacheKafka, topic: str) -> None:
    table = KafkaTable(apache.brokers, topic)
    while not table.caught_up:
        table.read(WAIT)
    recreate_topic(apache, topic, 5)

    # Its id has changed, or its place is not in the new log: either error makes the caller read it again.
    wait_for_error(lambda: table.read(WAIT), "created again")
    table.close()


def test_a_group_goes_on_in_no_topic_but_its_own(apache: ApacheKafka, topic: str) -> None:
    reader = GroupReader(apache.brokers, [topic], group=topic)
    ends = reader.ends()
    while not reader.passed(ends):
        reader.read(10, WAIT)
    recreate_topic(apache, topic, 9)

    # Its id has changed, or its place is not in the new log yet.
    wait_for_error(lambda: reader.read(10, WAIT), "created again|is not in the log")
    reader.close()
