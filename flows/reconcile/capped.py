"""Numbers of conversions of which a cap left out touches. The log alone does not show which touches these
were. Each number therefore lies between its value with none of these conversions and its value with all of
each, and the placements have all of them together.
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
"""Quotients, of which only their presence can be checked."""
_MONEY: Final = tuple(
    f"conversion_{name}" for name in ("currency", "value", "value_claimed", "value_other_count")
)
_MOVES: Final[tuple[Literal["none", "all"], ...]] = ("none", "all")


def within(
    differences: Iterable[Difference],
    recomputation: Recomputation,
    compare: Callable[[], Iterable[Difference]],
) -> tuple[list[Difference], int]:
    """The differences that no choice of touches explains, and the number of explained ones.

    Args:
        compare: compares everything with the recomputation's present state.
    """
    ends = []
    for moved in _MOVES:
        recomputation.move(moved)
        ends.append({(one.scope, one.id, one.metric): one.expected for one in compare()})
    recomputation.move("")
    left, bounded, rows = [], 0, recomputation.capped
    unchecked = _QUOTIENTS if recomputation.bounded_values else (*_QUOTIENTS, *_MONEY)
    for difference in differences:
        if _row(difference) in rows and (
            difference.metric.endswith(unchecked) or _between(difference, *ends)
        ):
            bounded += 1
        else:
            left.append(difference)
    return left, bounded


def _row(difference: Difference) -> Key:
    """The row of a number; a minute's row is its placement."""
    return (
        ("placement", difference.id.rpartition("|")[0])
        if difference.scope == "minute"
        else (difference.scope, difference.id)
    )


def _between(difference: Difference, *ends: Mapping[tuple[str, str, str], str]) -> bool:
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


def unlike(recomputation: Recomputation, client: Any, namespace: str) -> list[Difference]:
    """The difference of the sum over all placements that capped conversions may be credited to. The sum is
    compared only if each placement has a row whose flight has all that was counted.
    """
    names = sorted(name for scope, name in recomputation.capped if scope == "placement")
    planned = any(("placement", name) in recomputation.rules.planned for name in names)
    rows = list(hashes_of(client, [f"{namespace}:placement:{{{name}}}" for name in names]))
    counted = [row.get("flight.conversions", "0") if row else None for row in rows]
    if not names or planned or None in counted:
        return []
    actual = sum((decimal_of(text or "") or Decimal(0) for text in counted), Decimal(0))
    moments = [RowMoments("placement", name, recomputation.end_ms, recomputation.end_ms) for name in names]
    whole: dict[Key, int] = {
        key: truth.windows.get("conversions", (0, 0, 0, 0))[3] for key, truth in recomputation.rows(moments)
    }
    expected = Decimal(sum(whole.values())) / 1_000_000
    if actual == expected:
        return []
    return [
        Difference("placement", f"{len(names)} together", "flight.conversions", f"{expected}", f"{actual}")
    ]
