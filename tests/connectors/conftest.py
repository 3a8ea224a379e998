"""Kafka-protocol brokers: the embedded one, and Apache Kafka where Java and Maven are at hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kafka_server import ApacheKafka, KafkaUnavailable

from connectors.embedded import EmbeddedBroker


@pytest.fixture(scope="session")
def tansu() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    try:
        server = ApacheKafka(tmp_path_factory.mktemp("apache-kafka"))
    except KafkaUnavailable as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(params=["tansu", pytest.param("apache", marks=pytest.mark.apache)])
def brokers(request: pytest.FixtureRequest) -> str:
    """`bootstrap.servers` of each broker in turn."""
    server = request.getfixturevalue(request.param)
    return server.bootstrap if isinstance(server, EmbeddedBroker) else server.brokers
