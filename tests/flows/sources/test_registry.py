"""A live source while its schema registry is away: known ids go on, others wait, nothing is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults_support import World, eventually, in_memory
from prometheus_client.exposition import generate_latest
from registry_support import AD_EVENT, MAPPING, SmallRegistry, avro, event, framed
from sources_support import Running, Theirs, messages

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.kafka import KafkaWriter
from connectors.stream import ConnectError
from flows.sources import messages as reading
from flows.sources.messages import RecordDecoder, sample_messages
from flows.sources.schemas import SchemaAwaitedError
from flows.sources.source import parse_source

NEW: dict[str, Any] = json.loads(json.dumps(AD_EVENT))
NEW["fields"].append({"name": "later", "type": "string", "default": ""})


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as server:
        yield server


@pytest.fixture
def world(broker: EmbeddedBroker, tmp_path: Path) -> Iterator[World]:
    with EmbeddedValkey() as redis:
        world = in_memory(broker, redis, tmp_path)
        yield world
        world.close()


@pytest.fixture
def registry() -> Iterator[SmallRegistry]:
    with SmallRegistry() as server:
        yield server


class InAvro(Theirs):
    """A topic of Avro."""

    def __init__(self, world: World, registry: SmallRegistry) -> None:
        super().__init__(world, MAPPING, 2, url=registry.url)

    def put(self, schema_id: int, schema: Any, count: int, partition: int) -> None:
        writer, now_ms = KafkaWriter(self.world.brokers, self.topic), int(time.time() * 1000)
        for number in range(self.sent, self.sent + count):
            record = event(number, now_ms) | ({"later": "x"} if schema is NEW else {})
            writer.send(partition, b"", framed(schema_id, avro(schema, record)), now_ms)
        writer.close()
        self.sent += count


@pytest.mark.parametrize("how", ["refused", "status", "hung", "page"])
def test_an_unknown_schema_waits_for_the_registry_without_loss(
    world: World, registry: SmallRegistry, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FIRST_ANSWER_S", 0.5)
    theirs = InAvro(world, registry)
    old = registry.put("s", AD_EVENT)
    running = Running(theirs.live())
    theirs.put(old, AD_EVENT, 20, 0)
    eventually(lambda: running.live.ledger.pixels == 20)
    new = registry.put("s", NEW)
    if how == "refused":
        registry.stop()
    elif how == "hung":
        registry.pause_s = 7
    else:
        registry.status = 503 if how == "status" else 404  # a proxy's page, not the registry's word
    theirs.put(new, NEW, 10, 1)
    theirs.put(old, AD_EVENT, 5, 1)  # behind them
    waits_s = time.time()
    theirs.put(old, AD_EVENT, 30, 0)
    eventually(lambda: running.live.ledger.pixels == 50, 30)
    name = world.topic
    shown = f'audiopixel_source_waiting_partitions{{source="{name}"}} '
    eventually(lambda: shown + "1.0" in generate_latest(running.live._instruments.registry).decode())
    theirs.put(old, AD_EVENT, 5, 0)
    eventually(lambda: running.live.ledger.pixels == 55, 30)
    assert theirs.places()[1] == 0, "what waits is not passed"
    time.sleep(2.5)
    lane = f"{running.live.id}-1"
    lows = [one["low_ms"] for one in messages(world) if one["collector"] == lane]
    assert max(lows) <= waits_s * 1000, "and holds the low mark of its lane"
    registry.status, registry.pause_s = 0, 0.0
    if how == "refused":
        registry.start()
    eventually(lambda: running.live.ledger.pixels == theirs.sent == 70, 60)
    eventually(lambda: shown + "0.0" in generate_latest(running.live._instruments.registry).decode())
    assert running.stop() == 0
    pixels = [one for one in messages(world) if "event_id" in one]
    assert len(pixels) == len({one["event_id"] for one in pixels}) == 70
    assert messages(world, world.settings["KAFKA_REJECTED_TOPIC"]) == []


def test_messages_waiting_at_a_stop_are_read_at_the_next_start(world: World, registry: SmallRegistry) -> None:
    theirs = InAvro(world, registry)
    old, new = registry.put("s", AD_EVENT), registry.put("s", NEW)
    running = Running(theirs.live())
    theirs.put(old, AD_EVENT, 3, 1)
    eventually(lambda: running.live.ledger.pixels == 3)
    registry.stop()
    theirs.put(new, NEW, 4, 1)
    theirs.put(old, AD_EVENT, 4, 0)
    eventually(lambda: running.live.ledger.pixels == 7, 30)
    assert running.stop() == 0
    registry.start()
    running = Running(theirs.live())
    eventually(lambda: running.live.ledger.pixels == 4, 30)
    assert running.stop() == 0
    assert len({one["event_id"] for one in messages(world) if "event_id" in one}) == 11


def test_check_waits_for_the_registry_and_then_names_it(
    world: World, registry: SmallRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = InAvro(world, registry)
    theirs.put(registry.put("s", AD_EVENT), AD_EVENT, 3, 0)
    registry.status = 503
    monkeypatch.setattr(reading, "GIVE_UP_S", 2.0)
    with pytest.raises(ConnectError, match=r"schema 1: the registry has not answered: .*503"):
        list(sample_messages(theirs.source, theirs.settings, 10))
    registry.status = 0
    assert len(list(sample_messages(theirs.source, theirs.settings, 10))) == 3


def test_a_registry_known_to_be_away_delays_no_batch(registry: SmallRegistry) -> None:
    source = parse_source(MAPPING.format(topic="t", url=registry.url), "x.toml", "x")
    decoder, record = RecordDecoder(source), framed(77, b"")
    registry.status = 500
    from connectors.kafka import Record

    with pytest.raises(SchemaAwaitedError):
        decoder.message(Record("t", 0, 0, 1, b"", record))
    began_s = time.monotonic()
    for _ in range(1_000):
        with pytest.raises(SchemaAwaitedError):
            decoder.message(Record("t", 0, 0, 1, b"", record))
    assert time.monotonic() - began_s < 1
