"""Names beyond a scope's cap count together. A flood of new rows delays no other row, and loses none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows_support import MINUTE, batch

from connectors.redis.client import Client
from connectors.redis.commands import read_rows, scan_index
from flows.cli.reconcile_settings import rules
from flows.model.dimensions import OTHER_NAME
from flows.model.fields import FIELDS, TIMES, empty, same_numbers
from flows.model.messages import LEDGER_SHARD, Delivered, Flush, PackedRow, PartitionAccount
from flows.model.ticks import Cut
from flows.publish import backlog
from flows.publish.layout import LAYOUTS
from flows.publish.ledger import COUNTS
from flows.publish.publisher import Publisher
from flows.reconcile import compare, recompute
from flows.replay import replay
from flows.rows.ended import RowName
from flows.rows.row_index import Limits, RowIndex
from flows.rows.row_shard import RowShard
from flows.rows.row_tables import ROW_MEMORY
from flows.settings.fields import Settings
from flows.settings.loading import load
from flows.state.saves import decode, encode

T0 = 1_790_000_000_000
BEGIN, HOUR = 29_000_000, 60
SUMMED = ("flight.impressions", "flight.pixels", "1h.impressions", "1d.starts", "flight.conversions")


def pixel(number: int, event: str, placement: int, at_ms: int, campaign: int) -> bytes:
    known = {
        "event_id": f"e{number}",
        "event": event,
        "ts": at_ms,
        "received_at": at_ms,
        "placement_id": f"p{placement}",
        "campaign_id": f"c{campaign}",
        "creative_id": f"k{campaign}",
        "play_id": f"p{number}",
        "listener_id": f"l{number}",
        "consent": True,
    }
    if event == "conversion":
        known["conversion"] = {"type": "sign_up"}
    return json.dumps(known).encode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """60 placements of 30 campaigns, each with the same; the last of them planned."""
    path, lines = tmp_path / "log.ndjson", []
    for number in range(600):
        event = ("impression", "start", "impression", "conversion")[number % 4 if number < 400 else 0]
        lines.append(pixel(number, event, number % 60, T0 + 1_000 * number, number % 30))
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_rows_and_other_add_up_to_the_log(
    log: Path, settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    plans = tmp_path / "plans.csv"
    plans.write_text(
        "placement_id,booked,start,end,campaign_id\n"
        "p59,1000,2026-01-01T00:00Z,2027-01-01T00:00Z,c29\np58,9,2026-01-01T00:00Z,2027-01-01T00:00Z,c28\n"
    )
    whole: dict[str, Counter[str]] = {}
    for cap in (10_000, 20):
        known = settings_of(row_cap=cap, shards=4, plans=plans, namespace=f"cap{cap}-{log.parent.name}")
        replay([str(log)], known, b"a key of sixteen bytes or more")
        space = known.namespace
        meta = client.hgetall(f"{space}:meta")
        for scope in ("placement", "campaign", "creative"):
            names = scan_index(client, f"{space}:index:{scope}")
            found = [client.hgetall(f"{space}:{scope}:{{{name}}}") for name in names]
            other = client.hgetall(f"{space}:{OTHER_NAME}:{{{scope}}}")
            sums = Counter(
                {field: sum(int(row.get(field, 0)) for row in (*found, other)) for field in SUMMED}
            )
            if cap > 20:
                assert other == {}
                assert meta["rows_beyond_cap"] == "0"
                whole[scope] = sums
                assert sums["flight.impressions"] > 300
                continue
            assert sums == whole[scope]
            assert len(names) <= 20 + 2
            assert {"p59", "p58"} <= set(names) or scope != "placement"
            assert {"c29", "c28"} <= set(names) or scope != "campaign"
            assert not {field for field in other if "reach" in field or "rate" in field}
        if cap == 20:
            assert 40 <= int(meta["rows_beyond_cap"]) <= 120


def test_names_with_rows_leave_an_earlier_executions_other(
    log: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    counted, beyond = [], []
    for cap in (20, 10_000):
        known = settings_of(row_cap=cap, shards=4, namespace=f"caps-{log.parent.name}")
        replay([str(log)], known, b"a key of sixteen bytes or more")
        names = scan_index(client, f"{known.namespace}:index:placement")
        rows = [client.hgetall(f"{known.namespace}:placement:{{{name}}}") for name in names]
        other = client.hgetall(f"{known.namespace}:{OTHER_NAME}:{{placement}}")
        beyond.append(int(other["flight.pixels"]))
        counted.append(beyond[-1] + sum(int(row["flight.pixels"]) for row in rows))
    assert beyond[0] > 100
    assert beyond[1] == 0
    assert counted[0] == counted[1]


NAMES = st.lists(st.integers(0, 30), min_size=1, max_size=80)


@given(NAMES, st.integers(1, 8), st.sets(st.integers(0, 30), max_size=3))
def test_rows_stay_until_their_end_and_plans_always_have_one(
    names: list[int], cap: int, planned: set[int]
) -> None:
    index = RowIndex(Limits(rows=cap))
    index.planned = frozenset(("station", f"{name}") for name in planned)
    had, beyond = set[RowName](), set[RowName]()
    for name in names:
        row = ("station", f"{name}")
        if row in index.numbers and name % 7 == 0:
            had.discard(row)
            assert index.leave(index.numbers[row]) == row
            continue
        number = index.numbers[row] if row in index.numbers else index.admit(row, 0)[0]
        if index.name(number) == row:
            had.add(row)
        else:
            beyond.add(row)
            assert index.name(number) == (OTHER_NAME, "station")
            assert row not in index.planned
            assert len(had) >= cap
        assert all(one in index.numbers for one in had)
        assert len(had - index.planned) <= cap
    assert index.beyond() == len(beyond)
    assert len(index.names) <= len({*names}) + 1


def test_the_cap_is_held_a_shard() -> None:
    assert Limits.of(load(row_cap=100, shards=8)).rows == 12
    assert Limits.of(load(row_cap=1, shards=8)).rows == 1


def test_unplanned_names_share_one_budget_over_all_scopes(
    log: Path, settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    plans = tmp_path / "plans.csv"
    plans.write_text(
        "placement_id,booked,start,end,campaign_id,creatives\n"
        "p59,1000,2026-01-01T00:00Z,2027-01-01T00:00Z,c29,k29\n"
        "p58,9,2026-01-01T00:00Z,2027-01-01T00:00Z,c28,k28;k27\n"
    )
    named = {("placement", "p59"), ("placement", "p58"), ("campaign", "c29"), ("campaign", "c28")}
    named |= {("creative", name) for name in ("k29", "k28", "k27")}
    budget = 12
    known = settings_of(unplanned_rows=budget, shards=4, plans=plans)
    replay([str(log)], known, b"a key of sixteen bytes or more")
    found, sums = set[RowName](), Counter[str]()
    for scope in ("placement", "campaign", "creative"):
        names = scan_index(client, f"{known.namespace}:index:{scope}")
        found |= {(scope, name) for name in names}
        rows = [client.hgetall(f"{known.namespace}:{scope}:{{{name}}}") for name in names]
        rows.append(client.hgetall(f"{known.namespace}:{OTHER_NAME}:{{{scope}}}"))
        sums[scope] = sum(int(row["flight.pixels"]) for row in rows)
    assert named <= found
    assert 0 < len(found - named) <= budget
    assert {*sums.values()} == {600}
    meta = client.hgetall(f"{known.namespace}:meta")
    assert int(meta["rows_beyond_cap"]) == 60 + 30 + 30 - len(found)
    assert compare(recompute([log], rules(known)), client, known.namespace).differences == []


def test_an_unplanned_name_waits_for_memory() -> None:
    limits = Limits(unplanned_bytes=2 * ROW_MEMORY)
    shard = RowShard(0, 1, MINUTE, MINUTE, lambda minute: minute // 1440, limits=limits)
    shard.have_plans([("placement", "planned")], [("station", "named")])
    shown = []
    for number, scope, name in (
        (0, "station", "first"),
        (1, "station", "second"),
        (1, "station", "named"),
        (1, "placement", "planned"),
    ):
        cut = Cut(number, BEGIN * MINUTE, False, ())
        listeners = 40 * ROW_MEMORY // 1_000 if name == "first" else 1
        shard.apply(cut, [batch(cut, [(BEGIN, who + 1) for who in range(listeners)], (scope, name))])
        shown.append((scope, name) in shard.row_index.numbers)
    assert shown == [True, False, True, True]
    assert shard.row_index.beyond() == 1


def test_the_budget_is_held_a_shard() -> None:
    limits = Limits.of(load(unplanned_rows=100, unplanned_bytes=1 << 23, shards=8))
    assert (limits.unplanned, limits.unplanned_bytes) == (12, 1 << 20)


# A flood


@pytest.fixture
def publisher(settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setattr(backlog, "NEW_ROWS_A_FLUSH", 10)
    publisher = Publisher(settings_of(), ["log"], False)
    publisher.open()
    yield publisher
    publisher.close()


def flush(publisher: Publisher, number: int, *names: str, ended: bool = False, publish: bool = True) -> None:
    values = empty(T0)
    values[FIELDS.index("flight.impressions")] = number
    packed = LAYOUTS["row"].pack(values)
    cut = Cut(number, T0, ended, (("log", number),), publish=publish)
    publisher.flush(cut, [Flush(0, cut, [PackedRow("placement", name, T0, packed) for name in names])])


def test_unchanged_rows_are_not_written_again(publisher: Publisher, client: Client) -> None:
    key = f"{publisher.settings.namespace}:placement:{{a}}"

    def flushed(number: int, impressions: int, label: str, ended: bool = False) -> tuple[str | None, ...]:
        known = {
            "as_of_ms": T0 + number,
            "final_through_ms": T0 - 1_000 + number,
            "reach_as_of_ms": T0 + number,
        }
        told: dict[str, int | str] = {**known, "campaign_id": label, "flight.impressions": impressions}
        values = [told.get(name, value) for name, value in zip(FIELDS, empty(T0), strict=True)]
        row = PackedRow("placement", "a", T0, LAYOUTS["row"].pack(values))
        cut = Cut(number, T0 + number, ended, (("log", number),))
        publisher.flush(cut, [Flush(0, cut, [row])])
        fields = ("rev", "as_of_ms", "flight.impressions", "campaign_id", "final_through_ms")
        return tuple(read_rows(client, [key])[0].get(field) for field in fields)

    def shown(number: int, impressions: int, label: str) -> tuple[str | None, ...]:
        return f"{number}", f"{T0 + number}", f"{impressions}", label, f"{T0 - 1_000 + number}"

    assert flushed(1, 5, "x") == shown(1, 5, "x")
    assert flushed(2, 5, "x") == shown(1, 5, "x")
    assert flushed(3, 6, "x") == shown(3, 6, "x")
    assert flushed(4, 6, "y") == shown(4, 6, "y")
    assert flushed(5, 6, "y", ended=True) == shown(5, 6, "y")


@given(st.integers(0, 1 << 45), st.integers(0, 1 << 45), st.text(max_size=40), st.text(max_size=40))
def test_only_rows_equal_except_times_are_equal(one: int, other: int, label: str, another: str) -> None:
    def packed(at_ms: int, campaign: str) -> bytes:
        values = empty(at_ms)
        for name in TIMES:
            values[FIELDS.index(name)] = at_ms
        values[FIELDS.index("campaign_id")] = campaign
        return LAYOUTS["row"].pack(values)

    told = same_numbers(packed(one, label), packed(other, another))
    assert not told or label == another
    assert told or label != another or min(one, other) < 1 << 32


def test_a_publisher_writes_the_cuts_that_readers_get(publisher: Publisher, client: Client) -> None:
    namespace, shown = publisher.settings.namespace, []
    keys = [f"{namespace}:placement:{{a}}", f"{namespace}:positions"]
    for number, publish in enumerate((False, True, False, False, True), 1):
        flush(publisher, number, *(["a"] if publish else []), publish=publish)
        shown.append(tuple(row.get("rev") for row in read_rows(client, keys)))
    assert shown == [(None, "-1"), ("2", "2"), ("2", "2"), ("2", "2"), ("5", "5")]


def test_the_final_writes_of_a_flow_are_of_one_cut(publisher: Publisher, client: Client) -> None:
    """By an error the flow ends at any cut; then what waited is written, by the last that readers get."""
    namespace = publisher.settings.namespace
    for number, publish in enumerate((True, False), 1):
        cut = Cut(number, T0, False, (("log", number),), publish=publish)
        account = PartitionAccount("log", dict.fromkeys(COUNTS, number), number, T0)
        publisher.flush(cut, [Flush(LEDGER_SHARD, cut, accounts=[account])])
    publisher.finish()
    held = read_rows(client, [f"{namespace}:partition:{{log}}", f"{namespace}:positions"])
    assert [row["rev"] for row in held] == ["1", "1"]
    assert held[0]["received"] == "1"


def test_a_flood_of_new_rows_delays_and_loses_no_known_row(publisher: Publisher, client: Client) -> None:
    def shown(name: str) -> str | None:
        key = f"{publisher.settings.namespace}:placement:{{{name}}}"
        return read_rows(client, [key])[0].get("flight.impressions")

    flood = [f"new-{n}" for n in range(35)]
    flush(publisher, 1, "known")
    for number, there in ((2, 10), (3, 20), (4, 30)):
        flush(publisher, number, *(flood if number == 2 else ()), "known", "new-34")
        assert shown("known") == str(number)
        assert sum(shown(name) is not None for name in flood) == there
        assert shown("new-34") is None
    flush(publisher, 5, "known")
    assert [shown(name) for name in flood] == ["2"] * 34 + ["4"]
    flush(publisher, 6, *(f"last-{n}" for n in range(35)), ended=True)
    assert all(shown(f"last-{n}") == "6" for n in range(35))


# Plans of names that had no row


PLACES = ("a", "b", "c", "d", "e")


@given(
    st.lists(
        st.tuples(
            st.sampled_from((0, 1, 5, HOUR, 4 * HOUR)),
            st.lists(st.tuples(st.sampled_from(PLACES), st.integers(-8, 0)), max_size=4),
            st.none() | st.tuples(st.sampled_from(PLACES), st.integers(-9 * HOUR, 30)),
            st.booleans(),
        ),
        min_size=3,
        max_size=30,
    )
)
def test_counts_in_other_are_never_missing_from_delivery(steps: Any) -> None:
    limits = Limits(stays=2 * HOUR, remembered=6 * HOUR, rows=2)

    def new() -> RowShard:
        return RowShard(0, 1, 10 * 60_000, 90_000, lambda minute: minute // 1440, limits=limits)

    shard, minute, heard, plans = new(), BEGIN, Counter[tuple[str, int]](), dict[str, int]()
    for number, (jump, pixels, plan, restart) in enumerate(steps, 1):
        if restart:
            state = decode(encode(shard.snapshot()))
            shard = new()
            shard.restore(state)
            planned(shard, plans)
        if plan is not None:
            plans[plan[0]] = max(BEGIN, minute + plan[1])
            planned(shard, plans)
        minute += jump
        here = [(name, max(BEGIN, shard.first_open, minute + at)) for name, at in pixels]
        heard.update(here)
        cut = Cut(number, minute * 60_000, False, ())
        of_name = [[at for name, at in here if name == one] for one in PLACES]
        batches = [
            batch(cut, [(at, 7) for at in minutes])._replace(rows=[("placement", one)])
            for one, minutes in zip(PLACES, of_name, strict=True)
            if minutes
        ]
        shard.apply(cut, [batch(cut, []), *batches])
        for name, start in plans.items():
            windows = shard.numbers_of(np.array([shard.row_index.numbers["placement", name]]))
            told = windows.delivered[0]
            assert told is not None
            whole = sum(count for (of, at), count in heard.items() if of == name and start <= at)
            assert told.impressions in (None, whole)
            if start > BEGIN and start >= minute and told.start == start:
                assert told.impressions == whole, "a flight that begins now is known"


def planned(shard: RowShard, plans: dict[str, int]) -> None:
    """As the shard's step tells it."""
    shard.row_index.planned = frozenset(("placement", name) for name in plans)
    for name, start in sorted(plans.items()):
        shard.plan(name, start, start + 10_000)


def test_a_plan_of_a_name_in_other_counts_from_its_own_row() -> None:
    shard = RowShard(0, 1, 600_000, 90_000, lambda minute: minute // 1440, limits=Limits(rows=1))
    cut = Cut(1, BEGIN * 60_000, False, ())
    first = batch(cut, [(BEGIN, 1)])._replace(rows=[("placement", "x")])
    second = batch(cut, [(BEGIN + 3, 2)])._replace(rows=[("placement", "late")])
    shard.apply(cut, [first, second])
    for start, delivered in ((BEGIN, None), (BEGIN + 3, None), (BEGIN + 4, 0), (BEGIN + 2, None)):
        planned(shard, {"late": start})
        row = shard.row_index.numbers["placement", "late"]
        windows = shard.numbers_of(np.array([row]))
        assert windows.delivered == [Delivered(start, start + 10_000, delivered)]


def test_other_does_not_wait_for_turning_minutes() -> None:
    """Shards have it together: parts of several minutes would be a sum of no moment."""
    shard = RowShard(0, 1, MINUTE, MINUTE, lambda minute: minute // 1440, limits=Limits(rows=1, turned=1))
    given = []
    for number, minute in enumerate((T0 // MINUTE, T0 // MINUTE + 7)):
        cut = Cut(number, minute * MINUTE, False, ())
        plays = [] if number else [batch(cut, [(minute, 1)], ("placement", name)) for name in "abc"]
        windows, _ = shard.apply(cut, plays)
        assert windows is not None
        given.append(windows.rows)
    both = [("placement", "a"), ("other", "placement")]
    assert given == [both, both]
