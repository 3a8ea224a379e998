"""The counts, reach and rates of a row by window, as the log has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from flows.reconcile.fields import (
    AGES_S,
    DELAYS_S,
    DERIVED_RATES,
    MINUTE_METRICS,
    PLATFORM_SHARES,
    QUANTILES,
    ROW,
    SIDE_WINDOWS,
    SIDES,
    WHOLE_METRICS,
    WINDOWS,
)
from flows.reconcile.truth import Truth
from flows.reconcile.values import EXACT_REACH, REACH_TOLERANCE, decimal_of, quantile, ratio, ratio_bounds


class _Count(NamedTuple):
    """A field that is the sum of a metric in a window.

    Attributes:
        window: its place in `WINDOWS`.
        millionths: whether the sum is in millionths.
    """

    window: int
    metric: str
    millionths: bool


def _counts() -> dict[str, _Count]:
    counts = {}
    for place, window in enumerate(WINDOWS):
        for metric in MINUTE_METRICS:
            millionths = metric.startswith("conversions")
            counts[f"{window}.{metric}"] = _Count(place, metric, millionths)
        if window in SIDE_WINDOWS:
            counts |= {f"{window}.{metric}": _Count(place, metric, False) for metric in SIDES}
    return counts | {f"flight.{metric}": _Count(3, metric, False) for metric in WHOLE_METRICS}


COUNTS: Final = _counts()
NOTHING: Final = (0, 0, 0, 0)


def divisor_fields(row: Mapping[str, str]) -> dict[str, Decimal]:
    """The published counts of a row by which its rates are checked."""
    return {metric: decimal_of(row.get(metric) or "0") or Decimal(0) for metric in _DIVISORS}


def reach_unit(truth: Truth) -> str | None:
    """The unit of a row's reach: listeners if any window has one, else households if a published window has
    one.
    """
    people, homes = (truth.windows.get(metric, NOTHING) for metric in ("reach", "household_reach"))
    published = [homes[place] for place, window in enumerate(WINDOWS) if window in SIDE_WINDOWS]
    return "listener" if any(people) else "household" if any(published) else None


def window_fields(truth: Truth, divisors: Mapping[str, Decimal]) -> Iterator[tuple[str, Any]]:
    """The expected reach and rates of each window."""
    people, homes = (truth.windows.get(metric, NOTHING) for metric in ("reach", "household_reach"))
    unit = reach_unit(truth)
    for place, window in enumerate(WINDOWS):
        reach = people[place]
        plays = truth.windows.get("consented_plays", NOTHING)[place]
        tolerance = REACH_TOLERANCE if reach > EXACT_REACH else Decimal(0)
        unknown = divisors["flight.consented"] and not any(people)
        yield f"{window}.reach", None if unknown else (reach * (1 - tolerance), reach * (1 + tolerance))
        if reach:
            yield f"{window}.frequency", ratio_bounds(max(plays, reach) / Decimal(reach), tolerance)
        for metric, (part, whole) in DERIVED_RATES.items():
            if metric == "conversion_rate" and unit == "household":
                whole = "household_reach"
            if f"{window}.{metric}" in ROW:
                yield f"{window}.{metric}", ratio(divisors[f"{window}.{part}"], divisors[f"{window}.{whole}"])
        if window in SIDE_WINDOWS:
            confirmed, deliveries = (
                divisors[f"{window}.{name}"] for name in ("confirmed_plays", "deliveries")
            )
            yield (
                f"{window}.play_through",
                ratio(confirmed, deliveries) if 0 < confirmed <= deliveries else None,
            )
            spread = REACH_TOLERANCE if homes[place] > EXACT_REACH else Decimal(0)
            bounds = (homes[place] * (1 - spread), homes[place] * (1 + spread))
            yield f"{window}.household_reach", bounds if homes[place] else None
        ages = [truth.windows.get(f"age_{at}", NOTHING)[place] for at in range(len(AGES_S))]
        for metric, percent in QUANTILES.items():
            yield f"{window}.{metric}", quantile(ages, percent, AGES_S)
    for window, (starts, completes) in zip(WINDOWS, truth.mature, strict=False):
        yield f"{window}.mature_completion_rate", ratio(Decimal(completes), Decimal(starts))


def moment_figures(truth: Truth, divisors: Mapping[str, Decimal]) -> tuple[list[int], dict[str, Any]]:
    """The figures of a row that depend on its moment."""
    counts = [truth.windows.get(count.metric, NOTHING)[count.window] for count in COUNTS.values()]
    return counts, dict(window_fields(truth, divisors))


def platform_fields(truth: Truth, divisors: Mapping[str, Decimal]) -> Iterator[tuple[str, Any]]:
    """The expected shares of a platform's plays, and its median delay."""
    for window in SIDE_WINDOWS:
        started = divisors[f"{window}.starts"] + divisors[f"{window}.unlinked_starts"]
        plays = max(divisors[f"{window}.impressions"], started)
        for metric, parts in PLATFORM_SHARES.items():
            with_field = sum((divisors[f"{window}.{part}"] for part in parts), Decimal(0))
            yield f"{window}.{metric}", ratio(min(with_field, plays), plays)
        consented_plays = Decimal(truth.windows.get("consented_plays", NOTHING)[WINDOWS.index(window)])
        has_unlinked = plays > divisors[f"{window}.impressions"] and divisors[f"{window}.unlinked_starts"]
        yield f"{window}.listener_share", None if has_unlinked else ratio(min(consented_plays, plays), plays)
        yield f"{window}.play_id_share", ratio(divisors[f"{window}.starts"], started)
    delays = [truth.windows.get(f"delay_{at}", NOTHING)[3] for at in range(len(DELAYS_S))]
    yield "flight.delay_p50_seconds", quantile(delays, 50, DELAYS_S)


_OF_PLATFORM: Final = tuple(part for parts in PLATFORM_SHARES.values() for part in parts)
_DIVISORS: Final = (
    *(f"{window}.{name}" for window in SIDE_WINDOWS for name in ("impressions", *_OF_PLATFORM)),
    *("flight.consented", "flight.pixels"),
    *(f"{window}.{name}" for window in WINDOWS for pair in DERIVED_RATES.values() for name in pair),
    *(f"{window}.{name}" for window in SIDE_WINDOWS for name in ("confirmed_plays", "deliveries")),
    *(f"{window}.household_reach" for window in WINDOWS),
)
