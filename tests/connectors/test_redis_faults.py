"""Faults of Redis (killed, hung, full, read-only, resharded, locked) and failing connections."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeout
from redis_between import Between
from redis_support import LAYOUTS, TIMEOUT, WIDE, eventually, held, row

from connectors.embedded import EmbeddedValkey, form_cluster
from connectors.redis.client import RedisUnavailable, check_version, connect, replies
from connectors.redis.commands import read_rows, scan_index
from connectors.redis.fenced_hash import RowVersion
from connectors.redis.rows import Emptied, RowStore, WriteOutcome
from connectors.stream import ConnectError


@pytest.fixture
def server() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


def test_a_killed_server_is_unavailable_and_after_its_restart_all_works(server: EmbeddedValkey) -> None:
    client = connect(server.url, timeout=TIMEOUT)
    store = RowStore(client, LAYOUTS)
    store.watch("mark", 1)
    store.write([row("k", (1, 1, 1))])
    server.kill()
    for attempt in (
        lambda: store.write([row("k", (1, 1, 2))]),
        lambda: store.take_fence("f"),
        lambda: read_rows(client, ["k"]),
        lambda: scan_index(client, "i"),
        lambda: store.newest_run("mark"),
    ):
        with pytest.raises(RedisUnavailable) as caught:
            attempt()
        assert caught.value.reason == "connection"
    server.start()
    with pytest.raises(Emptied):
        store.write([row("k", (1, 1, 2))])
    store.watch("mark", 1)
    assert store.write([row("k", (1, 1, 3))]) == [WriteOutcome.LANDED]


def test_a_late_command_of_a_hung_server_overwrites_nothing(
    server: EmbeddedValkey,
) -> None:
    patient = connect(server.url, timeout=TIMEOUT)
    hasty = connect(server.url, timeout=timedelta(seconds=1))
    RowStore(patient, LAYOUTS).write([row("taken", (1, 2, 1), 2)])
    RowStore(hasty, LAYOUTS).write([row("free", (1, 1, 1), 0)])  # loads the script
    server.pause()
    began = time.monotonic()
    with pytest.raises(RedisUnavailable) as caught:
        RowStore(hasty, LAYOUTS).write([row("taken", (1, 1, 9), 1), row("free", (1, 1, 2), 1)])
    assert caught.value.reason == "timeout"
    assert time.monotonic() - began < 1.9, "it tried twice"
    server.resume()
    eventually(lambda: held(patient, "free")["5m.impressions"] == "1")
    assert held(patient, "taken")["5m.impressions"] == "2"


def test_a_late_answer_is_not_taken_for_the_next_one(
    server: EmbeddedValkey,
) -> None:
    client = connect(server.url, timeout=timedelta(seconds=1))
    RowStore(client, LAYOUTS).write([row("a", (1, 1, 1), 1), row("b", (1, 1, 1), 2)])

    def asked(*keys: str) -> list[Any]:
        return replies(client, [(key, ("HMGET", key, "5m.impressions")) for key in keys], alike=True)

    server.pause()
    with pytest.raises(RedisTimeout):
        asked("a", "a", "a")
    server.resume()
    assert asked("b", "a") == [["2"], ["1"]]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
        b":many\r\n",
        b"*-5\r\n",
        b":1\r\n",
        b"+OK\r\n",
        b"*0\r\n",
        b"*1\r\n:1\r\n",
        b"*2\r\n$6\r\nlanded\r\n$6\r\nlanded\r\n",
        b"*1\r\n$6\r\nlunded\r\n",
        b"*1\r\n" * 1_000 + b":1\r\n",
    ],
)
def test_a_foreign_answer_is_unavailable_and_spoils_no_later_one(
    server: EmbeddedValkey, answer: bytes
) -> None:
    with Between(server) as between:
        store = RowStore(connect(between.url, timeout=timedelta(seconds=1)), LAYOUTS)
        store.write([row("k", (1, 1, 1))])
        between.instead = lambda _: answer
        with pytest.raises(RedisUnavailable) as caught:
            store.write([row("k", (1, 1, 2), 7)])
        assert caught.value.reason == "connection"
        with pytest.raises(RedisUnavailable):
            read_rows(store._client, ["k"], ["5m.impressions", "station"])
        between.instead = lambda reply: reply
        assert store.write([row("k", (1, 1, 2), 7), row("l", (1, 1, 2), 8)]) == [
            WriteOutcome.SAME,
            WriteOutcome.LANDED,
        ]
        client = connect(server.url, timeout=TIMEOUT)
        assert (held(client, "k")["5m.impressions"], held(client, "l")["5m.impressions"]) == ("7", "8")


def test_a_non_text_value_does_not_spoil_the_next_read(server: EmbeddedValkey) -> None:
    client = connect(server.url, timeout=TIMEOUT)
    RowStore(client, LAYOUTS).write([row(key, (1, 1, 1), n) for n, key in enumerate("abc")])
    client.hset("b", "station", b"\xff")
    with pytest.raises(ConnectError, match=r"Redis holds text that is not UTF-8 \(b'\\xff'\)"):
        read_rows(client, ["a", "b", "c"], ["station"])
    assert read_rows(client, ["c"], ["5m.impressions"]) == [{"5m.impressions": "2"}]


def test_a_primary_turned_replica_is_left_for_a_new_connection(server: EmbeddedValkey) -> None:
    client = connect(server.url, timeout=TIMEOUT)
    assert isinstance(client, Redis)
    store = RowStore(client, LAYOUTS)
    store.write([row("k", (1, 1, 1))])
    before = client.client_id()
    with Redis(port=server.port) as operator:
        operator.replicaof("127.0.0.1", 1)
        with pytest.raises(RedisUnavailable) as caught:
            store.write([row("k", (1, 1, 2))])
        assert caught.value.reason == "readonly"
        assert client.client_id() != before
        operator.replicaof("NO", "ONE")
    assert store.write([row("k", (1, 1, 2))]) == [WriteOutcome.LANDED]


def test_a_full_server_is_unavailable_and_keeps_its_row(server: EmbeddedValkey) -> None:
    client = connect(server.url, timeout=TIMEOUT)
    store = RowStore(client, LAYOUTS)
    store.write([row("k", (1, 1, 1), 1)])
    client.config_set("maxmemory", "1")
    with pytest.raises(RedisUnavailable) as caught:
        store.write([RowVersion("k", "wide", WIDE.pack([2] * 100), 1, 1, 2)])
    assert caught.value.reason == "oom"
    assert held(client, "k")["5m.impressions"] == "1"
    client.config_set("maxmemory", "0")
    assert store.write([RowVersion("k", "wide", WIDE.pack([2] * 100), 1, 1, 2)]) == [WriteOutcome.LANDED]


def test_a_cluster_node_that_lost_its_rows_is_noticed() -> None:
    with EmbeddedValkey({"cluster-enabled": "yes"}) as one, EmbeddedValkey({"cluster-enabled": "yes"}) as two:
        form_cluster(one, two)
        client: Any = connect(one.url, timeout=TIMEOUT)
        store = RowStore(client, LAYOUTS)
        rows = [row(f"k:{{{i}}}", (1, 1, 1), i, index_key="i", member=str(i), score=i) for i in range(600)]
        store.watch("mark", 1)
        assert set(store.write(rows, first=rows[0], last=rows[-1:], publish=("c", "x"))[1:]) == {
            WriteOutcome.LANDED
        }
        with Redis(port=one.port) as first, Redis(port=two.port) as second:
            assert min(first.dbsize(), second.dbsize()) > 200
            assert [r["5m.impressions"] for r in read_rows(client, [r.key for r in rows])] == [
                str(i) for i in range(600)
            ]
            # An empty slot moves without the clients' knowledge.
            reader = connect(one.url, timeout=TIMEOUT)
            slot = client.keyslot("{foo}")
            owner, other = (first, second) if slot < 8_192 else (second, first)
            new = other.execute_command("CLUSTER MYID").decode()
            for node in (other, owner):
                node.execute_command("CLUSTER SETSLOT", slot, "NODE", new)
            assert store.write([row("{foo}", (1, 1, 1), 7)]) == [WriteOutcome.LANDED]
            assert other.exists("{foo}")
            keys = [rows[0].key, "{foo}", rows[599].key]
            assert [r["5m.impressions"] for r in read_rows(reader, keys, ["5m.impressions"])] == [
                "0",
                "7",
                "599",
            ]
            store.write([])
            second.flushall()
            with pytest.raises(Emptied):
                store.write([], first=row("first", (1, 1, 2)))
            store.watch("mark", 1)
        two.kill()
        with pytest.raises(RedisUnavailable):
            store.write([replace(r, rev=2) for r in rows])
        with pytest.raises(RedisUnavailable):
            read_rows(reader, [r.key for r in rows], ["5m.impressions"])
        two.start()
        eventually(lambda: _writes(store, [replace(r, rev=3) for r in rows]))
        assert [r["rev"] for r in read_rows(reader, [r.key for r in rows], ["rev"])] == ["3"] * 600


@pytest.mark.parametrize("slots_of_the_second", [1, 100])
def test_a_node_is_marked_however_few_slots_it_has(slots_of_the_second: int) -> None:
    """With 64 marks at random slots, 8 of 32 primaries with even slots had none."""
    with EmbeddedValkey({"cluster-enabled": "yes"}) as one, EmbeddedValkey({"cluster-enabled": "yes"}) as two:
        form_cluster(one, two, ends=[16_384 - slots_of_the_second, 16_384])
        store = RowStore(connect(one.url, timeout=TIMEOUT), LAYOUTS)
        store.watch("mark", 1)
        for node in (two, one):
            store.write([row("k", (1, 1, 1))])
            with Redis(port=node.port) as client:
                assert client.dbsize() > 0
                client.flushall()
            with pytest.raises(Emptied):
                store.write([row("k", (1, 1, 1))])
            store.watch("mark", 1)


def test_moved_slots_cause_one_full_rewrite() -> None:
    with EmbeddedValkey({"cluster-enabled": "yes"}) as one, EmbeddedValkey({"cluster-enabled": "yes"}) as two:
        form_cluster(one, two, ends=[16_383, 16_384])
        client: Any = connect(one.url, timeout=TIMEOUT)
        store = RowStore(client, LAYOUTS)
        store.watch("mark", 1)
        store.write([row("k", (1, 1, 1))])
        with Redis(port=one.port) as first, Redis(port=two.port) as second:
            new = second.execute_command("CLUSTER MYID").decode()
            for slot in range(15_000, 16_383):  # none of a key that is there
                for node in (second, first):
                    node.execute_command("CLUSTER SETSLOT", slot, "NODE", new)
        client.nodes_manager.initialize()
        with pytest.raises(Emptied):
            store.write([row("k", (1, 1, 2))])
        store.watch("mark", 1)
        for rev in range(3, 6):
            assert store.write([row("k", (1, 1, rev))]) == [WriteOutcome.LANDED]


def _writes(store: RowStore, rows: list[RowVersion]) -> bool:
    try:
        return set(store.write(rows)) <= {WriteOutcome.LANDED, WriteOutcome.SAME}
    except Emptied:
        store.watch("mark", 1)
    except RedisUnavailable:
        pass
    return False


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("redis://:{wrong}@127.0.0.1:{port}/0", "refuses the login"),
        ("redis://bidder:{wrong}@127.0.0.1:{port}/0", "refuses the login"),
        ("redis://127.0.0.1:{port}/0", "refuses the login"),
        ("redis://:{secret}@127.0.0.1:1/0", "cannot be reached.*start it"),
        ("redis://:{secret}@host.invalid:{port}/0", "cannot be reached"),
        ("redis://:{secret}@127.0.0.1:{port}/0?nonsense=1", "not ready.*nonsense"),
        ("redis://:a@{secret}@127.0.0.1:{port}/0", "malformed"),
        ("redis://:a/{secret}@127.0.0.1:{port}/0", "malformed"),
        ("redis://:a#{secret}@127.0.0.1:{port}/0", "malformed"),
        ("redis://:a?{secret}@127.0.0.1:{port}/0", "malformed"),
        ("redis://:{secret}", "malformed"),
        ("http://:{secret}@127.0.0.1:{port}", "malformed"),
    ],
)
def test_a_failed_connection_says_why_in_one_line_without_the_password(template: str, says: str) -> None:
    with EmbeddedValkey({"requirepass": SECRET}) as server:
        client = connect(f"redis://:{SECRET}@127.0.0.1:{server.port}/0", timeout=TIMEOUT)
        assert SECRET not in f"{client!r}"
        with pytest.raises(ConnectError, match=says) as caught:
            connect(template.format(port=server.port, secret=SECRET, wrong=f"{SECRET}!"), timeout=TIMEOUT)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_an_unresponsive_server_is_named_within_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(ConnectError, match=rf"127\.0\.0\.1:{port}.*does not answer within 0\.3 s"):
            connect(f"redis://127.0.0.1:{port}", timeout=timedelta(seconds=0.3))
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("server", "version", "fits"),
    [
        ("redis", "6.2.14", False),
        ("redis", "7.0.15", True),
        ("valkey", "7.9.9", False),
        ("valkey", "8.0.1", True),
    ],
)
def test_redis_before_7_and_valkey_before_8_are_refused(server: str, version: str, fits: bool) -> None:
    greeting = {"server": server, "version": version}
    if fits:
        check_version(greeting, "Redis")
    else:
        with pytest.raises(ConnectError, match="too old"):
            check_version(greeting, "Redis")
