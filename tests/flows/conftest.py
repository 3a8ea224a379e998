"""Real services for the flow's tests, embedded; every test gets a namespace of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import Client, connect
from flows.settings.fields import Settings
from flows.settings.loading import load


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture(scope="session")
def client(valkey: EmbeddedValkey) -> Iterator[Client]:
    from datetime import timedelta

    client = connect(valkey.url, timeout=timedelta(seconds=5))
    yield client
    client.close()


@pytest.fixture
def settings_of(valkey: EmbeddedValkey) -> Callable[..., Settings]:
    namespace = f"t{uuid.uuid4().hex[:8]}:v1"

    def make(**values: Any) -> Settings:
        known = {"redis_url": valkey.url, "namespace": namespace, "shards": 8, "metrics_port": 0}
        known["recovery_dir"] = None
        return load(**{**known, **values})

    return make


@pytest.fixture
def rows_of(client: Client) -> Callable[[Settings, str], dict[str, dict[str, str]]]:
    """Rows of a scope by id, as a reader finds them by the index."""

    def read(settings: Settings, scope: str) -> dict[str, dict[str, str]]:
        names = client.zrange(f"{settings.namespace}:index:{scope}", 0, -1)
        return {name: client.hgetall(f"{settings.namespace}:{scope}:{{{name}}}") for name in names}

    return read
