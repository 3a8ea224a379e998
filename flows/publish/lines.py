"""Outputs of lines: Kafka topics and NDJSON files, for letters, minutes and decisions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

from connectors.files import NdjsonWriter
from connectors.kafka import KafkaWriter
from connectors.stream import ConnectError
from flows.settings import Settings, kafka_options


class LineWriter(Protocol):
    """Takes (key, value) messages; `flush` returns when all are safe; `position` is where the output then
    stands.
    """

    @property
    def position(self) -> int: ...

    def write(self, items: Sequence[tuple[bytes, bytes]]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


TIMEOUT: Final = timedelta(seconds=30)
"""The time for which an output waits for the brokers before the flow ends."""
STOP_TIMEOUT: Final = timedelta(seconds=5)
"""The same of a flow that was told to stop: what is not out will come again from the log."""


class TopicLines:
    """A Kafka topic as an output; it has no position, being keyed so that repeats collapse.

    Args:
        patience: asked before each wait for the brokers.
    """

    position = 0

    def __init__(
        self, settings: Settings, topic: str, patience: Callable[[], timedelta] = lambda: TIMEOUT
    ) -> None:
        self._patience, self._failed = patience, False
        # The engine opens an output when the first message is due, which may be while the brokers are away.
        deadline_s = time.monotonic() + TIMEOUT.total_seconds()
        while True:
            try:
                self._writer = KafkaWriter(settings.kafka_brokers, topic, kafka_options(settings))
                return
            except ConnectError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.5)

    def write(self, items: Sequence[tuple[bytes, bytes]]) -> None:
        """Queue the messages."""
        with self._noting_failure():
            self._writer.write(items)

    def flush(self) -> None:
        """Wait until all are delivered."""
        with self._noting_failure():
            self._writer.flush(self._patience())

    def close(self) -> None:
        """Flush for the last time; not after a failure, since a second one would abort the ending engine."""
        if not self._failed:
            self._writer.close(self._patience())

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except ConnectError:
            self._failed = True
            raise


class FileLines:
    """An NDJSON file as an output, cut back to `position` when resumed; the keys are in the values too."""

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
        """Put all on the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()
