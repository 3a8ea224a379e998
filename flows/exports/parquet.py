"""Final minutes and decisions as files of UTC days: the work of `audiopixel export parquet`.

A day is written once the flow has reported it complete (`flows.exports.complete`) and the topics are read to
the end that they had then. The committed place stays before the first message of an open day.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol

from connectors.kafka import Place, Places, Record
from connectors.stream import ConnectError
from flows.exports.columns import TABLES, Kind
from flows.exports.complete import Completeness
from flows.exports.handover import Busy, Letter, Parcel, Sorted, malformed, reachable
from flows.exports.staging import Staged, Staging
from flows.exports.warehouse import Warehouse

MAX_RECORDS: Final = 5_000
"""The greatest number of messages that a turn of the loop reads."""
LOOK_EVERY: Final = timedelta(seconds=1)
PROVISIONAL, REPEATED = "provisional", "repeated"
DAY_CLOSED = "day_closed"


class Topics(Protocol):
    """The part of the reader that the target uses."""

    def ends(self) -> dict[Place, int]: ...

    def passed(self, ends: Places) -> bool: ...


@dataclass
class _Stage:
    """Rows for the staging, which is not durable: the place in Kafka stays before them."""

    staging: Staging
    rows: list[Staged]
    records: Sequence[Record]

    def hand_over(self) -> None:
        self.staging.add(self.rows)


@dataclass
class _Day:
    """A day to be written."""

    warehouse: Warehouse
    staging: Staging
    day: int
    records: Sequence[Record] = ()

    def hand_over(self) -> None:
        with storage():
            for kind in TABLES:
                self.warehouse.write(kind, self.day, self.staging.rows(kind, self.day))
        self.staging.drop(self.day)


@dataclass
class ParquetTarget:
    """Stages rows, and writes the days that are complete.

    Args:
        kinds: the kind of file, by topic.
    """

    kinds: Mapping[str, Kind]
    reader: Topics
    completeness: Completeness
    staging: Staging
    warehouse: Warehouse
    clock_s: Callable[[], float] = time.monotonic
    most: int = MAX_RECORDS
    connections: int = 1
    _looked_s: float = float("-inf")
    _due: int = 0
    _ends: dict[Place, int] = field(default_factory=dict)

    def sort(self, records: Sequence[Record]) -> Sorted:
        """Put rows of open days into the staging, then the due days into parcels."""
        rows: list[Staged] = []
        letters: list[Letter] = []
        left_out: list[str] = []
        closed: dict[tuple[Kind, int], list[tuple[Record, Staged]]] = defaultdict(list)
        for record in records:
            kind = self.kinds[record.topic]
            try:
                day_and_row = TABLES[kind].row(record.key, record.value)
            except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
                letters.append(malformed(record, error))
                continue
            if day_and_row is None:
                left_out.append(PROVISIONAL)
                continue
            row = Staged(kind, *day_and_row, (record.topic, record.partition), record.offset)
            with storage():
                complete = self.warehouse.complete(kind, row.day)
            if complete:
                closed[kind, row.day].append((record, row))
            else:
                rows.append(row)
        for (kind, day), late_rows in closed.items():
            late, repeated = self._split(kind, day, late_rows)
            letters += [Letter(record, DAY_CLOSED) for record in late]
            left_out += [REPEATED] * len(repeated)
            with storage():
                whole = self.warehouse.whole(day)
            if not whole:  # the process ended between the day's kinds: these rows make the day due again
                rows += repeated
        parcels: list[Parcel] = [_Stage(self.staging, rows, [])] if rows else []
        return Sorted([*parcels, *self._days(rows)], letters, left_out)

    def places(self, read: Places) -> Places:
        """The places read, or of a partition with an open day its first message of such a day."""
        return {**read, **self.staging.first_offsets()}

    @property
    def waiting(self) -> bool:
        """True while a staged day will be due once the flow's latest watermark has settled."""
        return bool(self._ends) or any(day < self.completeness.soon for day in self.staging.days())

    def _days(self, rows: Sequence[Staged]) -> list[Parcel]:
        """The due days. Rows under way are in the staging before these parcels are handed over."""
        now_s = self.clock_s()
        if not self._ends and now_s - self._looked_s >= LOOK_EVERY.total_seconds():
            self._looked_s = now_s
            due = self._look()
            days = {*self.staging.days(), *(row.day for row in rows)}
            if any(day < due for day in days):
                # Later messages of the topics are of days that are not due.
                with reachable():
                    self._due, self._ends = due, self.reader.ends()
        if not self._ends or not self.reader.passed(self._ends):
            return []
        self._ends = {}
        days = {*self.staging.days(), *(row.day for row in rows)}
        return [_Day(self.warehouse, self.staging, day) for day in sorted(days) if day < self._due]

    def _look(self) -> int:
        try:
            return self.completeness.look()
        except ConnectError:  # Redis is away: nothing becomes due
            return -1

    def _split(
        self, kind: Kind, day: int, late_rows: Sequence[tuple[Record, Staged]]
    ) -> tuple[list[Record], list[Staged]]:
        """The messages of a complete day whose rows its file lacks, and the rows that the file has."""
        with storage():
            written = self.warehouse.keys(kind, day, {record.key.decode() for record, _ in late_rows})
        late = [record for record, _ in late_rows if record.key.decode() not in written]
        return late, [row for record, row in late_rows if record.key.decode() in written]


@contextmanager
def storage() -> Iterator[None]:
    """A context in which a failing shelf counts as a busy target."""
    try:
        yield
    except OSError as error:
        raise Busy("storage", str(error)[:200]) from None
