"""Placements' days in Redis, behind `audiopixel discrepancy`: a hash a placement and day, for 62 days."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

import msgspec

from flows.model.day_parts import (
    CLOCK_MOVED,
    COUNTED,
    DAYS_OPEN,
    FIRST_PART,
    INVALID,
    ORPHANS,
    OUTSIDE,
    REJECTED,
    REPEATED,
    TOO_LATE,
    Day,
)
from flows.model.redis_keys import day_key

TTL: Final = timedelta(days=62)
FIELDS: Final = (
    "impressions",
    "outside_flight",
    "repeated",
    "too_late",
    "rejected",
    "orphans",
    "clock_moved",
    "invalid_traffic",
    "as_of_ms",
)
"""Fields of a day; `invalid_traffic` is JSON, reason to impressions."""
_PLAIN: Final = (REPEATED, TOO_LATE, REJECTED, ORPHANS, CLOCK_MOVED)


@dataclass
class Days:
    """The days that one execution has given out.

    Args:
        reasons: of invalid traffic, in the order of their numbers.
    """

    namespace: str
    reasons: Sequence[str]
    _newest: int = 0
    _keys: dict[int, set[str]] = field(default_factory=dict)

    def rows(self, days: Sequence[Day], as_of_ms: int) -> Iterator[tuple[str, list[int | str | None]]]:
        """Key and values of each day."""
        for placement, ordinal, counts in days:
            key = day_key(self.namespace, placement, date.fromordinal(ordinal))
            self._keys.setdefault(ordinal, set()).add(key)
            self._newest = max(self._newest, ordinal)
            told, invalid = "{}", counts[FIRST_PART + INVALID :]
            if any(invalid):
                by_reason = zip(self.reasons, invalid, strict=False)
                told = msgspec.json.encode({reason: count for reason, count in by_reason if count}).decode()
            plain = [counts[FIRST_PART + part] for part in _PLAIN]
            yield key, [counts[COUNTED], counts[OUTSIDE], *plain, told, as_of_ms]

    def over(self) -> set[str]:
        """The keys of days that change no more, once each: Redis alone has them from then on."""
        past = [day for day in self._keys if day < self._newest - DAYS_OPEN - 1]
        return set().union(*(self._keys.pop(day) for day in past))
