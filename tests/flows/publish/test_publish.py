"""The publisher by itself: the indexes and who leaves them, and rows that are paced."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import Client, RedisUnavailable, connect
from connectors.redis.commands import eviction_policies
from flows.delivery.pacer import Pacer
from flows.delivery.pacing import Thresholds
from flows.delivery.plan_files import parse_plans
from flows.delivery.plan_source import open_plans
from flows.model.decisions import DecisionRecord
from flows.model.fields import FIELDS, empty
from flows.model.messages import CREDITS_SHARD, LEDGER_SHARD, Delivered, Flush, PackedRow
from flows.model.ticks import Cut
from flows.publish import backlog, decided
from flows.publish.layout import LAYOUTS
from flows.publish.publisher import Publisher
from flows.publish.redis_writer import LONGEST_PAUSE_S, TRIM_EVERY_S
from flows.settings.fields import Settings, ms
from flows.settings.loading import load

NOW_S = 1_764_000_000.0
SINCE_MS = 1_735_000_000_000
"""Before the plan's flight begins."""
DAY_S = 86_400
PLAN = "placement_id,booked,start,end,campaign_id\nquiet,1000,2025-01-01T00:00Z,2026-01-01T00:00Z,autumn\n"
BOOKED = parse_plans(PLAN.encode(), Path("plans.csv"))[0]["quiet"]


@dataclass
class Desk:
    """A publisher of one execution, whose clocks are turned by hand."""

    settings: Settings
    client: Client
    now_s: float = NOW_S
    elapsed_s: float = 0.0
    number: int = 0

    def __post_init__(self) -> None:
        file, known = open_plans(self.settings), self.settings
        assert file is not None
        pacer = Pacer(file, Thresholds(known.under, known.over, known.delivery_grace))
        self.publisher = Publisher(
            known, ["log"], False, pacer=pacer, clock_s=lambda: self.now_s, monotonic_s=lambda: self.elapsed_s
        )
        self.publisher.open()

    def flush(
        self,
        *names: str,
        scope: str = "placement",
        last_event_s: float = 0.0,
        impressions: int = 0,
        sketches: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Some rows, with their last event so long before now."""
        self.number += 1
        latest_ms = int((self.now_s - last_event_s) * 1000)
        values = empty(latest_ms)
        values[FIELDS.index("flight.impressions")] = impressions
        packed = LAYOUTS["row"].pack(values)
        counted = Delivered(*BOOKED.minutes, impressions)
        some = [PackedRow(scope, name, latest_ms, packed, counted) for name in names]
        at_ms = int(self.now_s * 1000)
        cut = Cut(self.number, at_ms, False, (("log", self.number),), counted_since_ms=SINCE_MS)
        self.publisher.flush(cut, [Flush(0, cut, some, sketches=sketches)])

    def erases(self, *found: tuple[int, str, int], denied: int | None = 0) -> None:
        """A cut at which people are forgotten."""
        self.number += 1
        cut = Cut(self.number, int(self.now_s * 1000), False, (("log", self.number),), denied=denied)
        self.publisher.flush(cut, [Flush(0, cut), Flush(CREDITS_SHARD, cut, erased=found)])

    def passes(self, seconds: float) -> None:
        """Time passes, by both clocks."""
        self.now_s += seconds
        self.elapsed_s += seconds

    def index(self, scope: str = "placement") -> set[str]:
        """Who is in the index."""
        key = f"{self.settings.namespace}:index:{scope}"
        return {str(name) for name in self.client.zrange(key, 0, -1)}

    def row(self, scope: str, name: str) -> dict[str, str]:
        """The fields of a row that must not expire, as a reader gets them."""
        key = f"{self.settings.namespace}:{scope}:{{{name}}}"
        assert self.client.pttl(key) == -1
        found: dict[str, str] = self.client.hgetall(key)
        return found

    def expire(self, name: str) -> None:
        """Expire a row as its TTL would by now."""
        key = f"{self.settings.namespace}:placement:{{{name}}}"
        assert 0 < self.client.pttl(key) <= ms(self.settings.row_ttl)
        self.client.delete(key)


@pytest.fixture
def desk(settings_of: Callable[..., Settings], client: Client, tmp_path: Path) -> Iterator[Desk]:
    plans = tmp_path / "plans.csv"
    plans.write_text(PLAN)
    desk = Desk(settings_of(plans=plans), client)
    yield desk
    desk.publisher.close()


def test_only_expired_unplanned_rows_leave_the_index(desk: Desk) -> None:
    desk.flush("expired", "there", "again")
    assert desk.index() == {"expired", "there", "again", "quiet"}
    desk.passes(3 * DAY_S)
    desk.expire("expired")
    desk.expire("again")
    desk.flush("again")
    assert desk.index() == {"there", "again", "quiet"}
    assert desk.index("campaign") == {"autumn"}


def test_the_indexes_are_looked_at_once_an_hour(desk: Desk) -> None:
    desk.flush("a", "b", last_event_s=3 * DAY_S)
    for name, before, after in (("a", {"a", "b"}, {"b"}), ("b", {"b"}, set())):
        desk.expire(name)
        desk.passes(TRIM_EVERY_S - 1)
        desk.flush()
        assert desk.index() == {"quiet", *before}
        desk.passes(1)
        desk.flush()
        assert desk.index() == {"quiet", *after}


def test_a_failed_trim_of_the_index_stops_no_flush(desk: Desk) -> None:
    desk.client.set(f"{desk.settings.namespace}:index:station", "no index")
    desk.passes(TRIM_EVERY_S)
    desk.flush("a")
    desk.flush("b")
    assert desk.index() == {"a", "b", "quiet"}


def test_an_unplanned_placement_does_not_unpace_its_campaign(desk: Desk) -> None:
    desk.flush()
    before = desk.row("campaign", "autumn")
    desk.flush("autumn", scope="campaign", impressions=7)
    after = desk.row("campaign", "autumn")
    assert (before["flight.impressions"], after["flight.impressions"]) == ("0", "7")
    assert after["delivery.state"] == before["delivery.state"] == "under"


def test_a_sketch_lives_as_long_as_its_row(desk: Desk, tmp_path: Path) -> None:
    def lives() -> dict[str, bool]:
        """For each placement, whether its row and its sketch have no time to live."""
        found = {}
        for name in ("quiet", "loose"):
            keys = [f"{desk.settings.namespace}:{kind}:{{{name}}}" for kind in ("placement", "sketch")]
            assert desk.client.hget(keys[1], "registers") == name
            row, sketch = (desk.client.pttl(key) == -1 for key in keys)
            assert row == sketch
            found[name] = row
        return found

    own = [("quiet", "quiet"), ("loose", "loose")]
    desk.flush("quiet", "loose", sketches=own)
    assert lives() == {"quiet": True, "loose": False}
    desk.flush(sketches=own)
    assert lives() == {"quiet": True, "loose": False}
    for planned in ("loose", "quiet"):
        (tmp_path / "plans.csv").write_text(PLAN.replace("quiet", planned))
        for _ in range(2):  # a file that has just changed may still be written
            desk.passes(60)
            desk.flush()
        assert lives() == {"quiet": planned == "quiet", "loose": planned == "loose"}


def test_planned_rows_survive_a_failed_first_flush(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any) -> Any:
        raise RedisUnavailable("connection", "gone for a moment")

    with monkeypatch.context() as patched:
        patched.setattr("flows.publish.redis_writer.read_rows", down)
        desk.flush("quiet", impressions=7)
    desk.passes(60)
    desk.flush()
    assert desk.row("placement", "quiet")["flight.impressions"] == "7"


def test_planned_rows_keep_their_numbers_while_a_resumed_flow_catches_up(desk: Desk) -> None:
    for _ in range(3):
        desk.flush("quiet", impressions=7)
    again = Desk(desk.settings, desk.client)
    again.flush("quiet", impressions=7)  # every row is given out at the first cut, behind what readers have
    again.flush()
    assert desk.row("placement", "quiet")["fence"] == "1"
    again.flush()
    row = desk.row("placement", "quiet")
    assert (row["fence"], row["flight.impressions"]) == ("2", "7")
    again.publisher.close()


@pytest.mark.parametrize("jump_s", [-DAY_S, 0, DAY_S], ids=["back", "right", "forward"])
def test_pauses_and_periods_are_not_the_wall_clocks(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    def down(*_: Any, **__: Any) -> Any:
        asked.append(desk.elapsed_s)
        raise RedisUnavailable("connection", "gone for a moment")

    asked: list[float] = []
    desk.flush("a", "b", last_event_s=6 * DAY_S)
    desk.expire("b")
    with monkeypatch.context() as patched:
        patched.setattr("connectors.redis.RowStore.write", down)
        for seconds in (0.0, 0.09, 0.02):
            desk.passes(seconds)
            desk.flush("a")
            desk.now_s += jump_s / 3
    assert asked == pytest.approx([0.0, 0.11])
    desk.passes(LONGEST_PAUSE_S)
    desk.flush("a", impressions=7, last_event_s=3 * DAY_S)
    assert desk.index() == {"a", "b", "quiet"}, "nobody leaves before the hour"
    desk.passes(TRIM_EVERY_S)
    desk.flush()
    assert desk.index() == {"a", "quiet"}


@given(
    st.lists(st.lists(st.tuples(st.floats(0, 1e13), st.integers(1, 1000)), max_size=30), max_size=60),
)
def test_an_outage_of_redis_loses_no_pixel_in_bounded_memory(
    flushes: list[list[tuple[float, int]]],
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(backlog, "MAX_ARRIVALS", 16)
        kept: list[tuple[float, int]] = []
        for some in flushes:
            kept = backlog.bounded(kept + some)
            assert len(kept) <= 16
    came = [one for some in flushes for one in some]
    assert sum(pixels for _, pixels in kept) == sum(pixels for _, pixels in came)
    assert sum(at * pixels for at, pixels in kept) == pytest.approx(sum(at * pixels for at, pixels in came))


def test_a_day_without_redis_leaves_bounded_memory(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any, **__: Any) -> Any:
        raise RedisUnavailable("connection", "gone for a day")

    monkeypatch.setattr("connectors.redis.RowStore.write", down)
    for number in range(2, 1000):
        cut = Cut(number, 0, False, (("log", number),))
        flush = Flush(LEDGER_SHARD, cut, arrivals=[(float(number), 10)] * 40)
        desk.publisher.flush(cut, [flush])
    assert len(desk.publisher.backlog.arrivals) <= backlog.MAX_ARRIVALS
    assert sum(pixels for _, pixels in desk.publisher.backlog.arrivals) == 998 * 400


def test_an_outage_keeps_the_newest_decisions_and_counts_the_lost(
    desk: Desk, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def decide(number: int) -> None:
        told = [
            DecisionRecord(b"%d-%d" % (number, n), [f"o{number}-{n}", f"e{number}-{n}"], b"{}")
            for n in range(5)
        ]
        cut = Cut(number, 0, False, (("log", number),))
        desk.publisher.flush(cut, [Flush(CREDITS_SHARD, cut, decisions=told)])

    def down(*_: Any, **__: Any) -> Any:
        raise RedisUnavailable("connection", "gone")

    monkeypatch.setattr(backlog, "MAX_DECISIONS", 20)
    with monkeypatch.context() as outage:
        outage.setattr(decided, "put_shared", down)
        for number in range(1, 100):
            decide(number)
            assert len(desk.publisher.backlog.decisions) <= 25
    desk.passes(LONGEST_PAUSE_S)
    decide(100)
    assert "decisions_left_out=480" in "".join(capsys.readouterr())
    found = {key.partition("{")[2][:-1] for key in client.keys(f"{desk.settings.namespace}:conversion:*")}
    assert found == {f"{kind}{number}-{n}" for kind in "oe" for number in range(97, 101) for n in range(5)}


@pytest.mark.parametrize(("policy", "warns"), [("allkeys-lru", True), ("volatile-ttl", False)])
def test_an_evicting_redis_is_reported_at_the_start(
    policy: str, warns: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedValkey({"maxmemory-policy": policy}) as server:
        publisher = Publisher(load(redis_url=server.url, recovery_dir=None), ["log"], False)
        publisher.open()
        publisher.close()
    assert (f"maxmemory_policy={policy}" in "".join(capsys.readouterr())) == warns


def test_a_redis_with_an_unreadable_policy_is_accepted(client: Client, valkey: EmbeddedValkey) -> None:
    client.acl_setuser(  # type: ignore[union-attr]  # a single node
        "modest",
        enabled=True,
        passwords=["+secret"],
        keys=["*"],
        channels=["*"],
        commands=["+@all", "-config"],
    )
    modest = connect(f"redis://modest:secret@127.0.0.1:{valkey.port}/0")
    assert eviction_policies(modest) == set()
    assert eviction_policies(client) == {"noeviction"}
    modest.close()


KEY = 0xFF00FF00FF00FF00


def test_erasure_findings_are_published_with_their_cut(desk: Desk, client: Client) -> None:
    desk.erases((KEY, "touches", 2), (KEY, "touches", 3), (KEY, "household_touches", 1), (7, "touches", 0))
    told = {
        name: json.loads(text) for name, text in client.hgetall(f"{desk.settings.namespace}:erased").items()
    }
    at_ms = int(desk.now_s * 1000)
    account = {"cut": "cut-1", "at_ms": at_ms}
    assert told == {
        f"{KEY:016x}": account | {"found": {"touches": 5, "household_touches": 1}},
        f"{7:016x}": account | {"found": {"touches": 0}},
        "cut-1": {"at_ms": at_ms, "watermark_ms": at_ms, "positions": {"log": 1}},
    }
    desk.passes(1)
    desk.erases((KEY, "touches", 0))
    again = json.loads(client.hget(f"{desk.settings.namespace}:erased", f"{KEY:016x}") or "")
    assert again == told[f"{KEY:016x}"], "who begins anew finds nothing, and the first account stays"


def test_an_account_waits_for_an_absent_redis(
    desk: Desk, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RedisUnavailable("connection", "the connection is lost")

    key = f"{desk.settings.namespace}:erased"
    with monkeypatch.context() as away:
        away.setattr("flows.publish.redis_writer.put_accounts", fails)
        desk.erases((KEY, "touches", 4))
    assert client.hgetall(key) == {}
    desk.passes(LONGEST_PAUSE_S)
    desk.flush()
    assert json.loads(client.hget(key, f"{KEY:016x}") or "")["found"] == {"touches": 4}


@pytest.mark.parametrize(("denied", "said"), [(0, "0" * 16), (KEY, "ff00ff00ff00ff00"), (None, None)])
def test_meta_contains_common_denials_and_the_listener_key(
    desk: Desk, client: Client, denied: int | None, said: str | None
) -> None:
    desk.publisher.listener_key = "0123"
    desk.erases(denied=denied)
    meta = client.hgetall(f"{desk.settings.namespace}:meta")
    assert (meta.get("forgotten_sum"), meta["listener_key"]) == (said, "0123")
