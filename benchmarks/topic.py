"""The log in a Kafka topic, all pixels of a play in one partition; stamped with its receipt."""

from __future__ import annotations

import re
from pathlib import Path

from connectors.embedded import EmbeddedBroker
from connectors.kafka.writer import KafkaWriter

TOPIC = "audio-pixels"
PARTITIONS = 4

_PLAY = b'"play_id":"play-'
_RECEIVED = b'"received_at":'
_DIGITS = re.compile(rb"\d+")


def load(log: Path, broker: EmbeddedBroker) -> None:
    """Make the topics, and produce every line of `log` in order."""
    broker.create_topic(TOPIC, PARTITIONS)
    for topic in outputs():
        broker.create_topic(topic, 1)
    writer = KafkaWriter(broker.bootstrap, TOPIC)
    with log.open("rb") as lines:
        for line in lines:
            at = line.index(_RECEIVED) + len(_RECEIVED)
            received_ms = int(_DIGITS.match(line, at)[0])  # type: ignore[index]  # the bench wrote it
            writer.send(partition_of(line), b"", line[:-1], received_ms)
    writer.close()


def partition_of(line: bytes) -> int:
    """The partition of a line: all pixels of a play in one, and conversions in the first."""
    at = line.find(_PLAY) + len(_PLAY)
    if at < len(_PLAY):
        return 0
    return int(line[at : line.index(b'"', at)]) % PARTITIONS


def outputs() -> tuple[str, ...]:
    """Topics that a flow writes unless its settings name others."""
    from flows.settings.fields import OUTPUT_TOPICS, Settings  # the plain floors load none of ours

    return tuple(Settings.model_fields[name].default for name in OUTPUT_TOPICS)
