"""Simulated traffic in real time to the configured topic."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Final

from connectors.kafka import KafkaWriter
from flows.settings import Settings, kafka_options
from flows.simulate import Traffic, pump

WAITS_S: Final = 5.0
"""The time without an acknowledgement from which on a producer waits for Kafka."""
ENDING: Final = timedelta(seconds=30)


def produce(
    settings: Settings,
    traffic: Traffic,
    seconds: float | None,
    stop: threading.Event | None = None,
) -> None:
    """Send simulated traffic to the configured topic in real time."""
    producer = KafkaWriter(settings.kafka_brokers, settings.kafka_topic, kafka_options(settings))
    pump(traffic, producer.send, seconds, stop)
    producer.close()


class Simulator:
    """Sends traffic in real time, in a thread of its own, until it is ended. While Kafka is away its messages
    wait; behind the outage all are sent, in their order.

    Args:
        traffic: that begins now; its ledger has what was sent.
    """

    def __init__(self, settings: Settings, traffic: Traffic) -> None:
        self.traffic = traffic
        options = kafka_options(settings)
        self._writer = KafkaWriter(settings.kafka_brokers, settings.kafka_topic, options, give_up_after=None)
        self._over = threading.Event()
        self._failed: BaseException | None = None
        self._seen, self._moved_s = 0, time.monotonic()
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            pump(self.traffic, self._writer.send, None, self._over)
            self._writer.close(ENDING)
        except BaseException as error:
            self._failed = error

    @property
    def sent(self) -> int:
        """The messages that Kafka has acknowledged."""
        return self._writer.acknowledged

    @property
    def running(self) -> bool:
        """True until it has ended, and all that it sent is acknowledged."""
        return self._thread.is_alive()

    def waits_s(self) -> float:
        """The time for which Kafka has taken nothing while messages wait, in s; ask it often.

        Raises:
            BaseException: it has failed.
        """
        if self._failed is not None:
            raise self._failed
        now_s = time.monotonic()
        if self.sent != self._seen or not self._writer.queued:
            self._seen, self._moved_s = self.sent, now_s
        return now_s - self._moved_s

    def end(self) -> None:
        """Send no further traffic."""
        self._over.set()

    def join(self, timeout_s: float) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout_s)
