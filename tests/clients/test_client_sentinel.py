"""The bidder's client in each language at Sentinels, through real promotions, and at addresses of no node."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest
from audiopixel_client import Client
from audiopixel_client.testing import Flow
from client_support import Opens
from redis import Redis, ResponseError
from redis_support import eventually

from connectors.embedded import HOST, EmbeddedValkey

SERVICE = "audio"
WITHIN_S = 15.0


class Sentinel(EmbeddedValkey):
    """A Sentinel that watches a primary, and alone promotes a replica after a second without an answer."""

    def __init__(self, primary: int) -> None:
        super().__init__()
        self._primary = primary

    def _command(self, port: int, directory: Path) -> list[str]:
        file = directory / "sentinel.conf"
        file.write_text(
            f"port {port}\nbind {HOST}\ndir {directory}\n"
            f"sentinel monitor {SERVICE} {HOST} {self._primary} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 1000\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        return [self._binary, str(file), "--sentinel"]


class Watched(NamedTuple):
    """A primary, its replica, and the Sentinel of both."""

    primary: EmbeddedValkey
    replica: EmbeddedValkey
    sentinel: Sentinel

    @property
    def url(self) -> str:
        """Two Sentinels, of which the first does not answer."""
        return f"redis+sentinel://{HOST}:1,{HOST}:{self.sentinel.port}/{SERVICE}/0"

    def promotes(self) -> bool:
        """Order a promotion; False while the Sentinel does not know the replica well enough."""
        with closing(Redis(port=self.sentinel.port)) as redis:
            try:
                return bool(redis.execute_command("SENTINEL", "FAILOVER", SERVICE))
            except ResponseError:
                return False


@pytest.fixture
def watched() -> Iterator[Watched]:
    with ExitStack() as stack:
        primary, replica = (stack.enter_context(EmbeddedValkey()) for _ in range(2))
        with closing(Redis(port=replica.port)) as redis:
            redis.replicaof(HOST, primary.port)
            eventually(lambda: redis.info("replication")["master_link_status"] == "up")
        sentinel = stack.enter_context(Sentinel(primary.port))
        with closing(Redis(port=sentinel.port)) as redis:
            eventually(lambda: redis.sentinel_master(SERVICE)["num-slaves"] == 1, WITHIN_S)
        yield Watched(primary, replica, sentinel)


@pytest.mark.parametrize("how", ["ordered", "dead"])
def test_a_client_follows_a_promotion(watched: Watched, opens: Opens, how: str) -> None:
    namespace = f"sentinel{uuid.uuid4().hex[:8]}:v1"
    Flow(watched.primary.url, namespace).flush({"a": {}})
    reader = opens(watched.url, namespace=namespace)
    versions = list[list[int]]()

    def version() -> list[int]:
        versions.append(reader.read("a")["version"])
        return versions[-1]

    eventually(lambda: version() == [1, 1, 1])
    with closing(Redis(port=watched.replica.port)) as redis:
        eventually(lambda: redis.exists(f"{namespace}:placement:{{a}}"))
    if how == "dead":
        watched.primary.kill()
    else:
        eventually(watched.promotes, WITHIN_S)
    with closing(Redis(port=watched.replica.port)) as redis:
        eventually(lambda: version() and redis.role()[0] == b"master", WITHIN_S)
    flow, began_s = Flow(watched.replica.url, namespace, fence=2), time.monotonic()
    flow.flush({"a": {}})
    eventually(lambda: version() == [1, 2, 1], WITHIN_S)
    print(f"{how}: followed {time.monotonic() - began_s:.1f} s after the first write to the new primary")
    assert versions == sorted(versions)
    assert reader.read("a")["reason"] is None


@pytest.mark.parametrize(
    "url",
    ["redis+cluster://a:1,b:1", "redis://a:1,b:1/0", "redis+sentinel://a:1", "redis+sentinel:///service"],
)
def test_an_address_that_the_client_cannot_read_is_refused_in_words(url: str) -> None:
    with pytest.raises(ValueError, match=r"Redis Cluster|an address of Sentinels is redis\+sentinel://host"):
        Client(url)


def error_of(url: str) -> str:
    """The first error of a client at an address that it cannot read."""
    client = Client(url)
    client._thread.start()
    eventually(lambda: client.error)
    client.__exit__()
    return str(client.error)


def test_a_sentinel_at_the_address_of_a_node_is_named(watched: Watched) -> None:
    assert "a Sentinel answers here" in error_of(f"redis://{HOST}:{watched.sentinel.port}/0")


def test_a_node_of_a_cluster_is_named() -> None:
    with ExitStack() as stack:
        nodes = [stack.enter_context(EmbeddedValkey({"cluster-enabled": "yes"})) for _ in range(2)]
        first, second = (stack.enter_context(closing(Redis(port=node.port))) for node in nodes)
        second.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        second.execute_command("CLUSTER", "MEET", HOST, nodes[0].port)
        eventually(lambda: b"cluster_state:ok" in first.execute_command("CLUSTER", "INFO"), WITHIN_S)
        assert "does not read a Redis Cluster" in error_of(nodes[0].url)
