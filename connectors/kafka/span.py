"""The messages of a topic from a time to its present end, read once, without a group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from confluent_kafka import Consumer, KafkaError, TopicPartition

from connectors.kafka.client import CHECKED, TIMEOUT_S, Cluster, Farewell
from connectors.kafka.group import Record, record_of

_AT_ONCE: Final = 5_000
_QUIET_LOOKS: Final = 50
"""Empty reads, of 0.2 s each, after which the brokers do not serve what they have."""


class Span:
    """The messages of each partition whose Kafka timestamp is `from_ms` or later, up to the present end.

    Args:
        brokers, options: as for `KafkaInput`.
        from_ms: epoch ms.

    Attributes:
        begins: offset of the first message of each partition, or its end without one.
        ends: offset after the last one.
        cut: partitions whose earlier messages are deleted, so that the first there may not be the first of
            the span.

    Raises:
        ConnectError: an option is refused, no broker answers in 5 s, or the topic is missing.
    """

    def __init__(self, brokers: str, topic: str, options: Mapping[str, str], from_ms: int) -> None:
        self._cluster, self._topic = Cluster(brokers, options), topic
        self._consumer = self._cluster.client(
            Consumer,
            CHECKED,
            {"group.id": "audiopixel-span", "enable.auto.commit": False, "enable.partition.eof": True},
        )
        self.begins: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.cut: set[int] = set()
        try:
            partitions = self._cluster.partition_ids(self._consumer, topic)
            asked = [TopicPartition(topic, one, from_ms) for one in partitions]
            look = partial(self._consumer.offsets_for_times, asked, timeout=TIMEOUT_S)
            for at in self._cluster.call(self._consumer, topic, look):
                bounds = partial(self._consumer.get_watermark_offsets, at, timeout=TIMEOUT_S)
                low, high = self._cluster.call(self._consumer, topic, bounds)
                begin = at.offset if at.offset >= 0 else high
                self.begins[at.partition], self.ends[at.partition] = max(low, begin), high
                if begin <= low and low > 0:
                    self.cut.add(at.partition)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return sum(end - self.begins[one] for one, end in self.ends.items())

    def records(self) -> Iterator[Record]:
        """The messages, each partition's in order.

        Raises:
            ConnectError: the brokers do not serve them, or one cannot be read.
        """
        left = {one for one, end in self.ends.items() if end > self.begins[one]}
        self._consumer.assign([TopicPartition(self._topic, one, self.begins[one]) for one in left])
        empty = 0
        while left:
            messages = self._consumer.consume(_AT_ONCE, 0.2)
            empty = 0 if messages else empty + 1
            if empty > _QUIET_LOOKS:
                reason = self._cluster.faults.last or "no answer"
                raise self._cluster.failed(
                    self._topic, f"{len(left)} partitions are not served: {reason}", "away"
                )
            for message in messages:
                error, partition = message.error(), message.partition()
                assert partition is not None
                if error is None:
                    record = record_of(message)
                    if record.offset >= self.ends[partition]:
                        left.discard(partition)
                    else:
                        yield record
                        if record.offset == self.ends[partition] - 1:
                            left.discard(partition)
                elif error.code() == KafkaError._PARTITION_EOF:
                    left.discard(partition)
                else:
                    raise self._cluster.failed(self._topic, error.str())

    def close(self) -> None:
        """Leave the brokers."""
        Farewell().close(self._consumer)
