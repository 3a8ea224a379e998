"""A foreign topic of a world, live sources on it, and what they write."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from collector_support import understanding
from confluent_kafka import Consumer, TopicPartition
from faults_support import World
from registry_support import SmallRegistry

from connectors.kafka import KafkaWriter, Record, ensure_topic
from flows.collector.call import Outcome
from flows.settings.fields import Settings
from flows.settings.loading import load
from flows.sources import Pixels
from flows.sources.live import Live
from flows.sources.messages import RecordDecoder, live_reader_of
from flows.sources.paths import Message
from flows.sources.source import parse_source

T0_MS = 1_795_600_800_000
MAPPING = """
topic = "{topic}"
skip = ["kind!=ad"]
[names]
event = "event"
placement_id = "placement"
play_id = "play"
ts = "at"
"""


class Theirs:
    """A foreign topic of a world, and live sources on it."""

    def __init__(self, world: World, mapping: str = MAPPING, partitions: int = 3, **told: str) -> None:
        self.world, self.topic, self.partitions, self.sent = world, f"{world.topic}-theirs", partitions, 0
        (world.create or partial(ensure_topic, world.brokers))(self.topic, partitions)
        self.settings: Settings = load(
            kafka_brokers=world.brokers,
            kafka_topic=world.topic,
            kafka_rejected_topic=world.settings["KAFKA_REJECTED_TOPIC"],
        )
        self.source = parse_source(mapping.format(topic=self.topic, **told), "theirs.toml", world.topic)

    def send(self, count: int, *, partition: int | None = None, **more: Any) -> None:
        """Impressions, one a play, over the partitions."""
        writer = KafkaWriter(self.world.brokers, self.topic)
        for number in range(self.sent, self.sent + count):
            now_ms = int(time.time() * 1000)
            message = {
                "kind": "ad",
                "event": "impression",
                "placement": "p",
                "play": f"p{number}",
                "at": now_ms,
            }
            at = number % self.partitions if partition is None else partition
            writer.send(at, b"", json.dumps(message | more).encode(), now_ms)
        writer.close()
        self.sent += count

    def send_raw(self, value: bytes, timestamp_ms: int) -> None:
        writer = KafkaWriter(self.world.brokers, self.topic)
        writer.send(0, b"", value, timestamp_ms)
        writer.close()

    def live(self) -> Live:
        reader = live_reader_of(self.source, self.settings)
        return Live(self.settings, Pixels(self.source, understanding(), reader.log_id(self.topic)), reader)

    def places(self) -> list[int]:
        """The group's places."""
        group = f"audiopixel-source-{self.source.name}"
        consumer = Consumer({"bootstrap.servers": self.world.brokers, "group.id": group})
        asked = [TopicPartition(self.topic, one) for one in range(self.partitions)]
        found = consumer.committed(asked, timeout=10)
        consumer.close()
        return [one.offset for one in found]


class Running:
    """A live source in a thread; without a bye, `kill` leaves what a process leaves that is killed."""

    def __init__(self, live: Live) -> None:
        self.live, self._ended, self.codes = live, threading.Event(), list[int]()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.codes.append(self.live.run(self._ended.is_set))
        self.live.close()

    def stop(self) -> int:
        self._ended.set()
        self._thread.join(30)
        (code,) = self.codes
        return code


def messages(world: World, topic: str | None = None) -> list[dict[str, Any]]:
    """All that is in a topic, by partition in its order."""
    topic = topic or world.topic
    consumer = Consumer(
        {"bootstrap.servers": world.brokers, "group.id": "look", "enable.partition.eof": True}
    )
    partitions = list(consumer.list_topics(topic).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, one, 0) for one in partitions])
    found, left = [], set(partitions)
    while left:
        message = consumer.poll(5)
        assert message is not None
        if message.error():
            left.discard(message.partition())
        else:
            found.append(json.loads(message.value()) | {"partition": message.partition()})
    consumer.close()
    return found


class Reader:
    """Reads messages of a registry's schemas by a mapping."""

    def __init__(self, registry: SmallRegistry, mapping: str) -> None:
        self.registry = registry
        self.source = parse_source(mapping.format(topic="t", url=registry.url), "x.toml", "x")
        self.decoder, self.pixels = RecordDecoder(self.source), Pixels(self.source, understanding())

    def message(self, value: bytes) -> Message:
        return self.decoder.message(Record("t", 0, 7, T0_MS, b"", value), patient=True)

    def outcome(self, value: bytes) -> Any:
        """The pixel of a message, or its rejection as text."""
        found = self.pixels.understand(self.message(value), T0_MS + 1000)
        if found is None:
            return "not ours"
        return found.event if found.outcome is Outcome.STORED else f"{found.reason} {found.wrong}".strip()


def seconds(run: Callable[[], object], times: int = 20) -> float:
    """The least processor time of a call, in s."""
    found = []
    for _ in range(times):
        began = time.process_time()
        run()
        found.append(time.process_time() - began)
    return min(found)
