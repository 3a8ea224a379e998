"""A restart of the writer: what readers know of a planned placement's campaign stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from test_paced_rows import AT_MS, PLAN, Held, Writer, flushed, row, rows, shown

from connectors.redis.client import Client
from flows.model.messages import Flush
from flows.model.plan import PlanBook
from flows.model.ticks import Cut
from flows.settings.fields import Settings

BY_LABEL = replace(PLAN, campaign_id=None)
"""A plan whose campaign its pixels name."""


@pytest.mark.parametrize("plan", [PLAN, BY_LABEL])
def test_a_campaign_keeps_its_delivery_where_time_waits_behind_a_restart(
    settings_of: Callable[..., Settings], client: Client, plan: object
) -> None:
    settings, plans = settings_of(), Held(PlanBook([plan]))  # type: ignore[list-item]  # both are plans
    before = Writer(settings, plans)
    before.flush(10, rows(200))
    before.publisher.close()

    after = Writer(settings, plans)
    waits = Cut(5, AT_MS + 60_000, False, (("t/0", 11),), held_by="c-1", held_since_ms=AT_MS)
    after.publisher.flush(waits, rows(201))
    for scope, name in (("placement", "p"), ("campaign", "c")):
        assert shown(client, settings, scope, name) == ("201", "under")
        assert client.pttl(f"{settings.namespace}:{scope}:{{{name}}}") == -1, "it never expires"
    after.publisher.close()


def test_a_campaign_whose_row_has_ended_keeps_its_counts_behind_a_restart(
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


def test_a_campaign_keeps_its_delivery_until_each_of_its_placements_counts_by_its_plan_again(
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
