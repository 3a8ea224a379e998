"""Outputs of lines, to Kafka topics and NDJSON files: dead letters, minutes, decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

import structlog

from connectors.files import NdjsonWriter
from connectors.kafka import KafkaTrouble, KafkaWriter
from connectors.stream import ConnectError
from flows.settings import Settings, kafka_options


class LineWriter(Protocol):
    """An output of (key, value) messages. `flush` returns when all messages are durable; `position` is then
    the end of the output.
    """

    @property
    def position(self) -> int: ...

    def write(self, items: Sequence[tuple[bytes, bytes]]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


STOP_TIMEOUT: Final = timedelta(seconds=5)
"""The time for which an output waits for the brokers once the flow must stop. The next start makes
undelivered messages again from the log.
"""
MISSING_TIMEOUT: Final = timedelta(seconds=30)
"""The time for which a topic may be missing: brokers that restart list their topics late."""
TOLD_FROM_S: Final = 5.0
"""Seconds from which a wait for the brokers is logged."""
_SLICE: Final = timedelta(seconds=0.5)
"""The time between two checks of whether the flow must stop."""


def _never() -> bool:
    return False


@dataclass
class _Wait:
    """A wait for the brokers, which ends when they answer, or `STOP_TIMEOUT` after the flow must stop."""

    topic: str
    stopping: Callable[[], bool]
    _began_s: float = field(default_factory=time.monotonic)
    _until_s: float = float("inf")
    _warned: bool = False

    def goes_on(self, why: object) -> bool:
        """True if the wait must go on."""
        now_s = time.monotonic()
        if self.stopping():
            self._until_s = min(self._until_s, now_s + STOP_TIMEOUT.total_seconds())
        if not self._warned and now_s - self._began_s > TOLD_FROM_S:
            self._warned = True
            log = structlog.get_logger("outputs")
            log.warning("the flow waits for Kafka to take an output", topic=self.topic, error=str(why))
        return now_s < self._until_s

    def over(self) -> None:
        """Log that the brokers answer again."""
        if self._warned:
            seconds = round(time.monotonic() - self._began_s, 1)
            log = structlog.get_logger("outputs")
            log.warning("Kafka takes the output again", topic=self.topic, seconds=seconds)


class TopicLines:
    """A Kafka topic as an output. A topic has no position: its keys make repeats harmless.

    While the brokers do not answer, the output waits for them, as the input does, and the flow reads no
    further. A flow that ended instead would read again from its last save, and meet the same outage.

    Args:
        stopping: whether the flow must stop.
    """

    position = 0

    def __init__(self, settings: Settings, topic: str, stopping: Callable[[], bool] = _never) -> None:
        self._topic, self._stopping, self._failed = topic, stopping, False
        self._room: _Wait | None = None
        # The engine opens an output when the first message is due, perhaps in an outage of the brokers.
        wait, began_s = _Wait(topic, stopping), time.monotonic()
        while True:
            try:
                options = kafka_options(settings)
                self._writer = KafkaWriter(
                    settings.kafka_brokers, topic, options, give_up_after=None, full=self._while_full
                )
                break
            except KafkaTrouble as error:
                passed_s = time.monotonic() - began_s
                lost = error.kind != "away" and passed_s > MISSING_TIMEOUT.total_seconds()
                if lost or not wait.goes_on(error):
                    raise
                time.sleep(_SLICE.total_seconds())
        wait.over()

    def write(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Queue the messages; waits while the queue is full."""
        with self._noting_failure():
            self._writer.write(items)
        if self._room is not None:
            self._room.over()
            self._room = None

    def flush(self) -> None:
        """Wait until all messages are delivered."""
        with self._noting_failure():
            self._flush()

    def close(self) -> None:
        """Flush for the last time. After a failure `close` flushes nothing: a second error would abort the
        ending engine.
        """
        if not self._failed:
            self._flush()

    def _flush(self) -> None:
        wait = _Wait(self._topic, self._stopping)
        while self._writer.wait(_SLICE):
            if not wait.goes_on(why := self._writer.undelivered(STOP_TIMEOUT)):
                raise why
        wait.over()

    def _while_full(self) -> None:
        self._room = self._room or _Wait(self._topic, self._stopping)
        if not self._room.goes_on(why := self._writer.undelivered(STOP_TIMEOUT)):
            raise why

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except ConnectError:
            self._failed = True
            raise


class FileLines:
    """An NDJSON file as an output, cut back to `position` on a resume. The file holds the values alone, which
    contain the keys.
    """

    def __init__(self, path: Path, position: int | None) -> None:
        self._writer = NdjsonWriter(str(path), position or 0)

    @property
    def position(self) -> int:
        """Bytes written."""
        return self._writer.position

    def write(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Append the messages."""
        self._writer.write([value for _, value in items])

    def flush(self) -> None:
        """Write all lines to disk (fsync)."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()
