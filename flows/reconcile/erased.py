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
    found, bounded = [], 0
    for one in without:
        other = whole.get((one.scope, one.id, one.metric))
        if other is None or _between(one, other):
            bounded += 1
        else:
            found.append(one)
    return found, bounded


def _between(one: Difference, other: Difference) -> bool:
    ends, got = [decimal_of(each.expected or "0") for each in (one, other)], decimal_of(one.actual or "0")
    if got is None or None in ends or ends[0] == ends[1]:
        return False
    low, high = sorted(end for end in ends if end is not None)
    if low > EXACT_REACH and one.metric.endswith(".reach"):
        low, high = low * (1 - REACH_TOLERANCE), high * (1 + REACH_TOLERANCE)
    # Quotients and quantiles over a part of the people can only be checked for presence.
    return low <= got <= high or one.metric.endswith((".frequency", "_seconds"))
