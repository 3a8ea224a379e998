"""Comparison of a published value with its expectation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

EXACT_REACH: Final = 1000
REACH_TOLERANCE: Final = Decimal(4) * Decimal("0.008")
_PUBLISHED: Final = re.compile(r"-?[0-9]+(\.[0-9]{1,6})?")
_LAST_PLACE: Final = Decimal("0.0000011")
"""The greatest error of a double that is published with six places."""


def ratio_bounds(value: Decimal, tolerance: Decimal) -> tuple[Decimal, Decimal]:
    """The bounds of a published ratio whose denominator is exact but for `tolerance`, a part of it."""
    return value / (1 + tolerance) - _LAST_PLACE, value / (1 - tolerance) + _LAST_PLACE


def ratio(part: Decimal, whole: Decimal) -> Decimal | None:
    """part / whole, rounded half to even to six places; None if `whole` is 0."""
    return Decimal(f"{round(Fraction(part) / Fraction(whole) * 10**6)}e-6") if whole else None


def quantile(ages: Sequence[int], percent: int, bounds: Sequence[int | Decimal]) -> Decimal | None:
    """The upper bound of the class in which a quantile lies; None without amounts.

    Args:
        ages: the amount of each class.
        bounds: the upper bound of each class.
    """
    reached, whole = 0, sum(ages)
    for amount, bound in zip(ages, bounds, strict=True):
        reached += amount
        if whole and reached * 100 >= whole * percent:
            return Decimal(bound)
    return None


def wrong_of(want: Any, actual: str | None) -> str | None:
    """The expected value as text, if the published value differs; None if it does not.

    Args:
        want: None for an absent value, a text, a set of possible texts, a number, a fraction to the last of
            six places, or (least, greatest).
    """
    if want is None:
        return None if actual is None else "absent"
    if isinstance(want, str):
        return None if actual == want else want
    if isinstance(want, frozenset):
        return None if actual in want else " ".join(sorted(want))
    if isinstance(want, Fraction):
        want = ratio_bounds(Decimal(want.numerator) / want.denominator, Decimal(0))
    published = None if actual is None else decimal_of(actual)
    if isinstance(want, tuple):
        least, greatest = want
        if published is not None and least <= published <= greatest:
            return None
        if least == 0 == greatest and actual is None:
            return None
        return as_shown((least + greatest) / 2) if greatest - least < 1 or least else as_shown(greatest)
    return None if published == Decimal(want) else as_shown(want)


def as_shown(value: Any) -> str:
    """A number with up to six places, as it is published."""
    text = f"{Decimal(value):.6f}"
    return text.rstrip("0").rstrip(".")


def decimal_of(text: str) -> Decimal | None:
    """The number of a published text with up to six places; None for any other text."""
    return Decimal(text) if _PUBLISHED.fullmatch(text) else None


def moment_of(text: str | None) -> int | None:
    """The epoch ms of a published text of up to 13 digits; None for any other text."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 14 else None


def text_of(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def texts_of(packed: Mapping[Any, Any]) -> dict[str, str]:
    return {text_of(key): text_of(value) for key, value in packed.items()}
