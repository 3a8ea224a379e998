"""Numbers of conversions of which a cap left out touches. The log alone does not show which touches these
were. Each number therefore lies between its value with none of these conversions and its value with all of
each, and the placements have all of them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, Literal

from flows.reconcile.reading import hashes_of
from flows.reconcile.report import Difference
from flows.reconcile.truth import Key, Recomputation, Seen
from flows.reconcile.values import decimal_of

_QUOTIENTS: Final = ("_seconds", ".cost_per_acquisition", ".return_on_ad_spend", ".conversion_rate")
"""Quotients, of which only their presence can be checked."""
_MONEY: Final = tuple(
    f"conversion_{name}" for name in ("currency", "value", "value_claimed", "value_other_count")
)
_MOVES: Final[tuple[Literal["none", "all"], ...]] = ("none", "all")


def within(
    found: Iterable[Difference],
    recomputation: Recomputation,
    compared: Callable[[], Iterable[Difference]],
) -> tuple[list[Difference], int]:
    """The differences that no choice of touches explains, and the number of explained ones.

    Args:
        compared: compares everything with the recomputation's present state.
    """
    ends = []
    for moved in _MOVES:
        recomputation.move(moved)
        ends.append({(one.scope, one.id, one.metric): one.expected for one in compared()})
    recomputation.move("")
    left, bounded, rows = [], 0, recomputation.capped
    known = _QUOTIENTS if recomputation.bounded_values else (*_QUOTIENTS, *_MONEY)
    for one in found:
        if _row(one) in rows and (one.metric.endswith(known) or _between(one, *ends)):
            bounded += 1
        else:
            left.append(one)
    return left, bounded


def _row(one: Difference) -> Key:
    """The row of a number; a minute's row is its placement."""
    return ("placement", one.id.rpartition("|")[0]) if one.scope == "minute" else (one.scope, one.id)


def _between(one: Difference, *ends: Mapping[tuple[str, str, str], str]) -> bool:
    key = one.scope, one.id, one.metric
    if any(key not in end for end in ends):  # the number at that end equals the published one
        return True
    told = [end[key] for end in ends]
    if told[0] == told[1]:
        return False
    got, *bounds = (decimal_of(text or "0") for text in (one.actual, *told))
    if got is None or None in bounds:
        return False
    low, high = sorted(bound for bound in bounds if bound is not None)
    return low <= got <= high


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
    seen = [Seen("placement", name, recomputation.end_ms, recomputation.end_ms) for name in names]
    whole: dict[Key, int] = {
        key: truth.windows.get("conversions", (0, 0, 0, 0))[3] for key, truth in recomputation.rows(seen)
    }
    expected = Decimal(sum(whole.values())) / 1_000_000
    if actual == expected:
        return []
    return [
        Difference("placement", f"{len(names)} together", "flight.conversions", f"{expected}", f"{actual}")
    ]
