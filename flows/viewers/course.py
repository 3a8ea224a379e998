"""The course of a placement's flight: its rate by minute against the needed rate, its projection, and marks.

Its sources are the row, the topic `placement-minutes` and the stream of alerts. A restart of the flow or of
the exporter therefore does not change it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from flows.errors import UNREADABLE
from flows.viewers.silence import FEED
from flows.viewers.words import number

MINUTE_MS: Final = 60_000
MAX_MINUTES: Final = 1_440
"""The most minutes of an answer, the latest: a day."""
MAX_MARKS: Final = 200
"""The most marks of an answer, the latest."""
_LATEST_MS: Final = 1 << 47


def course(
    name: str,
    row: Mapping[str, str],
    minutes: Sequence[Mapping[str, Any]],
    from_ms: int,
    changes: Iterable[Mapping[str, str]],
) -> dict[str, Any]:
    """The course of a placement, for JSON.

    Args:
        row: the row in Redis.
        minutes: the placement's values in the topic, the oldest first, without empty minutes.
        from_ms: the beginning of the read part of the topic, in epoch ms; 0 if unknown.
        changes: entries of the stream of alerts about its states and about feeds, the oldest first. A silent
            feed is a mark if the placement has pixels of it.
    """
    as_of_ms = _moment(row.get("as_of_ms"))
    start_ms, end_ms = _moment(row.get("delivery.start_ms")), _moment(row.get("delivery.end_ms"))
    booked, delivered = _amount(row, "delivery.booked"), _amount(row, "delivery.delivered")
    projected, due = _amount(row, "delivery.projected"), _amount(row, "delivery.expected")
    left_min = number(row.get("delivery.remaining_seconds")) / 60
    needed = number(row.get("delivery.required_rate")) / 60
    return {
        "placement": name,
        "as_of_ms": as_of_ms,
        "flight": {
            "start_ms": start_ms,
            "end_ms": end_ms,
            "booked": booked,
            "delivered": delivered,
            "expected": due,
            "projected": projected,
        },
        "needed_per_minute": _finite(needed),
        "due_per_minute": _rate(booked, due, left_min),
        "projected_per_minute": _rate(projected, delivered, left_min),
        "minutes": _by_minute(minutes, from_ms, start_ms, as_of_ms),
        "marks": _marks(name, row, changes)[-MAX_MARKS:],
    }


def _by_minute(
    minutes: Sequence[Mapping[str, Any]], from_ms: int, flight_start_ms: int | None, as_of_ms: int | None
) -> dict[str, Any]:
    """Impressions of every minute up to the present one, 0 for an empty minute. From `final_through_ms` on
    they may change.
    """
    counts: dict[int, int] = {}
    final_ms = None
    for minute in minutes:
        at_ms, impressions = minute.get("minute_ms"), minute.get("impressions", 0)
        if isinstance(at_ms, int) and isinstance(impressions, int) and 0 <= at_ms < _LATEST_MS:
            counts[at_ms] = impressions
            if minute.get("state") == "final":
                final_ms = at_ms + MINUTE_MS
    first_ms = from_ms or min(counts, default=as_of_ms or 0)
    first_ms = -(-max(first_ms, flight_start_ms or 0) // MINUTE_MS) * MINUTE_MS
    last_ms = max(as_of_ms or 0, max(counts, default=0)) // MINUTE_MS * MINUTE_MS
    first_ms = max(first_ms, last_ms - (MAX_MINUTES - 1) * MINUTE_MS)
    minute_starts_ms = range(first_ms, last_ms + 1, MINUTE_MS) if counts or from_ms else range(0)
    return {
        "at_ms": [*minute_starts_ms],
        "impressions": [counts.get(start_ms, 0) for start_ms in minute_starts_ms],
        "final_through_ms": final_ms,
    }


def _marks(name: str, row: Mapping[str, str], changes: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Changes of state and of the plan, and outages of feeds, by when they began."""
    marks: list[dict[str, Any]] = []
    silent: dict[str, dict[str, Any]] = {}
    for change in changes:
        at_ms = _moment(change.get("as_of_ms"))
        if at_ms is None:
            continue
        if change.get("kind") == FEED:
            unit = change.get("unit", "")
            if change.get("to") == "silent":
                if not _has_pixels_of(name, row, unit, change):
                    continue
                begun_ms = _moment(change.get("since_ms"))
                silent[unit] = {"kind": "feed", "at_ms": begun_ms or at_ms, "until_ms": None, "unit": unit}
                marks.append(silent[unit])
            elif unit in silent:
                silent.pop(unit)["until_ms"] = at_ms
        elif change.get("placement") == name:
            begun_ms = _moment(change.get("since_ms"))
            marks.append(
                {
                    "kind": "state",
                    "at_ms": begun_ms or at_ms,
                    "from": change.get("from"),
                    "to": change.get("to"),
                }
            )
    unjudged_ms = _moment(row.get("delivery.unjudged_since_ms"))
    if row.get("delivery.judged") == "0" and unjudged_ms is not None:
        unit = row.get("delivery.unjudged_by", "")
        if unit not in silent:
            marks.append({"kind": "feed", "at_ms": unjudged_ms, "until_ms": None, "unit": unit})
    plan_ms = _moment(row.get("delivery.plan_changed_ms"))
    if plan_ms is not None:
        before = _amount(row, "delivery.booked_before")
        marks.append({"kind": "plan", "at_ms": plan_ms, "booked_before": before})
    return sorted(marks, key=lambda mark: mark["at_ms"])


def _has_pixels_of(name: str, row: Mapping[str, str], unit: str, alert: Mapping[str, str]) -> bool:
    """True if a placement has pixels of a unit of the feed. The alert's list of placements shows it, the
    row's platform, or the unit for which the row is not judged.
    """
    if unit == f"platform:{row.get('platform')}" or unit == row.get("delivery.unjudged_by"):
        return True
    try:
        return name in msgspec.json.decode(alert.get("placement_ids", "[]"), type=list[str])
    except UNREADABLE:
        return False


def _rate(whole: float | None, part: float | None, left_min: float) -> float | None:
    """`whole - part` divided by the minutes that are left."""
    if whole is None or part is None or not left_min > 0:
        return None
    return _finite((whole - part) / left_min)


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _amount(row: Mapping[str, str], field: str) -> float | None:
    return _finite(number(row.get(field)))


def _moment(text: str | None) -> int | None:
    """Epoch ms; None for a text that is no moment within the calendar."""
    value = number(text)
    return int(value) if 0 <= value < _LATEST_MS else None
