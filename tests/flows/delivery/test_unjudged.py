"""Rows that are not judged while their feed is silent: numbers go on, the state stays, alerts wait."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from test_paced_alerts import telling
from test_paced_rows import AT_MS, PLAN, Held, Writer, delivery, flushed, row, rows

from connectors.redis.client import Client
from flows.instruments import instruments
from flows.model.messages import Flush, SilentShare, SilentUnit
from flows.model.plan import PlanBook
from flows.settings.fields import Settings

SINCE_MS = AT_MS - 90_000
BEHIND = 480
"""Impressions of `PLAN` where 500 are due: `at_risk`, and `under` twenty minutes later."""
MINUTE_MS = 60_000
LATER_MS = AT_MS + 20 * MINUTE_MS
PRICED = replace(PLAN, cpm_micros=10_000_000, currency="GBP")


def unit(
    name: str = "platform:acast", since_ms: int = SINCE_MS, share: float = 0.8, since: float = 0.0
) -> SilentUnit:
    part = SilentShare("p", share * 500, 500.0, before=10.0, since=since)
    return SilentUnit(name, since_ms, 90_000, 60_000, share * 500, [part])


def silent(of: list[Flush], *units: SilentUnit) -> list[Flush]:
    """Flushes with the ledger's word on the silent units."""
    return [*of, Flush(-1, None, silent=units)]  # type: ignore[arg-type]  # the writer is given the cut


def why(client: Client, settings: Settings, scope: str = "placement", name: str = "p") -> list[str | None]:
    found = delivery(client, settings, scope, name)
    return [found.get(of) for of in ("judged", "unjudged_reason", "unjudged_since_ms", "unjudged_by")]


NOT_JUDGED = ["0", "feed_silent", str(SINCE_MS), "platform:acast"]
JUDGED = ["1", None, None, None]


def state(client: Client, settings: Settings, scope: str = "placement", name: str = "p") -> str | None:
    return delivery(client, settings, scope, name).get("state")


def feed_entries(client: Client, settings: Settings) -> list[dict[str, str]]:
    return [one for _, one in client.xrange(f"{settings.namespace}:alerts") if one.get("kind") == "feed"]


def test_a_row_of_a_silent_feed_keeps_its_state_without_alerts(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    writer, topic = telling(settings, PlanBook([PLAN]))
    topic.write = lambda items: None  # type: ignore[method-assign]  # its entries are the stream's
    writer.flush(10, rows(BEHIND))
    assert why(client, settings) == why(client, settings, "campaign", "c") == JUDGED
    writer.flush(11, silent(rows(BEHIND), unit()))
    assert why(client, settings) == why(client, settings, "campaign", "c") == NOT_JUDGED
    before = delivery(client, settings, "placement", "p")
    writer.flush(12, silent(rows(BEHIND + 1), unit()), LATER_MS)
    found = delivery(client, settings, "placement", "p")
    assert float(found["indicator"]) < 0.9
    assert found["delivered"] == str(BEHIND + 1)
    assert (found["state"], found["since_ms"]) == ("at_risk", before["since_ms"])
    assert state(client, settings, "campaign", "c") == "at_risk"
    deliveries = [one for _, one in client.xrange(f"{settings.namespace}:alerts") if "placement" in one]
    assert [one["to"] for one in deliveries] == ["at_risk"]

    writer.flush(13, silent([]), LATER_MS)  # within the minute, and no row has changed
    assert why(client, settings) == why(client, settings, "campaign", "c") == JUDGED
    assert state(client, settings) == "at_risk", "what it is now must hold first"
    writer.flush(14, rows(BEHIND + 1), LATER_MS + 6 * MINUTE_MS)
    assert state(client, settings) == state(client, settings, "campaign", "c") == "under"
    assert client.xrevrange(f"{settings.namespace}:alerts", count=1)[0][1]["to"] in ("under", "live")
    writer.publisher.close()


def test_a_restart_keeps_the_state_of_an_unjudged_row(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, plans = settings_of(), Held(PlanBook([PLAN]))
    before = Writer(settings, plans)
    before.flush(10, silent(rows(BEHIND), unit()))
    before.flush(11, silent(rows(BEHIND), unit()))
    before.publisher.close()
    after = Writer(settings, plans, before.number)
    after.flush(12, silent(rows(BEHIND), unit()), LATER_MS)
    assert why(client, settings) == NOT_JUDGED
    assert state(client, settings) == "at_risk"
    assert [one["to"] for one in feed_entries(client, settings)] == ["silent"], "it was told before"
    after.flush(13, silent(rows(BEHIND)), LATER_MS + 1)
    after.flush(14, rows(BEHIND), LATER_MS + 6 * MINUTE_MS)
    assert state(client, settings) == "under"
    assert [one["to"] for one in feed_entries(client, settings)] == ["silent", "live"]
    after.publisher.close()


def test_a_flight_ending_within_a_silence_is_reported(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([PLAN])))
    writer.flush(10, silent(rows(BEHIND), unit()))
    assert why(client, settings) == NOT_JUDGED
    writer.flush(11, rows(BEHIND), PLAN.end_ms)
    assert state(client, settings) == "ended_short"
    assert why(client, settings) == JUDGED
    meta = client.hgetall(f"{settings.namespace}:meta")
    assert "silent" not in meta, "it concerns nobody"
    writer.publisher.close()


@pytest.mark.parametrize(
    ("some", "named"),
    [
        ([unit(share=0.49)], True),
        ([unit(since=5.0)], True),
        ([unit("partition:t/0", share=0.3), unit("platform:acast", share=0.3)], True),
        ([], False),
    ],
    ids=["less than half was its", "it goes on by others", "half by two kinds", "none"],
)
def test_a_row_is_judged_if_the_silence_does_not_explain_it(
    settings_of: Callable[..., Settings], client: Client, some: list[SilentUnit], named: bool
) -> None:
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([PLAN])))
    writer.flush(10, silent(rows(BEHIND), *some))
    assert why(client, settings) == JUDGED
    assert ("silent" in client.hgetall(f"{settings.namespace}:meta")) is named
    writer.publisher.close()


def test_units_of_one_kind_count_together_and_the_largest_is_named(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, other = settings_of(), SINCE_MS - 5_000
    writer = Writer(settings, Held(PlanBook([PLAN])))
    writer.flush(10, silent(rows(BEHIND), unit("sender:a", other, 0.2), unit("sender:b", share=0.3)))
    assert why(client, settings) == ["0", "feed_silent", str(SINCE_MS), "sender:b"]
    writer.publisher.close()


def test_meta_lists_silent_units_and_their_cost(settings_of: Callable[..., Settings], client: Client) -> None:
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([PRICED])))
    writer.flush(10, silent(rows(BEHIND), unit()))
    meta = client.hgetall(f"{settings.namespace}:meta")
    # 10 a minute of which four fifths are its, at 10 a thousand.
    assert json.loads(meta["silent"]) == {
        "platform:acast": {"since_ms": SINCE_MS, "placements": 1, "money_per_hour": {"GBP": "4.80"}}
    }
    assert "silent_more" not in meta
    (sample,) = instruments().feed_silent_since.collect()[0].samples
    assert (sample.labels, sample.value) == ({"kind": "platform", "unit": "acast"}, SINCE_MS / 1000)
    (entry,) = feed_entries(client, settings)
    assert entry["id"] == f"feed|platform:acast|silent|{SINCE_MS}"
    assert (entry["unit"], entry["from"], entry["to"]) == ("platform:acast", "live", "silent")
    assert (entry["placements"], json.loads(entry["money_per_hour"])) == ("1", {"GBP": "4.80"})

    writer.flush(11, silent(rows(BEHIND)))
    assert "silent" not in client.hgetall(f"{settings.namespace}:meta")
    assert not instruments().feed_silent_since.collect()[0].samples
    ended = feed_entries(client, settings)[1]
    assert (ended["id"], ended["to"]) == (f"feed|platform:acast|live|{SINCE_MS}", "live")
    writer.publisher.close()


def test_the_fifty_most_expensive_silent_units_are_named(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    writer = Writer(settings, Held(PlanBook([PRICED])))
    poor = [SilentUnit(f"platform:{n}", SINCE_MS, 90_000, 60_000, 10.0 + n, ()) for n in range(60)]
    writer.flush(10, silent(rows(BEHIND), *poor, unit()))
    meta = client.hgetall(f"{settings.namespace}:meta")
    named = json.loads(meta["silent"])
    assert len(named) == 50
    assert [*named][:2] == ["platform:acast", "platform:59"]
    assert meta["silent_more"] == "11"
    assert len(feed_entries(client, settings)) == 50
    writer.publisher.close()


def test_ended_plans_lengthen_a_silences_limit_until_it_never_comes(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    over = replace(PLAN, placement_id="over", end_ms=AT_MS - 60_000)
    writer = Writer(settings, Held(PlanBook([PLAN, over])))
    some = flushed(row("placement", "p", BEHIND), row("placement", "over", 5, over))

    def both(gap_ms: int) -> SilentUnit:
        parts = [SilentShare("p", 50.0, 50.0, 10.0, 0.0), SilentShare("over", 150.0, 150.0, 10.0, 0.0)]
        return SilentUnit("platform:acast", SINCE_MS, gap_ms, 60_000, 200.0, parts)

    writer.flush(10, silent(some, both(239_000)))
    assert why(client, settings) == JUDGED
    writer.flush(11, silent(some, both(240_000)))
    assert why(client, settings) == NOT_JUDGED
    assert why(client, settings, name="over") == JUDGED
    assert published_units(client, settings) == {"platform:acast": 1}
    alone = SilentUnit("platform:acast", SINCE_MS, 10**9, 60_000, 150.0, [both(0).placements[1]])
    writer.flush(12, silent(some, alone))
    assert published_units(client, settings) == {}
    writer.publisher.close()


def published_units(client: Client, settings: Settings) -> dict[str, int]:
    text = client.hgetall(f"{settings.namespace}:meta").get("silent", "{}")
    return {unit: of["placements"] for unit, of in json.loads(text).items()}


def test_a_silent_unit_is_named_without_plans_and_old_meta_is_ignored(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    client.hset(f"{settings.namespace}:meta", "silent", '{"platform:acast": []}')
    writer = Writer(settings, Held(PlanBook([PLAN])))
    writer.publisher.pacer = None
    writer.flush(10, silent(rows(BEHIND), SilentUnit("partition:t/0", SINCE_MS, 61_000, 60_000, 0.0, ())))
    assert published_units(client, settings) == {"partition:t/0": 0}
    assert [one["unit"] for one in feed_entries(client, settings)] == ["partition:t/0"]
    writer.publisher.close()
