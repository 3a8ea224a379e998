"""The Python client's own manners: rows that do not change, types, asyncio, errors, an end."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid

import pytest
from audiopixel_client import Client
from audiopixel_client.testing import Flow, fill
from redis import RedisError
from redis_support import eventually

from connectors.embedded import EmbeddedValkey


@pytest.fixture
def namespace() -> str:
    return f"python{uuid.uuid4().hex[:8]}:v1"


@pytest.mark.parametrize(
    ("unjudged", "age_ms"), [(None, 0), ("collector", 0), (None, 60_000), ("lagging", 60_000)]
)
def test_a_test_double_has_a_row_for_each_reason(
    valkey: EmbeddedValkey, namespace: str, unjudged: str | None, age_ms: int
) -> None:
    reasons = fill(valkey.url, namespace, unjudged, age_ms)
    assert {"usable", "feed_silent", "gone", "blocked", "unknown_before", "stopped"} <= reasons.keys()
    with Client(valkey.url, namespace=namespace) as client:
        assert {name: client[name].reason for name in reasons} == reasons
        assert {*client} == reasons.keys() - {"gone"}
        known = [name for name in reasons if client[name].factor is not None]
        assert known == ([] if unjudged or age_ms else ["usable"])


def test_a_row_does_not_change_and_its_values_have_types(valkey: EmbeddedValkey, namespace: str) -> None:
    flow = Flow(valkey.url, namespace)
    flow.flush(
        {"a": {"1h.completion_rate": "0.750000", "station": "7", "flight.conversion_value": 2**53 + 1}}
    )
    fields = ["1h.completion_rate", "station", "flight.conversion_value", "flight.reach"]
    with Client(valkey.url, fields, namespace=namespace) as client:
        row = client["a"]
        for name in ("name", "factor", "anything"):
            with pytest.raises(AttributeError):
                setattr(row, name, 1)
        flow.flush({"a": {"5m.impressions": 41}})
        eventually(lambda: client["a"]["5m.impressions"] == 41)
        assert row["5m.impressions"] == 40
        assert (row["1h.completion_rate"], row["station"], row["flight.reach"]) == (0.75, "7", None)
        assert row["flight.conversion_value"] == 2**53 + 1
        assert {*fields, "5m.impressions", "rev"} <= {*row}
        with pytest.raises(KeyError):
            row["1d.clicks"]
        assert "'a' (1, 1, 1) usable" in repr(row)


def test_a_row_that_is_held_for_long_becomes_stale(valkey: EmbeddedValkey, namespace: str) -> None:
    flow = Flow(valkey.url, namespace)
    flow.flush({"a": {}})
    with Client(valkey.url, namespace=namespace, stale_s=1.0) as client:
        row = client["a"]
        assert row.usable
        deadline_s = time.monotonic() + 3.0
        while time.monotonic() < deadline_s:
            flow.flush({"a": {}})
            time.sleep(0.2)
        assert client["a"].usable
        assert row.reason == "stale"


def test_in_asyncio_nothing_blocks(valkey: EmbeddedValkey, namespace: str) -> None:
    flow = Flow(valkey.url, namespace)
    flow.flush({"a": {}})

    async def bid() -> tuple[float | None, int]:
        ticks = 0
        async with Client(valkey.url, namespace=namespace) as client:
            flow.flush({"a": {"delivery.projected": 15_600}})
            while client["a"].factor != 2.0 and ticks < 1_000:
                ticks += 1
                await asyncio.sleep(0.005)
            return client["a"].factor, ticks

    factor, ticks = asyncio.run(bid())
    assert factor == 2.0
    assert ticks < 1_000


def test_a_missing_redis_leaves_all_bids_with_the_reason(namespace: str) -> None:
    client = Client("redis://127.0.0.1:1/0", namespace=namespace)
    client._thread.start()
    assert not client.wait(0.5)
    assert client["a"].reason == "stale"
    assert "127.0.0.1:1" in str(client.error)
    client.__exit__()


def test_its_end_ends_its_thread(valkey: EmbeddedValkey, namespace: str) -> None:
    fill(valkey.url, namespace)
    with Client(valkey.url, namespace=namespace):
        assert "audiopixel-client" in {thread.name for thread in threading.enumerate()}
    assert "audiopixel-client" not in {thread.name for thread in threading.enumerate()}


def test_a_client_goes_on_trying_however_often_redis_was_away(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from audiopixel_client import client as module

    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.001)
    client, tried = Client("redis://127.0.0.1:1/0", namespace=namespace), 0
    pool = client._redis.connection_pool
    pool.max_connections = 20  # some versions allow a hundred

    def connect(**more: object) -> object:
        nonlocal tried
        tried += 1
        return kind(**more)

    kind = pool.connection_class
    pool.connection_class = connect
    client._thread.start()
    eventually(lambda: tried > 100)
    assert client._thread.is_alive()
    assert isinstance(client.error, OSError | RedisError)
    client.__exit__()
