"""Simulated traffic in real time to the configured topic."""

from __future__ import annotations

import threading

from connectors.kafka import KafkaWriter
from flows.settings import Settings, kafka_options
from flows.simulate import Traffic, pump


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
