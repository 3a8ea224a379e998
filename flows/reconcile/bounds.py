"""Numbers that the log does not determine. Each must lie within bounds, and is counted.

The log does not show when the flow erased a listener: a number lies between its value without the erased
listeners and its value with them. Nor does it show which touches a cap left out: a row's conversions differ
from the log's by at most the row's *capped conversions*, of which a cap left out a touch. The values and
quotients of such a row are not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from flows.reconcile.report import Difference
from flows.reconcile.truth import Key
from flows.reconcile.values import EXACT_REACH, REACH_TOLERANCE, decimal_of

_BY_CREDITS: Final = ("conversion_", "time_to_convert", "cost_per_acquisition", "return_on_ad_spend")
"""Parts of the names of values and quotients of credits."""


def unexplained_by_erasure(
    without: Iterable[Difference], whole: Mapping[tuple[str, str, str], Difference]
) -> tuple[list[Difference], int]:
    """The differences of numbers outside of their bounds, and the number of the other differences.

    Args:
        without: the differences from the numbers without the erased listeners.
        whole: the differences from the numbers with them, by scope, id and metric.
    """

    def is_explained(difference: Difference) -> bool:
        with_erased = whole.get((difference.scope, difference.id, difference.metric))
        return with_erased is None or _between(difference, with_erased)

    return _split(without, is_explained)


def unexplained_by_caps(
    differences: Iterable[Difference], capped: Mapping[Key, int]
) -> tuple[list[Difference], int]:
    """The differences of numbers outside of their bounds, and the number of the other differences.

    Args:
        capped: see `flows.reconcile.truth.Recomputation.capped`.
    """

    def is_explained(difference: Difference) -> bool:
        row = difference.scope, difference.id
        if difference.scope == "minute":  # its row is its placement
            row = "placement", difference.id.rpartition("|")[0]
        if row not in capped:
            return False
        if "conversions" not in difference.metric:
            return any(part in difference.metric for part in _BY_CREDITS)
        expected, actual = (decimal_of(text or "0") for text in (difference.expected, difference.actual))
        return expected is not None and actual is not None and abs(actual - expected) <= capped[row]

    return _split(differences, is_explained)


def _split(
    differences: Iterable[Difference], is_explained: Callable[[Difference], bool]
) -> tuple[list[Difference], int]:
    """The differences without explanation, and the number of the others."""
    unexplained, explained = list[Difference](), 0
    for difference in differences:
        if is_explained(difference):
            explained += 1
        else:
            unexplained.append(difference)
    return unexplained, explained


def _between(difference: Difference, with_erased: Difference) -> bool:
    ends = [decimal_of(each.expected or "0") for each in (difference, with_erased)]
    actual = decimal_of(difference.actual or "0")
    if actual is None or None in ends or ends[0] == ends[1]:
        return False
    low, high = sorted(end for end in ends if end is not None)
    if low > EXACT_REACH and difference.metric.endswith(".reach"):
        low, high = low * (1 - REACH_TOLERANCE), high * (1 + REACH_TOLERANCE)
    # Only the presence of quotients and quantiles over a part of the listeners can be checked.
    return low <= actual <= high or difference.metric.endswith((".frequency", "_seconds"))
