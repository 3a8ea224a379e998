"""The Redis writer applies plans: rows keep their counts, and withdrawn plans leave nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from connectors.kafka import Record
from connectors.redis.client import Client
from flows.delivery.opening import Counting
from flows.delivery.pacer import CAMPAIGN_AT, Pacer
from flows.delivery.pacing import Thresholds
from flows.exports.notices import alert
from flows.model.fields import FIELDS, empty
from flows.model.messages import Delivered, Flush, PackedRow
from flows.model.plan import Plan, PlanBook
from flows.model.ticks import Cut
from flows.publish.publisher import Publisher
from flows.settings.fields import Settings

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
AT_MS = 2_000_000_000_000 // 60_000 * 60_000
SINCE_MS = AT_MS - 12 * HOUR_MS
"""Everything since then was counted."""
PLAN = Plan("p", 1000, AT_MS - 2 * HOUR_MS, AT_MS + 2 * HOUR_MS, campaign_id="c")
ROWS = (("placement", "p"), ("campaign", "c"))
FLIGHT = Thresholds(0.9, 1.1, timedelta(minutes=15))


@dataclass
class Held:
    """Plans as a test sets them."""

    book: PlanBook = field(default_factory=PlanBook)
    ready: bool = True

    def refresh(self, now_ms: int) -> list[object]:
        return []


def row(
    scope: str, name: str, impressions: int, by: Plan | None = PLAN, delivered: int | None = None
) -> PackedRow:
    """A row of so many impressions, that counts by a plan."""
    values = empty(AT_MS)
    values[FIELDS.index("flight.impressions")] = impressions
    values[CAMPAIGN_AT] = "c" if scope == "placement" else None
    counted = None
    if by is not None and scope == "placement":
        counted = Delivered(*by.minutes, impressions if delivered is None else delivered)
    return PackedRow(scope, name, AT_MS, msgspec.msgpack.encode(values), counted)


def flushed(*some: PackedRow) -> list[Flush]:
    return [Flush(0, None, some), Flush(1, None)]  # type: ignore[arg-type]  # the writer is given the cut


def rows(impressions: int, by: Plan | None = PLAN, delivered: int | None = None) -> list[Flush]:
    return flushed(row("placement", "p", impressions, by, delivered), row("campaign", "c", impressions))


@dataclass
class Writer:
    """An execution of the writer; each flush is a minute after the one before."""

    settings: Settings
    plans: Held
    number: int = 0
    recompute: bool = False
    since_ms: int = SINCE_MS

    def __post_init__(self) -> None:
        pacer, resumed = Pacer(self.plans, FLIGHT), not self.recompute
        self.publisher = Publisher(self.settings, ["t/0"], resumed, self.recompute, pacer)
        self.publisher.open()

    def flush(
        self, position: int, flushes: list[Flush], watermark_ms: int | None = None, empty: bool = False
    ) -> None:
        self.number += 1
        if watermark_ms is None:
            watermark_ms = AT_MS + self.number * 60_000
        since_ms = 0 if empty else self.since_ms
        at = (("t/0", position),)
        cut = Cut(self.number, watermark_ms, False, at, empty=empty, counted_since_ms=since_ms)
        self.publisher.flush(cut, flushes)


def show_before(settings: Settings, plans: Held | None = None) -> Writer:
    """An execution that has shown 200 impressions, and has ended."""
    before = Writer(settings, plans or Held(PlanBook([PLAN])))
    before.flush(10, rows(200))
    before.publisher.close()
    return before


def sent_alerts(client: Client, settings: Settings) -> list[tuple[str, str, str]]:
    """The alerts, as (placement, from, to)."""
    alerts = client.xrange(f"{settings.namespace}:alerts")
    return [(alert["placement"], alert["from"], alert["to"]) for _, alert in alerts]


def delivery(client: Client, settings: Settings, scope: str, name: str) -> dict[str, str]:
    """The delivery fields of a row, without their prefix."""
    found = client.hgetall(f"{settings.namespace}:{scope}:{{{name}}}")
    return {
        field.removeprefix("delivery."): text for field, text in found.items() if field.startswith("delivery")
    }


def version(client: Client, settings: Settings, scope: str, name: str) -> tuple[str | None, str | None]:
    """The execution that wrote a row, and the watermark of its numbers."""
    found = client.hgetall(f"{settings.namespace}:{scope}:{{{name}}}")
    return found.get("fence"), found.get("as_of_ms")


def shown(client: Client, settings: Settings, scope: str, name: str) -> tuple[str | None, str | None]:
    found = client.hgetall(f"{settings.namespace}:{scope}:{{{name}}}")
    return found.get("flight.impressions"), found.get("delivery.state")


def test_a_replayed_row_keeps_published_counts_when_paced(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    before = Writer(settings, Held(PlanBook([PLAN])))
    before.flush(10, rows(200))
    assert shown(client, settings, "placement", "p") == ("200", "under")
    before.publisher.close()

    after = Writer(settings, Held(PlanBook([PLAN])))
    after.flush(5, rows(200))  # still behind: nothing is published
    after.flush(11, [])
    assert shown(client, settings, "placement", "p") == ("200", "under")
    assert shown(client, settings, "campaign", "c") == ("200", "under")
    after.publisher.close()


def test_an_alert_names_the_advertiser_of_its_plan(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([replaced(advertiser="acme")])))
    writer.flush(10, rows(200))
    ((_, told),) = client.xrange(f"{settings.namespace}:alerts")
    assert (told["placement"], told["advertiser"]) == ("p", "acme")
    writer.publisher.close()


def test_an_alert_contains_its_methodology(settings_of: Callable[..., Settings], client: Client) -> None:
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([PLAN])))
    writer.publisher.methodology = lambda methods: "of " + str(len(methods))
    writer.flush(10, rows(200))
    ((_, told),) = client.xrange(f"{settings.namespace}:alerts")
    assert told["methodology"] == client.hget(f"{settings.namespace}:meta", "methodology") == "of 0"
    data = alert(Record("alerts", 0, 0, 0, b"", msgspec.json.encode(told))).data
    assert data["methodology"] == "of 0"
    writer.publisher.close()


def test_plans_are_checked_also_after_the_wall_clock_is_set_back(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    looks: list[int] = []

    class Looked(Held):
        def refresh(self, now_ms: int) -> list[object]:
            looks.append(now_ms)
            return []

    wall_s, elapsed_s = AT_MS / 1000, 50.0
    writer = Writer(settings_of(), Looked(PlanBook([PLAN])))
    writer.publisher.clock_s, writer.publisher.monotonic_s = lambda: wall_s, lambda: elapsed_s
    for position in range(3):
        writer.flush(position, [])
        wall_s, elapsed_s = wall_s - 3600, elapsed_s + 1
    assert looks == [50_000, 51_000, 52_000]
    writer.publisher.close()


def test_rows_of_a_withdrawn_plan_lose_it_and_expire_again(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, plans = settings_of(), Held(PlanBook([PLAN]))
    writer = Writer(settings, plans)
    writer.flush(10, rows(200))
    key = f"{settings.namespace}:placement:{{p}}"
    assert (shown(client, settings, "placement", "p"), client.ttl(key)) == (("200", "under"), -1)
    plans.book = PlanBook()
    writer.flush(11, [])
    assert shown(client, settings, "placement", "p") == ("200", None)
    assert shown(client, settings, "campaign", "c") == ("200", None)
    assert client.ttl(key) > 0
    writer.publisher.close()


def test_a_returned_plan_is_paced_by_its_rows_later_counts(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, plans = settings_of(), Held(PlanBook([PLAN]))
    writer = Writer(settings, plans)
    writer.flush(10, rows(200))
    plans.book = PlanBook()
    writer.flush(11, rows(400, None))
    plans.book = PlanBook([PLAN])
    writer.flush(12, [])
    assert shown(client, settings, "placement", "p") == ("400", None), "its row counts by no plan yet"
    writer.flush(13, rows(600))
    assert delivery(client, settings, "placement", "p")["delivered"] == "600"
    writer.publisher.close()


def test_a_plan_later_than_the_flow_repeats_no_alert(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    show_before(settings)
    plans = Held(ready=False)
    after = Writer(settings, plans)
    after.flush(10, [])
    plans.book, plans.ready = PlanBook([PLAN]), True
    after.flush(11, rows(200))
    assert shown(client, settings, "placement", "p") == ("200", "under")
    assert client.xlen(f"{settings.namespace}:alerts") == 1
    after.publisher.close()


def replaced(**by: Any) -> Plan:
    return replace(PLAN, **by)


ENDED = replaced(booked=100, end_ms=AT_MS - 10 * MINUTE_MS)


def test_pixels_after_the_flights_end_deliver_and_cost_nothing(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    priced = replace(ENDED, cpm_micros=10_000_000, currency="GBP")
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([priced])))
    writer.flush(10, rows(90, priced))
    writer.flush(11, rows(110, priced, delivered=90))
    for scope, name in (("placement", "p"), ("campaign", "c")):
        found = delivery(client, settings, scope, name)
        assert (found["booked"], found["delivered"], found["indicator"]) == ("100", "90", "0.9"), scope
        assert (found["projected"], found["state"]) == ("90", "ended_short"), scope
        assert shown(client, settings, scope, name)[0] == "110"
    assert sent_alerts(client, settings) == [("p", "not_started", "ended_short")]
    writer.publisher.close()


@pytest.mark.parametrize("pacer_first", [True, False], ids=["the pacer", "the row shard"])
def test_a_replaced_plan_gives_no_alert(
    pacer_first: bool, settings_of: Callable[..., Settings], client: Client
) -> None:
    """The old flight is over and complete. The new one starts later and has no pixel yet."""
    new = replaced(booked=100, start_ms=AT_MS - 10 * MINUTE_MS, end_ms=AT_MS + 2 * HOUR_MS)
    settings, plans = settings_of(), Held(PlanBook([ENDED]))
    writer = Writer(settings, plans)
    writer.flush(10, rows(100, ENDED))
    assert sent_alerts(client, settings) == [("p", "not_started", "complete")]
    before = {scope: delivery(client, settings, scope, name) for scope, name in ROWS}

    if pacer_first:
        plans.book = PlanBook([new])
        writer.flush(11, flushed())
        writer.flush(12, rows(101, ENDED, delivered=100))
    else:
        writer.flush(11, rows(1, new))
        writer.flush(12, flushed())
    for scope, name in ROWS:
        assert delivery(client, settings, scope, name) == before[scope], scope
        assert shown(client, settings, scope, name)[0] == ("101" if pacer_first else "1")
        assert client.ttl(f"{settings.namespace}:{scope}:{{{name}}}") == -1

    plans.book = PlanBook([new])
    writer.flush(13, rows(1, new) if pacer_first else flushed())
    found = delivery(client, settings, "placement", "p")
    assert (found["delivered"], found["state"]) == ("1", "warming_up")
    assert sent_alerts(client, settings)[1:] == [("p", "complete", "warming_up")]
    writer.publisher.close()


def test_a_row_is_not_paced_by_counts_before_its_plan(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([PLAN])))
    writer.flush(10, rows(2000, None))
    assert shown(client, settings, "placement", "p") == ("2000", None)
    writer.flush(11, rows(10))
    assert shown(client, settings, "placement", "p") == ("10", "under")
    assert sent_alerts(client, settings) == [("p", "not_started", "under")]
    writer.publisher.close()


def test_a_moved_flight_delays_no_other_and_a_booking_none(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, plans = settings_of(), Held()
    other = replaced(placement_id="q", campaign_id="d")
    plans.book = PlanBook([PLAN, other])
    writer = Writer(settings, plans)
    writer.flush(10, flushed(row("placement", "p", 480), row("placement", "q", 480)))
    assert delivery(client, settings, "placement", "p")["state"] == "at_risk"
    plans.book = PlanBook([replaced(end_ms=AT_MS + 9 * HOUR_MS), replace(other, booked=480)])
    writer.flush(11, flushed())
    assert delivery(client, settings, "placement", "p")["state"] == "at_risk"
    assert delivery(client, settings, "placement", "q")["state"] == "complete"
    writer.publisher.close()


def test_a_held_row_keeps_its_delivery_until_its_plan_is_withdrawn(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    before = Writer(settings, Held(PlanBook([PLAN])))
    before.flush(10, rows(200))
    told_before = delivery(client, settings, "placement", "p")
    before.publisher.close()

    plans = Held(PlanBook([replaced(start_ms=AT_MS)]))
    after = Writer(settings, plans)
    after.flush(5, rows(200))  # behind
    after.flush(10, flushed())
    assert delivery(client, settings, "placement", "p") == told_before
    assert len(sent_alerts(client, settings)) == 1
    plans.book = PlanBook()
    after.flush(11, flushed())
    assert delivery(client, settings, "placement", "p") == {}
    assert shown(client, settings, "placement", "p")[0] == "200"
    after.publisher.close()


def test_nothing_is_paced_by_the_wall_clock_before_the_first_watermark(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    """The plan is of the years before: by the wall clock it has long ended."""
    past = replaced(start_ms=AT_MS - 40_000 * HOUR_MS, end_ms=AT_MS - 39_000 * HOUR_MS)
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([past])))
    writer.publisher.clock_s = lambda: AT_MS / 1000
    writer.flush(1, rows(1, past), watermark_ms=0)
    assert (delivery(client, settings, "placement", "p"), sent_alerts(client, settings)) == ({}, [])
    writer.flush(2, rows(2, past), watermark_ms=past.start_ms - HOUR_MS)
    assert delivery(client, settings, "placement", "p")["state"] == "not_started"
    writer.flush(3, rows(3, past), watermark_ms=0)  # a partition that is new and has much to read
    assert delivery(client, settings, "placement", "p")["state"] == "not_started"
    assert sent_alerts(client, settings) == []
    writer.publisher.close()


def test_the_wall_clock_is_used_without_any_pixel(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([PLAN])))
    writer.publisher.clock_s = lambda: AT_MS / 1000
    writer.flush(0, flushed(), watermark_ms=0, empty=True)
    before = delivery(client, settings, "placement", "p")
    assert before["state"] == "unknown_before", "of two hours before anybody looked (specification 11.1)"
    writer.flush(1, rows(1), watermark_ms=0)  # its pixel is no more than a candidate for the time
    assert delivery(client, settings, "placement", "p") == before
    writer.flush(2, rows(1), watermark_ms=AT_MS)
    assert delivery(client, settings, "placement", "p")["delivered"] == "1"
    writer.publisher.close()


def test_planned_rows_are_written_at_a_start_before_any_watermark(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    """A Redis restored from an older copy showed its old rows until the first watermark."""
    settings = settings_of()
    before = Writer(settings, Held(PlanBook([PLAN])))
    before.flush(10, flushed(), 0, empty=True)
    then = {of: delivery(client, settings, *of) for of in ROWS}
    as_of = {of: version(client, settings, *of)[1] for of in ROWS}
    before.publisher.close()

    after = Writer(settings, Held(PlanBook([PLAN])), number=before.number)
    after.flush(10, flushed(), 0)
    assert {of: version(client, settings, *of) for of in ROWS} == {of: ("2", as_of[of]) for of in ROWS}
    assert {of: delivery(client, settings, *of) for of in ROWS} == then
    after.flush(10, flushed(), 0)  # once
    keys = [f"{settings.namespace}:{scope}:{{{name}}}" for scope, name in ROWS]
    assert {client.hget(key, "rev") for key in keys} == {"2"}


def test_a_new_generation_starts_without_earlier_deliveries(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    """A row's delivery always belongs to the counts of the same row."""
    settings = settings_of()
    before = show_before(settings)
    after = Writer(settings, Held(PlanBook([PLAN])), number=before.number, recompute=True)
    after.flush(0, flushed(), 0)
    for scope, name in ROWS:
        found = client.hgetall(f"{settings.namespace}:{scope}:{{{name}}}")
        assert (found["generation"], found["flight.impressions"], found["delivery.delivered"]) == (
            "1",
            "200",
            "200",
        )
    after.publisher.close()


def test_a_campaign_without_placements_loses_its_delivery_at_once(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, plans = settings_of(), Held(PlanBook([PLAN]))
    writer = Writer(settings, plans)
    writer.flush(10, rows(200))
    assert delivery(client, settings, "campaign", "c")["delivered"] == "200"
    plans.book = PlanBook([replaced(campaign_id="d")])
    writer.flush(11, flushed())
    assert delivery(client, settings, "campaign", "c") == {}
    assert client.ttl(f"{settings.namespace}:campaign:{{c}}") > 0
    assert delivery(client, settings, "campaign", "d")["delivered"] == "200"
    writer.publisher.close()


def test_an_ended_unplanned_campaign_has_no_row_of_zeros(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, plan = settings_of(), replaced(campaign_id=None)
    writer = Writer(settings, Held(PlanBook([plan])))
    writer.flush(1, flushed(row("placement", "p", 500, plan)))
    assert delivery(client, settings, "placement", "p") != {}
    assert client.hgetall(f"{settings.namespace}:campaign:{{c}}") == {}
    writer.flush(2, flushed(row("campaign", "c", 700)))
    assert shown(client, settings, "campaign", "c")[0] == "700"
    assert delivery(client, settings, "campaign", "c")["delivered"] == "500"
    writer.publisher.close()


def test_a_row_contains_its_end_cost_and_shortfall(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([replaced(cpm_micros=12_500_000, currency="GBP")])))
    writer.flush(10, rows(200), watermark_ms=AT_MS)
    for scope, name in ROWS:
        found = delivery(client, settings, scope, name)
        assert (found["expected"], found["short_by"], found["remaining_seconds"]) == ("500", "300", "7200")
        assert (found["start_ms"], found["end_ms"]) == (str(PLAN.start_ms), str(PLAN.end_ms))
        assert (found.get("cpm"), found["currency"]) == ("12.5" if scope == "placement" else None, "GBP")
        assert (found["at_stake"], found["at_stake_end"], found.get("blocked_at_stake")) == (
            "3.75",
            "10",
            None,
        )
        assert client.hget(f"{settings.namespace}:{scope}:{{{name}}}", "flight.cost") == "2.5"
    (alert_of,) = (fields for _, fields in client.xrange(f"{settings.namespace}:alerts"))
    assert (alert_of["at_stake"], alert_of["at_stake_end"], alert_of["currency"]) == ("3.75", "10", "GBP")
    writer.publisher.close()


def test_the_next_execution_keeps_a_states_begin(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()

    def since() -> list[str]:
        return [delivery(client, settings, scope, name)["since_ms"] for scope, name in ROWS]

    before = Writer(settings, Held(PlanBook([PLAN])))
    before.flush(10, rows(200), watermark_ms=AT_MS)
    before.flush(11, rows(201), watermark_ms=AT_MS + MINUTE_MS)
    assert since() == [str(AT_MS)] * 2
    before.publisher.close()
    after = Writer(settings, Held(PlanBook([PLAN])))
    after.flush(11, rows(201), watermark_ms=AT_MS + 2 * MINUTE_MS)
    assert since() == [str(AT_MS)] * 2
    after.flush(12, rows(1000), watermark_ms=AT_MS + 3 * MINUTE_MS)
    assert since() == [str(AT_MS + 3 * MINUTE_MS)] * 2
    assert delivery(client, settings, "campaign", "c")["state"] == "complete"
    after.publisher.close()


class Compared(str):
    """A campaign that counts how often one is looked at."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        Compared.times += 1
        return str.__hash__(self)


def test_a_turning_minute_visits_each_placement_once() -> None:
    looks = []
    for count in (100, 400):
        plans = [replace(PLAN, placement_id=f"p{n}", campaign_id=None) for n in range(count)]
        pacer = Pacer(Held(PlanBook(plans)), FLIGHT)
        images = {("placement", f"p{n}"): empty(AT_MS) for n in range(count)}
        for n in range(count):
            images["placement", f"p{n}"][CAMPAIGN_AT] = Compared(f"c{n}")
            images["campaign", f"c{n}"] = empty(AT_MS)
            pacer.counted[f"p{n}"] = Delivered(*PLAN.minutes, 5)
        Compared.times = 0
        assert len(pacer.pace(images, images.keys(), AT_MS, Counting(SINCE_MS), True).rows) == 2 * count
        looks.append(Compared.times)
    assert looks[1] <= 5 * looks[0]


def test_a_row_keeps_its_plans_change_over_a_restart(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    plans = Held(PlanBook([PLAN]))
    writer = Writer(settings, plans)
    writer.flush(10, rows(200), watermark_ms=AT_MS)
    assert "plan_changed_ms" not in delivery(client, settings, "placement", "p")
    plans.book = PlanBook([replaced(booked=1_200)])
    writer.flush(11, rows(200), watermark_ms=AT_MS + 5_000)
    writer.publisher.close()
    for later, booked in ((12, 1_200), (13, 900)):
        plans = Held(PlanBook([replaced(booked=booked)]))
        again = Writer(settings, plans)
        again.flush(later, rows(200), watermark_ms=AT_MS + 5_000 * later)
        again.publisher.close()
        found = delivery(client, settings, "placement", "p")
        moved = (AT_MS + 5_000, "1000") if later == 12 else (AT_MS + 65_000, "1200")
        assert (int(found["plan_changed_ms"]), found["booked_before"]) == moved
    assert "plan_changed_ms" not in delivery(client, settings, "campaign", "c")


def test_a_pending_state_is_saved_without_redis(settings_of: Callable[..., Settings], client: Client) -> None:
    """At 200 of 500 due; then its rows are gone, and another execution has what the save has."""
    settings = settings_of()
    plans = Held(PlanBook([replaced(start_ms=AT_MS - HOUR_MS, end_ms=AT_MS + 3 * HOUR_MS)]))
    book = plans.book["p"]
    writer = Writer(settings, plans)
    writer.flush(10, rows(250, book), watermark_ms=AT_MS)
    assert delivery(client, settings, "placement", "p")["state"] != "under"
    for minute in (1, 2, 3):
        writer.flush(10 + minute, rows(200, book), watermark_ms=AT_MS + minute * MINUTE_MS)
    assert writer.publisher.pacer is not None
    saved = writer.publisher.pacer.saved
    memories = [one[:6] for one in saved]  # the seventh is the moment at which the state began
    assert ("placement", "p", "on_track", "under", AT_MS + MINUTE_MS, AT_MS + 3 * MINUTE_MS) in memories or (
        "placement", "p", "at_risk", "under", AT_MS + MINUTE_MS, AT_MS + 3 * MINUTE_MS,
    ) in memories  # fmt: skip
    writer.publisher.close()
    client.flushdb()
    after = Writer(settings, plans)
    assert after.publisher.pacer is not None
    after.publisher.pacer.restore(saved)
    after.flush(15, rows(200, book), watermark_ms=AT_MS + 5 * MINUTE_MS)
    assert delivery(client, settings, "placement", "p")["state"] != "under"
    after.flush(16, rows(200, book), watermark_ms=AT_MS + 6 * MINUTE_MS)
    assert delivery(client, settings, "placement", "p")["state"] == "under"
    after.publisher.close()
