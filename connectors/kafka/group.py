"""Topics read in order from the place that a consumer group stores.

Unit of parallelism: a process. It assigns all partitions by hand, so a restart waits for no rebalance;
no lock keeps a second process out. Guarantee: `read` begins at the committed place, so messages that were
read but not committed come again; the order within a partition is that of its log. A partition that is added
later is read from its beginning.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Final, Literal

from confluent_kafka import OFFSET_INVALID, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from connectors.kafka.client import CHECKED, DAMAGED, TIMEOUT_S, Cluster, offset_of
from connectors.kafka.log import PartitionLog, Place, Places, Record, record_of
from connectors.kafka.mark import LOST
from connectors.kafka.topic_id import CREATED_AGAIN, TopicId
from connectors.stream import ConnectError

_CHUNK: Final = 500
"""The number of messages of one call of librdkafka: more objects would not fit into the processor's cache."""
LOOK_S: Final = 60.0
"""Seconds between two checks of whether topics have more partitions."""


def has_place(brokers: str, topics: Sequence[str], options: Mapping[str, str], group: str) -> bool:
    """True if a group has committed a place in any of the topics.

    Raises:
        ConnectError: an option is refused, no broker answers in 5 s, or a topic is missing.
    """
    log = PartitionLog(Cluster(brokers, options), group)
    try:
        stored = (at for topic in topics for at in log.committed(topic, log.partitions(topic)).values())
        return any(at.offset != OFFSET_INVALID for at in stored)
    finally:
        log.close()


class GroupReader:
    """All partitions of some topics, from the places of the group on.

    Args:
        brokers, options: as for `KafkaInput`.
        topics: must exist.
        group: stores the places; no other reader may use it.
        start: where a group without a place begins; its place is committed at once.
        on_lost: what to do where the message at a place was deleted: `stop` with an error, or continue at the
            oldest or after the newest message, and count the skipped ones.
        headers: whether to read the headers of records.

    Raises:
        ConnectError: an option is refused, no broker answers in 5 s, or a topic is missing.
    """

    def __init__(
        self,
        brokers: str,
        topics: Sequence[str],
        options: Mapping[str, str] | None = None,
        *,
        group: str,
        start: Literal["earliest", "latest"] = "earliest",
        on_lost: Literal["stop", "earliest", "latest"] = "stop",
        headers: bool = False,
    ) -> None:
        self.places: dict[Place, int] = {}
        self.skipped = 0
        self._topics, self._start, self._on_lost = list(topics), start, on_lost
        self._headers = headers
        self._cluster = Cluster(brokers, options or {})
        self._admin: AdminClient | None = None
        self._at_end: set[Place] = set()
        self._reached: set[Place] = set()
        self._records: list[Record] = []
        self._held_places: set[Place] = set()
        self._looked_s = time.monotonic()
        self._has_places = False
        defaults, fixed = self._options()
        self._log = PartitionLog(self._cluster, group, defaults, fixed)
        self._consumer = self._log.consumer
        try:
            asking = self._cluster.client(AdminClient, {}, {})
            self._ids = {topic: TopicId(self._cluster, asking, topic) for topic in topics}
            for topic in self._ids:
                self._begin(topic)
            self._start_reading()
        except BaseException:
            self.close()
            raise

    def _options(self) -> tuple[Mapping[str, object], Mapping[str, object]]:
        """The consumer's options: defaults that the user's options may override, and fixed ones."""
        return {"fetch.queue.backoff.ms": 10, **CHECKED}, {
            "enable.auto.offset.store": False,
            "queued.max.messages.kbytes": 16 << 10,
        }

    def _start_reading(self) -> None:
        self.commit(self.places)
        self._assign()

    def read(self, most: int, wait: timedelta) -> list[Record]:
        """The next messages, `most` at most; empty if none came within `wait`.

        Raises:
            ConnectError: a place was lost, or a topic is gone, forbidden, damaged, or was created again: the
                old places do not apply to the new one.
        """
        for topic, topic_id in self._ids.items():
            if topic_id.seen_to_change():
                raise self._cluster.failed(topic, CREATED_AGAIN, "lost")
        if time.monotonic() - self._looked_s >= LOOK_S:  # not only at a quiet moment: a busy topic has none
            with suppress(ConnectError):  # an outage is no end
                self._grow()
        records = self._records = []
        wait_s = wait.total_seconds()
        while len(records) < most:
            # `consume` with a timeout waits all of it for more messages, so the first message is polled.
            first = self._consumer.poll(wait_s)
            if first is None:
                break
            more = min(_CHUNK, most - len(records)) - 1
            self._take([first, *(self._consumer.consume(more, 0) if more else ())], records)
            wait_s = 0.0
        faults = self._cluster.faults
        if faults.gone:
            raise self._cluster.failed(self._topics[0], faults.gone, "missing")
        return records

    def hold(self, offsets: Places) -> None:
        """Stop reading some partitions until `resume`; `resume` continues at these offsets."""
        self.places |= offsets
        self._held_places |= offsets.keys()
        self._assign()

    def resume(self, places: Sequence[Place]) -> None:
        """Continue to read held partitions."""
        self._held_places -= set(places)
        self._assign()

    def ends(self) -> dict[Place, int]:
        """The present end of each partition, from the brokers; the argument of `passed`.

        Raises:
            ConnectError: they do not answer.
        """
        self._grow()
        self._reached.clear()
        return self._offsets([*self.places], OffsetSpec.latest())

    def caught_up(self) -> frozenset[Place]:
        """The partitions that are fully read, by the brokers' present answer.

        Raises:
            ConnectError: they do not answer.
        """
        ends = self._offsets([*self.places], OffsetSpec.latest())
        return frozenset(place for place in self._at_end if self.places[place] >= ends[place])

    def passed(self, ends: Places) -> bool:
        """True if all messages before `ends` were read.

        A fetch must have found the end, too: the embedded broker may report an end before its latest
        messages.
        """
        ended = self._at_end | self._reached
        return all(self.places[place] >= end and place in ended for place, end in ends.items())

    @property
    def partitions(self) -> int:
        """The number of the topic's partitions, of all processes."""
        return len(self.places)

    @property
    def lag(self) -> dict[Place, int]:
        """The number of unread messages of each partition, by the brokers' last answer."""
        return {place: self._log.unread(*place, offset) for place, offset in self.places.items()}

    @property
    def at_end(self) -> frozenset[Place]:
        """The partitions whose end was found, and that had no message since; see `caught_up`."""
        return frozenset(self._at_end)

    def log_id(self, topic: str) -> str:
        """The brokers' id of a topic; empty if they have none."""
        return self._ids[topic].text

    def commit(self, places: Places) -> None:
        """Commit these places.

        Raises:
            ConnectError: the brokers do not take them; messages since the last committed places may come
                again.
        """
        offsets = [TopicPartition(*place, offset) for place, offset in places.items()]
        self._cluster.call(
            self._consumer,
            self._topics[0],
            lambda: self._consumer.commit(offsets=offsets, asynchronous=False),
        )

    def close(self) -> None:
        """Disconnect; brokers that do not answer delay it only briefly."""
        self._log.close()

    def _assign(self) -> None:
        self._at_end.clear()
        self._log.assign({place: at for place, at in self.places.items() if place not in self._held_places})

    def _grow(self) -> None:
        """Add partitions that were added to the topics."""
        self._looked_s = time.monotonic()
        for topic in dict.fromkeys(self._topics):
            ids = self._log.partitions(topic, led=True)
            added = [(topic, one) for one in ids if (topic, one) not in self.places]
            if added:
                self._admin = None  # the last admin client would look for no leader of the new partitions
                self.places |= self._offsets(added, OffsetSpec.earliest())
                self._assign()

    def _offsets(self, places: Sequence[Place], spec: OffsetSpec) -> dict[Place, int]:
        """An offset of each of some partitions, from the brokers."""
        if self._admin is None:
            # An admin client of its own: a consumer's requests wait behind its fetches, which wait for
            # messages.
            self._admin = self._cluster.client(AdminClient, {}, {})
        specs = {TopicPartition(*place): spec for place in places}
        offsets = {}
        for partition, answer in self._admin.list_offsets(specs, request_timeout=TIMEOUT_S).items():
            offsets[partition.topic, partition.partition] = self._cluster.call(
                self._admin, partition.topic, partial(offset_of, answer)
            )
        return offsets

    def _begin(self, topic: str) -> None:
        stored = self._log.committed(topic, self._log.partitions(topic))
        has_places = any(one.offset != OFFSET_INVALID for one in stored.values())
        self._has_places |= has_places
        for place, own in stored.items():
            self.places[place] = self._beginning(place, own, has_places)

    def _beginning(self, place: Place, stored: TopicPartition, has_places: bool) -> int:
        """The offset at which a partition begins.

        Args:
            has_places: whether the group has a place in any partition of the topic; then an added partition
                is read from its beginning.
        """
        low, high = self._log.bounds(*place)
        if stored.offset == OFFSET_INVALID:
            return low if has_places or self._start == "earliest" else high
        if stored.offset < low:
            return self._moved(place, stored.offset, low, high)
        return int(stored.offset)

    def _moved(self, place: Place, offset: int, low: int, high: int) -> int:
        if self._on_lost == "stop":
            raise self._cluster.failed(
                place[0],
                f"offset {offset} of partition {place[1]} is not in the log, which has {low} to {high}",
                "lost",
            )
        target = low if self._on_lost == "earliest" else high
        self.skipped += max(0, target - offset)
        return target

    def _take(self, messages: Sequence[Message], records: list[Record]) -> None:
        """Append messages to `records`, and advance the places past them."""
        places, at_end, headers = self.places, self._at_end, self._headers
        for message in messages:
            if message.error() is not None:
                self._take_error(message)
                continue
            record = record_of(message, headers)
            records.append(record)
            place = record[0], record[1]
            places[place] = record[2] + 1
            if at_end:
                at_end.discard(place)

    def _take_error(self, message: Message) -> None:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:
            assert topic is not None
            assert partition is not None
            # Control records of transactions have offsets, but are no messages.
            self.places[topic, partition] = max(self.places[topic, partition], offset or 0)
            self._at_end.add((topic, partition))
            self._reached.add((topic, partition))
        elif error.code() in LOST:
            raise self._cluster.failed(topic or self._topics[0], f"offset {offset} is not in the log", "lost")
        elif error.code() in DAMAGED:
            raise self._cluster.damaged(f"{topic}/{partition}", offset, error.str())
        else:
            self._cluster.faults(error)
