"""Every published field, and the check by which the oracle compares it, made from the catalogue."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Final

from flows.model.catalogue.events import EVENTS, Way
from flows.model.catalogue.fields import LISTED_FIELDS as LISTED_FIELDS
from flows.model.catalogue.fields import SCOPE_FIELDS, SCOPE_NAMES
from flows.model.catalogue.metrics import ACCOUNT, BY_CLIENT, CREDITED, JUDGED, WHOLE, names
from flows.model.catalogue.metrics import MONEY as SPENDING
from flows.model.catalogue.metrics import WINDOWS as WINDOWS

SCOPES: Final = SCOPE_NAMES
NAMES: Final = SCOPE_FIELDS
"""The fields with the names that pixels are counted by."""
LABELS: Final = NAMES[1:]
EVENT_NAMES: Final = tuple(event.name for event in EVENTS)
CODES: Final = {name: code for code, name in enumerate(EVENT_NAMES)}
"""Events to their codes, which are their places."""

_UNLINKED: Final = (Way.START, Way.MILESTONE)
COUNTS: Final = (
    *(event.counts for event in EVENTS if event.counts),
    *("orphans", "repaired"),
    *(f"unlinked_{event.counts}" for event in EVENTS if event.way in _UNLINKED),
)
BASES: Final = ("audible_2s", "streamed_full", "vast_impression", "ad_delivered", "download")
"""The bases of an impression, the strongest first."""
NO_BASIS: Final = len(BASES)
"""The number that stands for the basis of a pixel that names none."""
CLIENTS: Final = tuple(name for name in names(BY_CLIENT) if not name.endswith("_provisional"))
"""Counts of deliveries and downloads, once a client. Final minutes have them, too."""
SIDES: Final = (
    *(f"impressions_{name}" for name in BASES),
    *("deliveries", "confirmed_plays", *CLIENTS),
    *(f"{name}_provisional" for name in CLIENTS if not name.endswith("unkeyed")),
)
"""Counts that are published for `SIDE_WINDOWS` alone. In a finished log all provisional counts are 0."""
SIDE_WINDOWS: Final = ("1d", "flight")
CREDITS: Final = names(CREDITED)
MINUTE_METRICS: Final = (*COUNTS, *CREDITS)
CLASSES: Final = ("1", "2", "3", "4-5", "6-10", "11+")
"""Classes of impressions per listener."""
FREQUENCY_METRICS: Final = tuple(
    f"frequency.{name}.{metric}" for name in CLASSES for metric in ("listeners", "conversions")
)
ACCOUNTS: Final = ("accepted", "attributed", "unattributed", "pending", "noisy_household")
ACCOUNT_METRICS: Final = tuple(f"flight.{name}" for name in names(ACCOUNT))
WHOLE_METRICS: Final = names(WHOLE)
"""Counts since a row's first pixel, even before a planned flight."""
FLIGHT_METRICS: Final = (*MINUTE_METRICS, *SIDES, "reach", "household_reach", *WHOLE_METRICS)
QUANTILES: Final = {"time_to_convert_p50_seconds": 50, "time_to_convert_p90_seconds": 90}
"""Quantiles of the time from a touch to its conversion, in percent."""
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
DELAYS_S: Final[tuple[int | Decimal, ...]] = (
    *map(Decimal, ("0.125", "0.25", "0.5")),
    *(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, _DAY),
)
"""Upper bounds of the classes of the time from a pixel's event time to its receipt."""
PLATFORM_SHARES: Final = {
    "start_share": ("starts", "unlinked_starts"),
    "first_quartile_share": ("first_quartiles", "unlinked_first_quartiles"),
    "midpoint_share": ("midpoints", "unlinked_midpoints"),
    "third_quartile_share": ("third_quartiles", "unlinked_third_quartiles"),
    "complete_share": ("completes", "unlinked_completes"),
}
"""Shares of a platform's plays, to the counts that are added for them."""
AGES_S: Final = (
    *(10, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 4 * _HOUR, 8 * _HOUR, 12 * _HOUR),
    *(_DAY, 2 * _DAY, 3 * _DAY, 4 * _DAY, 5 * _DAY, 7 * _DAY, 10 * _DAY, 14 * _DAY, 21 * _DAY),
    *(30 * _DAY, 45 * _DAY, 60 * _DAY),
)
"""Upper bounds of the classes of the time from a touch to its conversion."""
DERIVED_RATES: Final = {
    "completion_rate": ("completes", "starts"),
    "completions_per_impression": ("completes", "impressions"),
    "conversion_rate": ("conversions", "reach"),
    "unlinked_completion_rate": ("unlinked_completes", "unlinked_starts"),
}
"""A rate to its numerator and denominator, in the same window."""
MONEY: Final = names(SPENDING)
DELIVERY: Final = (*names(JUDGED), "delivery.alerted_state")
UNJUDGED: Final = tuple(
    f"delivery.{name}" for name in ("judged", "unjudged_reason", "unjudged_since_ms", "unjudged_by")
)
PLAN_CHANGED: Final = ("delivery.plan_changed_ms", "delivery.booked_before")
"""Fields on the latest change of a plan. No log shows its time."""
OPENING: Final = (
    "flight.counted_since_ms",
    *(f"delivery.delivered_before{part}" for part in ("", "_until_ms", "_source")),
    *("delivery.gap_ms", "delivery.unknown_reason"),
)
"""Fields on a flight that may have begun before counting did."""


class Check(StrEnum):
    """The ways to check a field."""

    EXACT = "exact"
    SKETCH = "sketch"
    """Of reach above 1,000 and quotients by it: within four standard errors of the exact count."""
    DERIVED = "derived"
    """By the row's own fields, to the last of six places."""
    AT = "at its time"
    """By the log at the row's `as_of_ms`."""
    LIVE = "live"
    """By the form alone, since the value depends on times in which a live flow waited. No log shows them."""
    VERSION = "version"
    """By the presence alone."""


VERSIONS: Final = ("generation", "fence", "rev", "updated_ms")


def _row_checks() -> dict[str, Check]:
    fields = dict.fromkeys(LABELS, Check.EXACT) | dict.fromkeys(VERSIONS, Check.VERSION)
    fields |= dict.fromkeys(("as_of_ms", "final_through_ms", "reach_as_of_ms"), Check.AT)
    fields |= dict.fromkeys((*DELIVERY, *OPENING), Check.AT) | dict.fromkeys(
        (*UNJUDGED, *PLAN_CHANGED), Check.LIVE
    )
    fields |= dict.fromkeys(("conversion_currency", *FREQUENCY_METRICS, *ACCOUNT_METRICS), Check.EXACT)
    fields |= {f"frequency.{name}.conversion_rate": Check.DERIVED for name in CLASSES}
    fields |= {f"flight.{metric}": Check.EXACT for metric in WHOLE_METRICS}
    fields["flight.consent_coverage"] = Check.DERIVED
    fields["flight.since_ms"] = Check.EXACT
    fields["impression_basis"] = fields["reach_unit"] = Check.EXACT
    for window in WINDOWS:
        count_check = Check.EXACT if window == "flight" else Check.AT
        fields |= {f"{window}.{metric}": count_check for metric in (*MINUTE_METRICS, *QUANTILES)}
        fields |= {f"{window}.{metric}": Check.SKETCH for metric in ("reach", "frequency")}
        fields |= {f"{window}.{metric}": Check.DERIVED for metric in (*DERIVED_RATES, *MONEY)}
    fields |= {f"{window}.mature_completion_rate": Check.AT for window in ("5m", "1h")}
    for window in SIDE_WINDOWS:
        fields |= dict.fromkeys(
            (f"{window}.{name}" for name in SIDES), Check.EXACT if window == "flight" else Check.AT
        )
        fields[f"{window}.play_through"] = Check.DERIVED
        fields[f"{window}.household_reach"] = Check.SKETCH
        shares = (*PLATFORM_SHARES, "listener_share", "play_id_share")
        fields |= dict.fromkeys((f"{window}.{name}" for name in shares), Check.DERIVED)
    fields["flight.delay_p50_seconds"] = Check.EXACT
    del fields["5m.unlinked_completion_rate"]
    return fields


ROW: Final = _row_checks()
"""The fields of a row, to their checks."""
MINUTE: Final = {
    **dict.fromkeys(("placement_id", "minute_ms", "state", *MINUTE_METRICS, *CLIENTS), Check.EXACT),
    **dict.fromkeys(("completion_rate", "completions_per_impression"), Check.DERIVED),
    **dict.fromkeys(("rev", "as_of_ms", "methodology"), Check.VERSION),
}
"""The fields of a final minute, to their checks."""
PARTITION: Final = {
    **dict.fromkeys(
        ("received", "marks", "accepted", "repeated", "invalid_traffic", "clock_skewed"), Check.EXACT
    ),
    **{f"rejected.{reason}": Check.EXACT for reason in ("malformed", "invalid", "unknown_event", "too_late")},
    "position": Check.EXACT,
    **dict.fromkeys(("watermark_ms", "as_of_ms"), Check.AT),
    **dict.fromkeys(VERSIONS, Check.VERSION),
}
"""The fields of a source partition's ledger, to their checks."""
META: Final = {
    **dict.fromkeys(
        (
            *("conversions_accepted", "conversions_attributed", "unattributed", "conversions_pending"),
            *("conversions_noisy_household", "rows_beyond_cap", "counted_since_ms"),
        ),
        Check.EXACT,
    ),
    "watermark_ms": Check.AT,
    **dict.fromkeys(
        (
            *("judged", "unjudged_since_ms", "unjudged_reason"),
            *("held_since_ms", "held_by", "held_why", "rows_as_of_ms"),
        ),
        Check.DERIVED,
    ),
    **dict.fromkeys(("silent", "silent_more", "listener_key", "forgotten_sum"), Check.LIVE),
    **dict.fromkeys(
        (
            *("schema", "flushed_ms", "flow_version", "methodology", "allowed_lateness_ms"),
            *("flush", "previous"),
            *VERSIONS,
        ),
        Check.VERSION,
    ),
}
"""The fields of `meta`, to their checks."""
