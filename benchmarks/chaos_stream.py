"""The stream of a chaos run: adversarial traffic in real time, a partition that falls silent, a closing."""

from __future__ import annotations

import dataclasses
import json
import threading
from datetime import timedelta
from typing import Final

from connectors.kafka import KafkaWriter
from flows.settings import Settings, ms
from flows.simulate import Traffic, Trouble, now_ms, pump

PARTITIONS: Final = 5
SILENT: Final = PARTITIONS - 1
"""This partition says a little at first, and then nothing until the end."""
GIVE_UP_AFTER: Final = timedelta(minutes=2)

# A log on disk has no broker's timestamps; a clock that is ahead makes all late where lateness is short.
TROUBLE: Final = dataclasses.replace(Trouble.much(), no_received_at=0.0, clock_ahead=0.0, clock_off=0.0)


class Stream(threading.Thread):
    """Sends by itself once started.

    Attributes:
        sent: messages handed to the producer so far.
        closed_ms: the minute of the closing pixels; 0 until they are sent.
        failed: why it ended early.
    """

    def __init__(self, settings: Settings, seed: int, seconds: float, rate: float) -> None:
        super().__init__(daemon=True)
        self._settings, self._seed, self._seconds, self._rate = settings, seed, seconds, rate
        self.sent = self.closed_ms = 0
        self.failed: BaseException | None = None

    def run(self) -> None:
        """Send all."""
        try:
            self._run()
        except BaseException as error:
            self.failed = error

    def _run(self) -> None:
        settings = self._settings
        writer = KafkaWriter(settings.kafka_brokers, settings.kafka_topic, give_up_after=GIVE_UP_AFTER)

        def send(partition: int, key: bytes, value: bytes, arrival_ms: int) -> None:
            writer.send(partition, key, value, arrival_ms)
            self.sent += 1

        for n in range(20):
            send(SILENT, b"silent", _impression(f"silent-{n}", now_ms()), now_ms())
        traffic = Traffic(
            self._seed,
            placements=40,
            rate=self._rate,
            start_ms=now_ms(),
            partitions=PARTITIONS - 1,
            trouble=TROUBLE,
            listeners=8000,
        )
        pump(traffic, send, self._seconds)
        # Half an hour on, so that all before becomes final; the watermark stands at a minute's beginning.
        self.closed_ms = 60_000 * (now_ms() // 60_000 + 30)
        closing_ms = self.closed_ms + 1000 + ms(settings.out_of_orderness)
        for partition in range(PARTITIONS):
            send(partition, b"closing", _impression(f"closing-{partition}", closing_ms), closing_ms)
        writer.close(GIVE_UP_AFTER)


def _impression(name: str, at_ms: int) -> bytes:
    pixel = {"event_id": name, "event": "impression", "placement_id": "pl-harness"}
    return json.dumps({**pixel, "ts": at_ms, "received_at": at_ms}).encode()
