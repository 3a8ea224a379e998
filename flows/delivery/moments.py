"""The moments at which a flight can be split into an opening balance and the counts after it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from flows.model.day_parts import DAYS_OPEN
from flows.model.flight import MINUTE_MS

MINUTES: Final = 60
"""Minutes whose counts are stored, the watermark's included."""


def works(until_ms: int, since_ms: int, now_ms: int, zone: ZoneInfo) -> bool:
    """True if a new plan may have a balance up to this moment.

    Args:
        since_ms: receipt since which the deployment counts.
        now_ms: the watermark.
        zone: of the calendar day.
    """
    return until_ms <= since_ms or until_ms in _parting(now_ms, zone)


def nearest(until_ms: int, since_ms: int, now_ms: int, zone: ZoneInfo) -> list[int]:
    """The last moment before one that works, and the first after it; arguments as of `works`."""
    moments_ms = sorted({since_ms, *(ms for ms in _parting(now_ms, zone) if ms > since_ms)})
    before, behind = [ms for ms in moments_ms if ms <= until_ms], [ms for ms in moments_ms if ms > until_ms]
    return [*before[-1:], *behind[:1]]


def refused(until_ms: int, since_ms: int, now_ms: int, zone: ZoneInfo) -> str | None:
    """The words for a moment that does not work; None for one that does. Arguments as of `works`."""
    return None if works(until_ms, since_ms, now_ms, zone) else refusal(until_ms, since_ms, now_ms, zone)


def refusal(until_ms: int, since_ms: int, now_ms: int, zone: ZoneInfo) -> str:
    """The words for a moment that does not work; arguments as of `works`."""
    nearest_texts = " and ".join(moment_text(ms) for ms in nearest(until_ms, since_ms, now_ms, zone))
    days = f"a midnight of the last {DAYS_OPEN} days in {zone.key}"
    return (
        f"{moment_text(until_ms)}: counts before and behind it are not kept apart. Takes a moment up to "
        f"{moment_text(since_ms)}, since when is counted, {days}, "
        f"or a minute of the last hour; the nearest that work are {nearest_texts}"
    )


def moment_text(ms: int) -> str:
    """A moment as plans take it, in UTC."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)).isoformat()


def _parting(now_ms: int, zone: ZoneInfo) -> set[int]:
    """The moments up to now at which the stored counts split."""
    minute = now_ms // MINUTE_MS
    moments_ms = {(minute - back) * MINUTE_MS for back in range(MINUTES)}
    return moments_ms | {ms for ms in _midnights(now_ms, zone) if ms <= now_ms}


def _midnights(now_ms: int, zone: ZoneInfo) -> Iterator[int]:
    today = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(zone).date()
    for back in range(DAYS_OPEN + 1):
        yield _midnight(today - timedelta(days=back), zone)


def _midnight(day: date, zone: ZoneInfo) -> int:
    """The first moment of a day, ms; if clocks skip midnight, the moment to which they go."""
    return round(datetime.combine(day, time.min, zone).astimezone(UTC).timestamp()) * 1000
