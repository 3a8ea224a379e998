"""Models of credit: last touch, first touch, linear, time decay; shares by largest remainder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flows.model.conversion_columns import WHOLE, Model

ONE: Final = 1 << 60
"""The weight of the newest touch. Weights are integers, so that equal remainders compare equal."""


@dataclass(frozen=True)
class Rules:
    """The rules by which conversions are credited.

    Attributes:
        click_ms, listen_ms: the greatest age of a touch, both ends inclusive.
        half_life_ms: of `time_decay`.
        utm: the placement of each `utm_content`.
        campaigns: the campaign that the plan of each placement names.
        household_listeners: the greatest number of distinct listeners within the listen window with which a
            household joins conversions.
    """

    model: Model = "last_touch"
    click_ms: int = 30 * 86_400_000
    listen_ms: int = 14 * 86_400_000
    half_life_ms: int = 7 * 86_400_000
    utm: Mapping[str, str] = field(default_factory=dict)
    household_listeners: int = 20
    campaigns: Mapping[str, str] = field(default_factory=dict)


def credit(rules: Rules, times_ms: Sequence[int], clicks: Sequence[bool]) -> list[int]:
    """Millionths of one conversion for each of its eligible touches; their sum is 1,000,000.

    Args:
        times_ms, clicks: for each touch the time, and whether it is a click. Touches are in order of time and
            placement (UTF-8). If a model cannot distinguish two touches, the later one is preferred.
    """
    n = len(times_ms)
    if n == 1:
        return [WHOLE]
    if rules.model in ("last_touch", "first_touch"):
        chosen = n - 1
        if rules.model == "first_touch":
            while times_ms[chosen] != times_ms[0]:
                chosen -= 1
        elif True in clicks:
            while not clicks[chosen]:
                chosen -= 1
        parts = [0] * n
        parts[chosen] = WHOLE
        return parts
    if rules.model == "linear":
        return apportion([1] * n, WHOLE)
    # Relative to the newest touch, whose weight is 1; relative to the conversion all weights may be 0.0.
    newest = max(times_ms)
    return apportion([int(ONE * 0.5 ** ((newest - ts) / rules.half_life_ms)) for ts in times_ms], WHOLE)


def apportion(weights: Sequence[int], whole: int) -> list[int]:
    """`whole` (of either sign) divided by weight into exact integer parts, by largest remainder; of equal
    remainders the later one first.
    """
    total = sum(weights)
    shares = [divmod(whole * weight, total) for weight in weights]
    parts = [part for part, _ in shares]
    order = sorted(range(len(parts)), key=lambda i: (shares[i][1], i), reverse=True)
    for i in order[: whole - sum(parts)]:
        parts[i] += 1
    return parts
