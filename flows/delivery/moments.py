"""The moments at which a flight can be split into an opening balance and the counts after it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from flows.model.day_parts import DAYS_OPEN
from flows.model.flight import MINUTE_MS

STORED_MINUTES: Final = 60
"""The minutes whose counts are stored, the watermark's minute included."""


def splits_counts(until_ms: int, since_ms: int, now_ms: int, zone: ZoneInfo) -> bool:
    """True if a new plan may have a balance up to this moment.

    Args:
        since_ms: receipt since which the deployment counts.
        now_ms: the watermark.
        zone: the time zone of the calendar days.
    """
    return until_ms <= since_ms or until_ms in _splitting_moments(now_ms, zone)


def nearest(until_ms: int, since_ms: int, now_ms: int, zone: ZoneInfo) -> list[int]:
    """The two moments nearest to `until_ms` that split the counts: the last one up to it, and the first after
    it. Either may be missing. Arguments as of `splits_counts`.
    """
    moments_ms = sorted({since_ms, *(ms for ms in _splitting_moments(now_ms, zone) if ms > since_ms)})
    earlier, later = [ms for ms in moments_ms if ms <= until_ms], [ms for ms in moments_ms if ms > until_ms]
    return [*earlier[-1:], *later[:1]]


def moment_problem(until_ms: int, since_ms: int, now_ms: int, zone: ZoneInfo) -> str | None:
    """The refusal of a moment that does not split the counts; None for a moment that does. Arguments as of
    `splits_counts`.
    """
    return (
        None if splits_counts(until_ms, since_ms, now_ms, zone) else refusal(until_ms, since_ms, now_ms, zone)
    )


def refusal(until_ms: int, since_ms: int, now_ms: int, zone: ZoneInfo) -> str:
    """The error message for a moment that does not split the counts; arguments as of `splits_counts`."""
    nearest_texts = " and ".join(moment_text(ms) for ms in nearest(until_ms, since_ms, now_ms, zone))
    days = f"a midnight of today or the {DAYS_OPEN} days before, in {zone.key}"
    return (
        f"{moment_text(until_ms)}: counts before and after it are not stored separately. Takes a moment "
        f"up to {moment_text(since_ms)}, when counting began, {days}, or a minute of the last hour; "
        f"the nearest such moments are {nearest_texts}"
    )


def moment_text(ms: int) -> str:
    """A moment in epoch ms as ISO 8601 in UTC, the form that plans take."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)).isoformat()


def _splitting_moments(now_ms: int, zone: ZoneInfo) -> set[int]:
    """The moments up to `now_ms` at which the stored counts can be split."""
    minute = now_ms // MINUTE_MS
    moments_ms = {(minute - back) * MINUTE_MS for back in range(STORED_MINUTES)}
    return moments_ms | {ms for ms in _midnights(now_ms, zone) if ms <= now_ms}


def _midnights(now_ms: int, zone: ZoneInfo) -> Iterator[int]:
    today = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(zone).date()
    for back in range(DAYS_OPEN + 1):
        yield _midnight(today - timedelta(days=back), zone)


def _midnight(day: date, zone: ZoneInfo) -> int:
    """The first moment of a day, epoch ms. If clocks skip midnight, this is the moment to which they skip."""
    return round(datetime.combine(day, time.min, zone).astimezone(UTC).timestamp()) * 1000
