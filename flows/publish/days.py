"""Placements' days in Redis, for `audiopixel discrepancy`: a hash a placement and day, for 62 days."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

import msgspec

from flows.model.basis import BASES
from flows.model.client_counts import COLUMNS as BY_CLIENT
from flows.model.client_counts import FINAL_AT, KINDS
from flows.model.day_parts import (
    CLOCK_MOVED,
    COUNTED,
    DAYS_OPEN,
    FIRST_BASIS,
    FIRST_CLIENT,
    FIRST_PART,
    INVALID,
    ORPHANS,
    OUTSIDE,
    REJECTED,
    REPEATED,
    SENT,
    TOO_LATE,
    AlikeDays,
)
from flows.model.redis_keys import day_keys

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
    "bases",
    "sent",
    "as_of_ms",
)
"""Fields of a day. `invalid_traffic` is a JSON object of impressions by reason. `bases` is one of impressions
inside the flight by basis, without the usual basis. `sent` is one of downloads and deliveries, by the names
of `SENT_NAMES`.
"""
SENT_NAMES: Final = (
    *(f"{kind}{part}" for kind in KINDS for part in ("", "_repeated", "_too_late", "_invalid_traffic")),
    *(BY_CLIENT[place] for place in FINAL_AT),
    *(f"{kind}_outside_flight" for kind in KINDS),
)
_PLAIN: Final = (REPEATED, TOO_LATE, REJECTED, ORPHANS, CLOCK_MOVED)


@dataclass
class Days:
    """The placements' days that one execution has published.

    Args:
        reasons: of invalid traffic, in the order of their numbers.
    """

    namespace: str
    reasons: Sequence[str]
    _newest: int = 0
    _keys: dict[int, set[str]] = field(default_factory=dict)

    def rows(
        self, days: Sequence[AlikeDays], as_of_ms: int
    ) -> Iterator[tuple[list[str], list[int | str | None]]]:
        """The keys of days with equal values, and these values; one pair for each set of values."""
        for ordinal, counts, placements in days:
            day = date.fromordinal(ordinal)
            keys = day_keys(self.namespace, placements, day)
            self._keys.setdefault(ordinal, set()).update(keys)
            self._newest = max(self._newest, ordinal)
            invalid = _named(self.reasons, counts[FIRST_PART + INVALID : FIRST_PART + SENT])
            bases = _named(BASES[1:], counts[FIRST_BASIS:FIRST_CLIENT])
            sent = _named(SENT_NAMES, [*counts[FIRST_PART + SENT : FIRST_BASIS], *counts[FIRST_CLIENT:]])
            plain = [counts[FIRST_PART + part] for part in _PLAIN]
            yield keys, [counts[COUNTED], counts[OUTSIDE], *plain, invalid, bases, sent, as_of_ms]

    def move(self, namespace: str, rename: Callable[[str], str]) -> None:
        """Rename the keys of all days to another namespace."""
        self.namespace = namespace
        self._keys = {day: {*map(rename, keys)} for day, keys in self._keys.items()}

    def over(self) -> set[str]:
        """The keys of days that no longer change, each returned once: from then on only Redis has their
        values.
        """
        past = [day for day in self._keys if day < self._newest - DAYS_OPEN - 1]
        return set().union(*(self._keys.pop(day) for day in past))


def _named(names: Sequence[str], counts: Sequence[int]) -> str:
    """JSON of the counts that are not 0."""
    if not any(counts):
        return "{}"
    by_name = {name: count for name, count in zip(names, counts, strict=False) if count}
    return msgspec.json.encode(by_name).decode()
