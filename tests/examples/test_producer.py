"""examples/producer.py against a broker: each pixel is a message under the key that the collector chooses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from connectors.embedded import EmbeddedBroker
from flows.collector.partitions import partition_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "producer.py"
PARTITIONS = 5
ORDER: dict[str, Any] = {"type": "purchase", "order_id": "88121"}
PIXELS: list[tuple[str, dict[str, Any]]] = [
    *((play, {"event": event, "play_id": play}) for play in "abcde" for event in ("start", "complete")),
    ("a", {"event": "click", "play_id": "a", "listener_id": "x"}),
    ("x", {"event": "impression", "listener_id": "x"}),
    ("event-12", {"event": "impression"}),
    ("88121", {"event": "conversion", "listener_id": "x", "conversion": ORDER}),
    ("88121", {"event": "conversion", "play_id": "a", "conversion": ORDER}),
    ("event-15", {"event": "conversion", "listener_id": "x", "conversion": {"type": "sign_up"}}),
]
"""(key, pixel), each with the id `event-` and its place."""


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as server:
        server.create_topic("audio-pixels", PARTITIONS)
        yield server


def read(broker: EmbeddedBroker, count: int) -> dict[bytes, tuple[bytes, int]]:
    """The first messages of the topic: value → (key, partition)."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "t", "enable.auto.commit": False})
    consumer.assign([TopicPartition("audio-pixels", number, 0) for number in range(PARTITIONS)])
    found: dict[bytes, tuple[bytes, int]] = {}
    deadline = time.monotonic() + 30
    while len(found) < count and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and not message.error():
            value, key, partition = message.value(), message.key(), message.partition()
            assert value is not None
            assert key is not None
            assert partition is not None
            found[value] = (key, partition)
    consumer.close()
    return found


def produce(broker: EmbeddedBroker, lines: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, EXAMPLE, broker.bootstrap]
    return subprocess.run(command, input=lines, capture_output=True, timeout=60)


def test_each_pixel_has_the_collectors_key_and_partition(broker: EmbeddedBroker) -> None:
    values = [json.dumps(pixel | {"event_id": f"event-{n}"}).encode() for n, (_, pixel) in enumerate(PIXELS)]
    done = produce(broker, b"\n".join([*values, b""]))
    assert done.returncode == 0, done.stderr
    keys = [key.encode() for key, _ in PIXELS]
    wanted = {value: (key, partition_of(key, PARTITIONS)) for value, key in zip(values, keys, strict=True)}
    assert read(broker, len(PIXELS)) == wanted
    assert len({partition for _, partition in wanted.values()}) > 1


def test_a_line_without_json_ends_the_producer_with_an_error(broker: EmbeddedBroker) -> None:
    done = produce(broker, b"{\n")
    assert done.returncode == 1
    assert b"JSONDecodeError" in done.stderr
