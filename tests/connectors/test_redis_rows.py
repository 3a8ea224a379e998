"""Rows in Redis: one contract, held to by Valkey, by Debian's Redis and by a cluster."""

from __future__ import annotations

import random
import re
import threading
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from msgspec.structs import replace
from redis import RedisCluster
from redis.exceptions import ResponseError
from redis_support import DEBIAN, LAYOUTS, ROW, TIMEOUT, WIDE, eventually, held, row

from connectors.embedded import EmbeddedValkey, form_cluster
from connectors.redis import commands as reading
from connectors.redis import rows as connector
from connectors.redis.client import REASONS, Client, Command, RedisUnavailable, connect, failures, replies
from connectors.redis.commands import put_fields, put_shared, read_fields, read_rows, scan_index, trim_index
from connectors.redis.fenced_hash import FencedHash, RowVersion
from connectors.redis.marks import mark_keys
from connectors.redis.row_changes import RowChanges
from connectors.redis.rows import Emptied, RowStore, Superseded, WriteOutcome
from connectors.stream import ConnectError

SINGLE = [
    "valkey",
    pytest.param(
        "debian",
        marks=[
            pytest.mark.debian,
            pytest.mark.skipif(not DEBIAN, reason="apt-get install redis-server runs it"),
        ],
    ),
]


@pytest.fixture(scope="module", params=[*SINGLE, "cluster"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    options = {"cluster-enabled": "yes"} if request.param == "cluster" else {}
    with EmbeddedValkey(options, binary=DEBIAN if request.param == "debian" else None) as server:
        if request.param == "cluster":
            form_cluster(server)
        client = connect(server.url, timeout=TIMEOUT)
        assert isinstance(client, RedisCluster) == (request.param == "cluster")
        yield client
        client.close()


@pytest.fixture
def store(client: Client) -> RowStore:
    return RowStore(client, LAYOUTS, clock_ms=lambda: 1_700_000_000_123)


@pytest.fixture
def key() -> str:
    return f"test:{{{uuid.uuid4().hex}}}"


def test_fields_that_change_often_stand_first(client: Client, key: str) -> None:
    layout, keys = FencedHash(["a", "b", "c", "d"], often=["d", "b"]), [key, f"{key}other"]
    versions = [RowVersion(of, "row", layout.pack([1, n, None, 2]), 1, 1, 1) for n, of in enumerate(keys)]
    RowStore(client, {"row": layout}).write(versions)
    order = ["generation", "fence", "rev", "updated_ms", "b", "d", "a"]
    assert [list(held(client, of)) for of in keys] == [order, order]


def test_a_row_is_all_its_fields_and_its_version(client: Client, store: RowStore, key: str) -> None:
    assert store.write([row(key, (1, 2, 3), 42)]) == [WriteOutcome.LANDED]
    assert held(client, key) == {
        "5m.impressions": "42",
        "1h.rate": "0.100000",
        "station": "radio \u00e9",
        "generation": "1",
        "fence": "2",
        "rev": "3",
        "updated_ms": "1700000000123",
    }


@pytest.mark.parametrize(
    ("version", "outcome"),
    [
        ((6, 0, 0), "landed"),
        ((5, 6, 0), "landed"),
        ((5, 5, 10), "landed"),
        ((5, 5, 9), "same"),
        ((5, 5, 8), "stale"),
        ((5, 4, 99), "superseded"),
        ((4, 99, 99), "superseded"),
    ],
)
def test_versions_compare_by_generation_then_fence_then_rev(
    client: Client, store: RowStore, key: str, version: tuple[int, int, int], outcome: str
) -> None:
    store.write([row(key, (5, 5, 9), 1)])
    before = held(client, key)
    assert store.write([row(key, version, 2, ttl_ms=1_000)]) == [outcome]
    if outcome == "landed":
        assert held(client, key)["5m.impressions"] == "2"
    else:
        assert held(client, key) == before
        assert client.pttl(key) == -1


def test_in_whatever_order_versions_arrive_the_newest_stays(
    client: Client, store: RowStore, key: str
) -> None:
    versions = [(g, f, r) for g in range(3) for f in range(3) for r in range(8, 12)]
    random.Random(7).shuffle(versions)
    for version in versions:
        store.write([row(key, version)])
    assert [held(client, key)[name] for name in ("generation", "fence", "rev")] == ["2", "2", "11"]


def test_a_retry_completes_the_index_and_reports_the_same_row(
    client: Client, store: RowStore, key: str
) -> None:
    index = f"{key}:index"
    store.write([row(key, (1, 1, 1))])
    indexed = row(key, (1, 1, 1), index_key=index, member="a", score=5)
    assert store.write([indexed]) == [WriteOutcome.SAME]
    assert scan_index(client, index) == ["a"]


def test_a_score_never_falls_whoever_writes(client: Client, store: RowStore, key: str) -> None:
    index = f"{key}:index"
    store.write([row(key, (1, 2, 1), index_key=index, member="a", score=9)])
    store.write([row(key, (1, 1, 1), index_key=index, member="a", score=7)])
    store.write([row(key, (1, 2, 2), index_key=index, member="a", score=8)])
    assert client.zscore(index, "a") == 9


def test_a_row_is_in_the_index_before_a_reader_has_it(client: Client, store: RowStore, key: str) -> None:
    index = f"{key}:index"
    client.set(key, "no hash")
    with pytest.raises(ConnectError, match="WRONGTYPE"):
        store.write([row(key, (1, 1, 1), index_key=index, member="a", score=5)])
    assert scan_index(client, index) == ["a"]


def test_a_reader_never_sees_a_torn_row(client: Client, store: RowStore, key: str) -> None:
    """Every field holds the rev; every third one is absent in odd revs."""
    stop = threading.Event()
    seen: list[dict[str, str]] = []

    def poll() -> None:
        while not stop.is_set():
            seen.extend(read_rows(client, [key] * 50))

    reader = threading.Thread(target=poll)
    reader.start()
    try:
        for start in range(1, 3_000, 100):
            store.write(
                [
                    RowVersion(
                        key,
                        "wide",
                        WIDE.pack([None if rev % 2 and not i % 3 else rev for i in range(100)]),
                        1,
                        1,
                        rev,
                    )
                    for rev in range(start, start + 100)
                ]
            )
    finally:
        stop.set()
        reader.join()
    full = [one for one in seen if one]
    for one in full:
        fields = {value for name, value in one.items() if name.startswith("f") and name != "fence"}
        assert fields == {one["rev"]}
        assert len(one) == (66 if int(one["rev"]) % 2 else 100) + 4
    assert len({one["rev"] for one in full}) > 10, "the reader saw too few versions to judge"


def test_a_null_vanishes_and_so_does_a_field_of_another_layout(
    client: Client, store: RowStore, key: str
) -> None:
    store.write([RowVersion(key, "wide", WIDE.pack(list(range(100))), 1, 1, 1)])
    store.write([RowVersion(key, "row", ROW.pack([7, None, None]), 1, 1, 2)])
    assert held(client, key).keys() == {"5m.impressions", "generation", "fence", "rev", "updated_ms"}


def test_integers_are_exact_to_2_to_the_53(client: Client, store: RowStore, key: str) -> None:
    values = [0, 1, -1, 2**31, 2**32, 10**14 + 1, 10**15 + 3, 9 * 10**15 + 1, 2**53 - 1, 2**53, -(2**53)]
    values += [0] * (100 - len(values))
    assert store.write([RowVersion(key, "wide", WIDE.pack(values), 2**53 - 1, 2**53, 2**53)]) == [
        WriteOutcome.LANDED
    ]
    assert read_rows(client, [key], WIDE.fields)[0] == {f"f{i}": str(v) for i, v in enumerate(values)}
    assert store.write([RowVersion(key, "wide", WIDE.pack(values), 2**53 - 1, 2**53, 2**53 - 1)]) == [
        WriteOutcome.STALE
    ]


def test_the_ttl_is_renewed_by_each_landing_and_none_lifts_it(
    client: Client, store: RowStore, key: str
) -> None:
    store.write([row(key, (1, 1, 1), ttl_ms=50_000)])
    assert 0 < client.pttl(key) <= 50_000
    store.write([row(key, (1, 1, 2), ttl_ms=90_000)])
    assert 50_000 < client.pttl(key) <= 90_000
    store.write([row(key, (1, 1, 3))])
    assert client.pttl(key) == -1


def test_a_flushed_script_cache_goes_unnoticed(client: Client, store: RowStore, key: str) -> None:
    store.write([row(key, (1, 1, 1))])
    client.script_flush()
    assert store.write([row(key, (1, 1, 2)), row(key, (1, 1, 1))]) == [
        WriteOutcome.LANDED,
        WriteOutcome.STALE,
    ]


def test_outcomes_and_rows_keep_their_order_over_many_chunks(
    client: Client, store: RowStore, key: str
) -> None:
    keys = [f"{key}{i}:{{{i}}}" for i in range(1_201)]
    index = f"{key}:index"
    store.write([row(k, (1, 1, 5)) for k in keys[::2]])
    rows = [
        row(k, (1, 1, 5 if i % 4 else 6), i, index_key=index, member=k, score=i) for i, k in enumerate(keys)
    ]
    outcomes = store.write(rows)
    assert outcomes == ["landed" if i % 2 or not i % 4 else "same" for i in range(len(keys))]
    assert sorted(scan_index(client, index)) == sorted(keys)
    read = read_rows(client, [*keys, f"{key}:absent"], ["5m.impressions", "absent"])
    assert read[-1] == {}
    assert [one["5m.impressions"] for one in read[1:-1:2]] == [str(i) for i in range(1, 1_201, 2)]
    values = [*read_fields(client, [*keys, f"{key}:absent"], ["5m.impressions", "absent", "rev"])]
    assert values[1:-1:2] == [[str(i), None, "5"] for i in range(1, 1_201, 2)]
    assert values[-1] == [None, None, None]


def indexed(key: str, names: range, score: int, **more: Any) -> list[RowVersion]:
    """Rows `0`, `1`, … of an index, each in a slot of its own."""
    return [
        row(f"{key}:{{{name}}}", (1, 1, 1), index_key=f"{key}:index", member=str(name), score=score, **more)
        for name in names
    ]


def test_the_index_loses_only_old_expired_entries(client: Client, store: RowStore, key: str) -> None:
    expired, lasting = indexed(key, range(1_300), 99, ttl_ms=1), indexed(key, range(1_300, 2_400), 98)
    young, planned = indexed(key, range(2_400, 2_402), 100, ttl_ms=1), indexed(key, range(2_402, 2_403), 0)
    store.write([*expired, *lasting, *young, *planned])
    client.delete(planned[0].key)
    eventually(lambda: not any(read_rows(client, [one.key for one in (*expired, *young)])))

    def trimmed() -> int:
        return trim_index(client, f"{key}:index", 100, lambda name: f"{key}:{{{name}}}", staying={"2402"})

    assert trimmed() == 1_300
    assert sorted(map(int, scan_index(client, f"{key}:index"))) == list(range(1_300, 2_403))
    assert trimmed() == 0
    assert trim_index(client, f"{key}:no index", 100, str) == 0


@pytest.mark.parametrize(
    ("held", "stays"),
    [
        *(((2, 5, 9), False), ((2, 5, 8), False), ((2, 4, 10), False), ((1, 6, 10), False)),
        *(((2, 5, 10), True), ((2, 6, 0), True), ((3, 1, 0), True)),
    ],
)
def test_a_deletion_spares_a_returned_row_and_its_entry(
    client: Client, store: RowStore, key: str, held: tuple[int, int, int], stays: bool
) -> None:
    (back,), (ended,) = indexed(key, range(1), 7), indexed(key, range(1), 7)
    generation, fence, rev = held
    store.write([replace(back, generation=generation, fence=fence, rev=rev)])
    store.drop([replace(ended, generation=2, fence=5, rev=9)])
    assert bool(read_rows(client, [back.key])[0]) == stays
    assert scan_index(client, f"{key}:index") == (["0"] if stays else [])


@pytest.mark.parametrize("score", [7, 8])
def test_a_late_index_deletion_keeps_the_entry_of_a_returned_row(
    client: Client, store: RowStore, key: str, monkeypatch: pytest.MonkeyPatch, score: int
) -> None:
    """A connection that has timed out may still deliver its last command (seed 146195)."""
    ended, other = indexed(key, range(2), 7)
    store.write([ended, other])
    send, late = store._send, list[Any]()

    def slow(commands: Any) -> list[Any]:
        if commands[0][0] == f"{key}:index":
            late.extend(commands)
            raise RedisUnavailable("timeout", key)
        return send(commands)

    monkeypatch.setattr(store, "_send", slow)
    with pytest.raises(RedisUnavailable):
        store.drop([replace(ended, rev=2), replace(other, rev=2)])
    monkeypatch.undo()
    store.write([replace(ended, rev=3, score=score)])
    send(late)
    apart = score == 7 and isinstance(client, RedisCluster)  # the index's node does not see the row
    assert scan_index(client, f"{key}:index") == ([] if apart else ["0"])


def test_a_row_returned_during_a_trim_keeps_its_entry(
    client: Client, store: RowStore, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = indexed(key, range(2), 7)
    store.write([one, other])
    client.delete(one.key)
    client.delete(other.key)
    asked = reading.replies

    def replies(client: Client, commands: Any) -> list[Any]:
        if commands and commands[0][1][0] == "ZREM":
            monkeypatch.setattr(reading, "replies", asked)
            store.write([one])  # by another execution, just now
        return asked(client, commands)

    monkeypatch.setattr(reading, "replies", replies)
    assert trim_index(client, f"{key}:index", 100, lambda name: f"{key}:{{{name}}}") == 1
    assert (client.zscore(f"{key}:index", "0"), client.zscore(f"{key}:index", "1")) == (7, None)


def test_an_owner_that_was_superseded_writes_no_row(client: Client, store: RowStore, key: str) -> None:
    positions, other = f"{key}:positions", f"{key}:other"
    store.write([], first=row(positions, (1, 2, 1)))
    with pytest.raises(Superseded):
        store.write(
            [row(other, (1, 1, 1))], first=row(positions, (1, 1, 9)), last=[row(f"{key}:meta", (1, 1, 9))]
        )
    assert read_rows(client, [other, f"{key}:meta"]) == [{}, {}]


def test_a_slower_worker_may_write_after_a_faster_one(store: RowStore, key: str) -> None:
    positions = f"{key}:positions"
    store.write([], first=row(positions, (1, 2, 8)))
    assert store.write([row(key, (1, 2, 7))], first=row(positions, (1, 2, 7))) == [WriteOutcome.LANDED]


def test_a_claim_returns_older_rows_and_fences_older_writers(
    client: Client, store: RowStore, key: str
) -> None:
    store.write([], first=row(key, (1, 1, 500), 77))
    assert store.claim(key, 1, 2)["5m.impressions"] == "77"
    assert store.claim(key, 1, 2)["5m.impressions"] == "77"
    with pytest.raises(Superseded):
        store.write([], first=row(key, (1, 1, 501), 78))
    with pytest.raises(Superseded):
        store.claim(key, 1, 1)
    assert held(client, key)["5m.impressions"] == "77"
    assert store.write([row(key, (1, 2, 0), 79)]) == [WriteOutcome.LANDED]
    assert store.claim(f"{key}:new", 1, 1).keys() == {"generation", "fence", "rev"}


def test_a_fence_grows_and_can_be_raised_but_not_lowered(store: RowStore, key: str) -> None:
    assert [store.take_fence(key), store.take_fence(key)] == [1, 2]
    store.raise_fence(key, 40)
    store.raise_fence(key, 3)
    assert store.take_fence(key) == 41
    assert [store.take_fence(key, above=above) for above in (7, 70, 70, 0)] == [42, 71, 72, 73]


def test_a_message_comes_when_all_else_is_stored(client: Client, store: RowStore, key: str) -> None:
    anyone: Any = client
    subscriber = anyone.pubsub()
    subscriber.subscribe(key)
    eventually(lambda: (subscriber.get_message(timeout=0.1) or {}).get("type") == "subscribe")
    rows = [row(f"{key}{i}", (1, 1, 1), index_key=f"{key}:i", member=str(i), score=i) for i in range(800)]
    store.write(
        rows, first=row(f"{key}:first", (1, 1, 1)), last=[row(f"{key}:last", (1, 1, 1))], publish=(key, b"x")
    )
    message: dict[str, Any] = {}
    eventually(lambda: message.update(subscriber.get_message(timeout=0.1) or {}) or message)
    assert message["data"] == "x"
    assert all(read_rows(client, [f"{key}:first", f"{key}:last", *(r.key for r in rows)]))
    assert len(scan_index(client, f"{key}:i")) == 800
    subscriber.close()


FEW = FencedHash([f"f{n}" for n in range(12)])
LONG = FencedHash([f"f{n}" for n in range(40)])
VALUES = st.lists(st.sampled_from([None, 0, 1, "a"]), min_size=12, max_size=12)
HAPPENS = st.sampled_from(["nothing", "gone", "older", "another writer"])


@given(steps=st.lists(st.tuples(HAPPENS, st.lists(VALUES, min_size=3, max_size=3)), max_size=6))
@profile(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_write_leaves_rows_whole_after_any_change_between(
    client: Client, steps: list[tuple[str, list[list[int | str | None]]]]
) -> None:
    """Written by what has changed, as copies, or whole: a reader cannot tell which."""
    keys = [f"few:{{{uuid.uuid4().hex}}}" for _ in range(3)]
    ours, others = RowStore(client, {"few": FEW}), RowStore(client, {"few": FEW})

    def write(store: RowStore, rev: int, some: list[list[int | str | None]]) -> None:
        rows = [RowVersion(key, "few", FEW.pack(of), 1, 1, rev) for key, of in zip(keys, some, strict=True)]
        assert set(store.write(rows)) == {WriteOutcome.LANDED}

    before: list[list[int | str | None]] = [list(range(12))] * 3
    write(ours, 1, before)
    for rev, (happens, values) in enumerate(steps, 1):
        if happens != "nothing":
            client.delete(*keys[:1])
        if happens == "older":
            client.hset(keys[0], mapping={"generation": 1, "fence": 0, "rev": 9, "f0": "x", "f2": "x"})
        if happens == "another writer":
            write(others, 2 * rev, [before[0][::-1], *before[1:]])
        write(ours, 2 * rev + 1, values)
        before = values
        for key, row_values in zip(keys, values, strict=True):
            fields = {f"f{n}": str(value) for n, value in enumerate(row_values) if value is not None}
            version = {"generation": "1", "fence": "1", "rev": str(2 * rev + 1)}
            found = held(client, key)
            assert found.pop("updated_ms")
            assert found == fields | version


SIZES = [0, 31, 32, 127, 128, 255, 256, 300]
INTEGERS = [sign * (1 << bits) + by for bits in range(54) for sign in (1, -1) for by in (-1, 0, 1)]
VALUE = st.one_of(
    st.none(),
    st.sampled_from([0, 1, "a", "b"]),
    st.sampled_from(INTEGERS),
    st.builds(lambda size: "x" * size, st.sampled_from(SIZES)),
    st.text(max_size=3),
    st.builds(bytes, st.sampled_from(SIZES)),
)


@pytest.mark.parametrize("layout", [FEW, LONG], ids=["few", "long"])
@given(data=st.data())
def test_a_version_is_sent_as_the_difference_to_its_base(layout: FencedHash, data: st.DataObject) -> None:
    size = len(layout.fields)
    some = st.lists(VALUE, min_size=size, max_size=size)
    pool: list[list[Any]] = data.draw(st.lists(some, min_size=1, max_size=3))

    def drawn() -> list[Any]:
        values = list(data.draw(st.sampled_from(pool)))
        for place in data.draw(st.lists(st.integers(0, size - 1), max_size=3)):
            values[place] = data.draw(VALUE)
        return values

    rows, before, of = [], dict[str, RowVersion](), list[list[Any]]()
    for place in range(data.draw(st.integers(1, 8))):
        rev, ttl_ms = data.draw(st.sampled_from([(4, None), (5, None), (5, 9)]))
        of.append(drawn())
        rows.append(RowVersion(f"k{place}", "few", layout.pack(of[-1]), 1, 2, rev, ttl_ms))
        if data.draw(st.booleans()):
            before[f"k{place}"] = RowVersion(f"k{place}", "few", layout.pack(drawn()), 1, 1, 3)

    kinds, usual, told = msgspec.msgpack.decode(RowChanges(layout).argument(rows, before, 9))
    copied = dict(zip(usual[::2], usual[1::2], strict=True))
    for one, values, kind, *changes in zip(rows, of, told[::3], told[1::3], told[2::3], strict=True):
        version, ttl_ms, base = kinds[kind - 1]
        assert all(some == 0 or len(some) > 0 for some in changes), "no array without values"
        fields, gone = (some or [] for some in changes)
        assert (version, ttl_ms) == ([1, 2, one.rev], one.ttl_ms or 0)
        known = before.get(one.key)
        if base == "usual":
            assert known is None
            old = copied
        elif base == "none":
            old = {}
        else:
            assert known is not None
            assert base == [1, 1, 3]
            packed = msgspec.msgpack.decode(known.packed)
            old = dict(zip(layout.fields, packed, strict=True))
        named = dict(zip(fields[::2], fields[1::2], strict=True))
        assert len(named) * 2 == len(fields), "no field twice"
        after = {name: value for name, value in (old | named).items() if name not in gone}
        stamp = {"generation": 1, "fence": 2, "rev": one.rev, "updated_ms": 9}
        own = {name: value for name, value in zip(layout.fields, values, strict=True) if value is not None}
        assert {name: value for name, value in after.items() if value is not None} == own | stamp
        assert all(old.get(name) is not None for name in gone)
        changed = {name: value for name, value in named.items() if name not in stamp}
        assert all(value != old.get(name) for name, value in changed.items())
        assert base == "none" or sum(old.get(name) is None for name in changed) <= 8
        stamped = [name for name in stamp if name in named]
        assert list(named)[: len(stamped)] == stamped, "the server finds the version first"


def test_equal_new_rows_have_their_own_versions_and_times_to_live(client: Client) -> None:
    keys = [f"few:{uuid.uuid4().hex}" for _ in range(4)]
    store = RowStore(client, {"few": FEW})
    rows = [
        RowVersion(key, "few", FEW.pack([n, *range(11)]), 1, 1, rev, ttl_ms)
        for n, (key, rev, ttl_ms) in enumerate(zip(keys, (1, 1, 2, 2), (9000, 9000, 9000, None), strict=True))
    ]
    assert set(store.write(rows)) == {WriteOutcome.LANDED}
    found = [held(client, key) for key in keys]
    assert [(one["f0"], one["f1"], one["rev"]) for one in found] == [
        ("0", "0", "1"),
        ("1", "0", "1"),
        ("2", "0", "2"),
        ("3", "0", "2"),
    ]
    lives: list[Any] = [client.pttl(key) for key in keys]
    assert all(8000 < ttl_ms <= 9000 for ttl_ms in lives[:3])
    assert lives[3] == -1


def test_known_rows_send_only_changes_and_share_commands() -> None:
    with EmbeddedValkey() as valkey:
        one = connect(valkey.url, timeout=TIMEOUT)
        store = RowStore(one, LAYOUTS)
        sent = []
        for rev in (1, 2):
            before: Any = one.info("stats")
            values = [[*range(n, n + 99), rev * n] for n in range(1000)]
            rows = [RowVersion(f"r{n}", "wide", WIDE.pack(of), 1, 1, rev) for n, of in enumerate(values)]
            assert set(store.write(rows)) == {WriteOutcome.LANDED}
            after: Any = one.info("stats")
            sent.append(after["total_net_input_bytes"] - before["total_net_input_bytes"])
        asked: Any = one.info("commandstats")
        assert asked["cmdstat_evalsha"]["calls"] <= 80, "of 2,000 rows, and a pipeline without the script"
        assert sent[1] < sent[0] / 3
        one.close()


def test_a_key_of_another_type_among_many_leaves_no_row_half_written(client: Client, store: RowStore) -> None:
    tag = uuid.uuid4().hex
    keys = [f"{tag}:{n}" for n in range(5)]
    client.set(keys[3], "text")
    with pytest.raises(ConnectError, match="WRONGTYPE"):
        store.write([row(key, (1, 1, 1), 7) for key in keys])
    for key in keys[:3] + keys[4:]:
        assert held(client, key).get("5m.impressions", "7") == "7"
        assert "rev" in held(client, key) or not held(client, key)


def test_the_next_write_reports_an_emptied_or_re_marked_store(client: Client, key: str) -> None:
    store, other = RowStore(client, LAYOUTS), RowStore(client, LAYOUTS)
    store.watch(f"mark:{key}", 7)
    for rev in (1, 2):
        assert store.write([row(key, (1, 7, rev))]) == [WriteOutcome.LANDED]
    client.flushall()
    for rev in (3, 4):  # until it watches again
        with pytest.raises(Emptied):
            store.write([row(key, (1, 7, rev))])
    store.watch(f"mark:{key}", 7)
    assert store.write([row(key, (1, 7, 5))]) == [WriteOutcome.LANDED]
    assert store.newest_run(f"mark:{key}") == 7
    other.watch(f"mark:{key}", 8)
    with pytest.raises(Emptied):
        store.write([row(key, (1, 7, 6))])
    assert other.write([row(key, (1, 8, 1))]) == [WriteOutcome.LANDED], "and the other's mark stays"


def test_after_a_loss_positions_are_written_before_whole_rows(
    client: Client, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, positions = RowStore(client, LAYOUTS), f"{key}:positions"
    store.watch(f"mark:{key}", 7)
    store.write([row(key, (1, 7, 1))], first=row(positions, (1, 7, 1)), last=[row(f"{key}:meta", (1, 7, 1))])
    monkeypatch.setattr(store, "_add_to_index", lambda _: client.flushall())
    with pytest.raises(Emptied):  # a writer that ends here leaves no row that no positions cover
        store.write([row(key, (1, 7, 2))], first=row(positions, (1, 7, 2)))
    assert not client.exists(key)
    monkeypatch.undo()
    store.watch(f"mark:{key}", 7)
    assert store.write([row(key, (1, 7, 2))]) == [WriteOutcome.LANDED]


@pytest.mark.parametrize("client", SINGLE, indirect=True)
def test_no_new_row_lands_in_a_store_emptied_during_the_write(
    client: Client, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, positions = RowStore(client, LAYOUTS), f"{key}:positions"
    rows = [row(f"{key}:{number}", (1, 7, 1)) for number in range(200)]
    store.watch(f"mark:{key}", 7)
    asked = connector.replies

    def emptied(client: Client, commands: Any) -> list[Any]:
        if len([one for _, one in commands if one[0] == "EVALSHA"]) < 2:
            return asked(client, commands)
        first, *rest = commands
        told = asked(client, [first, (first[0], ("FLUSHALL",)), *rest])
        return [told[0], *told[2:]]

    with monkeypatch.context() as patched:
        patched.setattr(connector, "replies", emptied)
        with pytest.raises(Emptied):
            store.write(rows, first=row(positions, (1, 7, 1)))
    assert client.keys(f"*{key}*") == [], "a row of which no positions tell what it covers"
    store.watch(f"mark:{key}", 7)
    assert set(store.write(rows, first=row(positions, (1, 7, 1)))) == {WriteOutcome.LANDED}


@pytest.mark.parametrize("client", SINGLE, indirect=True)
@pytest.mark.parametrize("claimed", [False, True])
def test_a_dead_writers_rows_do_not_land_late(
    client: Client, store: RowStore, key: str, monkeypatch: pytest.MonkeyPatch, claimed: bool
) -> None:
    positions, late = f"{key}:positions", list[Any]()
    asked = connector.replies

    def delayed(client: Client, commands: Any) -> list[Any]:
        if any(one[0] == "EVALSHA" and key in one for _, one in commands):
            late.extend(commands)
            raise RedisUnavailable("timeout", "no answer")
        return asked(client, commands)

    with monkeypatch.context() as patched:
        patched.setattr(connector, "replies", delayed)
        with pytest.raises(RedisUnavailable):
            store.write([row(key, (1, 1, 5))], first=row(positions, (1, 1, 5)))
    if claimed:
        store.claim(positions, 1, 2)
    else:
        client.delete(positions)
    told = asked(client, late)
    assert told[0] == ["superseded" if claimed else "uncovered"]
    assert not client.exists(key)


def test_a_superseded_writer_does_not_report_an_emptied_store(
    client: Client, store: RowStore, key: str
) -> None:
    positions = f"{key}:positions"
    store.watch(f"mark:{key}", 1)
    store.write([], first=row(positions, (1, 1, 1)))
    newer = RowStore(client, LAYOUTS)
    newer.claim(positions, 1, 2)
    newer.watch(f"mark:{key}", 2)
    with pytest.raises(Superseded):
        store.write([row(key, (1, 1, 2))], first=row(positions, (1, 1, 2)))
    assert newer.write([row(key, (1, 2, 1))], first=row(positions, (1, 2, 1))) == [WriteOutcome.LANDED]


def test_an_unanswered_pipeline_is_not_a_loss(
    client: Client, store: RowStore, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.watch(f"mark:{key}", 1)
    asked = connector.replies

    def unanswered(made: bool) -> Any:
        def replies(client: Client, commands: Any) -> list[Any]:
            asked(client, commands if made else [])
            raise RedisUnavailable("timeout", "no answer")

        return replies

    for made in (True, False, True):
        with monkeypatch.context() as patched:
            patched.setattr(connector, "replies", unanswered(made))
            with pytest.raises(RedisUnavailable):
                store.write([row(key, (1, 1, 1))])
    assert store.write([row(key, (1, 1, 2))]) == [WriteOutcome.LANDED]


def test_a_key_of_another_type_is_refused_not_retried(client: Client, store: RowStore, key: str) -> None:
    client.set(key, "text")
    with pytest.raises(ConnectError, match="WRONGTYPE") as caught:
        store.write([row(key, (1, 1, 1))])
    assert not isinstance(caught.value, RedisUnavailable)


def test_the_key_of_another_type_is_named_also_among_many(client: Client, store: RowStore, key: str) -> None:
    keys = [f"{key}:{n}" for n in range(3)]
    client.set(keys[1], "text")
    client.set(f"{key}:number", "text")
    for refused, call in {
        keys[1]: lambda: store.write([row(one, (1, 1, 1)) for one in keys]),
        f"{key}:number": lambda: store.take_fence(f"{key}:number"),
    }.items():
        with pytest.raises(ConnectError, match=f"^Redis refuses '{re.escape(refused)}' "):
            call()


@pytest.mark.parametrize("mark", ["text", "7", "7-", "-7", "7-x", "٧-1"])
def test_a_mark_of_another_program_is_of_no_run(client: Client, store: RowStore, key: str, mark: str) -> None:
    for one in mark_keys(client, key):
        client.set(one, mark)
    assert store.newest_run(key) == 0
    client.set(one, "7-3")
    assert store.newest_run(key) == 7


def test_one_refused_command_among_many_is_an_error_in_its_place(
    client: Client, store: RowStore, key: str
) -> None:
    keys = [f"{key}:\u00e9{n}" for n in range(3)]
    store.write([row(one, (1, 1, 1), n) for n, one in enumerate(keys)])
    client.delete(keys[1])
    client.set(keys[1], "text")
    fields = ["5m.impressions", "absent", "station"]
    for _ in range(2):
        answers = replies(client, [(one, ("HMGET", one, *fields)) for one in keys], alike=True)
        assert isinstance(answers.pop(1), ResponseError)
        assert answers == [["0", None, "radio \u00e9"], ["2", None, "radio \u00e9"]]
    with pytest.raises(ConnectError, match="WRONGTYPE"):
        read_rows(client, keys, fields)


@pytest.mark.parametrize(
    "reason",
    sorted(REASONS - {"connection", "timeout", "auth", "moving"}),
)
def test_a_temporary_error_has_the_servers_own_code(client: Client, key: str, reason: str) -> None:
    with pytest.raises(RedisUnavailable) as caught, failures(client):
        client.eval(f"return redis.error_reply('{reason.upper()} not now')", 1, key)
    assert caught.value.reason == reason


def test_a_layout_of_3000_fields_works(client: Client, key: str) -> None:
    layout = FencedHash([f"f{i}" for i in range(3_000)])
    store = RowStore(client, {"huge": layout})
    assert store.write([RowVersion(key, "huge", layout.pack(list(range(3_000))), 1, 1, 1)]) == [
        WriteOutcome.LANDED
    ]
    assert len(held(client, key)) == 3_004


@pytest.mark.parametrize("fields", [["a", "a"], ["rev"], ["a'"], [""], [f"f{i}" for i in range(3_001)]])
def test_a_layout_that_could_not_be_written_is_refused(fields: list[str]) -> None:
    with pytest.raises(ValueError, match="not a layout"):
        FencedHash(fields)


def test_hash_fields_and_their_times_to_live_are_read_across_slots(
    client: Client,
) -> None:
    """More than one chunk of them, several fields a hash, and other fields left alone."""
    hashes = {f"h:{{{n}}}": {f"f{n % 3}": f"{n}", "é|{}\r\n": "\x00"} for n in range(700)}
    client.hset("h:{7}", "own", "kept")
    put_fields(client, hashes, timedelta(seconds=1000))
    for key, fields in hashes.items():
        assert client.hgetall(key) == fields | ({"own": "kept"} if key == "h:{7}" else {})
        assert 900 < client.ttl(key) <= 1000
    shared = [
        ([f"s:{{{n}}}", f"t:{{{n}}}"][: 1 + n % 2], f"f{n % 5}", b"\xc3\xa9 %d" % n) for n in range(700)
    ]
    put_shared(client, [*shared, (["s:{0}", "s:{1}"], b"f0", "later")], timedelta(seconds=1000))
    for keys, name, value in shared:
        for key in keys:
            wanted = {name: value.decode()} | ({"f0": "later"} if key in ("s:{0}", "s:{1}") else {})
            assert client.hgetall(key) == wanted
            assert 900 < client.ttl(key) <= 1000
    put_fields(client, {"forever": {"a": "1"}})
    assert client.ttl("forever") == -1


def test_a_round_trip_has_a_bounded_size(
    client: Client, store: RowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout is for a round trip: a round trip that grew with the backlog of an outage would always time
    out.
    """
    trips, told = list[int](), replies

    def counted(client: Client, commands: Sequence[Command], **more: Any) -> list[Any]:
        trips.append(sum(len(command) for _, command in commands))
        return told(client, commands, **more)

    for module in (reading, connector):
        monkeypatch.setattr(module, "replies", counted)
    put_shared(client, [([f"a:{{{n}}}", f"b:{{{n}}}"], "f", "1") for n in range(5_000)])
    assert sum(client.exists(f"{of}:{{{n}}}") for of in "ab" for n in (0, 4_999)) == 4
    index = f"index:{uuid.uuid4().hex}"
    store.write([row(f"r:{{{n}}}", (1, 1, 1), index_key=index, member=f"{n}") for n in range(5_000)])
    assert client.zcard(index) == 5_000
    # On a cluster eight words of each key, and eleven of a row.
    assert 500 < max(trips) < 500 * 17


def test_a_thousand_hashes_cost_few_commands() -> None:
    """On one server: each command costs the client three times as much as the server."""
    with EmbeddedValkey() as valkey:
        one = connect(valkey.url, timeout=TIMEOUT)
        put_fields(one, {f"h{n}": {"a": "1"} for n in range(1000)}, timedelta(seconds=9))
        asked: Any = one.info("commandstats")
        assert asked["cmdstat_eval"]["calls"] == 2
        one.close()
