"""Spend: cost, cost per acquisition and return on ad spend in every window. Placements whose plans have a
price have a spend, and a campaign has the sum of its placements' spends.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from flows.model.fields import CURRENCY, FIELDS, SPENDING, WINDOWS, quotient
from flows.model.plan import Plan

METRICS: Final = ("impressions", "conversions", "conversion_value")
_METRICS_AT: Final = [[FIELDS.index(f"{window}.{metric}") for metric in METRICS] for window in WINDOWS]
_CURRENCY_AT: Final = FIELDS.index(CURRENCY)
_FLIGHT: Final = WINDOWS.index("flight")
_MILLION: Final = 1_000_000


class Window(NamedTuple):
    """The money of one window, in whole numbers, since a double beyond 10^9 has no six exact places.

    Attributes:
        cost: the cost of the impressions in 10^-9 of the currency; None if the delivery is unknown.
        counted: the cost of the impressions that the flow counted, in 10^-9; None if unknown.
        conversions: in 10^-6.
        value: the value of the conversions in 10^-6; None if it is in another currency.
    """

    cost: int | None
    counted: int | None
    conversions: int
    value: int | None


class Spend(NamedTuple):
    """The money of each window, in the order of `WINDOWS`, in one currency."""

    currency: str
    windows: Sequence[Window]


def spend(plan: Plan, delivered: int | None, counted: int | None, values: Sequence[Any]) -> Spend | None:
    """The spend of a placement by its row's values; None if its plan has no price.

    Args:
        delivered: impressions of the plan's flight, the only ones that were bought; None if unknown.
        counted: the delivered impressions that the flow counted; None if unknown.
        values: the row's values of `flows.model.fields.FIELDS`.
    """
    if plan.cpm_micros is None or plan.currency is None:
        return None
    same, windows = values[_CURRENCY_AT] in (None, plan.currency), []
    for place, (impressions, conversions, value) in enumerate(_METRICS_AT):
        all_impressions = values[impressions] or 0
        bought = (delivered, counted) if place == _FLIGHT else (all_impressions, all_impressions)
        amount = int(values[value] or 0) if same else None  # a value beyond 2^53 is text
        cost, counted_cost = (None if count is None else count * plan.cpm_micros for count in bought)
        millionths = round(float(values[conversions] or 0) * _MILLION)
        windows.append(Window(cost, counted_cost, millionths, amount))
    return Spend(plan.currency, windows)


def total_spend(parts: Collection[Spend]) -> Spend | None:
    """The sum of spends; None without any, or if they are in several currencies."""
    currencies = {part.currency for part in parts}
    if len(currencies) != 1:
        return None
    windows = [
        Window(
            _sum([each.cost for each in same_window]),
            _sum([each.counted for each in same_window]),
            sum(each.conversions for each in same_window),
            _sum([each.value for each in same_window]),
        )
        for same_window in zip(*(part.windows for part in parts), strict=True)
    ]
    return Spend(currencies.pop(), windows)


def spend_texts(spending: Spend | None) -> list[str | None]:
    """Cost, cost per acquisition and return on ad spend of each window, in the order of `SPENDING`. The
    latter two use the cost of counted impressions, since the conversions of other impressions are unknown.
    """
    if spending is None:
        return [None] * len(SPENDING)
    texts: list[str | None] = []
    for cost, counted, conversions, value in spending.windows:
        texts.append(None if cost is None else quotient(cost, 1000 * _MILLION))
        texts.append(quotient(counted, 1000 * conversions) if conversions and counted is not None else None)
        texts.append(quotient(1000 * value, counted) if counted and value is not None else None)
    return texts


def _sum(amounts: Sequence[int | None]) -> int | None:
    """The sum of amounts; None if one of them is None."""
    known_amounts = [amount for amount in amounts if amount is not None]
    return sum(known_amounts) if len(known_amounts) == len(amounts) else None
