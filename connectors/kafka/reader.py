"""Kafka topics as input and output.

Unit of parallelism: a topic's partition, named `topic/partition`, each read by a consumer of its own that is
assigned by hand. Guarantee: `open(name, offset)` delivers from that offset on, each message once. A reader
moves over deleted messages only on demand, and then counts them. A message that a writer took is in the
topic, once, when `flush` returns.
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
from connectors.kafka.topic_id import MADE_ANEW, TopicId
from connectors.stream import ConnectError, Messages

Start = Literal["earliest", "latest"] | int
OnLost = Literal["stop", "earliest", "latest"]
LEADERS_KNOWN_MS: Final = 2_000
"""Milliseconds for which a question about a partition's end goes to the last known leader."""

_TRIES: Final = 10
"""The number of attempts to read a damaged message, which the network may have damaged."""


class KafkaInput:
    """All partitions of some topics.

    Args:
        brokers: `host:port`, comma-separated.
        topics: all must exist.
        start: where a partition without a saved position begins: at its oldest message, after its newest, or
            at the first that is not older than an epoch time in ms.
        begun: where each partition began at the very first start, so that one without a saved position begins
            there again; others were added since, and begin at their oldest message. None for the very
            first start.
        options: librdkafka's own, such as `security.protocol` or `sasl.username`; a few this class fixes.
        on_lost: what to do where the message at the saved position was deleted, the log lost its end before
            it, or the topic was created again: stop with an error, or continue at the oldest unread message,
            or after the newest.
        group: consumer group in which `KafkaReader.commit` shows progress to other tools; never read.
        prefetch_bytes: held by librdkafka in all, shared out over the partitions; the broker's batches come
            whole, so that a partition may hold one or two unpacked ones more.

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
        """`topic/partition` of every partition that the topics have now."""
        log = self._log()
        try:
            self._names = [f"{topic}/{p}" for topic in self._topics for p in log.partitions(topic)]
        finally:
            log.close()
        return list(self._names)

    def open(self, partition: str, position: int | None, log_id: str = "") -> KafkaReader:
        """Open at offset `position`; with None where `begun` and `start` place the beginning.

        Raises:
            ConnectError: also where the message at `position` was deleted, or the topic with `log_id` was,
                and `on_lost` is `stop`. `read` reports a log that lost its end before `position`.
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
            # Idle partitions ask at most 40 times a second in all, or each twice a second, as by default.
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
            # A client of its own, since a consumer's would wait for the answer; its faults are no reader's.
            # The client asks the leader that it knows, and does not look again when that refuses: a leader
            # that has restarted would be known after a quarter of an hour.
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
            # A further fetch is under way when the queue is full, and grows when it is unpacked.
            "fetch.message.max.bytes": min(1 << 20, max(16 << 10, share >> 3)),
        }


class KafkaReader:
    """A partition's reader; made by `KafkaInput.open`.

    Attributes:
        position: offset to read on from.
        caught_up: whether the present end was reached; False from a fault on, until the end is seen again.
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
            # A full queue is read in milliseconds; librdkafka would look again after a second. A broker that
            # does not wake for new messages lets it wait for as long as a fetch may.
            {"fetch.queue.backoff.ms": 10, "fetch.wait.max.ms": fetch_wait_ms, **CHECKED},
            {**fixed, "on_commit": self._committed},
            name,
        )
        self._consumer = self._log.consumer
        topic, _, partition = name.rpartition("/")
        self._place = topic, int(partition)
        from connectors.kafka.prefetched import prefetched  # loads the compiler, which only flows need

        self._prefetched = prefetched(self._consumer, *self._place)

    @property
    def log_id(self) -> str:
        """The topic's id, and the mark after the last message that was read, even one that its user has not
        taken yet.
        """
        return self._topic_id.text if self._mark is None else self._mark.log_id(self._topic_id.text)

    @property
    def errors(self) -> int:
        """Faults that a retry overcame: connections, requests, commits."""
        return self._cluster.faults.count + self._failures

    @property
    def lag(self) -> int:
        """Messages between `position` and the end as of the last answer of the broker."""
        return max(self._high - self.position, self._log.unread(*self._place, self.position))

    def read(self, limit: int) -> Messages | None:
        """At most `limit` messages that were prefetched; None if there are none now.

        Raises:
            ConnectError: the position was lost and `on_lost` is `stop`; what is there cannot be read; or the
                topic is gone, forbidden, or was created again: the old offsets do not apply to it, so only a
                new start can continue.
        """
        if self._topic_id.seen_to_change():
            raise self._made_anew()
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
        """True if `position` is the partition's end, by a broker's answer to a question put after the last
        call; asks if no answer is due.
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

        Pass the position of the snapshot before the last: that one is certainly on the disk.
        """
        try:
            self._consumer.commit(offsets=[self._partition_at(position)], asynchronous=True)
        except KafkaException:
            self._failures += 1

    def close(self) -> None:
        """Leave the partition and the brokers; if they do not answer, without waiting for long."""
        self._prefetched.close()
        self._log.close(self._farewell)

    def begin(self, position: int | None, start: Start, log_id: str = "") -> None:
        """Find where to read from, and start to prefetch; see `KafkaInput.open`."""
        topic_id, mark = marked(log_id)
        if position is not None and topic_id and self._topic_id.text not in ("", topic_id):
            if self._on_lost == "stop":
                raise self._made_anew()
            self.position, _ = self._bounds()
            self._skip()
            self._lost = max(1, self._lost)  # the number of the other topic's messages is unknown
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
        if self._high < 0:  # a resumed position comes without a question for the end
            self._bounds()

    def _handle(self, error: KafkaError, offset: int) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            # Control records of transactions have offsets, and are no messages.
            self.position = max(self.position, offset)
            self.caught_up = True
        elif code in DAMAGED or (code in LOST and self._damaged_at == self.position):
            self._try_again(error)
        elif code in LOST:
            if self._topic_id.changed():
                raise self._made_anew()
            ended = end_of(error)
            # If retention also took the control records that the mark points to, nothing is lost.
            if ended is not None or self._mark is None or self._mark.offset >= self.position:
                self._skip(ended)
            self._mark = None
            self._assign()
        else:
            self._cluster.faults(error)

    def _try_again(self, error: KafkaError) -> None:
        """Read a damaged message again. Librdkafka continues after it at any offset, so that an offset which
        is lost now proves nothing about the log.
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

    def _made_anew(self) -> ConnectError:
        return self._cluster.failed(self._name, MADE_ANEW, "lost")

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
        # Not by `_bounds`: librdkafka checks a mark only while its consumer does not know the leader yet.
        oldest = {self._partition_at(0): OffsetSpec.earliest()}
        (answer,) = self._admin.list_offsets(oldest, request_timeout=TIMEOUT_S).values()
        return self._cluster.call(self._consumer, self._name, partial(offset_of, answer))

    def _committed(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._failures += 1
