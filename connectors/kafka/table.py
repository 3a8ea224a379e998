"""A Kafka topic as a table: the latest value of each key, as in a compacted topic.

Unit of parallelism: none. One consumer, assigned by hand, reads all partitions, since a table is small and
needed as a whole. Guarantee: every message that the topic still has, in order within its partition, from the
beginning (or a time) on, then each new message. No position is stored.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Set
from datetime import timedelta
from typing import Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message
from confluent_kafka.admin import AdminClient

from connectors.kafka.client import DAMAGED, Cluster, time_ms
from connectors.kafka.log import PartitionLog
from connectors.kafka.mark import LOST
from connectors.kafka.topic_id import CREATED_AGAIN, TopicId
from connectors.stream import ConnectError

_CHUNK: Final = 500
_WAIT: Final = timedelta(seconds=0.2)
_SILENT: Final = 50
"""The number of consecutive empty reads after which a read to a topic's end fails."""


class Change(NamedTuple):
    """A change of `key` to `value`; the value is None for a removal (a tombstone).

    `timestamp_ms` is the broker's; 0 if absent.
    """

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None


class KafkaTable:
    """All partitions of one topic, from their beginning on.

    Args:
        brokers: `host:port`, comma-separated.
        topic: must exist.
        options: librdkafka's own, such as `security.protocol`.
        group: for brokers that require one; no position is committed or read.
        since_ms: the broker's time from which messages are read; None reads from the beginning.

    Raises:
        ConnectError: an option is refused, no broker answers in 5 s, or the topic is missing.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        options: Mapping[str, str] | None = None,
        *,
        group: str = "audiopixel",
        since_ms: int | None = None,
    ) -> None:
        self._topic = topic
        self._cluster = Cluster(brokers, options or {})
        self._log = PartitionLog(self._cluster, group, fixed={"queued.max.messages.kbytes": 4096})
        self._consumer = self._log.consumer
        self._faults_seen = 0
        self._ended: set[int] = set()
        self._next: dict[int, int] = {}
        try:
            self._next = self._places(self.partitions(), since_ms)
            self._id = TopicId(self._cluster, self._cluster.client(AdminClient, {}, {}), topic)
        except ConnectError:
            self.close()
            raise
        self._assign()

    @property
    def caught_up(self) -> bool:
        """True if all partitions were read to their end; False after a fault until the end is found again."""
        return self._ended == self._next.keys()

    @property
    def trouble(self) -> str:
        """The latest fault in words; most faults are temporary."""
        return str(self._cluster.failed(self._topic, self._cluster.faults.last or "does not answer"))

    def partitions(self) -> list[int]:
        """The present partitions of the topic.

        Raises:
            ConnectError: no broker answers in 5 s, or the topic is missing.
        """
        return self._log.partitions(self._topic)

    def read(self, wait: timedelta) -> list[Change]:
        """The next changes, empty if none came within `wait`.

        Raises:
            ConnectError: the topic was deleted, is forbidden or damaged, or was created again; only a new
                table can continue.
        """
        if self._id.seen_to_change():
            raise self._cluster.failed(self._topic, CREATED_AGAIN)
        first = self._consumer.poll(wait.total_seconds())
        messages = [] if first is None else [first, *self._consumer.consume(_CHUNK, 0)]
        changes = [change for message in messages if (change := self._change(message)) is not None]
        faults = self._cluster.faults
        if faults.gone:
            raise self._cluster.failed(self._topic, faults.gone, "missing")
        if self._faults_seen != faults.count:
            self._faults_seen = faults.count
            if self.caught_up:
                self._assign()  # librdkafka reports an end once; after a new assignment it reports it again
        return changes

    def ends(self) -> dict[int, int]:
        """The offset at which each partition ends now.

        Raises:
            ConnectError: no broker answers in 5 s.
        """
        return {partition: self._log.bounds(self._topic, partition)[1] for partition in self._next}

    def passed(self, beyond: Set[int]) -> bool:
        """True if each partition is at its end, or in `beyond`."""
        return self._ended | beyond >= self._next.keys()

    def close(self) -> None:
        """Disconnect; brokers that do not answer delay it only briefly."""
        self._log.close()

    def _places(self, partitions: list[int], since_ms: int | None) -> dict[int, int]:
        """The offset from which each partition must be read."""
        if since_ms is None:
            return dict.fromkeys(partitions, OFFSET_BEGINNING)
        return self._log.since(self._topic, partitions, since_ms)

    def _change(self, message: Message) -> Change | None:
        partition, offset = message.partition(), message.offset()
        error = message.error()
        if error is None:
            assert partition is not None
            assert offset is not None
            self._next[partition] = offset + 1
            self._ended.discard(partition)
            return Change(partition, offset, time_ms(message), message.key(), message.value())
        if error.code() == KafkaError._PARTITION_EOF:
            assert partition is not None
            self._next[partition] = offset  # the end may follow control records, which are no messages
            self._ended.add(partition)
        elif error.code() in LOST:
            raise self._cluster.failed(
                self._topic, "the topic was created again, or trimmed while it was read"
            )
        elif error.code() in DAMAGED:
            raise self._cluster.damaged(f"{self._topic}/{partition}", offset, error.str())
        else:
            self._cluster.faults(error)
        return None

    def _assign(self) -> None:
        self._ended.clear()
        self._log.assign({(self._topic, partition): offset for partition, offset in self._next.items()})


def whole(brokers: str, topic: str, options: Mapping[str, str]) -> Iterator[Change]:
    """All present messages of a topic, without messages that arrive meanwhile.

    A message after the reported end is included if its time is earlier than the call: the embedded broker may
    report an end before its latest messages.

    Raises:
        ConnectError: the topic is missing, or the brokers stop answering.
    """
    table = KafkaTable(brokers, topic, options)
    silent, beyond = 0, set[int]()
    try:
        ends, began_ms = table.ends(), time.time() * 1000
        while not table.passed(beyond):
            changes = table.read(_WAIT)
            silent = 0 if changes else silent + 1
            if silent > _SILENT:
                raise ConnectError(table.trouble)
            for change in changes:
                if change.offset < ends[change.partition] or change.timestamp_ms < began_ms:
                    yield change
                else:
                    beyond.add(change.partition)
    finally:
        table.close()
