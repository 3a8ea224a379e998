"""Money at stake: by the plan's price, and for a campaign the sum over its placements."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from flows.delivery.pacing import Delivery, Thresholds, pace, pace_campaign
from flows.delivery.stake import Stake, alert_money, at_stake, stake_texts, stakes
from flows.model.fields import FIELDS, empty
from flows.model.flight import HOUR_MS
from flows.model.plan import Plan
from flows.reconcile.pacing import (
    Counts,
    Planned,
    RowFacts,
    campaign_figures,
    delivery_fields,
    placement_figures,
)
from flows.reconcile.pacing import Thresholds as Limits

START_MS = 1_700_000_040_000
NOW_MS, END_MS = START_MS + 12 * HOUR_MS, START_MS + 24 * HOUR_MS
PLAN = Plan("p", 10_000, START_MS, END_MS, cpm_micros=11_500_000, currency="GBP")
USUAL = Thresholds()


def row(blocked: int = 0) -> list[Any]:
    values = empty(NOW_MS)
    values[FIELDS.index("flight.blocked_impressions")] = blocked
    return values


def delivery(delivered: int, last_hour: int, plan: Plan = PLAN, now_ms: int = NOW_MS) -> Delivery:
    return pace(plan, delivered, last_hour, now_ms, USUAL)


def test_shortfalls_now_and_at_the_end_are_priced_by_the_plan() -> None:
    now = delivery(2_000, 10)
    assert (now.short_by, now.projected) == (3_000, pytest.approx(2_120, abs=5))
    of = at_stake(PLAN, now, row(blocked=912))
    assert of is not None
    assert now.projected is not None
    assert (of.currency, of.now, of.blocked) == ("GBP", 34.5, pytest.approx(10.488))
    assert of.at_end == pytest.approx((10_000 - now.projected) * 11.5 / 1000)
    assert stake_texts(of)[0] == "34.5"


def test_money_at_stake_is_0_ahead_and_absent_if_unknown() -> None:
    ahead = at_stake(PLAN, delivery(6_000, 500), row())
    assert ahead == Stake("GBP", 0.0, 0.0, None)
    young = at_stake(PLAN, delivery(0, 0, now_ms=START_MS), row())
    assert young == Stake("GBP", None, None, None)
    assert alert_money(young) == {}
    assert stake_texts(None) == [None, None, None]


def test_without_a_price_or_a_currency_there_is_no_money() -> None:
    for plan in (replace(PLAN, cpm_micros=None), replace(PLAN, currency=None)):
        assert at_stake(plan, delivery(2_000, 10), row(5)) is None


def test_a_campaign_sums_the_money_of_placements_with_any() -> None:
    parts = [Stake("GBP", 1.5, None, None), Stake("GBP", 0.0, 4.0, 2.0), Stake("GBP", None, None, None)]
    assert stakes(parts) == Stake("GBP", 1.5, 4.0, 2.0)
    assert stakes(parts[2:]) == Stake("GBP", None, None, None)


def test_money_of_two_currencies_is_no_sum_of_a_campaign() -> None:
    assert stakes([Stake("GBP", 1.0, 1.0, None), Stake("USD", 1.0, 1.0, None)]) is None
    assert stakes([]) is None


def test_an_alert_contains_the_money_at_stake_and_its_currency() -> None:
    assert alert_money(Stake("GBP", 34.5, 92.0, None)) == {
        "at_stake": "34.5",
        "at_stake_end": "92",
        "currency": "GBP",
    }


def test_the_oracle_finds_the_same_of_a_placement_and_a_campaign() -> None:
    ahead = replace(PLAN, placement_id="q", cpm_micros=4_000_000)
    own = [delivery(2_000, 10), delivery(6_000, 500, ahead)]
    money = [at_stake(PLAN, own[0], row(7)), at_stake(ahead, own[1], row())]
    ours = [stake_texts(one) for one in (*money, stakes([one for one in money if one is not None]))]
    short = [*own, pace_campaign(own, USUAL)]
    parts = []
    for plan, of, hits in zip((PLAN, ahead), own, (7, 0), strict=True):
        assert plan.cpm_micros is not None
        assert of.projected is not None
        price, told = Decimal(plan.cpm_micros) / 10**6, Fraction(str(round(of.projected, 6)))
        planned = Planned(START_MS, "GBP", end_ms=END_MS, booked=10_000, cpm=price)
        counts, windows = Counts(of.delivered, of.delivered), [(0, Fraction(0), Fraction(0))] * 4
        facts = RowFacts(told, hits)
        parts.append(placement_figures(planned, counts, NOW_MS, Limits(), windows, "GBP", facts=facts))
    for theirs, mine, whole in zip((*parts, campaign_figures(parts, Limits())), ours, short, strict=True):
        found = delivery_fields(theirs, ("5m", "1h", "1d", "flight"))
        assert float(found["delivery.short_by"]) == pytest.approx(whole.short_by)
        for name, amount in zip(("at_stake", "at_stake_end", "blocked_at_stake"), mine, strict=True):
            want = found[f"delivery.{name}"]
            if isinstance(want, tuple):
                assert want[0] <= float(amount or -1) <= want[1]
            else:
                assert (want is None) == (amount is None), name
                assert amount is None or float(want) == pytest.approx(float(amount), abs=1e-6)
