"""Stake: the money that a placement loses by the price of its plan, now and by the flight's end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from math import fsum
from typing import Any, Final, NamedTuple

from flows.delivery.pacing import Delivery
from flows.model.fields import FIELDS, decimal
from flows.model.plan import Plan

_BLOCKED_AT: Final = FIELDS.index("flight.blocked_impressions")
_BILLION: Final = 10**9
"""The number of impressions that cost one unit at a price of one millionth a thousand."""


class Stake(NamedTuple):
    """Money in whole units of one currency. None stands for an absent field, never for 0.

    Args:
        now: the price of `short_by`; null if `short_by` is null.
        at_end: the price of the projected shortfall of the booking; null without a projection.
        blocked: the price of impressions in blocked content; null if there were none.
    """

    currency: str
    now: float | None
    at_end: float | None
    blocked: float | None


def at_stake(plan: Plan, delivery: Delivery, values: Sequence[Any]) -> Stake | None:
    """The stake of a placement by its row's values; None if its plan has no price."""
    price = plan.cpm_micros
    if price is None or plan.currency is None:
        return None
    short, projected, blocked = delivery.short_by, delivery.projected, values[_BLOCKED_AT]
    lacking = None if projected is None else max(0.0, delivery.booked - projected)
    now, at_end = (None if count is None else count * price / _BILLION for count in (short, lacking))
    return Stake(plan.currency, now, at_end, blocked * price / _BILLION if blocked else None)


def stakes(parts: Collection[Stake]) -> Stake | None:
    """The stake of a campaign: the sums over its placements that have a stake. None without any, or if they
    are in several currencies.
    """
    currencies = {part.currency for part in parts}
    if len(currencies) != 1:
        return None
    now, at_end, blocked = (known_sum(part[place] for part in parts) for place in (1, 2, 3))
    return Stake(currencies.pop(), now, at_end, blocked)


def known_sum(amounts: Iterable[Any]) -> float | None:
    """The sum of the known amounts; None without any."""
    known_amounts = [amount for amount in amounts if amount is not None]
    return fsum(known_amounts) if known_amounts else None


def stake_texts(stake: Stake | None) -> list[str | None]:
    """The values of `delivery.at_stake`, `delivery.at_stake_end` and `delivery.blocked_at_stake`."""
    money = (None, None, None) if stake is None else (stake.now, stake.at_end, stake.blocked)
    return [None if amount is None else decimal(amount) for amount in money]


def alert_money(stake: Stake | None) -> dict[str, str]:
    """The money of an alert with its currency, as texts by name; a null is absent."""
    names, money = ("at_stake", "at_stake_end", "blocked_at_stake"), stake_texts(stake)
    amounts = {name: amount for name, amount in zip(names, money, strict=True) if amount is not None}
    return amounts if stake is None or not amounts else amounts | {"currency": stake.currency}
