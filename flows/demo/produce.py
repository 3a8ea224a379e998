"""Simulated traffic in real time to the configured topic."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from connectors.kafka import KafkaWriter
from flows.settings import Settings, kafka_options
from flows.simulate import Call, Traffic, pump


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


def replay(settings: Settings, past: Iterable[Call]) -> None:
    """Send what has happened before to the configured topic, at once."""
    producer = KafkaWriter(settings.kafka_brokers, settings.kafka_topic, kafka_options(settings))
    for partition, arrival_ms, key, value in past:
        producer.send(partition, key, value, arrival_ms)
    producer.close()
