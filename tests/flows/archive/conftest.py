"""A broker for archives."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from kafka_server import ApacheKafka, KafkaUnavailable

from connectors.embedded import EmbeddedBroker


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as server:
        yield server


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    try:
        server = ApacheKafka(tmp_path_factory.mktemp("kafka-of-archives"))
    except KafkaUnavailable as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a new prefix in the bucket `trade` of an S3 server. All servers of a process have the
    same buckets.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(
        Bucket="trade"
    )
    yield f"s3://trade/{secrets.token_hex(4)}?endpoint={host}:{port}&scheme=http&region=us-east-1"
    server.stop()
