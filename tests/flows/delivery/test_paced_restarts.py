"""A restart of the writer: what readers know of a planned placement's campaign stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from test_paced_rows import (
    AT_MS,
    PLAN,
    ROWS,
    SINCE_MS,
    Held,
    Writer,
    delivery,
    flushed,
    row,
    rows,
    show_before,
    shown,
)

from connectors.redis.client import Client, RedisUnavailable
from flows.model.messages import Flush
from flows.model.plan import Plan, PlanBook
from flows.model.ticks import Cut
from flows.publish import redis_writer
from flows.settings.fields import Settings

BY_LABEL = replace(PLAN, campaign_id=None)
"""A plan whose campaign its pixels name."""


@pytest.mark.parametrize("plan", [PLAN, BY_LABEL])
def test_a_campaign_keeps_its_delivery_while_time_waits_after_a_restart(
    settings_of: Callable[..., Settings], client: Client, plan: object
) -> None:
    settings, plans = settings_of(), Held(PlanBook([plan]))  # type: ignore[list-item]  # both are plans
    show_before(settings, plans)

    after = Writer(settings, plans)
    waits = Cut(
        5,
        AT_MS + 60_000,
        False,
        (("t/0", 11),),
        held_by="c-1",
        held_since_ms=AT_MS,
        counted_since_ms=SINCE_MS,
    )
    after.publisher.flush(waits, rows(201))
    for scope, name in (("placement", "p"), ("campaign", "c")):
        assert shown(client, settings, scope, name) == ("201", "under")
        assert client.pttl(f"{settings.namespace}:{scope}:{{{name}}}") == -1, "it never expires"
    after.publisher.close()


def test_an_ended_campaign_keeps_its_counts_after_a_restart(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, plans = settings_of(), Held(PlanBook([BY_LABEL]))
    before = Writer(settings, plans)
    before.flush(10, rows(200))
    ended = Flush(0, None, ended=[("campaign", "c")])  # type: ignore[arg-type]  # the writer is given the cut
    before.flush(11, [ended])
    assert shown(client, settings, "campaign", "c") == ("200", "under")
    before.publisher.close()

    after = Writer(settings, plans, number=5)
    after.flush(12, flushed(row("placement", "p", 200)))
    assert shown(client, settings, "campaign", "c") == ("200", "under")
    after.flush(13, rows(201))
    assert shown(client, settings, "campaign", "c") == ("201", "under")
    after.publisher.close()


def test_a_campaign_keeps_its_delivery_until_all_placements_are_planned_again(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, other = settings_of(), replace(PLAN, placement_id="q")
    moved = replace(other, end_ms=other.end_ms + 3_600_000)
    seen = flushed(row("placement", "p", 200), row("placement", "q", 200), row("campaign", "c", 400))
    before = Writer(settings, Held(PlanBook([PLAN, other])))
    before.flush(10, seen)
    booked = f"{settings.namespace}:campaign:{{c}}", "delivery.booked"
    assert client.hget(*booked) == "2000"
    before.publisher.close()

    for plans in ([PLAN, moved], [replace(PLAN, end_ms=moved.end_ms), moved]):
        after = Writer(settings, Held(PlanBook(plans)), number=5)
        after.flush(11, seen)
        assert client.hget(*booked) == "2000"
        by_now = [row("placement", plan.placement_id, 200, plan) for plan in plans]
        after.flush(12, flushed(*by_now, row("campaign", "c", 400)))
        assert client.hget(*booked) == "2000"
        assert client.hget(booked[0], "delivery.end_ms") == str(moved.end_ms)
        after.publisher.close()


@pytest.mark.parametrize("seen", [True, False], ids=["heard of", "without a pixel"])
@pytest.mark.parametrize("scope", ["placement", "campaign"])
def test_a_plan_withdrawn_offline_leaves_its_rows_at_the_start(
    settings_of: Callable[..., Settings], client: Client, seen: bool, scope: str
) -> None:
    """The rule includes rows that no shard has and that no other writer would write again."""
    settings, name = settings_of(), {"placement": "p", "campaign": "c"}[scope]
    before = Writer(settings, Held(PlanBook([PLAN])))
    before.flush(10, rows(200) if seen else flushed())
    count = "200" if seen else "0"
    assert shown(client, settings, scope, name) == (count, "under")
    before.publisher.close()

    plans = Held(PlanBook(), ready=False)
    after = Writer(settings, plans, number=5)
    after.flush(11, flushed())
    assert shown(client, settings, scope, name) == (count, "under"), "nobody has read the plans yet"
    plans.ready = True
    after.flush(12, flushed())
    assert shown(client, settings, scope, name) == (count, None)
    assert delivery(client, settings, scope, name) == {}
    assert client.ttl(f"{settings.namespace}:{scope}:{{{name}}}") > 0
    after.publisher.close()


@pytest.mark.parametrize("plan", [PLAN, None], ids=["still there", "withdrawn"])
def test_rows_keep_their_delivery_until_the_plans_are_read(
    settings_of: Callable[..., Settings], client: Client, plan: Plan | None
) -> None:
    settings = settings_of()
    before = Writer(settings, Held(PlanBook([PLAN])))
    before.flush(10, rows(200))
    since = [delivery(client, settings, *one)["since_ms"] for one in ROWS]
    before.publisher.close()

    plans = Held(ready=False)
    after = Writer(settings, plans, number=5)
    after.flush(11, rows(201, None))
    after.flush(12, rows(202, None))
    for scope, name in ROWS:
        assert shown(client, settings, scope, name) == ("202", "under")
        assert client.pttl(f"{settings.namespace}:{scope}:{{{name}}}") == -1, "it never expires"
    plans.book, plans.ready = PlanBook([plan] if plan else []), True
    after.flush(13, rows(203, plan))
    state = plan and "under"
    assert [shown(client, settings, *one) for one in ROWS] == [("203", state)] * 2
    if plan:
        assert [delivery(client, settings, *one)["since_ms"] for one in ROWS] == since
    assert client.xlen(f"{settings.namespace}:alerts") == 1, "nothing is told again"
    after.publisher.close()


def test_a_campaign_without_plans_at_a_start_loses_its_delivery(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    before = Writer(settings, Held(PlanBook([PLAN])))
    before.flush(10, flushed())
    assert delivery(client, settings, "campaign", "c")["booked"] == "1000"
    before.publisher.close()

    after = Writer(settings, Held(PlanBook([replace(PLAN, campaign_id="d")])), number=5)
    after.flush(11, flushed())
    assert delivery(client, settings, "campaign", "c") == {}
    assert delivery(client, settings, "campaign", "d")["booked"] == "1000"
    assert delivery(client, settings, "placement", "p")["state"] == "under"
    assert client.xlen(f"{settings.namespace}:alerts") == 1, "nothing is told again"
    after.publisher.close()


def test_an_ended_campaign_loses_its_delivery_with_its_plan(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, plans = settings_of(), Held(PlanBook([BY_LABEL]))
    before = Writer(settings, plans)
    before.flush(10, rows(200))
    before.flush(11, [Flush(0, None, ended=[("campaign", "c")])])  # type: ignore[arg-type]  # as above
    before.publisher.close()

    after = Writer(settings, plans, number=5)
    after.flush(12, flushed(row("placement", "p", 200)))
    plans.book = PlanBook()
    after.flush(13, flushed())
    assert shown(client, settings, "campaign", "c") == ("200", None)
    after.publisher.close()


@pytest.mark.parametrize("read", ["read_rows", "scan_index"])
def test_no_row_is_published_before_earlier_deliveries_are_read(
    settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    settings, plans, elapsed_s = settings_of(), Held(PlanBook([PLAN])), 0.0
    show_before(settings, plans)
    after = Writer(settings, plans)
    after.publisher.monotonic_s = lambda: elapsed_s

    def hang(*_: object) -> None:
        raise RedisUnavailable("timeout", "it hangs")

    with monkeypatch.context() as hanging:
        hanging.setattr(redis_writer, read, hang)
        after.flush(11, rows(201))
    assert shown(client, settings, "placement", "p") == ("200", "under")
    assert client.hget(f"{settings.namespace}:placement:{{p}}", "delivery.delivered") == "200"
    elapsed_s += 0.1
    after.flush(12, rows(202))
    assert shown(client, settings, "placement", "p") == ("202", "under")
    assert client.hget(f"{settings.namespace}:placement:{{p}}", "delivery.delivered") == "202"
    after.publisher.close()


def test_the_end_of_a_log_waits_until_earlier_deliveries_are_read(
    settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, plans, failures = settings_of(), Held(PlanBook([PLAN])), [1, 2, 3]
    read = redis_writer.read_rows

    def hang(*of: Any) -> Any:
        if "delivery.state" in of[-1] and failures:
            failures.pop()
            raise RedisUnavailable("timeout", "it hangs")
        return read(*of)

    writer = Writer(settings, plans)
    monkeypatch.setattr(redis_writer, "read_rows", hang)
    writer.publisher.flush(Cut(10, AT_MS, True, (("t/0", 10),), counted_since_ms=SINCE_MS), rows(200))
    assert not failures
    assert shown(client, settings, "placement", "p") == ("200", "under")
    writer.publisher.close()
