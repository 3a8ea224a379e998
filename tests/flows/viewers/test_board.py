"""The reader of the Redis contract, over what the flow wrote."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from board_support import LOG, RECEIVED, TRUTH, put_rows, replayed
from redis import Redis

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import Client, RedisUnavailable, connect
from connectors.stream import ConnectError
from flows.viewers import reader
from flows.viewers.reader import VERSION, RowsReader, Snapshot

FIELDS = ("flight.impressions", "flight.reach", "campaign_id", "1h.mature_completion_rate")
NOW = timedelta(0)


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        replayed(server)
        yield server


@pytest.fixture
def mortal() -> Iterator[EmbeddedValkey]:
    """A Redis of its own for a test that kills it."""
    with EmbeddedValkey() as server:
        put_rows(server.url, "t", {"pl-1": {"flight.impressions": 7}})
        yield server


def board(
    url: str, namespace: str = "audiopixel:v1", interval: timedelta = NOW, fields: Sequence[str] = FIELDS
) -> RowsReader:
    return RowsReader(connect(url, timeout=timedelta(seconds=1)), namespace, fields, interval=interval)


def test_rows_are_read_by_placement(valkey: EmbeddedValkey) -> None:
    rows = board(valkey.url).refresh().rows["placement"]
    assert len(rows) > 90
    for name, row in rows.items():
        assert row["flight.impressions"] == TRUTH[name]["flight.impressions"]
        assert set(row) <= set(FIELDS)


def test_the_ledger_balances(valkey: EmbeddedValkey) -> None:
    account = board(valkey.url).refresh().accounts[LOG]
    rejected = sum(int(number) for field, number in account.items() if field.startswith("rejected."))
    assert int(account["received"]) == RECEIVED
    assert int(account["accepted"]) + int(account["repeated"]) + rejected == RECEIVED


def test_freshness_comes_from_meta(valkey: EmbeddedValkey) -> None:
    snapshot = board(valkey.url).refresh()
    assert (snapshot.up, snapshot.error) == (True, "")
    assert snapshot.flushed_s is not None
    assert snapshot.watermark_s is not None
    assert snapshot.watermark_s < snapshot.flushed_s <= snapshot.read_s <= time.time()


def test_a_watermark_of_0_is_unknown_not_half_a_century_ago() -> None:
    snapshot = Snapshot(meta={"watermark_ms": "0", "flushed_ms": "1500"})
    assert (snapshot.watermark_s, snapshot.flushed_s) == (None, 1.5)


def test_one_read_serves_many_viewers(valkey: EmbeddedValkey) -> None:
    shared = board(valkey.url, interval=timedelta(minutes=1))
    with Redis.from_url(valkey.url) as client:
        client.config_resetstat()
        client.client_pause(200)  # long enough for all eight to come while the first one reads
        with ThreadPoolExecutor(8) as viewers:
            seen = list(viewers.map(lambda _: shared.refresh(), range(40)))
        calls = client.info("commandstats")["cmdstat_hmget"]["calls"]
    assert all(snapshot is seen[0] for snapshot in seen)
    assert calls == len(seen[0].rows["placement"])


def test_the_board_is_read_again_after_the_interval(mortal: EmbeddedValkey) -> None:
    shared = board(mortal.url, "t")
    assert shared.refresh().rows["placement"]["pl-1"]["flight.impressions"] == "7"
    put_rows(mortal.url, "t", {"pl-1": {"flight.impressions": 8}})
    assert shared.refresh().rows["placement"]["pl-1"]["flight.impressions"] == "8"


def test_the_last_snapshot_stays_marked_during_an_outage(
    mortal: EmbeddedValkey,
) -> None:
    shared = board(mortal.url, "t")
    before = shared.refresh()
    mortal.kill()
    away = shared.refresh()
    assert (before.up, away.up) == (True, False)
    assert "connection" in away.error
    assert (away.rows, away.read_s) == (before.rows, before.read_s)
    mortal.start()
    put_rows(mortal.url, "t", {"pl-2": {"flight.impressions": 1}})
    back = shared.refresh()
    assert (back.up, back.error, list(back.rows["placement"])) == (True, "", ["pl-2"])


def test_a_viewer_polling_at_twice_the_interval_reads_each_time(
    valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, clock_s = board(valkey.url, interval=timedelta(seconds=0.5)), [100.0]
    monkeypatch.setattr(reader, "time", SimpleNamespace(monotonic=lambda: clock_s[0]))
    read, began_s = shared._read, list[float]()

    def slow() -> Any:
        began_s.append(clock_s[0])
        clock_s[0] += 0.6
        return read()

    monkeypatch.setattr(shared, "_read", slow)
    for tick in range(10):
        clock_s[0] = 100.0 + 0.999 * tick  # a timer that is early by a hair
        shared.refresh()
    assert len(began_s) == 10


def test_a_read_counts_from_its_begin_and_a_failure_from_its_end(
    valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, clock_s, fails = board(valkey.url, interval=timedelta(seconds=1)), [100.0], [False]
    monkeypatch.setattr(reader, "time", SimpleNamespace(monotonic=lambda: clock_s[0]))
    read, count = shared._read, [0]

    def slow() -> Any:
        count[0] += 1
        clock_s[0] += 0.4
        if fails[0]:
            raise ConnectError("away")
        return read()

    monkeypatch.setattr(shared, "_read", slow)
    shared.refresh()
    clock_s[0] = 101.0
    shared.refresh()
    assert count[0] == 2
    fails[0], clock_s[0] = True, 102.0
    shared.refresh()
    clock_s[0] = 103.0
    assert (shared.refresh().up, count[0]) == (False, 3)
    clock_s[0] = 103.5
    shared.refresh()
    assert count[0] == 4


def test_a_hanging_redis_costs_one_timeout_per_interval(mortal: EmbeddedValkey) -> None:
    shared = board(mortal.url, "t", interval=timedelta(seconds=30))
    mortal.pause()
    began_s = time.monotonic()
    try:
        with ThreadPoolExecutor(4) as viewers:
            seen = list(viewers.map(lambda _: shared.refresh(), range(12)))
    finally:
        mortal.resume()
    assert time.monotonic() - began_s < 1.9, "the timeout is 1 s"
    assert {(snapshot.up, snapshot.read_s) for snapshot in seen} == {(False, 0.0)}


def test_plan_fields_are_read_exactly_while_the_plan_exists(
    valkey: EmbeddedValkey,
) -> None:
    plan = {
        "delivery.state": "under",
        "delivery.booked": "9",
        "flight.cost_per_acquisition": "1.5",
        "flight.counted_since_ms": "7",
    }
    shared = board(valkey.url, "planned", fields=("flight.impressions", *plan))

    def read() -> dict[str, dict[str, str]]:
        return {name: dict(row) for name, row in shared.refresh().rows["placement"].items()}

    counts = {"flight.impressions": "7"}
    put_rows(valkey.url, "planned", {"pl-1": counts, "pl-2": counts | plan})
    for _ in range(2):
        assert read() == {"pl-1": counts, "pl-2": counts | plan}
    put_rows(valkey.url, "planned", {"pl-1": plan})
    with Redis.from_url(valkey.url) as client:
        client.hdel("planned:placement:{pl-2}", *plan)
    for _ in range(2):
        assert read() == {"pl-1": counts | plan, "pl-2": counts}
    with Redis.from_url(valkey.url) as client:
        client.delete("planned:placement:{pl-1}")
    assert read() == {"pl-2": counts}


def version(rev: int) -> dict[str, str]:
    """As the flow sets it at each write of a row."""
    return dict.fromkeys(VERSION, "1") | {"rev": str(rev)}


def counts(url: str, namespace: str, rev: int, **impressions: int) -> None:
    """Have placements count so many impressions, from a version on."""
    rows = {name: {"flight.impressions": str(count)} | version(rev) for name, count in impressions.items()}
    put_rows(url, namespace, rows)


def test_unchanged_rows_read_only_versions_and_stay_identical(
    valkey: EmbeddedValkey,
) -> None:
    shared = board(valkey.url)
    first = shared.refresh().rows["placement"]
    with Redis.from_url(valkey.url) as client:
        client.config_resetstat()
        second = shared.refresh().rows["placement"]
        stats = client.info("commandstats")["cmdstat_hmget"]
    assert second is first, "viewers skip a scope by it"
    assert stats["calls"] == len(first), "once a row, and a second time where its fields are read"


@pytest.mark.parametrize("moved", VERSION)
def test_any_changed_part_of_a_version_rereads_its_row(valkey: EmbeddedValkey, moved: str) -> None:
    namespace = f"moved-{moved}"
    counts(valkey.url, namespace, 1, calm=1, busy=1)
    shared = board(valkey.url, namespace)
    before = shared.refresh().rows["placement"]
    put_rows(valkey.url, namespace, {"busy": {"flight.impressions": "2", moved: "7"}})
    after = shared.refresh().rows["placement"]
    assert after == {"calm": {"flight.impressions": "1"}, "busy": {"flight.impressions": "2"}}
    assert after["calm"] is before["calm"]
    assert shared.refresh().rows["placement"]["busy"] is after["busy"]


def test_rows_expire_and_appear_beside_an_unchanged_one(
    valkey: EmbeddedValkey,
) -> None:
    counts(valkey.url, "came", 1, stays=1, goes=1)
    shared = board(valkey.url, "came")
    before = shared.refresh().rows["placement"]
    with Redis.from_url(valkey.url) as client:
        client.delete("came:placement:{goes}")
    counts(valkey.url, "came", 1, comes=1)
    after = shared.refresh().rows["placement"]
    assert after.keys() == {"stays", "comes"}
    assert after["stays"] is before["stays"]
    assert shared.refresh().rows["placement"] is not before
    counts(valkey.url, "came", 1, goes=5)
    assert shared.refresh().rows["placement"]["goes"] == {"flight.impressions": "5"}


def test_a_plan_appears_and_disappears_by_versions(valkey: EmbeddedValkey) -> None:
    plan = {
        "delivery.state": "under",
        "delivery.booked": "9",
        "flight.cost_per_acquisition": "1.5",
        "flight.counted_since_ms": "7",
    }
    shared = board(valkey.url, "versions", fields=("flight.impressions", *plan))
    counts(valkey.url, "versions", 1, one=7, other=7)
    unplanned = {"flight.impressions": "7"}
    for _ in range(2):
        assert shared.refresh().rows["placement"] == {"one": unplanned, "other": unplanned}
    put_rows(valkey.url, "versions", {"one": plan | version(2)})
    for _ in range(2):
        assert shared.refresh().rows["placement"] == {"one": unplanned | plan, "other": unplanned}
    with Redis.from_url(valkey.url) as client:
        client.hdel("versions:placement:{one}", *plan)
    counts(valkey.url, "versions", 3, one=7)
    for _ in range(2):
        assert shared.refresh().rows["placement"] == {"one": unplanned, "other": unplanned}


def test_a_failed_read_leaves_no_old_row_after_recovery(
    valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(client: Client, keys: Sequence[str], fields: Sequence[str]) -> Iterator[list[str | None]]:
        if tuple(fields) != VERSION:
            raise RedisUnavailable("timeout", "away")
        return read_fields(client, keys, fields)

    read_fields = reader.read_fields
    counts(valkey.url, "halfway", 1, one=1, other=1)
    shared = board(valkey.url, "halfway")
    before = shared.refresh()
    counts(valkey.url, "halfway", 2, one=2)
    with monkeypatch.context() as patched:
        patched.setattr(reader, "read_fields", away)
        assert (shared.refresh().up, shared.refresh().rows) == (False, before.rows)
    with Redis.from_url(valkey.url) as client:
        client.hset("halfway:meta", "flushed_ms", "noon")  # the read fails after the rows
        assert (shared.refresh().up, shared.refresh().rows) == (False, before.rows)
        client.delete("halfway:meta")
    back = shared.refresh()
    assert back.up
    assert back.rows["placement"]["one"] == {"flight.impressions": "2"}
    assert back.rows["placement"]["other"] == {"flight.impressions": "1"}


def test_a_version_landing_during_a_read_is_stored(
    valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(client: Client, keys: Sequence[str], fields: Sequence[str]) -> Iterator[list[str | None]]:
        yield from read_fields(client, keys, fields)
        counts(valkey.url, "amid", 3, one=3)

    read_fields = reader.read_fields
    counts(valkey.url, "amid", 1, one=1)
    shared = board(valkey.url, "amid")
    shared.refresh()
    counts(valkey.url, "amid", 2, one=2)
    with monkeypatch.context() as patched:
        patched.setattr(reader, "read_fields", overtaken)
        read = shared.refresh().rows["placement"]
    assert read == {"one": {"flight.impressions": "3"}}
    assert shared.refresh().rows["placement"]["one"] is read["one"]
    counts(valkey.url, "amid", 4, one=4)
    assert shared.refresh().rows["placement"] == {"one": {"flight.impressions": "4"}}


def test_version_parts_are_shown_only_on_request(valkey: EmbeddedValkey) -> None:
    shared = board(valkey.url, "asked", fields=("rev", "flight.impressions"))
    for rev in (1, 2):
        counts(valkey.url, "asked", rev, one=rev)
        for _ in range(2):
            shown = {"rev": str(rev), "flight.impressions": str(rev)}
            assert shared.refresh().rows["placement"] == {"one": shown}


def test_a_namespace_without_a_flow_is_up_and_empty(valkey: EmbeddedValkey) -> None:
    snapshot = board(valkey.url, "nobody").refresh()
    assert (snapshot.up, snapshot.rows, snapshot.flushed_s) == (True, {"placement": {}}, None)


def test_an_expired_row_still_in_the_index_is_not_shown(valkey: EmbeddedValkey) -> None:
    put_rows(valkey.url, "old", {"pl-1": {"flight.impressions": 1}, "pl-2": {"flight.impressions": 2}})
    with Redis.from_url(valkey.url) as client:
        client.delete("old:placement:{pl-1}")
    assert list(board(valkey.url, "old").refresh().rows["placement"]) == ["pl-2"]


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        ("positions", "positions", "{"),
        ("meta", "flushed_ms", "noon"),
        ("meta", "watermark_ms", "9" * 400),
        ("index:placement", "a", "b"),
    ],
)
def test_damage_reaches_no_viewer_as_an_exception(
    valkey: EmbeddedValkey, key: str, field: str, value: str
) -> None:
    namespace = f"damaged-{key.partition(':')[0]}-{field}"
    with Redis.from_url(valkey.url) as client:
        client.hset(f"{namespace}:{key}", field, value)
    snapshot = board(valkey.url, namespace).refresh()
    assert not snapshot.up
    assert snapshot.error
