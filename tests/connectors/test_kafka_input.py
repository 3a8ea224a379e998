"""Positions, ends, lost messages, outages, secrets of Kafka, on the embedded broker and on Apache Kafka."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from kafka_server import PASSWORD, USER, ApacheKafka, KafkaUnavailable

from connectors.embedded import EmbeddedBroker
from connectors.kafka import client
from connectors.kafka.client import KafkaTrouble
from connectors.kafka.group import GroupReader
from connectors.kafka.reader import KafkaInput, KafkaReader
from connectors.kafka.table import whole
from connectors.kafka.writer import KafkaWriter, ensure_topic
from connectors.stream import LATEST_MS, ConnectError

SASL = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": USER}
# With batches of 100 kB, less than 500 kB are held in front of the reader.
SMALL_PREFETCH = 128 << 10
SMALL_BATCHES = {"batch.size": "100000"}


def _topic(brokers: str, partitions: int = 1) -> str:
    name = f"input-{uuid.uuid4().hex}"
    ensure_topic(brokers, name, partitions)
    return name


def _send(brokers: str, topic: str, values: list[bytes]) -> None:
    writer = KafkaWriter(brokers, topic, SMALL_BATCHES)
    writer.write([(b"key", value) for value in values])
    writer.close()


def _big(count: int) -> list[bytes]:
    """Messages of 10 kB that do not compress."""
    return [os.urandom(10_000) for _ in range(count)]


class Drained:
    """All that a reader gave."""

    def __init__(self, reader: KafkaReader) -> None:
        self.reader = reader
        self.values: list[bytes] = []
        self.positions: list[int] = []
        self.lost: list[tuple[int, int]] = []
        """Where messages were lost, and how many."""

    def until(self, condition: Callable[[], bool], limit: int = 1_000, seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"at {self.reader.position}, {self.reader.errors} errors"
            messages = self.reader.read(limit)
            if messages is None:
                time.sleep(0.005)
            else:
                self.values += messages.values
                self.positions += messages.positions
                self.lost += [(messages.positions[0], messages.lost)] if messages.lost else []

    def to_the_end(self, limit: int = 1_000) -> None:
        self.until(lambda: self.reader.caught_up, limit)


@pytest.fixture
def running(apache: ApacheKafka) -> Iterator[ApacheKafka]:
    """Apache Kafka, for a test that may stop it: it runs again afterwards."""
    yield apache
    apache.kill()
    apache.start()


def test_partitions_of_all_topics_are_found(brokers: str) -> None:
    one, other = _topic(brokers, 2), _topic(brokers, 1)
    assert KafkaInput(brokers, [one, other]).partitions() == [f"{one}/0", f"{one}/1", f"{other}/0"]


def test_a_missing_topic_is_named(brokers: str) -> None:
    with pytest.raises(ConnectError, match=r"no-such-topic: .*[Uu]nknown topic"):
        KafkaInput(brokers, ["no-such-topic"]).partitions()


@pytest.mark.apache
def test_a_writer_creates_no_topic_even_if_the_brokers_would(tmp_path: Path) -> None:
    try:
        server = ApacheKafka(tmp_path, auto_create=True)
    except KafkaUnavailable as error:
        pytest.skip(str(error))
    with server:
        for _ in range(2):
            with pytest.raises(ConnectError, match=r"no-such-topic: .*[Uu]nknown topic") as missing:
                KafkaWriter(server.brokers, "no-such-topic")
            assert isinstance(missing.value, KafkaTrouble)
            assert missing.value.kind == "missing"
            time.sleep(2)  # a topic that was asked for is there a moment later
        topics = AdminClient({"bootstrap.servers": server.brokers}).list_topics(timeout=5).topics
        assert "no-such-topic" not in topics


def test_an_absent_broker_is_named_within_seconds() -> None:
    began = time.monotonic()
    with pytest.raises(ConnectError, match=r"Kafka at 127\.0\.0\.1:9, .*Connection refused"):
        KafkaInput("127.0.0.1:9", ["topic"]).partitions()
    assert time.monotonic() - began < 8


def test_a_broker_that_ends_connections_is_not_reported_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does that asks for SASL where a client sends plain text."""
    monkeypatch.setattr(client, "TIMEOUT_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connection.recv(1)
                    connection.close()

        Thread(target=answer, daemon=True).start()
        brokers = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(
            KafkaTrouble, match=r"topic: all brokers are down, or close connections, .* SASL"
        ) as raised:
            KafkaInput(brokers, ["topic"]).partitions()
        listener.shutdown(socket.SHUT_RDWR)
    assert raised.value.kind == "away"


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ConnectError, match=r"no\.such\.option"):
        KafkaInput("127.0.0.1:9", ["topic"], options={"no.such.option": "1"})
    with pytest.raises(ConnectError, match=r"fetch\.wait\.max\.ms"):  # whoever sets it is heard
        KafkaInput("127.0.0.1:9", ["topic"], options={"fetch.wait.max.ms": "long"})


@pytest.mark.parametrize(
    "options",
    [
        {"no.such.option": "1"},
        {"acks": "1"},
        {"security.protocol": "ssl", "ssl.ca.location": "/nowhere.pem"},
        {"transactional.id": "one"},
    ],
)
def test_an_unknown_client_option_is_the_users_error(options: dict[str, str]) -> None:
    with pytest.raises(KafkaTrouble, match="options: ") as refused:
        KafkaWriter("127.0.0.1:9", "topic", options)
    assert refused.value.kind == "options"


def test_making_a_topic_that_exists_changes_nothing(brokers: str) -> None:
    topic = _topic(brokers, 2)
    ensure_topic(brokers, topic, 5)
    assert len(KafkaInput(brokers, [topic]).partitions()) == 2


def test_a_tombstone_is_an_empty_message_with_the_brokers_time(brokers: str) -> None:
    topic = _topic(brokers)
    writer = KafkaWriter(brokers, topic)
    writer.write([(b"key", None)])  # type: ignore[list-item]  # what other producers do
    writer.close()
    reader = KafkaInput(brokers, [topic]).open(f"{topic}/0", None)
    deadline = time.monotonic() + 20
    while (messages := reader.read(10)) is None:
        assert time.monotonic() < deadline
    reader.close()
    assert list(messages.values) == [b""]
    assert messages.timestamps_ms is not None
    assert abs(messages.timestamps_ms[0] - time.time() * 1000) < 60_000


def test_a_megabyte_is_read_whole(brokers: str) -> None:
    topic = _topic(brokers)
    _send(brokers, topic, [b"x" * 990_000, b"y"])
    drained = Drained(KafkaInput(brokers, [topic], prefetch_bytes=SMALL_PREFETCH).open(f"{topic}/0", None))
    drained.to_the_end()
    drained.reader.close()
    assert [len(value) for value in drained.values] == [990_000, 1]


def test_caught_up_ends_when_messages_come_and_returns_behind_them(brokers: str) -> None:
    topic = _topic(brokers)
    drained = Drained(KafkaInput(brokers, [topic]).open(f"{topic}/0", None))
    assert not drained.reader.caught_up
    drained.to_the_end()
    _send(brokers, topic, [b"%d" % n for n in range(10)])
    drained.until(lambda: bool(drained.values), limit=1)
    assert not drained.reader.caught_up
    assert drained.reader.lag == 9
    drained.to_the_end()
    drained.reader.close()
    assert len(drained.values) == 10
    assert (drained.reader.position, drained.reader.errors) == (10, 0)


def _proven(reader: KafkaReader, seconds: float = 20) -> bool:
    """Whether an answer within so long proves the end."""
    deadline = time.monotonic() + seconds
    while not (found := reader.proven()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return found


def test_each_request_proves_the_end_unless_messages_wait(brokers: str) -> None:
    topic = _topic(brokers)
    drained = Drained(KafkaInput(brokers, [topic]).open(f"{topic}/0", None))
    drained.to_the_end()
    assert _proven(drained.reader)
    assert _proven(drained.reader)
    _send(brokers, topic, [b"one"])
    assert drained.reader.caught_up, "nothing has been read since"
    assert not _proven(drained.reader, 1)
    drained.until(lambda: drained.values == [b"one"])
    assert _proven(drained.reader)


def test_the_reporting_group_shows_what_was_committed(brokers: str) -> None:
    topic, group = _topic(brokers), f"group-{uuid.uuid4().hex}"
    _send(brokers, topic, [b"%d" % n for n in range(10)])
    reader = KafkaInput(brokers, [topic], group=group).open(f"{topic}/0", None)
    reader.commit(7)
    outside = Consumer({"bootstrap.servers": brokers, "group.id": group})
    deadline = time.monotonic() + 20
    while outside.committed([TopicPartition(topic, 0)], timeout=5)[0].offset != 7:
        assert time.monotonic() < deadline
        reader.read(1)
    outside.close()
    reader.close()
    assert reader.errors == 0


@pytest.mark.apache
def test_a_start_is_the_oldest_the_newest_or_a_time(apache: ApacheKafka) -> None:
    topic = _topic(apache.brokers)
    _send(apache.brokers, topic, [b"old"] * 3)
    between_ms = int(time.time() * 1000) + 5
    while time.time() * 1000 <= between_ms:
        time.sleep(0.001)
    _send(apache.brokers, topic, [b"new"] * 2)
    for start, expected in (("earliest", 0), (between_ms, 3), ("latest", 5), (between_ms + 3_600_000, 5)):
        reader = KafkaInput(apache.brokers, [topic], start=start).open(f"{topic}/0", None)  # type: ignore[arg-type]
        assert reader.position == expected
        reader.close()


def test_the_prefetch_queue_of_a_reader_is_bounded(brokers: str) -> None:
    topic = _topic(brokers)
    _send(brokers, topic, _big(1_000))
    held: list[int] = []

    def note(stats: str) -> None:
        # The first may be of before the topic is known; librdkafka takes no exception from here.
        partitions = json.loads(stats)["topics"].get(topic, {}).get("partitions", {})
        held.extend(one["fetchq_size"] for name, one in partitions.items() if name == "0")

    options = {"statistics.interval.ms": "50", "stats_cb": note}
    source = KafkaInput(brokers, [topic], options=options, prefetch_bytes=2 << 20)  # type: ignore[arg-type]
    drained = Drained(source.open(f"{topic}/0", None))
    deadline = time.monotonic() + 30
    while len(held) < 20:
        assert time.monotonic() < deadline
        drained.reader.read(1)
        time.sleep(0.01)  # a slow reader, on purpose
    assert 500_000 < max(held) < 2 << 20  # of 10 MB
    drained.to_the_end()
    drained.reader.close()
    assert drained.positions[-1] == 999


@pytest.mark.apache
@pytest.mark.parametrize(("on_lost", "resumed"), [("earliest", 60), ("latest", 100)])
def test_deleted_messages_are_skipped_only_by_setting_and_counted(
    apache: ApacheKafka, on_lost: str, resumed: int
) -> None:
    topic = _topic(apache.brokers)
    _send(apache.brokers, topic, [b"%d" % n for n in range(100)])
    _delete(apache, topic, 60)
    with pytest.raises(ConnectError, match=r"offset 10 is not in .*50 messages were deleted") as lost:
        KafkaInput(apache.brokers, [topic]).open(f"{topic}/0", 10)
    assert isinstance(lost.value, KafkaTrouble)
    assert lost.value.kind == "lost"

    source = KafkaInput(apache.brokers, [topic], on_lost=on_lost)  # type: ignore[arg-type]
    drained = Drained(source.open(f"{topic}/0", 10))
    assert drained.reader.skipped == resumed - 10
    drained.to_the_end()
    drained.reader.close()
    assert drained.positions == list(range(resumed, 100))
    assert drained.lost == ([(60, 50)] if on_lost == "earliest" else [])


@pytest.mark.apache
def test_messages_deleted_in_front_of_a_slow_reader_are_noticed(apache: ApacheKafka) -> None:
    topic = _topic(apache.brokers)
    _send(apache.brokers, topic, _big(500))
    readers = {
        on_lost: Drained(
            KafkaInput(apache.brokers, [topic], on_lost=on_lost, prefetch_bytes=SMALL_PREFETCH).open(
                f"{topic}/0", 0
            )
        )
        for on_lost in ("stop", "earliest")
    }
    for drained in readers.values():
        drained.until(lambda drained=drained: bool(drained.values), limit=1)
    _delete(apache, topic, 400)

    with pytest.raises(ConnectError, match="were deleted before they were read"):
        readers["stop"].to_the_end()
    skipping = readers["earliest"]
    skipping.to_the_end()
    before = [position for position in skipping.positions if position < 400]
    assert skipping.positions == [*range(len(before)), *range(400, 500)]
    assert skipping.reader.skipped == 400 - len(before) > 0
    assert skipping.lost == [(400, 400 - len(before))]
    for drained in readers.values():
        drained.reader.close()


@pytest.mark.apache
def test_a_position_behind_the_end_is_an_error_and_no_silence(apache: ApacheKafka) -> None:
    topic = _topic(apache.brokers)
    _send(apache.brokers, topic, [b"a"] * 5)
    reader = KafkaInput(apache.brokers, [topic]).open(f"{topic}/0", 100)
    with pytest.raises(ConnectError, match=r"offset 100 is not in the log, which has 0 to 5 .*created again"):
        Drained(reader).to_the_end()
    reader.close()


def _delete(apache: ApacheKafka, topic: str, before: int) -> None:
    admin = AdminClient({"bootstrap.servers": apache.brokers})
    for result in admin.delete_records([TopicPartition(topic, 0, before)]).values():
        result.result(timeout=20)


@pytest.mark.apache
def test_a_deleted_topic_stops_its_reader(apache: ApacheKafka) -> None:
    topic = _topic(apache.brokers)
    impatient = {"topic.metadata.refresh.interval.ms": "500", "topic.metadata.propagation.max.ms": "2000"}
    reader = KafkaInput(apache.brokers, [topic], options=impatient).open(f"{topic}/0", None)
    drained = Drained(reader)
    drained.to_the_end()
    admin = AdminClient({"bootstrap.servers": apache.brokers})
    admin.delete_topics([topic])[topic].result(timeout=20)
    with pytest.raises(ConnectError, match=rf"{topic}/0: .*(does not exist|no longer available)"):
        drained.until(lambda: False)
    reader.close()


@pytest.mark.apache
def test_a_killed_broker_loses_and_doubles_nothing(
    running: ApacheKafka,
) -> None:
    topic = _topic(running.brokers)
    writer = KafkaWriter(running.brokers, topic, SMALL_BATCHES, give_up_after=timedelta(seconds=60))
    expected = _big(1_000)
    writer.write([(b"key", value) for value in expected[:500]])
    writer.flush()
    drained = Drained(
        KafkaInput(running.brokers, [topic], prefetch_bytes=SMALL_PREFETCH).open(f"{topic}/0", None)
    )
    drained.until(lambda: len(drained.values) >= 100, limit=10)
    writer.write([(b"key", value) for value in expected[500:]])

    running.kill()
    drained.until(lambda: drained.reader.errors > 0, limit=10)
    assert len(drained.values) < 500
    running.start()

    writer.close(timedelta(seconds=60))
    drained.until(lambda: len(drained.values) >= 1_000 and drained.reader.caught_up)
    drained.reader.close()
    assert drained.values == expected
    assert drained.positions == list(range(1_000))


@pytest.mark.apache
def test_a_reader_is_not_caught_up_during_an_outage(running: ApacheKafka) -> None:
    topic = _topic(running.brokers)
    _send(running.brokers, topic, [b"a"])
    drained = Drained(KafkaInput(running.brokers, [topic]).open(f"{topic}/0", None))
    drained.to_the_end()
    assert _proven(drained.reader)
    running.stop()
    drained.until(lambda: not drained.reader.caught_up)
    assert not _proven(drained.reader, 1)
    running.start()
    drained.to_the_end()
    assert _proven(drained.reader), "by the leader that has started anew"
    running.pause()
    assert not _proven(drained.reader, 1), "an outage that nobody has noticed yet"
    drained.until(lambda: not drained.reader.caught_up)
    running.resume()
    drained.to_the_end()
    assert _proven(drained.reader)
    drained.reader.close()
    assert drained.values == [b"a"]


@pytest.mark.apache
def test_client_options_authenticate_at_a_broker_with_a_password(apache: ApacheKafka) -> None:
    topic = _topic(apache.brokers)
    options = {**SASL, "sasl.password": PASSWORD}
    ensure_topic(apache.sasl_brokers, topic, 1, options=options)
    writer = KafkaWriter(apache.sasl_brokers, topic, options)
    writer.write([(b"key", b"value")])
    writer.close()
    drained = Drained(KafkaInput(apache.sasl_brokers, [topic], options=options).open(f"{topic}/0", None))
    drained.to_the_end()
    drained.reader.close()
    assert drained.values == [b"value"]


@pytest.mark.apache
def test_a_wrong_password_is_an_error_without_the_password(
    apache: ApacheKafka, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {**SASL, "sasl.password": "wrong-horse"}
    source = KafkaInput(apache.sasl_brokers, ["topic"], options=options)
    with pytest.raises(ConnectError, match="Authentication failed") as error:
        source.partitions()
    shown = f"{error.value!r} {source!r} {source.__dict__['_topics']} {''.join(capfd.readouterr())}"
    assert "wrong-horse" not in shown


def test_a_secret_is_cut_out_of_librdkafkas_own_messages() -> None:
    options = {"security.protocol": "wrong-horse", "sasl.password": "wrong-horse"}
    with pytest.raises(ConnectError, match=r"\*\*\*.*security.protocol") as error:
        KafkaInput("127.0.0.1:9", ["topic"], options=options)
    assert "wrong-horse" not in str(error.value)
    assert error.value.__cause__ is None


def test_a_writer_waits_for_room_and_keeps_order(brokers: str) -> None:
    topic = _topic(brokers)
    values = [b"%d" % n for n in range(5_000)]
    writer = KafkaWriter(brokers, topic, {"queue.buffering.max.messages": "100"})
    writer.write([(b"key", value) for value in values])
    writer.close()
    drained = Drained(KafkaInput(brokers, [topic]).open(f"{topic}/0", None))
    drained.to_the_end()
    drained.reader.close()
    assert drained.values == values


def test_a_flush_ends_however_much_another_thread_queues(brokers: str) -> None:
    writer, stop = KafkaWriter(brokers, _topic(brokers)), Event()

    def queue() -> None:
        while not stop.is_set():
            writer.write([(b"key", b"value")] * 50)
            time.sleep(0.001)

    thread = Thread(target=queue)
    thread.start()
    try:
        for _ in range(3):
            writer.flush(timedelta(seconds=3))
    finally:
        stop.set()
        thread.join()
    writer.close()


def test_an_implausible_timestamp_is_absent_to_every_reader() -> None:
    told = [LATEST_MS, 2**53, 2**63 - 1, 1]
    with EmbeddedBroker() as broker:  # another may refuse such messages
        broker.create_topic("t", 1)
        writer = KafkaWriter(broker.bootstrap, "t")
        for time_ms in told:
            writer.send(0, b"key", b"value", time_ms)
        writer.close()
        reader = KafkaInput(broker.bootstrap, ["t"]).open("t/0", None)
        group = GroupReader(broker.bootstrap, ["t"], group="g")
        found, records = list[int](), list[int]()
        deadline = time.monotonic() + 20
        while len(found) < len(told) or len(records) < len(told):
            assert time.monotonic() < deadline
            if (messages := reader.read(10)) is not None:
                found += messages.timestamps_ms or []
            records += [one.timestamp_ms for one in group.read(10, timedelta(seconds=0.1))]
        reader.close()
        group.close()
        changes = [one.timestamp_ms for one in whole(broker.bootstrap, "t", {})]
    assert found == records == changes == [0, 0, 0, 1]


def _all(reader: GroupReader) -> list[bytes]:
    """The messages that a group reads up to the present end."""
    found, ends, deadline = list[bytes](), reader.ends(), time.monotonic() + 30
    while not reader.passed(ends):
        assert time.monotonic() < deadline
        found += [one.value for one in reader.read(100, timedelta(seconds=0.1))]
    return found


@pytest.mark.apache
def test_a_group_always_behind_the_end_reads_an_added_partition(
    apache: ApacheKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.kafka.group.LOOK_S", 0.0)
    topic, admin = _topic(apache.brokers), AdminClient({"bootstrap.servers": apache.brokers})
    reader = GroupReader(apache.brokers, [topic], group=topic, start="latest")
    _send(apache.brokers, topic, [b"%d" % number for number in range(20_000)])
    admin.create_partitions([NewPartitions(topic, 2)])[topic].result(10)
    found: list[bytes] = []
    while (topic, 1) not in reader.places:
        found += [one.value for one in reader.read(10, timedelta(seconds=0.1))]
        assert len(found) < 20_000, "the end was reached first"
    monkeypatch.undo()
    writer = KafkaWriter(apache.brokers, topic)
    writer.send(1, b"key", b"added", int(time.time() * 1000))
    writer.close()
    found += _all(reader)
    assert sorted(found) == sorted([*(b"%d" % number for number in range(20_000)), b"added"])
    reader.close()


@pytest.mark.apache
def test_a_group_reads_an_added_partition_before_it_reaches_the_end(apache: ApacheKafka) -> None:
    topic, admin = _topic(apache.brokers), AdminClient({"bootstrap.servers": apache.brokers})
    reader = GroupReader(apache.brokers, [topic], group=topic, start="latest")
    _send(apache.brokers, topic, [b"before"])
    assert _all(reader) == [b"before"]
    admin.create_partitions([NewPartitions(topic, 2)])[topic].result(10)
    writer = KafkaWriter(apache.brokers, topic)
    writer.send(1, b"key", b"added", int(time.time() * 1000))
    writer.close()
    assert _all(reader) == [b"added"]
    reader.commit(reader.places)
    reader.close()
    again = GroupReader(apache.brokers, [topic], group=topic)
    assert again.places == {(topic, 0): 1, (topic, 1): 1}
    again.close()


def test_a_message_may_have_its_own_partition_and_time(brokers: str) -> None:
    topic = _topic(brokers, 2)
    an_hour_ago_ms = int(time.time() * 1000) - 3_600_000  # a time beyond the retention is deleted at once
    writer = KafkaWriter(brokers, topic)
    writer.send(1, b"key", b"value", an_hour_ago_ms)
    writer.close()
    reader = KafkaInput(brokers, [topic]).open(f"{topic}/1", None)
    deadline = time.monotonic() + 20
    while (messages := reader.read(10)) is None:
        assert time.monotonic() < deadline
    reader.close()
    assert (list(messages.values), list(messages.timestamps_ms or [])) == ([b"value"], [an_hour_ago_ms])


def test_a_message_that_is_too_large_is_an_error(brokers: str) -> None:
    writer = KafkaWriter(brokers, _topic(brokers))
    with pytest.raises(ConnectError, match="too large"):
        writer.write([(b"key", b"x" * 2_000_000)])


def test_a_dead_broker_makes_its_writer_raise() -> None:
    with EmbeddedBroker() as broker:
        topic = _topic(broker.bootstrap)
        impatient = KafkaWriter(broker.bootstrap, topic)
        failing = KafkaWriter(broker.bootstrap, topic, give_up_after=timedelta(seconds=2))
        broker.kill()
    with suppress(ConnectError):
        impatient.write([(b"key", b"value")])
    with pytest.raises(ConnectError, match=r"1 messages undelivered after 1 s: .*refused"):
        impatient.flush(timedelta(seconds=1))
    failing.write([(b"key", b"value")])
    with pytest.raises(ConnectError, match="not delivered"):
        failing.flush()
    with pytest.raises(ConnectError, match="not delivered"):
        failing.write([])
