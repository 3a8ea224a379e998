"""The parts that all Kafka clients share: the user's options, the user's secrets, and the reasons of
failures.
"""

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
"""The time that a request may take."""
ANSWER_S = TIMEOUT_S + 1
"""The time to wait for a request's result, in s: by then librdkafka has given the request up, with
the cause.
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
"""A consumer's option. Without it, data that a disk or the network has changed would be counted."""
_SECRET_WORDS = ("password", "secret", "pem", "token", "oauthbearer.config")
_Client = TypeVar("_Client", Consumer, Producer, AdminClient)
_Result = TypeVar("_Result")

Kind = Literal["away", "missing", "lost", "damaged", "options", "other"]


class KafkaTrouble(ConnectError):
    """Kafka cannot be used.

    Attributes:
        kind: `away`: no broker serves us; `missing`: there is no such topic, or not for us; `lost`: the
            position to read on from is not in the log; `damaged`: what is there cannot be read; `options`:
            the user's are none that a client takes; `other`.
        topic: of `missing`, its name.
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
        KafkaException: it has none; where the leader did not answer librdkafka mostly reports no error.
    """
    offset: int = answer.result(ANSWER_S).offset
    if offset < 0:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    return offset


def up_to_damage(messages: list[Message]) -> list[Message]:
    """The messages up to the first that reports damage, with it."""
    for place, message in enumerate(messages):
        error = message.error()
        if error is not None and error.code() in DAMAGED:
            return messages[: place + 1]
    return messages


@dataclass(slots=True)
class Faults:
    """The faults that librdkafka reports apart from the results of calls; its `error_cb`.

    Attributes:
        count: all faults so far, most of them passing.
        last: the latest in words.
        gone: that a topic is deleted or forbidden; librdkafka reports so after half a minute.
    """

    count: int = 0
    last: str = ""
    gone: str = ""

    def __call__(self, error: KafkaError) -> None:
        self.count += 1
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last = error.str()
        elif not self.last:  # librdkafka logs why a connection ends, and reports it nowhere else
            self.last = "each broker is down, or ends connections, as one does that asks for SASL or TLS"
        if error.code() in _GONE or error.fatal():
            self.gone = error.str()


@dataclass(slots=True)
class Farewell:
    """Closes consumers, each of which waits for its last commits; all together for `left_s` at most."""

    left_s: float = 3.0

    def close(self, consumer: Consumer) -> None:
        closing = threading.Thread(target=consumer.close, daemon=True)
        began_s = time.monotonic()
        closing.start()
        closing.join(self.left_s)
        self.left_s = max(0.0, self.left_s - (time.monotonic() - began_s))


@dataclass(frozen=True, slots=True)
class Cluster:
    """Makes clients with the user's options, and errors without the user's secrets."""

    brokers: str
    options: Mapping[str, str] = field(repr=False)
    faults: Faults = field(default_factory=Faults)

    def client(
        self, make: Callable[..., _Client], defaults: Mapping[str, object], fixed: Mapping[str, object]
    ) -> _Client:
        if "transactional.id" in self.options:
            raise self.failed("options", "transactional.id: nothing is written in transactions", "options")
        settings = {
            # Librdkafka's minute is too long: a hung broker would pass for a quiet topic.
            "socket.timeout.ms": 10_000,
            "reconnect.backoff.max.ms": 2_000,
            **defaults,
            **self.options,
            **fixed,
            # A producer would create a missing topic, with the brokers' number of partitions instead of ours.
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
        """The result of a request. If it fails, the error has the cause that librdkafka reported meanwhile.

        Raises:
            ConnectError: it fails, or a future that it waits for has no result in time.
        """
        self.faults.last = ""
        try:
            return request()
        except KafkaException as error:
            for _ in range(20):
                client.poll(0)
            kind: Kind = "away" if error.args[0].code() in AWAY else "other"
            raise self.failed(subject, self.faults.last or error.args[0].str(), kind) from None
        except TimeoutError:  # from a future: librdkafka itself is late
            raise self.failed(subject, self.faults.last or "no answer", "away") from None

    def partition_ids(self, client: _Client, topic: str, led: bool = False) -> list[int]:
        """The partitions of a topic; with `led` only those that have a leader. A new partition has none yet,
        and no message.
        """
        metadata = self.call(client, topic, lambda: client.list_topics(topic, timeout=TIMEOUT_S)).topics[
            topic
        ]
        if metadata.error is not None:
            kind: Kind = "missing" if metadata.error.code() in _GONE else "other"
            raise self.failed(topic, metadata.error.str(), kind)
        return sorted(one for one, of in metadata.partitions.items() if of.leader >= 0 or not led)

    def damaged(self, subject: str, offset: int | None, reason: str) -> KafkaTrouble:
        return self.failed(subject, f"what is at offset {offset} cannot be read ({reason})", "damaged")

    def failed(self, subject: str, reason: str, kind: Kind = "other") -> KafkaTrouble:
        for name, value in self.options.items():
            if value and any(word in name for word in _SECRET_WORDS):
                reason = reason.replace(value, "***")
        return KafkaTrouble(f"Kafka at {self.brokers}, {subject}: {reason}", kind, subject)
