"""Sends simulated traffic to the configured topic, in real time."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Final

from connectors.kafka import KafkaWriter
from flows.settings import Settings, kafka_options
from flows.simulate import Traffic, pump

WAITS_S: Final = 5.0
"""The time, in s, without an acknowledgement after which a producer counts as waiting for Kafka."""
ENDING: Final = timedelta(seconds=30)


def produce(
    settings: Settings, traffic: Traffic, seconds: float | None, stop: threading.Event | None = None
) -> None:
    """Send simulated traffic to the configured topic in real time."""
    producer = KafkaWriter(settings.kafka_brokers, settings.kafka_topic, kafka_options(settings))
    pump(traffic, producer.send, seconds, stop)
    producer.close()


class Simulator:
    """Sends traffic in real time, in its own thread, until `end`. While Kafka is away messages wait. After
    the outage all are sent, in order.

    Args:
        traffic: traffic that begins now. Its ledger counts the sent calls.
    """

    def __init__(self, settings: Settings, traffic: Traffic) -> None:
        self.traffic = traffic
        options = kafka_options(settings)
        self._writer = KafkaWriter(settings.kafka_brokers, settings.kafka_topic, options, give_up_after=None)
        self._over = threading.Event()
        self._failed: BaseException | None = None
        self._acknowledged, self._moved_s = 0, time.monotonic()
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
        """The number of messages that Kafka has acknowledged."""
        return self._writer.acknowledged

    @property
    def running(self) -> bool:
        """True until the sender has ended and all its messages are acknowledged."""
        return self._thread.is_alive()

    def waits_s(self) -> float:
        """The time, in s, for which Kafka has accepted nothing while messages wait. It is
        measured at calls alone, so call it often.

        Raises:
            BaseException: the sender has failed.
        """
        if self._failed is not None:
            raise self._failed
        now_s = time.monotonic()
        if self.sent != self._acknowledged or not self._writer.queued:
            self._acknowledged, self._moved_s = self.sent, now_s
        return now_s - self._moved_s

    def end(self) -> None:
        """Send no further traffic."""
        self._over.set()

    def join(self, timeout_s: float) -> None:
        """Wait until the sender has ended."""
        self._thread.join(timeout_s)
