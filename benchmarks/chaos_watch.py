"""Observes a flow during a chaos run: the times of its flushes, and its lag."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from redis import RedisError

from benchmarks.chaos_stream import Stream, positions
from flows.settings.fields import Settings
from flows.simulate.feed import now_ms

HELD_S: Final = 90.0
"""The longest that the watermark may be behind, beside the time in which no flow wrote or no broker could say
that a partition is read to its end: that is to be made up for as fast. Junk in a silent one holds nobody up,
and the time in which a collector is dead counts.
"""
TOLD_STEP_S: Final = 5.0
"""A watermark that is so much further behind than it was ever before is told."""


class Watch(threading.Thread):
    """Looks ten times a second, by our clock: the flow's own may be set.

    Args:
        client: of Redis, for this thread alone.
        healthy: whether the present flow writes.
        say: takes what is worth a line in the flow's log.

    Attributes:
        killed_s: the last kill behind which no new flow has flushed; None: one has.
        recovered_s: the times from a kill to the next flow's first flush.
        flushed_s, fence: when the last flush was seen, and whose it was.
        longest_s: the longest that something in the log waited until readers saw it.
        held_s: the most that the watermark was behind, beside time without a flow or a broker.
        unproven: whether no broker can say that a partition is read to its end.
    """

    def __init__(
        self,
        settings: Settings,
        stream: Stream,
        client: Any,
        healthy: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        super().__init__(daemon=True)
        self._settings, self._stream, self._client = settings, stream, client
        self._healthy, self._say = healthy, say
        self._over = threading.Event()
        self.killed_s: float | None = None
        self.recovered_s: list[float] = []
        self.flushed_s = self.longest_s = self.held_s = 0.0
        self.fence = 0
        self.unproven = False

    def run(self) -> None:
        """Watch until the end."""
        written: deque[tuple[float, int]] = deque()
        options = {"bootstrap.servers": self._settings.kafka_brokers, "group.id": "chaos", "log_level": 0}
        consumer = Consumer(options)
        version, missed_s, before_s, told_s = None, 0.0, time.monotonic(), HELD_S / 2
        while not self._over.wait(0.1):
            now_s, meta = time.monotonic(), self.meta()
            since_s, before_s = now_s - before_s, now_s
            healthy = bool(meta) and self._healthy() and not self.unproven
            missed_s = max(0.0, missed_s - since_s) if healthy else missed_s + since_s
            # A Redis that comes back with what it had has had no flush.
            if meta and (now := (meta["fence"], meta["rev"])) != version:
                if version is not None and now[0] != version[0] and self.killed_s is not None:
                    self.recovered_s.append(now_s - self.killed_s)
                    self.killed_s = None
                version, self.flushed_s, self.fence = now, now_s, int(now[0])
            if not self.unproven:
                written.append((now_s, self._written(consumer)))
            with suppress(RedisError):
                shown = positions(self._client, self._settings.namespace, self._stream.partitions)
                while written and written[0][1] <= sum(shown.values()):
                    written.popleft()
            if healthy:
                # 0 while unknown, as after a start that has read nothing.
                watermark_ms = int(meta.get("watermark_ms", 0)) or now_ms()
                held_s = (now_ms() - watermark_ms) / 1000 - missed_s
                if held_s > told_s + TOLD_STEP_S:
                    told_s = held_s
                    self._say(f"the watermark is {held_s:.0f} s behind: {self._behind()}")
                self.held_s = max(self.held_s, held_s)
            if written:
                self.longest_s = max(self.longest_s, now_s - written[0][0])

    def end(self) -> None:
        """Watch no more."""
        self._over.set()
        if self.is_alive():
            self.join()

    def meta(self) -> dict[str, str]:
        """The flow's `meta`; empty without one, or while Redis does not answer."""
        with suppress(RedisError):
            return dict(self._client.hgetall(f"{self._settings.namespace}:meta"))
        return {}

    def _written(self, consumer: Consumer) -> int:
        """The number of messages in the topic; 0 while the broker does not answer."""
        topic = self._settings.kafka_topic
        with suppress(KafkaException):
            ends = [
                consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=1.0)
                for number in range(self._stream.partitions)
            ]
            return sum(end[1] for end in ends if end is not None)
        return 0

    def _behind(self) -> str:
        """How far each partition's watermark is behind, in s, as readers see it."""
        told = []
        with suppress(RedisError):
            for number in range(self._stream.partitions):
                key = f"{self._settings.namespace}:partition:{{audio-pixels/{number}}}"
                told.append(f"{(now_ms() - int(self._client.hget(key, 'watermark_ms') or 0)) / 1000:.0f}")
        return " ".join(told)
