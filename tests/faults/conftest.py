"""Services to break: brokers once a session, a Redis and a world of its own for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults_support import World, in_memory
from kafka_server import ApacheKafka, KafkaUnavailable

from connectors.embedded import EmbeddedBroker, EmbeddedValkey


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as server:
        yield server


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    try:
        server = ApacheKafka(tmp_path_factory.mktemp("kafka-to-break"))
    except KafkaUnavailable as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A Redis that restores its data after a kill and a start."""
    (tmp_path / "redis").mkdir()
    with EmbeddedValkey({"dir": str(tmp_path / "redis"), "appendonly": "yes", "appendfsync": "no"}) as server:
        yield server


@pytest.fixture
def world(broker: EmbeddedBroker, redis: EmbeddedValkey, tmp_path: Path) -> Iterator[World]:
    world = in_memory(broker, redis, tmp_path)
    yield world
    world.close()


@pytest.fixture
def kafka_world(kafka: ApacheKafka, redis: EmbeddedValkey, tmp_path: Path) -> Iterator[World]:
    world = World(kafka.brokers, redis, tmp_path)
    yield world
    world.close()


@pytest.fixture(scope="session")
def stopped(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose flow ran and stopped in order; tests share it and start other flows on its `store`."""
    with EmbeddedValkey() as server:
        world = in_memory(broker, server, tmp_path_factory.mktemp("stopped"))
        flow = world.start()
        world.send(50)
        world.shown(flow)
        flow.stop()
        yield world
        world.close()


@pytest.fixture
def store(stopped: World, tmp_path: Path) -> Path:
    """A copy of the stopped flow's recovery directory, to spoil."""
    return Path(shutil.copytree(stopped.directory / "recovery", tmp_path / "recovery"))
