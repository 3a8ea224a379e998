"""A Kafka producer that reports for each message whether the brokers have stored it.

Unit of parallelism: a process. Guarantee: a message is reported once, as acknowledged by all in-sync replicas
or as failed. A failed message may be in the log all the same: a sender that repeats it may store it twice.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, ConfigResource

from connectors.kafka import ANSWER_S, TIMEOUT_S, Cluster

_FATAL: Final = (
    KafkaError._FATAL,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
    KafkaError.PRODUCER_FENCED,
    KafkaError.UNKNOWN_PRODUCER_ID,
)
QUEUE_MESSAGES: Final = 100_000
QUEUE_KIB: Final = 128 << 10


class Produced(NamedTuple):
    """A message to produce. With `partition` None the key selects the partition, as in Java's clients
    (murmur2).
    """

    value: bytes
    key: bytes | None = None
    partition: int | None = None


class Report(NamedTuple):
    """The report on the message with a `token`: its partition, or the reason of its failure.

    `logged_ms` is the time at which a broker appended it, by that broker's clock; 0 if the topic has
    producers' times.
    """

    token: Any
    partition: int
    error: str = ""
    logged_ms: int = 0


class Durability(NamedTuple):
    """A topic's durability.

    Attributes:
        replicas: the least number of replicas of a partition.
        in_sync: the number of replicas that must have a message before it is acknowledged; 1 if the brokers
            do not report it.
        stamped_by_brokers: whether its timestamps are the brokers' (`LogAppendTime`), not the producers'.
    """

    replicas: int
    in_sync: int
    stamped_by_brokers: bool


class ReportingProducer:
    """Produces batches to one topic; a thread of its own delivers the reports in batches.

    Args:
        brokers, options: as for `KafkaInput`.
        topic: must exist.
        report: called in that thread with the reports since the last call.
        give_up_after: the time for which a message is tried.

    Raises:
        ConnectError: an option is refused.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        options: Mapping[str, str] | None,
        report: Callable[[list[Report]], None],
        give_up_after: timedelta = timedelta(seconds=20),
    ) -> None:
        self._cluster, self.topic, self._report = Cluster(brokers, options or {}), topic, report
        self._give_up_after = give_up_after
        self._producer, self._ended = self._new(), list[Producer]()
        self._fatal = False
        self._reports = deque[Report]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="kafka-reports", daemon=True)
        self._thread.start()

    def _new(self) -> Producer:
        return self._cluster.client(
            Producer,
            {
                "compression.type": "lz4",
                "linger.ms": 1,  # the caller has batched the messages already
                "queue.buffering.max.messages": QUEUE_MESSAGES,
                "queue.buffering.max.kbytes": QUEUE_KIB,
            },
            {
                "acks": "all",
                # A request has messages of one partition: with one request in flight they wait for each
                # other. Five is the most that idempotence keeps in order. The price, if brokers answer in 300
                # ms or more: librdkafka's threads take up to half a core.
                "max.in.flight.requests.per.connection": 5,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "message.timeout.ms": self._give_up_after // timedelta(milliseconds=1),
            },
        )

    def partitions(self) -> list[int]:
        """The topic's partitions.

        Raises:
            ConnectError: the brokers do not answer in 5 s, or the topic is missing.
        """
        return list(self._cluster.partition_ids(self._producer, self.topic))

    def durability(self) -> Durability:
        """The topic's durability.

        Raises:
            ConnectError: the brokers do not answer.
        """
        client = self._cluster.client(AdminClient, {}, {})
        topic = self._cluster.call(client, self.topic, lambda: client.list_topics(timeout=TIMEOUT_S)).topics
        replicas = [len(one.replicas) for one in topic[self.topic].partitions.values()]
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.topic)
        answer = client.describe_configs([resource], request_timeout=TIMEOUT_S)[resource]
        config = self._cluster.call(client, self.topic, lambda: answer.result(ANSWER_S))
        in_sync, stamps = config.get("min.insync.replicas"), config.get("message.timestamp.type")
        by_brokers = stamps is not None and stamps.value == "LogAppendTime"
        return Durability(min(replicas), int(in_sync.value) if in_sync else 1, by_brokers)

    def produce(self, messages: Sequence[tuple[Any, Produced]]) -> list[Any]:
        """Queue messages with tokens. Returns the tokens of messages without room in the queue, which get no
        report.
        """
        if self._fatal:  # a producer that lost its sequence accepts no further message
            self._ended.append(self._producer)
            self._producer, self._fatal = self._new(), False
        left, tokens = [], []
        batch: list[dict[str, Any]] = []
        for token, (value, key, partition) in messages:
            callback = self._callback(token)
            if partition is None:
                tokens.append(token)
                batch.append({"value": value, "key": key, "callback": callback})
                continue
            try:  # a batch would choose any partition for it
                self._producer.produce(self.topic, value, key, partition, on_delivery=callback)
            except (BufferError, KafkaException):
                left.append(token)
        # The package writes an error into each message that it rejects.
        if batch and self._producer.produce_batch(self.topic, batch) < len(batch):
            errors = [
                (token, one["_error"]) for token, one in zip(tokens, batch, strict=True) if "_error" in one
            ]
            self._fatal |= any(error.code() in _FATAL for _, error in errors)
            left += [token for token, _ in errors]
        return left

    def _callback(self, token: Any) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None and (error.fatal() or error.code() in _FATAL):
                self._fatal = True
            kind, stamp_ms = message.timestamp()
            logged_ms = stamp_ms if kind == TIMESTAMP_LOG_APPEND_TIME else 0
            self._reports.append(
                Report(token, message.partition() or 0, "" if error is None else error.str(), logged_ms)
            )

        return delivered

    def _poll(self) -> None:
        while not self._over.is_set():
            self._producer.poll(0.05)
            for producer in list(self._ended):
                producer.poll(0)
                if not len(producer):
                    self._ended.remove(producer)
            if reports := [self._reports.popleft() for _ in range(len(self._reports))]:
                self._report(reports)

    def flush(self, timeout: timedelta) -> int:
        """Wait for queued messages; returns the number of messages still queued."""
        return int(self._producer.flush(timeout.total_seconds()))

    def close(self) -> None:
        """Disconnect; queued messages are dropped."""
        self._over.set()
        self._thread.join(5)
