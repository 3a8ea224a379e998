"""Single messages of a topic, by their offsets, read once, outside any consumer group."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Final

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient

from connectors.kafka.client import AWAY, CHECKED, TIMEOUT_S, Cluster, Farewell
from connectors.kafka.group import Record, record_of
from connectors.kafka.mark import LOST
from connectors.kafka.topic_id import TopicId

_NEAR: Final = 1_000
"""Offsets that are so close are read together, with the messages between them."""
_QUIET_LOOKS: Final = 50
"""The number of empty reads, of 0.2 s each, after which the brokers count as away."""


class Picker:
    """Reads single messages of a topic.

    Args:
        brokers, options: as for `KafkaInput`.

    Attributes:
        log_id: the id that the brokers give the topic; empty if none.

    Raises:
        ConnectError: an option is refused, no broker answers in 5 s, or the topic is missing.
    """

    def __init__(self, brokers: str, topic: str, options: Mapping[str, str]) -> None:
        self._cluster, self._topic = Cluster(brokers, options), topic
        self._consumer = self._cluster.client(
            Consumer,
            CHECKED,
            {
                "group.id": "audiopixel-pick",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
            },
        )
        try:
            self._ids = self._cluster.partition_ids(self._consumer, topic)
            self.log_id = TopicId(self._cluster, self._cluster.client(AdminClient, {}, {}), topic).text
        except BaseException:
            self.close()
            raise

    def records(self, offsets: Mapping[int, Collection[int]], headers: bool = False) -> Iterator[Record]:
        """The messages at some offsets of each partition, as far as the topic still has them.

        Raises:
            ConnectError: the brokers do not serve them, or one cannot be read.
        """
        for partition in sorted(offsets.keys() & set(self._ids)):
            at = TopicPartition(self._topic, partition)
            bounds = partial(self._consumer.get_watermark_offsets, at, timeout=TIMEOUT_S)
            low, _ = self._cluster.call(self._consumer, self._topic, bounds)
            for run in _runs(sorted(one for one in set(offsets[partition]) if one >= low)):
                yield from self._run(partition, run, headers)

    def _run(self, partition: int, run: list[int], headers: bool) -> Iterator[Record]:
        wanted, empty = set(run), 0
        self._consumer.assign([TopicPartition(self._topic, partition, run[0])])
        while True:
            messages = self._consumer.consume(min(_NEAR, run[-1] - run[0] + 1), 0.2)
            empty = 0 if messages else empty + 1
            if empty > _QUIET_LOOKS:
                reason = self._cluster.faults.last or "no answer"
                said = f"partition {partition} is not served: {reason}"
                raise self._cluster.failed(self._topic, said, "away")
            for message in messages:
                error = message.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF or error.code() in LOST:
                        return
                    if error.code() not in AWAY:
                        raise self._cluster.failed(self._topic, error.str())
                    continue
                record = record_of(message, headers)
                if record.partition == partition and record.offset in wanted:
                    wanted.discard(record.offset)
                    yield record
                if record.partition == partition and record.offset >= run[-1]:
                    return

    def close(self) -> None:
        """Leave the brokers."""
        Farewell().close(self._consumer)


def _runs(offsets: list[int]) -> Iterator[list[int]]:
    """Ascending offsets, cut where they lie far from each other."""
    begin = 0
    for place in range(1, len(offsets) + 1):
        if place == len(offsets) or offsets[place] - offsets[place - 1] > _NEAR:
            yield offsets[begin:place]
            begin = place
