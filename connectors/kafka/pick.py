"""Single messages of a topic, by their offsets, read once, outside any consumer group."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from confluent_kafka.admin import AdminClient

from connectors.kafka.client import Cluster
from connectors.kafka.log import PartitionLog, Record
from connectors.kafka.topic_id import TopicId

_NEAR: Final = 1_000
"""Offsets with at most this distance are read together, with the messages between them."""


class Picker:
    """Reads single messages of a topic.

    Args:
        brokers, options: as for `KafkaInput`.

    Attributes:
        log_id: the brokers' id of the topic; empty if they have none.

    Raises:
        ConnectError: an option is refused, no broker answers in 5 s, or the topic is missing.
    """

    def __init__(self, brokers: str, topic: str, options: Mapping[str, str]) -> None:
        cluster, self._topic = Cluster(brokers, options), topic
        self._log = PartitionLog(cluster, "audiopixel-pick")
        try:
            self._ids = self._log.partitions(topic)
            self.log_id = TopicId(cluster, cluster.client(AdminClient, {}, {}), topic).text
        except BaseException:
            self.close()
            raise

    def records(self, offsets: Mapping[int, Collection[int]], headers: bool = False) -> Iterator[Record]:
        """The messages at `offsets` of each partition, as far as the topic still has them.

        Raises:
            ConnectError: the brokers do not serve the messages, or a message cannot be read.
        """
        for partition in sorted(offsets.keys() & set(self._ids)):
            low, _ = self._log.bounds(self._topic, partition)
            for run in _runs(sorted(offset for offset in set(offsets[partition]) if offset >= low)):
                wanted, span = set(run), {partition: (run[0], run[-1] + 1)}
                for record in self._log.records(self._topic, span, headers, lost_ends=True):
                    if record.offset in wanted:
                        wanted.discard(record.offset)
                        yield record

    def close(self) -> None:
        """Disconnect."""
        self._log.close()


def _runs(offsets: list[int]) -> Iterator[list[int]]:
    """Ascending offsets, split where two are more than `_NEAR` apart."""
    begin = 0
    for place in range(1, len(offsets) + 1):
        if place == len(offsets) or offsets[place] - offsets[place - 1] > _NEAR:
            yield offsets[begin:place]
            begin = place
