"""The stream of a chaos run: adversarial traffic in real time, a partition that falls silent but for junk,
one that comes later, a closing.
"""

from __future__ import annotations

import dataclasses
import json
import random
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from datetime import timedelta
from typing import Any, Final

from connectors.kafka.writer import KafkaWriter
from connectors.stream import ConnectError
from flows.settings.fields import Settings, ms
from flows.simulate.feed import now_ms, pump
from flows.simulate.scenario import Trouble
from flows.simulate.traffic import Traffic

PARTITIONS: Final = 5
SILENT: Final = PARTITIONS - 1
"""This partition says a little at first, and then nothing but junk until the end."""
JUNK_EVERY_S: Final = 2.0
SLOW_MS: Final = 2 * 86_400_000
"""How far behind the clock of a device in the silent partition is."""
GIVE_UP_AFTER: Final = timedelta(minutes=2)

# A log on disk has no broker's timestamps; a clock that is ahead makes all late where lateness is short.
TROUBLE: Final = dataclasses.replace(Trouble.much(), no_received_at=0.0, clock_ahead=0.0, clock_off=0.0)


SOON_KNOWN: Final = {"topic.metadata.refresh.interval.ms": "1000"}
"""Options by which a producer hears of a partition that is added."""


class Worker(threading.Thread, ABC):
    """A part of a chaos run that works by itself once started.

    Attributes:
        failed: why it ended early.
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name, daemon=True)
        self.failed: BaseException | None = None

    def run(self) -> None:
        """Work, and keep what ends it early."""
        try:
            self.work()
        except BaseException as error:
            self.failed = error

    @abstractmethod
    def work(self) -> None:
        """The work of the worker, in its own thread."""


class Breaker(Worker):
    """A worker that breaks what it runs, at random moments.

    Args:
        seconds: of the run.
        faults: how many in that time.

    Attributes:
        done: faults, how often each.
    """

    def __init__(self, seed: int, seconds: float, faults: int) -> None:
        super().__init__()
        self._random, self._seconds, self._faults = random.Random(seed), seconds, faults
        self._over, self._breaking = threading.Event(), threading.Lock()
        self.done: Counter[str] = Counter()

    def moments_s(self) -> list[float]:
        """The moments of its faults, in seconds since it has begun."""
        return sorted(self._random.uniform(0.05, 0.95) * self._seconds for _ in range(self._faults))


class Stream(Worker):
    """Sends until the run ends.

    Attributes:
        sent: messages handed to the producer so far.
        closed_ms: the minute of the closing pixels; 0 until they are sent.
    """

    def __init__(self, settings: Settings, seed: int, rate: float) -> None:
        super().__init__()
        self._settings, self._seed, self._rate = settings, seed, rate
        self.sent = self.closed_ms = 0
        self.partitions = PARTITIONS
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._writer = KafkaWriter(
            settings.kafka_brokers, settings.kafka_topic, SOON_KNOWN, give_up_after=GIVE_UP_AFTER
        )

    def work(self) -> None:
        """Send all."""
        for n in range(20):
            self._send(SILENT, b"silent", _impression(f"silent-{n}", now_ms()), now_ms())
        traffic = Traffic(
            self._seed,
            placements=40,
            rate=self._rate,
            start_ms=now_ms(),
            partitions=PARTITIONS - 1,
            trouble=TROUBLE,
            listeners=8000,
        )
        junk = threading.Thread(target=self._send_junk, daemon=True)
        junk.start()
        pump(traffic, self._send, stop=self._over)
        junk.join()

    def end(self) -> None:
        """Send no more, but for the closing pixels.

        Raises:
            BaseException: what ended it before.
        """
        self._over.set()
        self.join()
        if self.failed is not None:
            raise self.failed

    def close(self) -> None:
        """Send the closing pixels, once no other process writes to the topic."""
        # Half an hour on, so that all before becomes final; the watermark stands at a minute's beginning.
        self.closed_ms = 60_000 * (now_ms() // 60_000 + 30)
        closing_ms = self.closed_ms + 1000 + ms(self._settings.out_of_orderness)
        for partition in range(self.partitions):
            closing = _impression(f"closing-{partition}", closing_ms)
            self._send(partition, b"closing", closing, closing_ms)
        self._writer.close(GIVE_UP_AFTER)

    def _send(self, partition: int, key: bytes, value: bytes, arrival_ms: int) -> None:
        with self._lock:
            self._writer.send(partition, key, value, arrival_ms)
            self.sent += 1

    def _send_junk(self) -> None:
        """Now something that is no pixel, now one of a device whose clock is days slow: neither is time."""
        n = 0
        while not self._over.wait(JUNK_EVERY_S):
            slow = _impression(f"slow-{n}", now_ms() - SLOW_MS, now_ms())
            self._send(SILENT, b"junk", slow if n % 3 == 0 else b"ping", now_ms())
            n += 1

    def begin_partition(self, number: int) -> None:
        """Send some pixels into a partition that has come later, once the producer knows it."""
        deadline_s = time.monotonic() + GIVE_UP_AFTER.total_seconds()
        n = 0
        while n < 50:
            try:
                self._send(number, b"later", _impression(f"later-{number}-{n}", now_ms()), now_ms())
                n += 1
            except ConnectError:
                if n or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)
        self.partitions = number + 1


def _impression(name: str, at_ms: int, received_ms: int | None = None) -> bytes:
    pixel = {"event_id": name, "event": "impression", "placement_id": "pl-harness"}
    return json.dumps({**pixel, "ts": at_ms, "received_at": received_ms or at_ms}).encode()


def positions(client: Any, namespace: str, partitions: int) -> dict[str, int]:
    """The positions that readers see, by the keys of the partitions' rows."""
    pipeline = client.pipeline(transaction=False)
    keys = [f"{namespace}:partition:{{audio-pixels/{number}}}" for number in range(partitions)]
    for key in keys:
        pipeline.hget(key, "position")
    return {key: int(held or 0) for key, held in zip(keys, pipeline.execute(), strict=True)}
