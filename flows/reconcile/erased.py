"""Numbers of a log with erased listeners. Each lies between its value without these listeners and its value
with them, since the log does not show when the flow erased them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flows.reconcile.report import Difference
from flows.reconcile.values import EXACT_REACH, REACH_TOLERANCE, decimal_of


def unexplained_by_erasure(
    without: Iterable[Difference], whole: Mapping[tuple[str, str, str], Difference]
) -> tuple[list[Difference], int]:
    """The differences of numbers outside of their bounds, and the number of the other differences.

    Args:
        without: the differences from the numbers without the erased listeners.
        whole: the differences from the numbers with them, by scope, id and metric.
    """
    unexplained, bounded = [], 0
    for difference in without:
        with_erased = whole.get((difference.scope, difference.id, difference.metric))
        if with_erased is None or _between(difference, with_erased):
            bounded += 1
        else:
            unexplained.append(difference)
    return unexplained, bounded


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
