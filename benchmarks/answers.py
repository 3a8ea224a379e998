"""Whether two contenders found the same numbers: looked at before any time is."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.measure import Answers, Counts

EXACT_REACH = 1_000
REACH_ERROR = 0.035
"""Beyond `EXACT_REACH` ours is a sketch's estimate: 0.8 % standard error, here four of them and a little."""


def differences(truth: Answers, other: Answers) -> list[str]:
    """Every number in which `other` departs from `truth`, among those that it claims.

    Flights are not compared where `other` has none at all, nor minutes, nor metrics that only one of the two
    has. A row that only one has counts as zeros in the other.
    """
    found = []
    for want, got in ((truth.flights, other.flights), (truth.minutes, other.minutes)):
        if got:
            found += _differences(want, got)
    if not (other.flights or other.minutes):
        found.append("no answers at all")
    return found


def _differences(want: Mapping[str, Counts], got: Mapping[str, Counts]) -> list[str]:
    metrics = next(iter(want.values())).keys() & next(iter(got.values())).keys()
    found = []
    for key in sorted(want.keys() | got.keys()):
        for metric in sorted(metrics):
            right, ours = want.get(key, {}).get(metric, 0), got.get(key, {}).get(metric, 0)
            allowed = REACH_ERROR * right if metric.endswith("reach") and right > EXACT_REACH else 0
            if abs(right - ours) > allowed:
                found.append(f"{key} {metric}: {right} and {ours}")
    return found
