"""Rejected impressions, deliveries and downloads by placement and day, with which `audiopixel discrepancy`
explains a publisher's greater count.

The counts go into Redis as absolute counts of one process, so that a repeated write changes nothing.
Placements that have a row are counted one by one. An enemy may send any number of unknown names. A bounded
part of these is therefore looked up each time, and the names without a row are dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from flows.collector.call import Understood
from flows.model.ticks import DAY_MS, MINUTE_MS

REASONS: Final = ("unsigned", "invalid")
COUNTED: Final = {"impression": "", "delivered": ".deliveries", "download": ".downloads"}
"""The events that are counted, and the suffix of each one's reasons."""
TTL: Final = timedelta(days=62)
MAX_UNKNOWN: Final = 1_000
"""The greatest number of placements that are looked up at once."""
MAX_KNOWN: Final = 200_000
"""The greatest number of placements that are counted, as many as may have a row."""
_LONGEST: Final = 128
"""The greatest length of a placement's id."""

ByDay = Counter[str]
"""Counts by `<day>/<reason>` with the suffix of the event in `COUNTED`."""


class DueCounts(NamedTuple):
    """The counts that are due: all counts of placements that have a row, and the new ones of other
    placements.
    """

    with_row: dict[str, ByDay]
    without_row: dict[str, ByDay]


@dataclass
class Refusals:
    """Counts of one process.

    Args:
        zone: of the calendar day.
    """

    zone: ZoneInfo
    _with_row: dict[str, ByDay] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)
    _without_row: dict[str, ByDay] = field(default_factory=dict)

    def count(self, rejected: Sequence[Understood]) -> None:
        """Count the impressions, deliveries and downloads among rejected events that name a placement."""
        for result in rejected:
            event = result.event
            placement, ts, received = (event.get(name) for name in ("placement_id", "ts", "received_at"))
            if result.reason not in REASONS or (suffix := COUNTED.get(str(event.get("event")))) is None:
                continue
            if not isinstance(placement, str) or not isinstance(ts, int) or not isinstance(received, int):
                continue
            if len(placement) > _LONGEST:
                continue
            # Clamp the time as the flow would have.
            counted_ms = max(received - DAY_MS, min(ts, received + MINUTE_MS))
            oldest = self._day(received - 2 * DAY_MS)
            self._count(placement, f"{self._day(counted_ms)}/{result.reason}{suffix}", oldest)

    def _day(self, ts_ms: int) -> str:
        return datetime.fromtimestamp(ts_ms / 1000, UTC).astimezone(self.zone).date().isoformat()

    def _count(self, placement: str, day_reason: str, oldest: str) -> None:
        counts = self._with_row.get(placement)
        if counts is not None:
            self._changed.add(placement)
        elif (counts := self._without_row.get(placement)) is None:
            if len(self._without_row) >= MAX_UNKNOWN:
                return
            counts = self._without_row[placement] = Counter()
        # Drop the counts of past days with each new day: nothing changes them any more.
        if day_reason not in counts:
            for past in [key for key in counts if key < oldest]:
                del counts[past]
        counts[day_reason] += 1

    def take(self) -> DueCounts:
        """Take the due counts; call `written` or `put_back` afterwards."""
        by_placement = {name: Counter(self._with_row[name]) for name in self._changed}
        due = DueCounts(by_placement, self._without_row)
        self._changed, self._without_row = set(), {}
        return due

    def written(self, due: DueCounts, with_row: Collection[str]) -> None:
        """Note that Redis has the counts. Unknown placements that have a row are known from now on."""
        for name in with_row:
            if len(self._with_row) < MAX_KNOWN:
                self._with_row[name] = due.without_row[name]
                if name in self._without_row:  # events have come meanwhile
                    self._with_row[name] += self._without_row.pop(name)
                    self._changed.add(name)

    def put_back(self, due: DueCounts) -> None:
        """Make the counts due again, after Redis did not take them."""
        self._changed.update(due.with_row)
        for name, counts in due.without_row.items():
            if name in self._without_row or len(self._without_row) < MAX_UNKNOWN:
                self._without_row.setdefault(name, Counter()).update(counts)


def by_day(counts: ByDay) -> dict[str, Counter[str]]:
    """The counts of each day by reason."""
    by_date: dict[str, Counter[str]] = {}
    for day_reason, count in counts.items():
        day, _, reason = day_reason.partition("/")
        by_date.setdefault(day, Counter())[reason] += count
    return by_date
