"""Kafka topics as an input.

Unit of parallelism: a topic's partition, named `topic/partition`, each read by a consumer of its own that is
assigned by hand. Guarantee: `open(name, offset)` delivers from that offset on, each message once. A reader
skips deleted messages only on demand, and then counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final, Literal

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo, OffsetSpec

from connectors.kafka.client import CHECKED, DAMAGED, TIMEOUT_S, Cluster, Farewell, offset_of
from connectors.kafka.log import PartitionLog
from connectors.kafka.mark import LOST, Loss, Mark, end_of, marked
from connectors.kafka.topic_id import CREATED_AGAIN, TopicId
from connectors.stream import ConnectError, Messages

Start = Literal["earliest", "latest"] | int
OnLost = Literal["stop", "earliest", "latest"]
LEADERS_KNOWN_MS: Final = 2_000
"""Milliseconds for which requests for a partition's end go to the last known leader."""

_TRIES: Final = 10
"""The number of attempts to read a damaged message: the network may have damaged it."""


class KafkaInput:
    """All partitions of some topics.

    Args:
        brokers: `host:port`, comma-separated.
        topics: all must exist.
        start: where a partition without a saved position begins: at its oldest message, after its newest, or
            at the first that is not older than an epoch time in ms.
        begun: where each partition began at the very first start; a partition without a saved position begins
            there again. Partitions that are not in it were added since, and begin at their oldest message.
            None at the very first start.
        options: librdkafka's own, such as `security.protocol` or `sasl.username`. This class fixes some of
            them.
        on_lost: what to do if the message at the saved position was deleted, if the log lost its end before
            the position, or if the topic was created again: stop with an error, continue at the oldest unread
            message, or continue after the newest.
        group: the consumer group in which `KafkaReader.commit` stores progress for other tools; never read.
        prefetch_bytes: the bytes that librdkafka prefetches in all, divided among the partitions. Batches
            arrive whole, so a partition may hold one or two decompressed batches more.

    Raises:
        ConnectError: an option is refused. The methods: no broker answers in 5 s, or a topic is missing.
    """

    def __init__(
        self,
        brokers: str,
        topics: Sequence[str],
        *,
        start: Start = "earliest",
        begun: Mapping[str, int] | None = None,
        options: Mapping[str, str] | None = None,
        on_lost: OnLost = "stop",
        group: str = "audiopixel",
        prefetch_bytes: int = 64 << 20,
    ) -> None:
        self._brokers = brokers
        self._topics = list(dict.fromkeys(topics))
        self._start: Start = start if begun is None else "earliest"
        self._begun = begun or {}
        self._options = options or {}
        self._on_lost: OnLost = on_lost
        self._group = group
        self._prefetch_bytes = prefetch_bytes
        self._names: list[str] = []
        self._farewell = Farewell()
        self._asking = Cluster(brokers, self._options)
        self._admin: AdminClient | None = None
        self._ids: dict[str, TopicId] = {}
        self._log().close()

    live = True

    def partitions(self) -> list[str]:
        """The name (`topic/partition`) of every present partition of the topics."""
        log = self._log()
        try:
            self._names = [f"{topic}/{p}" for topic in self._topics for p in log.partitions(topic)]
        finally:
            log.close()
        return list(self._names)

    def open(self, partition: str, position: int | None, log_id: str = "") -> KafkaReader:
        """Open at offset `position`; with None, at the beginning according to `begun` and `start`.

        Raises:
            ConnectError: also if `on_lost` is `stop` and the message at `position`, or the topic with
                `log_id`, was deleted. A log that lost its end before `position` fails in `read`.
        """
        partitions = len(self._names or self.partitions())
        cluster = Cluster(self._brokers, self._options)
        topic_id = self._topic_id(partition.rpartition("/")[0])
        assert self._admin is not None
        reader = KafkaReader(
            cluster,
            self._group,
            self._fixed(partitions),
            partition,
            self._on_lost,
            self._farewell,
            self._admin,
            topic_id,
            # Idle partitions send at most 40 requests a second in all, or each two a second, as by default.
            fetch_wait_ms=min(500, max(100, 25 * partitions)),
        )
        try:
            reader.begin(self._begun.get(partition) if position is None else position, self._start, log_id)
        except ConnectError:
            reader.close()
            raise
        return reader

    def topic_ids(self) -> dict[str, str]:
        """The id of each topic, without those of brokers that have none.

        Raises:
            ConnectError: the brokers do not answer, or a topic is missing.
        """
        return {topic: found.text for topic in self._topics if (found := self._topic_id(topic)).text}

    def _topic_id(self, topic: str) -> TopicId:
        if self._admin is None:
            # A client of its own, since a consumer would wait for the answer; no reader reports its faults.
            # The client asks the leader that it knows, and does not search again if that refuses: a leader
            # that has restarted would be found only after a quarter of an hour.
            names = "metadata.max.age.ms", "topic.metadata.refresh.interval.ms"
            fresh = dict.fromkeys(names, LEADERS_KNOWN_MS)
            self._admin = self._asking.client(AdminClient, {}, fresh)
        if topic not in self._ids:
            self._ids[topic] = TopicId(self._asking, self._admin, topic)
        return self._ids[topic]

    def _log(self) -> PartitionLog:
        return PartitionLog(Cluster(self._brokers, self._options), self._group, {}, self._fixed(1))

    def _fixed(self, partitions: int) -> Mapping[str, object]:
        share = self._prefetch_bytes // partitions
        return {
            "queued.max.messages.kbytes": max(32, share >> 11),
            # Another fetch may be under way when the queue is full, and grows when it is decompressed.
            "fetch.message.max.bytes": min(1 << 20, max(16 << 10, share >> 3)),
        }


class KafkaReader:
    """The reader of a partition; created by `KafkaInput.open`.

    Attributes:
        position: the offset to continue at.
        caught_up: whether the present end was reached; False from a fault on until the end is reached again.
        skipped: the number of messages that `on_lost` skipped.
    """

    in_history = False

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        fixed: Mapping[str, object],
        name: str,
        on_lost: OnLost,
        farewell: Farewell,
        admin: AdminClient,
        topic_id: TopicId,
        fetch_wait_ms: int,
    ) -> None:
        self.position = 0
        self.caught_up = False
        self.skipped = self._lost = 0
        self._cluster = cluster
        self._name = name
        self._on_lost = on_lost
        self._farewell = farewell
        self._admin = admin
        self._topic_id = topic_id
        self._mark: Mark | None = None
        self._end_request: Future[ListOffsetsResultInfo] | None = None
        self._failures = 0
        self._damaged_at, self._tries, self._damage = -1, 0, ""
        self._faults_seen = 0
        self._high = -1
        self._log = PartitionLog(
            cluster,
            group,
            # A full queue is emptied in milliseconds; librdkafka would check it again after a second. A
            # broker that does not answer a fetch on new messages delays it for as long as a fetch may last.
            {"fetch.queue.backoff.ms": 10, "fetch.wait.max.ms": fetch_wait_ms, **CHECKED},
            {**fixed, "on_commit": self._committed},
            name,
        )
        self._consumer = self._log.consumer
        topic, _, partition = name.rpartition("/")
        self._place = topic, int(partition)
        from connectors.kafka.prefetched import prefetched  # loads the compiler; only flows need it

        self._prefetched = prefetched(self._consumer, *self._place)

    @property
    def log_id(self) -> str:
        """The topic's id, with the mark after the last message that was read, even if the caller has not
        processed it yet.
        """
        return self._topic_id.text if self._mark is None else self._mark.log_id(self._topic_id.text)

    @property
    def errors(self) -> int:
        """The number of faults that a retry overcame: connections, requests, commits."""
        return self._cluster.faults.count + self._failures

    @property
    def lag(self) -> int:
        """The number of messages between `position` and the end, by the broker's last answer."""
        return max(self._high - self.position, self._log.unread(*self._place, self.position))

    def read(self, limit: int) -> Messages | None:
        """At most `limit` prefetched messages; None if there are none now.

        Raises:
            ConnectError: the position was lost and `on_lost` is `stop`; a message cannot be read; or the
                topic was deleted, is forbidden, or was created again: the old offsets do not apply to it, so
                only a new start can continue.
        """
        if self._topic_id.seen_to_change():
            raise self._created_again()
        prefetched = self._prefetched.take(limit)
        batch = None
        if len(prefetched.values):
            self.position = prefetched.offsets[-1] + 1
            batch = Messages(
                prefetched.values, prefetched.offsets, self.position, prefetched.times_ms, self._lost
            )
            self._mark, self._lost = prefetched.mark, 0
        for error, offset in prefetched.errors:
            self._handle(error, offset)
        if prefetched.ends_in_data:
            self.caught_up = False
        if self._cluster.faults.gone:
            raise self._cluster.failed(self._name, self._cluster.faults.gone, "missing")
        if self._faults_seen != self._cluster.faults.count:
            self._faults_seen = self._cluster.faults.count
            self._doubt_the_end()
        return batch

    def proven(self) -> bool:
        """True if `position` is the partition's end, by a broker's answer to a request sent after the last
        call; sends a request if none is pending.
        """
        try:
            if self._end_request is None:
                end = {self._partition_at(0): OffsetSpec.latest()}
                (self._end_request,) = self._admin.list_offsets(end, request_timeout=TIMEOUT_S).values()
            if not self._end_request.done():
                return False
            answer, self._end_request = self._end_request, None
            return offset_of(answer) <= self.position
        except KafkaException:
            self._failures += 1
            return False

    def commit(self, position: int) -> None:
        """Commit `position` as the group's progress, without waiting; a failure is counted in `errors`.

        Pass the position of the last snapshot but one, which is certainly on disk.
        """
        try:
            self._consumer.commit(offsets=[self._partition_at(position)], asynchronous=True)
        except KafkaException:
            self._failures += 1

    def close(self) -> None:
        """Disconnect; brokers that do not answer delay it only briefly."""
        self._prefetched.close()
        self._log.close(self._farewell)

    def begin(self, position: int | None, start: Start, log_id: str = "") -> None:
        """Find where to read from, and start to prefetch; see `KafkaInput.open`."""
        topic_id, mark = marked(log_id)
        if position is not None and topic_id and self._topic_id.text not in ("", topic_id):
            if self._on_lost == "stop":
                raise self._created_again()
            self.position, _ = self._bounds()
            self._skip()
            self._lost = max(1, self._lost)  # the number of messages of the other topic is unknown
        elif position is not None:
            self.position, self._mark = position, mark
            if position < self._oldest():
                self._skip()
        else:
            self.position, high = self._bounds()
            if start == "latest":
                self.position = high
            elif start != "earliest":
                topic, partition = self._place
                offset = self._log.since(topic, [partition], start)[partition]
                self.position = offset if offset >= 0 else high
        self._assign()
        if self._high < 0:  # a resumed position needs no request for the end
            self._bounds()

    def _handle(self, error: KafkaError, offset: int) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            # Control records of transactions have offsets, but are no messages.
            self.position = max(self.position, offset)
            self.caught_up = True
        elif code in DAMAGED or (code in LOST and self._damaged_at == self.position):
            self._try_again(error)
        elif code in LOST:
            if self._topic_id.changed():
                raise self._created_again()
            ended = end_of(error)
            # If retention has deleted only the control records that the mark points to, no message is lost.
            if ended is not None or self._mark is None or self._mark.offset >= self.position:
                self._skip(ended)
            self._mark = None
            self._assign()
        else:
            self._cluster.faults(error)

    def _try_again(self, error: KafkaError) -> None:
        """Read a damaged message again. Librdkafka continues at any offset after it, so a lost offset then
        proves nothing about the log.
        """
        self._cluster.faults(error)
        if self._damaged_at != self.position:
            self._damaged_at, self._tries = self.position, 0
        if error.code() in DAMAGED:
            self._damage = error.str()
        self._tries += 1
        if self._tries == _TRIES:
            raise self._cluster.damaged(self._name, self.position, self._damage)
        self._assign()

    def _doubt_the_end(self) -> None:
        # Librdkafka reports an end once; after an outage only a new assignment makes it report the end again.
        if self.caught_up:
            self._assign()

    def _assign(self) -> None:
        self.caught_up = False
        mark = self._mark or Mark(-1, self.position)
        self._consumer.assign([self._partition_at(min(mark.offset, self.position), mark.epoch)])
        self._prefetched.begin()

    def _created_again(self) -> ConnectError:
        return self._cluster.failed(self._name, CREATED_AGAIN, "lost")

    def _skip(self, ended: int | None = None) -> None:
        """Apply `on_lost` to a `position` that is not in this log, which has other messages from
        `ended` on.
        """
        loss = Loss(self.position, *self._bounds(), ended)
        if self._on_lost == "stop":
            raise self._cluster.failed(self._name, loss.words, "lost")
        self.position, skipped = loss.resume_offset(self._on_lost, self._name)
        self.skipped, self._lost = self.skipped + skipped, self._lost + skipped
        self._mark = None

    def _partition_at(self, offset: int, epoch: int = -1) -> TopicPartition:
        return TopicPartition(*self._place, offset, leader_epoch=epoch)

    def _bounds(self) -> tuple[int, int]:
        low, self._high = self._log.bounds(*self._place)
        return low, self._high

    def _oldest(self) -> int:
        # Not with `_bounds`: librdkafka checks a mark only while its consumer does not know the leader yet.
        oldest = {self._partition_at(0): OffsetSpec.earliest()}
        (answer,) = self._admin.list_offsets(oldest, request_timeout=TIMEOUT_S).values()
        return self._cluster.call(self._consumer, self._name, partial(offset_of, answer))

    def _committed(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._failures += 1
