"""Topics read once, without a consumer group, to an end that is determined at the start: the latest messages,
a span of time, or single messages.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from typing import Final

from confluent_kafka.admin import AdminClient

from connectors.kafka.client import Cluster, KafkaTrouble
from connectors.kafka.log import PartitionLog, Record
from connectors.kafka.topic_id import TopicId

_NO_END: Final = 1 << 62
WAIT: Final = timedelta(seconds=10)
"""The time in which a whole sample must have been read."""
_NEAR: Final = 1_000
"""Offsets with at most this distance are read together, with the messages between them."""


def sample(
    brokers: str, topic: str, options: Mapping[str, str], most: int, wait: timedelta = WAIT
) -> Iterator[Record]:
    """The latest messages of each partition, `most` in all, each partition in its order. Commits nothing.

    Raises:
        ConnectError: an option is refused, no broker answers in 5 s, or the topic is missing or forbidden.
    """
    log, count = PartitionLog(Cluster(brokers, options), "audiopixel-sample"), 0
    try:
        ids = log.partitions(topic)
        most_each, spans = max(1, most // max(1, len(ids))), {}
        for partition in ids:
            low, high = log.bounds(topic, partition)
            if high > low:  # up to the end that a fetch finds: a broker may state an earlier end
                spans[partition] = max(low, high - most_each), _NO_END
        looks, deadline_s = int(wait / timedelta(seconds=0.2)), time.monotonic() + wait.total_seconds()
        for record in log.records(topic, spans, headers=True, lost_ends=True, quiet_looks=looks):
            yield record
            count += 1
            if count == most or time.monotonic() > deadline_s:
                return
    except KafkaTrouble as error:
        if not count or error.kind != "away":  # a partition without answers may have messages
            raise
    finally:
        log.close()


class Span:
    """The messages of each partition whose Kafka timestamp is `from_ms` or later, up to the present end.

    Args:
        brokers, options: as for `KafkaInput`.
        from_ms: epoch ms.

    Attributes:
        begins: offset of the first message of each partition, or the partition's end without one.
        ends: offset after the last message of each partition.
        cut: partitions whose earlier messages were deleted: messages of the span may be missing.

    Raises:
        ConnectError: an option is refused, no broker answers in 5 s, or the topic is missing.
    """

    def __init__(self, brokers: str, topic: str, options: Mapping[str, str], from_ms: int) -> None:
        self._topic, self._log = topic, PartitionLog(Cluster(brokers, options), "audiopixel-span")
        self.begins: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.cut: set[int] = set()
        try:
            for partition, offset in self._log.since(topic, self._log.partitions(topic), from_ms).items():
                low, high = self._log.bounds(topic, partition)
                begin = offset if offset >= 0 else high
                self.begins[partition], self.ends[partition] = max(low, begin), high
                if begin <= low and low > 0:
                    self.cut.add(partition)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return sum(end - self.begins[one] for one, end in self.ends.items())

    def records(self) -> Iterator[Record]:
        """The messages, each partition's in order.

        Raises:
            ConnectError: the brokers do not serve the messages, or a message cannot be read.
        """
        spans = {partition: (self.begins[partition], end) for partition, end in self.ends.items()}
        return self._log.records(self._topic, spans)

    def close(self) -> None:
        """Disconnect."""
        self._log.close()


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
