"""Rejected impressions, deliveries and downloads by placement and day, by which `audiopixel discrepancy`
explains a publisher's greater count.

The counts go into Redis as absolute counts of one process, so that a repeated write changes nothing.
Placements that have a row are counted one by one. An enemy may send any number of unknown names, so a bounded
part of them is looked up each time, and those without a row are dropped.
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
"""Placements that are looked up at once."""
MAX_KNOWN: Final = 200_000
"""Placements that are counted, as many as may have a row."""
_LONGEST: Final = 128

ByDay = Counter[str]
"""`<day>/<reason>` to impressions, `<day>/<reason>.deliveries` to deliveries."""


class DueCounts(NamedTuple):
    """The counts that are due: all counts of placements that have a row, and the new ones of other
    placements.
    """

    known: dict[str, ByDay]
    unknown: dict[str, ByDay]


@dataclass
class Refusals:
    """Counts of one process.

    Args:
        zone: of the calendar day.
    """

    zone: ZoneInfo
    _known: dict[str, ByDay] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)
    _unknown: dict[str, ByDay] = field(default_factory=dict)

    def heard(self, rejected: Sequence[Understood]) -> None:
        """Count the impressions, deliveries and downloads among rejected events that name a placement."""
        for one in rejected:
            event = one.event
            placement, ts, received = (event.get(name) for name in ("placement_id", "ts", "received_at"))
            if one.reason not in REASONS or (of := COUNTED.get(str(event.get("event")))) is None:
                continue
            if not isinstance(placement, str) or not isinstance(ts, int) or not isinstance(received, int):
                continue
            if len(placement) > _LONGEST:
                continue
            at = max(received - DAY_MS, min(ts, received + MINUTE_MS))  # as the flow would have clamped it
            oldest = self._day(received - 2 * DAY_MS)
            self._count(placement, f"{self._day(at)}/{one.reason}{of}", oldest)

    def _day(self, ts_ms: int) -> str:
        return datetime.fromtimestamp(ts_ms / 1000, UTC).astimezone(self.zone).date().isoformat()

    def _count(self, placement: str, what: str, oldest: str) -> None:
        of = self._known.get(placement)
        if of is not None:
            self._changed.add(placement)
        elif (of := self._unknown.get(placement)) is None:
            if len(self._unknown) >= MAX_UNKNOWN:
                return
            of = self._unknown[placement] = Counter()
        # with each new day the counts of past days are dropped: nothing changes them any more
        if what not in of:
            for past in [one for one in of if one < oldest]:
                del of[past]
        of[what] += 1

    def take(self) -> DueCounts:
        """Take the due counts; call `written` or `back` afterwards."""
        known = {name: Counter(self._known[name]) for name in self._changed}
        due = DueCounts(known, self._unknown)
        self._changed, self._unknown = set(), {}
        return due

    def written(self, due: DueCounts, with_row: Collection[str]) -> None:
        """Note that Redis has the counts. Unknown placements that have a row are known from now on."""
        for name in with_row:
            if len(self._known) < MAX_KNOWN:
                self._known[name] = due.unknown[name]
                if name in self._unknown:  # more came meanwhile
                    self._known[name] += self._unknown.pop(name)
                    self._changed.add(name)

    def back(self, due: DueCounts) -> None:
        """Make the counts due again, after Redis did not take them."""
        self._changed.update(due.known)
        for name, counts in due.unknown.items():
            if name in self._unknown or len(self._unknown) < MAX_UNKNOWN:
                self._unknown.setdefault(name, Counter()).update(counts)


def by_day(counts: ByDay) -> dict[str, Counter[str]]:
    """The counts of each day by reason."""
    found: dict[str, Counter[str]] = {}
    for what, count in counts.items():
        day, _, reason = what.partition("/")
        found.setdefault(day, Counter())[reason] += count
    return found
