"""A broker for the exports, and what a flow tells in Redis while it goes on."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_support import Command
from confluent_kafka import Producer

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.redis.client import Client
from flows.settings import Settings

TOPICS = ("", "minutes_", "credits_", "alerts_", "exports_rejected_")


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as server:
        yield server


@pytest.fixture
def settings(broker: EmbeddedBroker, settings_of: Callable[..., Settings]) -> Settings:
    """Topics and a namespace of the test's own; ticks and epochs of 20 ms."""
    names = {
        f"kafka_{name}topic": f"{name.rstrip('_') or 'pixels'}-{uuid.uuid4().hex[:8]}" for name in TOPICS
    }
    for topic in names.values():
        broker.create_topic(topic, 2)
    return settings_of(
        kafka_brokers=broker.bootstrap,
        kafka_group=f"g-{uuid.uuid4().hex[:8]}",
        export_port=0,
        epoch_interval=0.02,
        flush_interval=0.02,
        **names,
    )


class Topic:
    """Puts messages into a topic."""

    def __init__(self, brokers: str) -> None:
        self._producer = Producer({"bootstrap.servers": brokers, "log_level": 0})

    def put(self, topic: str, *messages: tuple[bytes, bytes], partition: int | None = None) -> None:
        for key, value in messages:
            where = {} if partition is None else {"partition": partition}
            self._producer.produce(topic, value, key, **where)
        assert self._producer.flush(20) == 0


@pytest.fixture
def topic(broker: EmbeddedBroker) -> Topic:
    return Topic(broker.bootstrap)


class Flow:
    """What a flow tells of itself in `meta`, a flush every 20 ms."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client, self._key = client, f"{settings.namespace}:meta"
        self.fields: dict[str, Any] = {"generation": 0, "fence": 7, "rev": 0, "watermark_ms": 0}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._flush, daemon=True)

    def flush(self) -> None:
        self.fields["rev"] += 1
        self._client.hset(self._key, mapping=dict(self.fields))

    def _flush(self) -> None:
        while not self._over.wait(0.02):
            self.flush()

    def __enter__(self) -> Flow:
        self.flush()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def flow(client: Client, settings: Settings) -> Iterator[Flow]:
    with Flow(client, settings) as running:
        yield running


@pytest.fixture
def export(settings: Settings, valkey: EmbeddedValkey, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """`audiopixel export …` with the test's settings, in a process of its own."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
    for name in settings.model_fields_set - {"redis_url", "recovery_dir"}:
        value = getattr(settings, name)
        written = value.total_seconds() if hasattr(value, "total_seconds") else value
        known[f"AUDIOPIXEL_{name.upper()}"] = str(written)
    known["AUDIOPIXEL_REDIS_URL"] = valkey.url
    running = []

    def run(*arguments: str, **more: str) -> Command:
        out = tmp_path / "export.log"
        command = Command("export", *arguments, directory=tmp_path, environment={**known, **more}, out=out)
        running.append(command)
        return command

    yield run
    for command in running:
        command.kill()
        command.wait(10)
