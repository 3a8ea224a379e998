"""The latest minutes of placements, from the topic of minutes, for the exporter's readers.

A thread follows the topic from the first request on. It stores at most `MAX_BYTES` of the topic's values, as
bytes, and drops the oldest minutes first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import msgspec

from connectors.kafka import Change, KafkaTable
from connectors.stream import ConnectError
from flows.errors import UNREADABLE
from flows.settings import Settings, kafka_options

BACK_MS: Final = 2 * 3_600_000
"""The span before the first request for minutes from which the topic is read."""
MAX_BYTES: Final = 64 << 20
"""The most bytes of stored minutes."""
FIRST_WAIT_S: Final = 5.0
"""The time for which a request waits until the topic has been read, in s."""
WAITING: Final = 4
"""The most requests that wait at a time: each occupies one of the exporter's forty threads."""
RETRY_S: Final = 5.0
"""The pause after an outage before the topic is opened again, in s."""
OUTAGE_S: Final = 5.0
"""The length of an outage of Kafka, in s, after which minutes are withheld until the topic is read again."""
POLL_S: Final = 60.0
"""Time between two checks for more partitions of the topic, in s."""
_BEING_READ: Final = "the minutes are being read"
_POLL: Final = timedelta(seconds=0.2)
_ENTRY_BYTES: Final = 200
"""Memory that a stored value takes besides its own bytes, approximately."""


class _Head(msgspec.Struct):
    placement_id: str
    minute_ms: int
    state: str


class StoredMinutes:
    """Minutes by time and placement."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._minutes: dict[int, dict[str, tuple[bool, bytes]]] = {}
        self.since_ms = 0
        """The minute before which minutes are no longer stored; 0 while none were dropped."""

    def take(self, value: bytes | None) -> None:
        """Store a value of the topic. Skip a value that is no minute, and a provisional minute after a final
        one.
        """
        try:
            head = msgspec.json.decode(value or b"", type=_Head)
        except UNREADABLE:
            return
        if head.minute_ms < self.since_ms:
            return
        minute_values = self._minutes.setdefault(head.minute_ms, {})
        final, before = minute_values.get(head.placement_id, (False, None))
        if final and head.state != "final":
            return
        assert value is not None
        self._bytes += len(value) - len(before) if before is not None else len(value) + _ENTRY_BYTES
        minute_values[head.placement_id] = head.state == "final", value
        while self._bytes > self._max_bytes and len(self._minutes) > 1:
            oldest = min(self._minutes)
            dropped = self._minutes.pop(oldest)
            self._bytes -= sum(len(stored) + _ENTRY_BYTES for _, stored in dropped.values())
            self.since_ms = min(self._minutes)

    def of_placement(self, placement: str) -> list[dict[str, Any]]:
        """The minutes of a placement, the oldest first."""
        by_minute = [by_placement for _, by_placement in sorted(self._minutes.items())]
        values = [by_placement[placement][1] for by_placement in by_minute if placement in by_placement]
        return [msgspec.json.decode(value, type=dict[str, Any]) for value in values]


class MinutesUnread(ConnectError):
    """The topic has not been read to its end yet, or Kafka does not answer: the caller may retry."""


class MinutesTopic:
    """The topic of minutes, followed from the first request on.

    Args:
        open_table: opens the topic; called again after each outage.
        stored: the minutes read so far; None: none.
    """

    def __init__(self, open_table: Callable[[], KafkaTable], stored: StoredMinutes | None = None) -> None:
        self._open_table = open_table
        self.wait_s = FIRST_WAIT_S
        self._stored = stored or StoredMinutes()
        self._lock, self._places = threading.Lock(), threading.Semaphore(WAITING)
        self._ready, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = _BEING_READ
        self.from_ms = 0
        """Epoch ms from which on the topic was read; 0 if unknown."""

    @classmethod
    def of_settings(cls, settings: Settings) -> MinutesTopic:
        """The topic named in the settings, read from `BACK_MS` ago on."""

        def table() -> KafkaTable:
            since_ms = time.time_ns() // 1_000_000 - BACK_MS
            options, topic.from_ms = kafka_options(settings), since_ms
            return KafkaTable(
                settings.kafka_brokers, settings.kafka_minutes_topic, options,
                group=settings.kafka_group, since_ms=since_ms,
            )  # fmt: skip

        topic = cls(table)
        return topic

    def of_placement(self, placement: str) -> tuple[int, list[dict[str, Any]]]:
        """The first stored minute of any placement (epoch ms; 0 if none was dropped), and the stored minutes
        of this placement.

        Raises:
            MinutesUnread: the topic has not been read to its end within `wait_s`, many wait for it, or Kafka
                has been away for `OUTAGE_S`.
        """
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="minutes", daemon=True)
                self._thread.start()
        if not self._ready.is_set():
            self._wait()
        with self._lock:
            return self._stored.since_ms, self._stored.of_placement(placement)

    def _wait(self) -> None:
        if not self._places.acquire(blocking=False):
            raise MinutesUnread(self._trouble)
        try:
            if not self._ready.wait(self.wait_s):
                raise MinutesUnread(self._trouble)
        finally:
            self._places.release()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(5)

    def _run(self) -> None:
        while not self._closing.is_set():
            table = None
            try:
                table = self._open_table()
                self._follow(table)
                self._not_ready(_BEING_READ)
            except ConnectError as error:
                self._not_ready(str(error))
                self._closing.wait(RETRY_S)
            if table is not None:
                table.close()

    def _not_ready(self, why: str) -> None:
        self._trouble = why
        self._ready.clear()

    def _follow(self, table: KafkaTable) -> None:
        """Follow until closing, or until the topic has more partitions.

        Raises:
            ConnectError: by the table, or Kafka has been away for `OUTAGE_S`.
        """
        partitions = table.partitions()
        seen_s = looked_s = time.monotonic()
        while not self._closing.is_set():
            changes: list[Change] = table.read(_POLL)
            with self._lock:
                for change in changes:
                    self._stored.take(change.value)
            now_s = time.monotonic()
            if table.caught_up or changes:
                seen_s = now_s
            elif now_s - seen_s > OUTAGE_S:
                raise ConnectError(table.trouble)
            if table.caught_up:
                self._ready.set()
                if now_s - looked_s > POLL_S:
                    looked_s = now_s
                    if table.partitions() != partitions:
                        return
