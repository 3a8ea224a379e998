"""Numbers of a log some of whose listeners are erased, which lie between those with them and those
without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flows.reconcile.report import Difference
from flows.reconcile.values import EXACT_REACH, REACH_TOLERANCE, decimal_of


def beyond(
    without: Iterable[Difference], whole: Mapping[tuple[str, str, str], Difference]
) -> tuple[list[Difference], int]:
    """The differences of numbers that lie outside the range between those without the erased listeners and
    those with them; and the number of differences inside it.
    """
    beyond_bounds, bounded = [], 0
    for difference in without:
        with_erased = whole.get((difference.scope, difference.id, difference.metric))
        if with_erased is None or _between(difference, with_erased):
            bounded += 1
        else:
            beyond_bounds.append(difference)
    return beyond_bounds, bounded


def _between(difference: Difference, with_erased: Difference) -> bool:
    ends, actual = (
        [decimal_of(each.expected or "0") for each in (difference, with_erased)],
        decimal_of(difference.actual or "0"),
    )
    if actual is None or None in ends or ends[0] == ends[1]:
        return False
    low, high = sorted(end for end in ends if end is not None)
    if low > EXACT_REACH and difference.metric.endswith(".reach"):
        low, high = low * (1 - REACH_TOLERANCE), high * (1 + REACH_TOLERANCE)
    # Quotients and quantiles over a part of the people can only be checked for presence.
    return low <= actual <= high or difference.metric.endswith((".frequency", "_seconds"))
