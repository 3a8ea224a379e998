"""Addresses of Redis: Sentinels with a real promotion, seeds of a cluster of which some are dead."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis
from redis_support import LAYOUTS, TIMEOUT, eventually, held, row
from sentinel_support import SERVICE, Pair, Sentinel

from connectors.embedded import EmbeddedValkey, form_cluster
from connectors.ports import free_ports
from connectors.redis import RedisUnavailable, RowStore, connect, server_clock, shown
from connectors.stream import ConnectError


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


SECRET = "hunter2"


@pytest.mark.parametrize("login", ["", f"user:{SECRET}@", f":{SECRET}@"])
@pytest.mark.parametrize("path", ["", "/0", "/3"])
def test_a_sentinel_is_named_whatever_login_and_database_are_asked_for(login: str, path: str) -> None:
    with EmbeddedValkey() as primary, Sentinel(primary) as sentinel:
        with pytest.raises(ConnectError, match=r"is a Sentinel: write redis\+sentinel://") as refused:
            connect(f"redis://{login}127.0.0.1:{sentinel.port}{path}", timeout=TIMEOUT)
        assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("query", "fits"),
    [(f"?sentinel_password={SECRET}", True), ("", False), (f"?sentinel_password={SECRET}!", False)],
)
def test_a_sentinel_gets_its_own_password_and_no_message_has_it(query: str, fits: bool) -> None:
    with EmbeddedValkey() as primary, Sentinel(primary, SECRET) as sentinel:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}{query}"
        if fits:
            assert SECRET not in f"{connect(url, timeout=TIMEOUT)!r}"
            return
        with pytest.raises(
            ConnectError, match=r"no Sentinel names a primary: check .*sentinel_pass"
        ) as refused:
            connect(url, timeout=TIMEOUT)
        assert SECRET not in str(refused.value)
        assert len(str(refused.value)) < 200, "redis-py's own words have each option of each Sentinel"


class Without(EmbeddedValkey):
    """A server that lacks a command under its name, as managed services do."""

    def __init__(self, command: str) -> None:
        super().__init__()
        self._lacking = command

    def _command(self, port: int, directory: Path) -> list[str]:
        return [*super()._command(port, directory), "--rename-command", self._lacking, ""]


@pytest.mark.parametrize("command", ["HELLO", "AUTH", "TIME", "EVAL"])
def test_a_renamed_command_is_named_without_its_arguments(command: str) -> None:
    with Without(command) as server:
        login, query = (f":{SECRET}@", "?protocol=2") if command == "AUTH" else ("", "")
        says = rf"unknown command '{command}'\): .*\+{command.lower()}"
        with pytest.raises(ConnectError, match=says) as refused:
            _use(f"redis://{login}127.0.0.1:{server.port}/0{query}")
        assert SECRET not in str(refused.value)


def _use(url: str) -> None:
    client = connect(url, timeout=TIMEOUT)
    server_clock(client, "k", "f")
    RowStore(client, LAYOUTS).take_fence("fence")


@pytest.mark.parametrize(
    ("rights", "says"),
    [
        ("+@read ~a:*", r"'time' command.*the right \+time"),
        ("+time ~a:*", r"'hget' command.*the right \+hget"),
        ("+@read +time ~b:*", r"refuses 'a:k' .*the right to the key \(~\)"),
    ],
)
def test_a_refused_right_is_named(rights: str, says: str) -> None:
    with EmbeddedValkey() as server, Redis(port=server.port) as owner:
        owner.execute_command("ACL SETUSER", "flow", "on", f">{SECRET}", *rights.split())
        client = connect(f"redis://flow:{SECRET}@127.0.0.1:{server.port}/0", timeout=TIMEOUT)
        with pytest.raises(ConnectError, match=says):
            server_clock(client, "a:k", "f")


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
