"""Spend: cost, cost per acquisition and return on ad spend, in every window, of a placement whose plan has a
price and of a campaign's placements that have one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from flows.model.fields import CURRENCY, FIELDS, SPENDING, WINDOWS, quotient
from flows.model.plan import Plan

METRICS: Final = ("impressions", "conversions", "conversion_value")
_AT: Final = [[FIELDS.index(f"{window}.{metric}") for metric in METRICS] for window in WINDOWS]
_CURRENCY_AT: Final = FIELDS.index(CURRENCY)
_FLIGHT: Final = WINDOWS.index("flight")
_MILLION: Final = 1_000_000


class Window(NamedTuple):
    """The money of one window, in whole numbers, since doubles are not exact beyond 10^9 with six places.

    Attributes:
        cost: in 10^-9; None if the delivery is unknown.
        counted: the part of it for impressions that were counted here; None if unknown.
        conversions: in 10^-6.
        value: in 10^-6; None in another currency.
    """

    cost: int | None
    counted: int | None
    conversions: int
    value: int | None


class Spend(NamedTuple):
    """By window, in the order of `WINDOWS`, in one currency."""

    currency: str
    windows: Sequence[Window]


def spend(plan: Plan, delivered: int | None, counted: int | None, values: Sequence[Any]) -> Spend | None:
    """The spend of a placement by its row's values; None if its plan has no price.

    Args:
        delivered: impressions of the plan's flight, which alone were bought; None if unknown.
        counted: those of them that were counted here, as its conversions were; None if unknown.
        values: of `flows.model.fields.FIELDS`.
    """
    if plan.cpm_micros is None or plan.currency is None:
        return None
    same, windows = values[_CURRENCY_AT] in (None, plan.currency), []
    for place, (impressions, conversions, value) in enumerate(_AT):
        all_of = values[impressions] or 0
        bought = (delivered, counted) if place == _FLIGHT else (all_of, all_of)
        brought = int(values[value] or 0) if same else None  # text beyond 2^53
        cost, of_counted = (None if one is None else one * plan.cpm_micros for one in bought)
        windows.append(Window(cost, of_counted, round(float(values[conversions] or 0) * _MILLION), brought))
    return Spend(plan.currency, windows)


def total_spend(parts: Collection[Spend]) -> Spend | None:
    """The sum; None if there is nothing to add, or several currencies."""
    currencies = {part.currency for part in parts}
    if len(currencies) != 1:
        return None
    windows = [
        Window(
            _sum([one.cost for one in of]),
            _sum([one.counted for one in of]),
            sum(one.conversions for one in of),
            _sum([one.value for one in of]),
        )
        for of in zip(*(part.windows for part in parts), strict=True)
    ]
    return Spend(currencies.pop(), windows)


def spend_texts(spending: Spend | None) -> list[str | None]:
    """Cost, cost per acquisition and return on ad spend of each window, as `SPENDING` names them. The latter
    two use the cost of counted impressions: the conversions of the others are unknown.
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
    """Add amounts; None if one of them is None."""
    known_amounts = [one for one in amounts if one is not None]
    return sum(known_amounts) if len(known_amounts) == len(amounts) else None
