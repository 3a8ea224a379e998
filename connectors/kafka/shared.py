"""A topic that the processes of one consumer group share: each reads some of its partitions.

Guarantee: as of `GroupReader`, for each partition and its present reader. The partition is read from the
committed place, so its next reader gets messages again that were read but not committed. `read` returns
messages of this process's partitions only, even if some moved meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from connectors.kafka.client import KafkaTrouble
from connectors.kafka.group import GroupReader
from connectors.kafka.log import Places, Record

SESSION_MS: Final = 6_000
"""The time after which a dead process loses its partitions: the least that brokers allow by default."""
_MEMBERS: Final[Mapping[str, object]] = {
    "session.timeout.ms": SESSION_MS,
    "heartbeat.interval.ms": 1_500,
    "topic.metadata.refresh.interval.ms": 60_000,  # finds added partitions
}
_FIXED: Final[Mapping[str, object]] = {"partition.assignment.strategy": "range"}
_MOVED: Final = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._STATE,
)
"""Codes of a commit for partitions that have moved to another process, or are about to."""


class SharedReader(GroupReader):
    """The partitions of a topic that the group assigns to this process; `places` has only these.

    Args: as of `GroupReader`, for one topic.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        options: Mapping[str, str] | None = None,
        *,
        group: str,
        start: Literal["earliest", "latest"] = "earliest",
        on_lost: Literal["stop", "earliest", "latest"] = "stop",
        headers: bool = False,
    ) -> None:
        self._count, self._rebalanced = 0, False
        self._failed: KafkaTrouble | None = None
        super().__init__(
            brokers, [topic], options, group=group, start=start, on_lost=on_lost, headers=headers
        )

    @property
    def partitions(self) -> int:
        """The number of the topic's partitions, of all processes."""
        return self._count

    def _options(self) -> tuple[Mapping[str, object], Mapping[str, object]]:
        defaults, fixed = super()._options()
        return {**defaults, **_MEMBERS}, {**fixed, **_FIXED}

    def _start_reading(self) -> None:
        """Join the group. The first process of the group commits the beginning of each partition."""
        self._count = len(self.places)
        if not self._has_places:
            self.commit(self.places)
        self.places.clear()
        self._consumer.subscribe(
            self._topics, on_assign=self._on_assigned, on_revoke=self._on_revoked, on_lost=self._on_revoked
        )

    def read(self, most: int, wait: timedelta) -> list[Record]:
        """Read as `GroupReader` does, without messages of partitions that moved meanwhile."""
        records = super().read(most, wait)
        if self._failed is not None:
            raise self._failed
        return records

    def _take(self, messages: Sequence[Message], records: list[Record]) -> None:
        if self._rebalanced:  # partitions of these messages may have moved to another process meanwhile
            self._rebalanced = False
            messages = [one for one in messages if (one.topic(), one.partition()) in self.places]
        super()._take(messages, records)

    def commit(self, places: Places) -> None:
        """Commit as `GroupReader` does; places of partitions that have moved are skipped."""
        if not places:
            return
        offsets = [TopicPartition(*place, offset) for place, offset in places.items()]

        def keep() -> None:
            try:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            except KafkaException as error:
                if error.args[0].code() not in _MOVED:
                    raise

        self._cluster.call(self._consumer, self._topics[0], keep)

    def _on_assigned(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        """Take the partitions that the group assigns, at their places."""
        self._rebalanced = True
        self._records.clear()  # they come again, to the next reader
        try:
            (topic,) = self._topics
            self._count = len(self._log.partitions(topic))
            stored = self._log.committed(topic, [at.partition for at in assigned])
            self.places.clear()
            for place, position in stored.items():
                self.places[place] = self._beginning(place, position, True)
            self._held_places &= self.places.keys()
            self._assign()
        except KafkaTrouble as error:
            if error.kind != "away":
                self._failed = error
                return
            self.places.clear()  # the next rebalance assigns them again
            consumer.unassign()
            consumer.unsubscribe()
            consumer.subscribe(
                self._topics,
                on_assign=self._on_assigned,
                on_revoke=self._on_revoked,
                on_lost=self._on_revoked,
            )

    def _on_revoked(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        """Release all partitions. Their messages that were read are committed, or are read again by the next
        reader.
        """
        self._rebalanced = True
        self._records.clear()  # they come again, to the next reader
        self.places.clear()
        self._at_end.clear()
        consumer.unassign()

    def _grow(self) -> None:
        """Do nothing: the group assigns partitions that were added."""
