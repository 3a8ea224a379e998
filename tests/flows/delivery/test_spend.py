"""Cost per acquisition and return on ad spend: by window, by plan, by campaign."""

from __future__ import annotations

from typing import Any

import pytest

from flows.delivery.spend import spend, spend_texts, total_spend
from flows.model.fields import CURRENCY, FIELDS, SPENDING, empty
from flows.model.plan import Plan


def plan(name: str = "p", cpm_micros: int | None = 10_000_000, currency: str | None = "GBP") -> Plan:
    return Plan(name, 1000, 0, 3_600_000, campaign_id="c", cpm_micros=cpm_micros, currency=currency)


def values(currency: str | None = "GBP", **told: Any) -> list[Any]:
    """A row with some fields, `_` for the dot after the window."""
    row = empty(0)
    row[FIELDS.index(CURRENCY)] = currency
    for name, value in told.items():
        window, _, metric = name.partition("_")
        row[FIELDS.index(f"{window.removeprefix('w')}.{metric}")] = value
    return row


def fields(*parts: tuple[Plan, int, list[Any]]) -> dict[str, str]:
    """The published spend of placements with plans, delivered impressions and rows, together."""
    whole = [(plan, delivered, delivered, row) for plan, delivered, row in parts]
    priced = [of for one in whole if (of := spend(*one)) is not None]
    found = zip(SPENDING, spend_texts(total_spend(priced)), strict=True)
    return {name: value for name, value in found if value is not None}


HOUR = {"w1h_impressions": 3_000, "w1h_conversions": 4, "w1h_conversion_value": 60_000_000}
FLIGHT = {"flight_impressions": 12_000, "flight_conversions": "2.5", "flight_conversion_value": 50_000_000}

NO_COST = dict.fromkeys(("5m.cost", "1h.cost", "1d.cost", "flight.cost"), "0")
"""Of a plan with a price whose windows have delivered nothing."""


def test_every_window_has_its_own_cost() -> None:
    assert fields((plan(), 10_000, values(**HOUR, **FLIGHT))) == NO_COST | {
        "1h.cost": "30",
        "flight.cost": "100",
        "1h.cost_per_acquisition": "7.5",
        "1h.return_on_ad_spend": "2",
        "flight.cost_per_acquisition": "40",
        "flight.return_on_ad_spend": "0.5",
    }


def test_an_opening_balance_costs_but_is_outside_cost_per_conversion() -> None:
    """The balance's conversions are unknown to the flow."""
    row = values(**FLIGHT)
    with_balance = spend_texts(spend(plan(), 110_000, 10_000, row))
    of = dict(zip(SPENDING, with_balance, strict=True))
    assert of["flight.cost"] == "1100"
    assert (of["flight.cost_per_acquisition"], of["flight.return_on_ad_spend"]) == ("40", "0.5")
    unknown = dict(zip(SPENDING, spend_texts(spend(plan(), None, 10_000, row)), strict=True))
    assert unknown["flight.cost"] is None
    assert (unknown["flight.cost_per_acquisition"], unknown["flight.return_on_ad_spend"]) == ("40", "0.5")
    campaign = spend_texts(total_spend([spend(plan(), 110_000, 10_000, row)] * 2))  # type: ignore[list-item]  # it has a price
    assert dict(zip(SPENDING, campaign, strict=True))["flight.cost_per_acquisition"] == "40"


def test_a_plan_without_a_price_says_nothing() -> None:
    assert fields((plan(cpm_micros=None), 10_000, values(**FLIGHT))) == {}


def test_a_value_in_another_currency_than_the_price_gives_no_return() -> None:
    assert fields((plan(), 10_000, values("EUR", **FLIGHT))) == NO_COST | {
        "flight.cost": "100",
        "flight.cost_per_acquisition": "40",
    }


def test_a_campaign_sums_cost_and_conversions_of_priced_placements() -> None:
    priced, other = (plan(), 10_000, values(**FLIGHT)), (plan("q"), 2_000, values(flight_conversions=1))
    free = (plan("r", None), 9_000, values(**FLIGHT))
    assert fields(priced, other, free) == NO_COST | {
        "flight.cost": "120",
        "flight.cost_per_acquisition": "34.285714",
        "flight.return_on_ad_spend": "0.416667",
    }


@pytest.mark.parametrize("currency", ["EUR", None])
def test_money_of_several_currencies_is_not_added_up(currency: str | None) -> None:
    other = (plan("q", currency=currency), 2_000, values(currency, flight_conversions=1))
    of_the_first = {
        "flight.cost": "100",
        "flight.cost_per_acquisition": "40",
        "flight.return_on_ad_spend": "0.5",
    }
    expected = {} if currency else NO_COST | of_the_first
    assert fields((plan(), 10_000, values(**FLIGHT)), other) == expected


@pytest.mark.parametrize(
    ("value", "returned"),
    [
        (999_999_999_999_999, "11428571428.571417"),
        (99_999_999_999_010_000, "1142857142845.828571"),
        (-7, "-0.00008"),
    ],
)
def test_a_return_is_exact_to_six_places_however_great_the_value(value: int, returned: str) -> None:
    row = values(flight_impressions=7, flight_conversions=1, flight_conversion_value=str(value))
    assert fields((plan(cpm_micros=12_500_000), 7, row))["flight.return_on_ad_spend"] == returned
