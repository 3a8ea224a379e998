"""Kafka topics as outputs: keyed messages, delivered when `flush` returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, ClusterMetadata
from confluent_kafka.cimpl import NewTopic

from connectors.kafka.client import TIMEOUT_S, Cluster
from connectors.stream import ConnectError

_EVER: Final = timedelta(0)
"""librdkafka's value for retrying a message for ever."""
_MS: Final = timedelta(milliseconds=1)


def _wait_on() -> None:
    pass


class KafkaWriter:
    """Sends keyed messages to one topic, idempotently; the queue is bounded to 32 MiB.

    Args:
        brokers, options: as for `KafkaInput`.
        topic: must exist.
        give_up_after: the time for which a message is tried; after it the writer has failed for good. None
            sets no limit: after an outage all messages are sent in order and once.
        full: called every 0.1 s while a write waits for room in the queue; may raise.

    Raises:
        ConnectError: an option is refused, the brokers do not answer in 5 s, or the topic is missing.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        options: Mapping[str, str] | None = None,
        *,
        give_up_after: timedelta | None = timedelta(seconds=30),
        full: Callable[[], None] = _wait_on,
    ) -> None:
        self._full = full
        self._cluster = Cluster(brokers, options or {})
        self._topic = topic
        self._failed, self._acknowledged = "", 0
        self._producer = self._cluster.client(
            Producer,
            {"compression.type": "lz4", "linger.ms": 20, "queue.buffering.max.kbytes": 32 << 10},
            {"enable.idempotence": True, "message.timeout.ms": (give_up_after or _EVER) // _MS},
        )
        self._cluster.partition_ids(self._producer, topic)

    def write(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Queue (key, value) pairs; waits while the queue is full.

        Raises:
            ConnectError: a message, of this call or an earlier one, could not be delivered.
        """
        produce, topic, delivered = self._producer.produce, self._topic, self._delivered
        for key, value in items:
            try:
                produce(topic, value, key, -1, delivered)
            except (BufferError, KafkaException):
                self._queue(value, key)
        self._producer.poll(0)
        self._check()

    def send(self, partition: int, key: bytes, value: bytes, timestamp_ms: int) -> None:
        """Queue one message for a partition, with a timestamp; otherwise as `write`."""
        self._queue(value, key, partition, timestamp_ms)
        self._producer.poll(0)
        self._check()

    def _queue(self, value: bytes, key: bytes, partition: int = -1, timestamp_ms: int = 0) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic, value, key, partition, on_delivery=self._delivered, timestamp=timestamp_ms
                )
                return
            except BufferError:
                self._producer.poll(0.1)
                self._check()
                self._full()
            except KafkaException as error:
                raise self._cluster.failed(self._topic, error.args[0].str()) from None

    def flush(self, timeout: timedelta = timedelta(seconds=30)) -> None:
        """Wait until all messages are delivered.

        Raises:
            ConnectError: a message could not be delivered, or `timeout` passed.
        """
        if self.wait(timeout):
            raise self.undelivered(timeout)

    def wait(self, timeout: timedelta) -> int:
        """Wait until all messages are delivered; returns the number of undelivered ones after `timeout`.

        Raises:
            ConnectError: a message could not be delivered.
        """
        left: int = self._producer.flush(timeout.total_seconds())
        self._check()
        return left

    def undelivered(self, waited: timedelta) -> ConnectError:
        """The error for messages that the brokers have not taken for too long."""
        reason = self._cluster.faults.last or "no answer"
        reason_text = f"{self.queued} messages undelivered after {waited.total_seconds():g} s: {reason}"
        return self._cluster.failed(self._topic, reason_text, "away")

    def close(self, timeout: timedelta = timedelta(seconds=30)) -> None:
        """Flush for the last time."""
        self.flush(timeout)

    def partitions(self) -> list[int]:
        """The topic's partitions.

        Raises:
            ConnectError: the brokers do not answer in 5 s.
        """
        return list(self._cluster.partition_ids(self._producer, self._topic))

    @property
    def queued(self) -> int:
        """The number of messages that the brokers have not acknowledged."""
        return len(self._producer)

    @property
    def acknowledged(self) -> int:
        """The number of messages that the brokers have acknowledged so far."""
        return self._acknowledged

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self._acknowledged += 1
        else:
            self._failed = error.str()

    def _check(self) -> None:
        if self._failed:
            reason = f"a message was not delivered: {self._failed} {self._cluster.faults.last}"
            raise self._cluster.failed(self._topic, reason.rstrip())


def ensure_topic(
    brokers: str,
    topic: str,
    partitions: int,
    config: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> None:
    """Create a topic with the broker's default replication, and wait until it can be used; an existing topic
    stays unchanged.

    Raises:
        ConnectError: the brokers do not answer in 5 s, or refuse.
    """
    cluster = Cluster(brokers, options or {})
    client = cluster.client(AdminClient, {}, {})
    wanted = NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=dict(config or {}))
    cluster.call(client, topic, lambda: client.list_topics(timeout=TIMEOUT_S))
    try:
        client.create_topics([wanted], operation_timeout=TIMEOUT_S, request_timeout=TIMEOUT_S)[topic].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise cluster.failed(topic, error.args[0].str()) from None
    # A created topic is not usable at once: the brokers know it, and its leaders, only a moment after the
    # controller.
    deadline_s = time.monotonic() + TIMEOUT_S
    while not _led(cluster.call(client, topic, lambda: client.list_topics(topic, timeout=TIMEOUT_S)), topic):
        if time.monotonic() > deadline_s:
            raise cluster.failed(topic, f"has no leader {TIMEOUT_S:g} s after it was created")
        time.sleep(0.02)


def _led(cluster: ClusterMetadata, topic: str) -> bool:
    """True if all of a topic's partitions can be written and read."""
    metadata = cluster.topics[topic]
    partitions = metadata.partitions.values()
    return metadata.error is None and bool(partitions) and all(one.leader >= 0 for one in partitions)
