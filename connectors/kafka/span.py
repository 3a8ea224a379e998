"""The messages of a topic from a time to its present end, read once, without a consumer group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from connectors.kafka.client import Cluster
from connectors.kafka.log import PartitionLog, Record


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
