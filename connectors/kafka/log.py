"""Partitions of topics that one consumer reads by hand: their bounds, their records, their positions.

The readers of this folder build on it. `group`, `table` and `reader` read without end; `read_once`
reads to an end that is determined at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from connectors.kafka.client import AWAY, CHECKED, TIMEOUT_S, Cluster, Farewell, time_ms
from connectors.kafka.mark import LOST

Place = tuple[str, int]
"""A topic and one of its partitions."""
Places = Mapping[Place, int]
"""The next offset to read, by partition."""
BY_HAND: Final[Mapping[str, object]] = {
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
}
"""Options of a consumer that is assigned by hand. Only its reader moves its positions."""
_AT_ONCE: Final = 1_000
_LOOK_S: Final = 0.2
_QUIET_LOOKS: Final = 50
"""The number of empty reads after which the brokers count as not serving."""
_Result = TypeVar("_Result")
_NO_HEADERS: Final[Mapping[str, bytes]] = {}


class Record(NamedTuple):
    """A message. The value of a tombstone is empty, and an absent timestamp is 0. `headers` has the last
    header of each name.

    `tombstone` is True for a message without a value, which differs from an empty value.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes
    headers: Mapping[str, bytes] = _NO_HEADERS
    tombstone: bool = False

    @property
    def position(self) -> str:
        """Its place, `topic/partition/offset`."""
        return f"{self.topic}/{self.partition}/{self.offset}"


def record_of(message: Message, headers: bool = False) -> Record:
    """The record of a message without an error."""
    header_values: Mapping[str, bytes] = _NO_HEADERS
    if headers:
        header_values = {
            name: value if isinstance(value, bytes) else str(value or "").encode()
            for name, value in message.headers() or ()
        }
    value = message.value()
    return Record(
        message.topic(),  # a message without an error has all of them
        message.partition(),
        message.offset(),
        time_ms(message),
        message.key() or b"",
        value or b"",
        header_values,
        value is None,
    )


class PartitionLog:
    """A consumer, and requests about its partitions.

    Args:
        group: for brokers that require one.
        defaults, fixed: the consumer's options that the user's options may override, and those that they may
            not; as for `Cluster.client`.
        subject: the name of the read data in errors; the topic's name by default.

    Raises:
        ConnectError: an option is refused. In the methods: no broker answers in 5 s, or a topic is missing.
    """

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        defaults: Mapping[str, object] = CHECKED,
        fixed: Mapping[str, object] | None = None,
        subject: str = "",
    ) -> None:
        self.cluster, self._subject = cluster, subject
        options = {"group.id": group, **BY_HAND, **(fixed or {})}
        self.consumer = cluster.client(Consumer, defaults, options)

    def partitions(self, topic: str, led: bool = False) -> list[int]:
        """The partitions of a topic, as `Cluster.partition_ids`."""
        return self.cluster.partition_ids(self.consumer, topic, led)

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The offset of a partition's oldest message, and the offset at which the partition ends."""
        place = TopicPartition(topic, partition)
        request = partial(self.consumer.get_watermark_offsets, place, timeout=TIMEOUT_S)
        bounds: tuple[int, int] | None = self._call(topic, request)
        if bounds is None:
            raise self.cluster.failed(self._subject or topic, "does not say where it ends", "away")
        return bounds

    def unread(self, topic: str, partition: int, offset: int) -> int:
        """The number of messages from an offset on, by the brokers' last answer to a fetch."""
        place = TopicPartition(topic, partition)
        bounds: tuple[int, int] = self.consumer.get_watermark_offsets(place, cached=True)
        return max(0, bounds[1] - offset)

    def since(self, topic: str, partitions: Sequence[int], at_ms: int) -> dict[int, int]:
        """The offset of each partition's first message that is not older than a time; below 0 without such a
        message.
        """
        places = [TopicPartition(topic, partition, at_ms) for partition in partitions]
        request = partial(self.consumer.offsets_for_times, places, timeout=TIMEOUT_S)
        return {at.partition: at.offset for at in self._call(topic, request)}

    def committed(self, topic: str, partitions: Sequence[int]) -> dict[Place, TopicPartition]:
        """The committed place of the group in each partition."""
        places = [TopicPartition(topic, partition) for partition in partitions]
        request = partial(self.consumer.committed, places, timeout=TIMEOUT_S)
        return {(at.topic, at.partition): at for at in self._call(topic, request)}

    def assign(self, places: Places) -> None:
        """Read only these partitions, from these offsets on."""
        self.consumer.assign([TopicPartition(*place, offset) for place, offset in places.items()])

    def records(
        self,
        topic: str,
        spans: Mapping[int, tuple[int, int]],
        headers: bool = False,
        lost_ends: bool = False,
        quiet_looks: int = _QUIET_LOOKS,
    ) -> Iterator[Record]:
        """The messages of a topic between two offsets, each partition's in order.

        Args:
            spans: by partition, the first offset, and the offset after the last.
            lost_ends: True ends a partition whose messages were deleted meanwhile; False raises.
            quiet_looks: the number of empty reads, of 0.2 s each, after which the brokers count as away.

        Raises:
            ConnectError: the brokers do not serve the messages, or a message cannot be read.
        """
        left = {partition: span for partition, span in spans.items() if span[0] < span[1]}
        self.assign({(topic, partition): begin for partition, (begin, _) in left.items()})
        empty = 0
        while left:
            messages = self.consumer.consume(_AT_ONCE, _LOOK_S)
            empty = 0 if messages else empty + 1
            if empty > quiet_looks:
                reason = self.cluster.faults.last or "no answer"
                raise self.cluster.failed(topic, f"{len(left)} partitions are not served: {reason}", "away")
            for message in messages:
                error, partition = message.error(), message.partition()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF or (lost_ends and error.code() in LOST):
                        left.pop(partition, None)
                    elif error.code() not in AWAY:
                        raise self.cluster.failed(topic, error.str())
                    continue
                if partition not in left:  # of an assignment before
                    continue
                record, (begin, end) = record_of(message, headers), left[partition]
                if begin <= record.offset < end:
                    yield record
                if record.offset >= end - 1:
                    del left[partition]

    def _call(self, topic: str, request: Callable[[], _Result]) -> _Result:
        return self.cluster.call(self.consumer, self._subject or topic, request)

    def close(self, farewell: Farewell | None = None) -> None:
        """Disconnect; brokers that do not answer delay it only briefly."""
        (farewell or Farewell()).close(self.consumer)
