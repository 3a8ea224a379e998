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
from flows.reconcile.values import EXACT_REACH, REACH_TOLERANCE, decimal_of, quantile, ratio, within


class _Count(NamedTuple):
    """A field that is a sum of a window."""

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


def own_of(row: Mapping[str, str]) -> dict[str, Decimal]:
    """The fields of a row that others are derived from."""
    return {metric: decimal_of(row.get(metric) or "0") or Decimal(0) for metric in _DIVIDED}


def reach_unit(truth: Truth) -> str | None:
    """The unit of a row's reach: listeners if any window has one, else households of the windows that show
    them.
    """
    people, homes = (truth.windows.get(metric, NOTHING) for metric in ("reach", "household_reach"))
    shown = [homes[place] for place, window in enumerate(WINDOWS) if window in SIDE_WINDOWS]
    return "listener" if any(people) else "household" if any(shown) else None


def of_windows(truth: Truth, own: Mapping[str, Decimal]) -> Iterator[tuple[str, Any]]:
    """The expected reach and rates of each window."""
    people, homes = (truth.windows.get(metric, NOTHING) for metric in ("reach", "household_reach"))
    unit = reach_unit(truth)
    for place, window in enumerate(WINDOWS):
        reach = people[place]
        plays = truth.windows.get("consented_plays", NOTHING)[place]
        tolerance = REACH_TOLERANCE if reach > EXACT_REACH else Decimal(0)
        unknown = own["flight.consented"] and not any(people)
        yield f"{window}.reach", None if unknown else (reach * (1 - tolerance), reach * (1 + tolerance))
        if reach:
            yield f"{window}.frequency", within(max(plays, reach) / Decimal(reach), tolerance)
        for metric, (part, whole) in DERIVED_RATES.items():
            if metric == "conversion_rate" and unit == "household":
                whole = "household_reach"
            if f"{window}.{metric}" in ROW:
                yield f"{window}.{metric}", ratio(own[f"{window}.{part}"], own[f"{window}.{whole}"])
        if window in SIDE_WINDOWS:
            confirmed, sent = (own[f"{window}.{name}"] for name in ("confirmed_plays", "deliveries"))
            yield f"{window}.play_through", ratio(confirmed, sent) if 0 < confirmed <= sent else None
            spread = REACH_TOLERANCE if homes[place] > EXACT_REACH else Decimal(0)
            bounds = (homes[place] * (1 - spread), homes[place] * (1 + spread))
            yield f"{window}.household_reach", bounds if homes[place] else None
        ages = [truth.windows.get(f"age_{at}", NOTHING)[place] for at in range(len(AGES_S))]
        for metric, percent in QUANTILES.items():
            yield f"{window}.{metric}", quantile(ages, percent, AGES_S)
    for window, (starts, completes) in zip(WINDOWS, truth.mature, strict=False):
        yield f"{window}.mature_completion_rate", ratio(Decimal(completes), Decimal(starts))


def of_moment(truth: Truth, own: Mapping[str, Decimal]) -> tuple[list[int], dict[str, Any]]:
    """The figures of a row that depend on its time."""
    counts = [truth.windows.get(of.metric, NOTHING)[of.window] for of in COUNTS.values()]
    return counts, dict(of_windows(truth, own))


def of_platform(truth: Truth, own: Mapping[str, Decimal]) -> Iterator[tuple[str, Any]]:
    """The expected shares of a platform's plays, and its median delay."""
    for window in SIDE_WINDOWS:
        started = own[f"{window}.starts"] + own[f"{window}.unlinked_starts"]
        plays = max(own[f"{window}.impressions"], started)
        for metric, parts in PLATFORM_SHARES.items():
            with_field = sum((own[f"{window}.{part}"] for part in parts), Decimal(0))
            yield f"{window}.{metric}", ratio(min(with_field, plays), plays)
        consented_plays = Decimal(truth.windows.get("consented_plays", NOTHING)[WINDOWS.index(window)])
        loose = plays > own[f"{window}.impressions"] and own[f"{window}.unlinked_starts"]
        yield f"{window}.listener_share", None if loose else ratio(min(consented_plays, plays), plays)
        yield f"{window}.play_id_share", ratio(own[f"{window}.starts"], started)
    delays = [truth.windows.get(f"delay_{at}", NOTHING)[3] for at in range(len(DELAYS_S))]
    yield "flight.delay_p50_seconds", quantile(delays, 50, DELAYS_S)


_OF_PLATFORM: Final = tuple(part for parts in PLATFORM_SHARES.values() for part in parts)
_DIVIDED: Final = (
    *(f"{window}.{name}" for window in SIDE_WINDOWS for name in ("impressions", *_OF_PLATFORM)),
    *("flight.consented", "flight.pixels"),
    *(f"{window}.{name}" for window in WINDOWS for pair in DERIVED_RATES.values() for name in pair),
    *(f"{window}.{name}" for window in SIDE_WINDOWS for name in ("confirmed_plays", "deliveries")),
    *(f"{window}.household_reach" for window in WINDOWS),
)
