"""The parts that all Kafka clients share: options, secrets in errors, and reasons of failures."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo

from connectors.stream import LATEST_MS, ConnectError

TIMEOUT_S = 5.0
"""The time that a request may take, in s."""
ANSWER_S = TIMEOUT_S + 1
"""The time to wait for a request's result, in s. By then librdkafka has ended the request, and reported the
cause.
"""
_GONE = (
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
)
AWAY = (
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._AUTHENTICATION,
)
DAMAGED = (
    KafkaError._BAD_MSG,
    KafkaError._BAD_COMPRESSION,
    KafkaError._NOT_IMPLEMENTED,
    KafkaError.INVALID_MSG,
)
"""Codes of messages that cannot be read. Later messages of the same answer cannot be trusted: librdkafka
continues in the middle of the damage.
"""
CHECKED = {"check.crcs": True}
"""A consumer's option. Without it, data that a disk or the network has damaged would be counted."""
_SECRET_WORDS = ("password", "secret", "pem", "token", "oauthbearer.config")
_Client = TypeVar("_Client", Consumer, Producer, AdminClient)
_Result = TypeVar("_Result")

Kind = Literal["away", "missing", "lost", "damaged", "options", "other"]


class KafkaTrouble(ConnectError):
    """Kafka cannot be used.

    Attributes:
        kind: `away`: no broker answers; `missing`: the topic does not exist or is forbidden; `lost`: the
            position to continue at is not in the log; `damaged`: messages cannot be read; `options`:
            librdkafka refuses the user's options; `other`.
        topic: the name of a `missing` topic.
    """

    def __init__(self, message: str, kind: Kind, topic: str) -> None:
        super().__init__(message)
        self.kind, self.topic = kind, topic


# Without a logger librdkafka writes to stderr.
_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())


def time_ms(message: Message) -> int:
    """The broker's timestamp, epoch ms; 0 for an absent or impossible one."""
    stamp: int = message.timestamp()[1]
    return stamp if 0 < stamp < LATEST_MS else 0


def offset_of(answer: Future[ListOffsetsResultInfo]) -> int:
    """The offset in the answer to ListOffsets.

    Raises:
        KafkaException: the answer has no offset; librdkafka mostly reports no error if the leader did not
            answer.
    """
    offset: int = answer.result(ANSWER_S).offset
    if offset < 0:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    return offset


def up_to_damage(messages: list[Message]) -> list[Message]:
    """The messages up to the first one that reports damage, which is included."""
    for place, message in enumerate(messages):
        error = message.error()
        if error is not None and error.code() in DAMAGED:
            return messages[: place + 1]
    return messages


@dataclass(slots=True)
class Faults:
    """The faults that librdkafka reports outside the results of calls; use it as `error_cb`.

    Attributes:
        count: the number of faults so far, most of them temporary.
        last: the latest fault in words.
        gone: the fault that a topic is deleted or forbidden, which librdkafka reports after half a minute;
            else empty.
    """

    count: int = 0
    last: str = ""
    gone: str = ""

    def __call__(self, error: KafkaError) -> None:
        self.count += 1
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last = error.str()
        elif not self.last:  # only librdkafka's log has the reason for the end of a connection
            self.last = "all brokers are down, or close connections, as brokers do that require SASL or TLS"
        if error.code() in _GONE or error.fatal():
            self.gone = error.str()


@dataclass(slots=True)
class Farewell:
    """Closes consumers, which wait for their last commits: `left_s` at most, all together."""

    left_s: float = 3.0

    def close(self, consumer: Consumer) -> None:
        closing = threading.Thread(target=consumer.close, daemon=True)
        began_s = time.monotonic()
        closing.start()
        closing.join(self.left_s)
        self.left_s = max(0.0, self.left_s - (time.monotonic() - began_s))


@dataclass(frozen=True, slots=True)
class Cluster:
    """Creates clients with the user's options, and errors without the user's secrets."""

    brokers: str
    options: Mapping[str, str] = field(repr=False)
    faults: Faults = field(default_factory=Faults)

    def client(
        self, make: Callable[..., _Client], defaults: Mapping[str, object], fixed: Mapping[str, object]
    ) -> _Client:
        if "transactional.id" in self.options:
            raise self.failed("options", "transactional.id: transactions are not used", "options")
        settings = {
            # Librdkafka's default of a minute is too long: a hung broker would look like a quiet topic.
            "socket.timeout.ms": 10_000,
            "reconnect.backoff.max.ms": 2_000,
            **defaults,
            **self.options,
            **fixed,
            # A producer would create a missing topic with the brokers' default number of partitions.
            "allow.auto.create.topics": False,
            "bootstrap.servers": self.brokers,
            "error_cb": self.faults,
        }
        try:
            return make(settings, logger=_log)
        except KafkaException as error:
            refused = error.args[0].code() == KafkaError._INVALID_ARG
            raise self.failed("options", error.args[0].str(), "options" if refused else "other") from None

    def call(self, client: _Client, subject: str, request: Callable[[], _Result]) -> _Result:
        """The result of a request. The error of a failed request has the cause that librdkafka reported
        meanwhile.

        Raises:
            ConnectError: the request fails, or its future has no result in time.
        """
        self.faults.last = ""
        try:
            return request()
        except KafkaException as error:
            for _ in range(20):
                client.poll(0)
            kind: Kind = "away" if error.args[0].code() in AWAY else "other"
            raise self.failed(subject, self.faults.last or error.args[0].str(), kind) from None
        except TimeoutError:  # from a future: librdkafka itself was too slow
            raise self.failed(subject, self.faults.last or "no answer", "away") from None

    def partition_ids(self, client: _Client, topic: str, led: bool = False) -> list[int]:
        """The partitions of a topic; with `led` only those that have a leader. A new partition has neither a
        leader nor messages.
        """
        metadata = self.call(client, topic, lambda: client.list_topics(topic, timeout=TIMEOUT_S)).topics[
            topic
        ]
        if metadata.error is not None:
            kind: Kind = "missing" if metadata.error.code() in _GONE else "other"
            raise self.failed(topic, metadata.error.str(), kind)
        return sorted(one for one, of in metadata.partitions.items() if of.leader >= 0 or not led)

    def damaged(self, subject: str, offset: int | None, reason: str) -> KafkaTrouble:
        return self.failed(subject, f"the message at offset {offset} cannot be read ({reason})", "damaged")

    def failed(self, subject: str, reason: str, kind: Kind = "other") -> KafkaTrouble:
        for name, value in self.options.items():
            if value and any(word in name for word in _SECRET_WORDS):
                reason = reason.replace(value, "***")
        return KafkaTrouble(f"Kafka at {self.brokers}, {subject}: {reason}", kind, subject)
