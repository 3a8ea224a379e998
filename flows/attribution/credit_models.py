"""Models of credit: last touch, first touch, linear, time decay; shares by largest remainder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flows.model.conversion_columns import WHOLE, Model

ONE: Final = 1 << 60
"""The weight of the newest touch. Weights are whole numbers, so that equal remainders are equal."""


@dataclass(frozen=True)
class Rules:
    """The rules by which conversions are credited.

    Attributes:
        click_ms, listen_ms: how old a touch may be, both ends inclusive.
        half_life_ms: of `time_decay`.
        utm: `utm_content` to a placement.
        campaigns: placements to the campaign that their plan names.
        household_listeners: distinct listeners within the listen window up to which a household joins.
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
        times_ms, clicks: of each touch its time, and whether it is a click. Touches are in order of time and
            placement (UTF-8): of two that are equal in what a model looks at, the later is preferred.
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
    # Relative to the newest touch, whose weight is 1: relative to the conversion all of them may be 0.0.
    newest = max(times_ms)
    return apportion([int(ONE * 0.5 ** ((newest - ts) / rules.half_life_ms)) for ts in times_ms], WHOLE)


def apportion(weights: Sequence[int], whole: int) -> list[int]:
    """`whole` (of either sign) in exact integer parts by weight, largest remainder first; the later one of
    equal remainders.
    """
    total = sum(weights)
    shares = [divmod(whole * weight, total) for weight in weights]
    parts = [part for part, _ in shares]
    order = sorted(range(len(parts)), key=lambda i: (shares[i][1], i), reverse=True)
    for i in order[: whole - sum(parts)]:
        parts[i] += 1
    return parts
