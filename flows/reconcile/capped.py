"""Numbers that depend on *capped conversions*: a cap left out some of their touches.

The log alone does not show which touches were left out. Each number therefore lies between its value without
the capped conversions and its value with all of them. All placements together have each of them once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, Literal

from flows.reconcile.redis_reading import hashes_of
from flows.reconcile.report import Difference
from flows.reconcile.truth import Key, Recomputation, RowMoments
from flows.reconcile.values import decimal_of

_QUOTIENTS: Final = ("_seconds", ".cost_per_acquisition", ".return_on_ad_spend", ".conversion_rate")
"""Ends of the names of quotients, of which only the presence can be checked."""
_MONEY: Final = tuple(
    f"conversion_{name}" for name in ("currency", "value", "value_claimed", "value_other_count")
)
_EXTREMES: Final[tuple[Literal["none", "all"], ...]] = ("none", "all")


def unexplained_by_caps(
    differences: Iterable[Difference],
    recomputation: Recomputation,
    compare: Callable[[], Iterable[Difference]],
) -> tuple[list[Difference], int]:
    """The differences that no choice of left-out touches explains, and the number of the others.

    Args:
        compare: compares everything with the recomputation's present state.
    """
    ends = []
    for credited in _EXTREMES:
        recomputation.credit_capped(credited)
        ends.append({(each.scope, each.id, each.metric): each.expected for each in compare()})
    recomputation.credit_capped("")
    unexplained, bounded, rows = [], 0, recomputation.capped
    unchecked = _QUOTIENTS if recomputation.bounded_values else (*_QUOTIENTS, *_MONEY)
    for difference in differences:
        if _row(difference) in rows and (
            difference.metric.endswith(unchecked) or _between(difference, *ends)
        ):
            bounded += 1
        else:
            unexplained.append(difference)
    return unexplained, bounded


def _row(difference: Difference) -> Key:
    """The row of a number; the row of a minute is its placement."""
    if difference.scope == "minute":
        return "placement", difference.id.rpartition("|")[0]
    return difference.scope, difference.id


def _between(difference: Difference, *ends: Mapping[tuple[str, str, str], str]) -> bool:
    """True if the published number lies between the expectations of `ends`, which have only differences."""
    key = difference.scope, difference.id, difference.metric
    if any(key not in end for end in ends):  # the number at that end equals the published one
        return True
    end_texts = [end[key] for end in ends]
    if end_texts[0] == end_texts[1]:
        return False
    actual, *bounds = (decimal_of(text or "0") for text in (difference.actual, *end_texts))
    if actual is None or None in bounds:
        return False
    low, high = sorted(bound for bound in bounds if bound is not None)
    return low <= actual <= high


def sum_differences(recomputation: Recomputation, client: Any, namespace: str) -> list[Difference]:
    """The difference of the conversions of all placements together to which capped ones may be credited.

    The sum is only compared if each of these placements has a row, and none has a plan: a planned flight may
    leave out conversions.
    """
    names = sorted(name for scope, name in recomputation.capped if scope == "placement")
    planned = any(("placement", name) in recomputation.rules.planned for name in names)
    rows = list(hashes_of(client, [f"{namespace}:placement:{{{name}}}" for name in names]))
    counted = [row.get("flight.conversions", "0") if row else None for row in rows]
    if not names or planned or None in counted:
        return []
    actual = sum((decimal_of(text or "") or Decimal(0) for text in counted), Decimal(0))
    moments = [RowMoments("placement", name, recomputation.end_ms, recomputation.end_ms) for name in names]
    millionths = sum(
        truth.windows.get("conversions", (0, 0, 0, 0))[3] for _, truth in recomputation.rows(moments)
    )
    expected = Decimal(millionths) / 1_000_000
    if actual == expected:
        return []
    return [
        Difference("placement", f"{len(names)} together", "flight.conversions", f"{expected}", f"{actual}")
    ]
