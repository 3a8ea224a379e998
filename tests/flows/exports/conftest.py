"""A broker for the exports, and what a flow tells in Redis while it goes on."""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from command_support import Command
from export_support import Flow, Site, Topic

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.redis.client import Client
from flows.settings import Settings

EXAMPLE = Path(__file__).parents[3] / "examples" / "webhook_receiver.py"
TOPICS = ("", "minutes_", "credits_", "alerts_", "exports_rejected_", "methodology_")


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
        save_interval=0.02,
        flush_interval=0.02,
        **names,
    )


@pytest.fixture
def topic(broker: EmbeddedBroker) -> Topic:
    return Topic(broker.bootstrap)


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


@pytest.fixture
def site() -> Iterator[Callable[..., Site]]:
    opened: list[Site] = []

    def open_one(*args: Any) -> Site:
        opened.append(Site(*args))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The receiver of signed webhooks that the documents lead to."""
    spec = importlib.util.spec_from_file_location("webhook_receiver", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
