"""Addresses of Redis: Sentinels with a real promotion, seeds of a cluster of which some are dead."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis
from redis_support import LAYOUTS, TIMEOUT, eventually, held, row

from connectors.embedded import EmbeddedValkey, form_cluster
from connectors.ports import free_ports
from connectors.redis import RedisUnavailable, RowStore, connect, shown
from connectors.stream import ConnectError

SERVICE = "pixels"


class Sentinel(EmbeddedValkey):
    """A Sentinel that alone may promote a replica, half a second after the primary's last answer."""

    def __init__(self, primary: EmbeddedValkey) -> None:
        super().__init__()
        self._primary = primary

    def _command(self, port: int, directory: Path) -> list[str]:
        config = directory / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary.port} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 2000\n"
        )
        return [self._binary, str(config), "--sentinel"]


class Pair(ExitStack):
    """A primary with a replica, and their Sentinel."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = self.enter_context(EmbeddedValkey())
        follow = {"replicaof": f"127.0.0.1 {self.primary.port}", "repl-diskless-sync-delay": "0"}
        self.replica = self.enter_context(EmbeddedValkey(follow))
        self.sentinel = self.enter_context(Sentinel(self.primary))
        with Redis(port=self.sentinel.port, decode_responses=True) as client:
            eventually(lambda: client.sentinel_master(SERVICE)["num-slaves"] == 1, 30)  # type: ignore[no-untyped-call, index]

    @property
    def url(self) -> str:
        dead = free_ports(1)[0]
        return f"redis+sentinel://127.0.0.1:{dead},127.0.0.1:{self.sentinel.port}/{SERVICE}"


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as made:
        yield made


def test_a_write_goes_to_the_promoted_replica_within_seconds(pair: Pair) -> None:
    client = connect(pair.url, timeout=TIMEOUT)
    store = RowStore(client, LAYOUTS)
    store.write([row("t:{a}", (1, 1, 1))])
    with Redis(port=pair.replica.port) as replica:
        eventually(lambda: replica.exists("t:{a}"))
    pair.primary.kill()
    died_s = time.monotonic()

    def written() -> bool:
        try:
            store.write([row("t:{a}", (1, 1, 2), 7)])
        except RedisUnavailable:
            return False
        return True

    eventually(written, 20)
    assert time.monotonic() - died_s < 10
    assert held(client, "t:{a}")["rev"] == "2"
    with Redis(port=pair.replica.port, decode_responses=True) as replica:
        assert replica.hget("t:{a}", "rev") == "2"


def test_a_sentinel_in_a_nodes_place_is_named_with_its_services(pair: Pair) -> None:
    with pytest.raises(
        ConnectError, match=rf"is a Sentinel: write redis\+sentinel://.*services are {SERVICE}"
    ):
        connect(f"redis://127.0.0.1:{pair.sentinel.port}", timeout=TIMEOUT)
    wrong_service = pair.url.replace(f"/{SERVICE}", "/other")
    with pytest.raises(ConnectError, match="no Sentinel names a primary"):
        connect(wrong_service, timeout=TIMEOUT)


def test_a_cluster_is_found_by_any_living_seed() -> None:
    with ExitStack() as stack:
        enabled = {"cluster-enabled": "yes", "cluster-require-full-coverage": "no"}
        nodes = [stack.enter_context(EmbeddedValkey(enabled)) for _ in range(3)]
        form_cluster(*nodes)
        seeds = ",".join(f"127.0.0.1:{port}" for port in (free_ports(1)[0], nodes[1].port, nodes[2].port))
        for scheme in ("redis", "redis+cluster"):
            client = connect(f"{scheme}://{seeds}", timeout=TIMEOUT)
            store = RowStore(client, LAYOUTS)
            rows = [row(f"t:{{{n}}}", (1, 1, 1)) for n in range(50)]
            store.write(rows)
            assert all(held(client, one.key) for one in rows)
            client.close()


def test_several_addresses_of_single_nodes_are_refused() -> None:
    with (
        EmbeddedValkey() as one,
        EmbeddedValkey() as other,
        pytest.raises(ConnectError, match="is no cluster"),
    ):
        connect(f"redis://127.0.0.1:{one.port},127.0.0.1:{other.port}", timeout=TIMEOUT)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://u:s3cret@h:1/0", "redis://h:1/0"),
        ("rediss://:s3cret@h:1,i:2", "rediss+cluster://h:1,i:2"),
        ("redis+cluster://u:s3cret@h:1", "redis+cluster://h:1"),
        (
            "redis+sentinel://u:s3cret@h:1,[::1]:2/svc/3?sentinel_password=s3cret",
            "redis+sentinel://h:1,[::1]:2/svc/3",
        ),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("redis+sentinel://h:1", None),
        ("redis+sentinel://h:1/svc?password=s3cret&x=1", None),
        ("redis+sentinel://h:1/svc/s3cret", None),
        ("redis://s3cret@h@i:1", None),
        ("redis://h:s3cret", None),
        ("redis://h:1,,i:2", None),
        ("redis+other://h:1", None),
        ("http://s3cret:1", None),
    ],
)
def test_an_address_is_shown_without_secrets_or_is_malformed(url: str, text: str | None) -> None:
    if text is not None:
        assert shown(url) == text
        return
    with pytest.raises(ConnectError, match="malformed") as refused:
        shown(url)
    assert "s3cret" not in str(refused.value)
