"""The truth of a log, from the oracle's database: the numbers of all rows, minutes and accounts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from flows.errors import SettingsError
from flows.reconcile.database import Database
from flows.reconcile.fields import (
    ACCOUNT_METRICS,
    CLIENTS,
    FLIGHT_METRICS,
    FREQUENCY_METRICS,
    MINUTE_METRICS,
    SCOPES,
)
from flows.reconcile.rules import Rules, ms
from flows.reconcile.sql import bases, client_windows, crediting, rows

Number = int | float
Counts = dict[str, Number]
Key = tuple[str, str]
"""Scope and id of a row."""
_OF_RESTARTS: Final = ("flight", "labels", "bases", "campaigns", "_latest")
"""The cached properties that depend on the restarts of rows."""


class RowMoments(NamedTuple):
    """A row, with the moment of its counts (`at_ms`) and the moment of its reach (`reached_ms`), epoch ms."""

    scope: str
    id: str
    at_ms: int
    reached_ms: int


class Truth(NamedTuple):
    """The log's numbers of one row.

    Attributes:
        windows: metrics to their sums in 5m, 1h, 1d and flight; conversions in millionths.
        mature: starts and completes of the mature minutes of 5m, and of 1h.
        since_ms: the least event time of its pixels; None without a pixel.
        latest_ms: the event time of its latest pixel or credit, whether it counts or not; None without any.
    """

    windows: dict[str, tuple[int, int, int, int]]
    mature: tuple[tuple[int, int], tuple[int, int]]
    since_ms: int | None
    latest_ms: int | None


@dataclass
class Recomputation:
    """The exact numbers of the log. Large tables are queried from the database.

    Attributes:
        totals: `received`, `marks`, `accepted`, `repeated`, `rejected.<reason>`, `clock_skewed`,
            `invalid_traffic` (of the accepted), `conversions` (accepted and valid), and `unattributed` and
            `noisy_household` (of the conversions). A reason without a message is missing.
        ledger: the same counts of messages by source partition, which is the path of its file.
        watermarks: the watermark of each partition at its end, epoch ms.
        end_ms: the watermark of the finished logs, epoch ms.
        counted_since_ms: the least receipt of a partition's first line, epoch ms; 0 without any.
        erased: the number of consented pixels of listeners on the deny-list.
        rules: the rules of counting.
    """

    totals: dict[str, int]
    ledger: dict[str, dict[str, int]]
    watermarks: dict[str, int]
    end_ms: int
    counted_since_ms: int
    erased: int
    rules: Rules
    _db: Database
    _days: dict[int, tuple[int, int]] = field(default_factory=dict)

    def is_replayed(self, partitions: Iterable[str]) -> bool:
        """True if the published source partitions are the files themselves. Otherwise the files are copies of
        a topic's partitions.
        """
        return not self.ledger.keys().isdisjoint(partitions)

    @cached_property
    def flight(self) -> dict[Key, Counts]:
        """Rows to `flight.<metric>` for all of `FLIGHT_METRICS`. All are integers, except conversions of the
        models `linear` and `time_decay`, which are multiples of 0.000001.

        Planned placements and their campaigns are among the rows even without a pixel. Planned placements
        also have `delivery.delivered`. Campaigns also have all of `FREQUENCY_METRICS` and `ACCOUNT_METRICS`,
        for the whole log.
        """
        flights: dict[Key, Counts] = {}
        for scope in SCOPES:
            moments = [RowMoments(scope, name, self.end_ms, self.end_ms) for name in self.names(scope)]
            for (_, name), truth in self.rows(moments):
                flights[scope, name] = {
                    f"flight.{metric}": number(metric, truth.windows.get(metric, _NONE)[3])
                    for metric in FLIGHT_METRICS
                }
        for name, delivered in self.delivered.items():
            flights["placement", name]["delivery.delivered"] = delivered
        for name, counts in self.campaigns.items():
            flights["campaign", name].update(counts)
        return flights

    @cached_property
    def minutes(self) -> dict[tuple[str, int], Counts]:
        """(placement id, minute in epoch ms) to all of `MINUTE_METRICS` and `CLIENTS`, without minutes of
        zeros.
        """
        minutes: dict[tuple[str, int], Counts] = {}
        metrics = (*MINUTE_METRICS, *CLIENTS)
        for placement, minute, metric, amount in self._db.all(rows.MINUTES):
            if metric in metrics:
                counts = minutes.setdefault((placement, minute), dict.fromkeys(metrics, 0))
                counts[metric] = number(metric, amount)
        return minutes

    @cached_property
    def delivered(self) -> dict[str, int]:
        """Planned placements to the impressions of their flights."""
        return {name: whole for name, (whole, _) in self.flight_impressions.items()}

    @cached_property
    def flight_impressions(self) -> dict[str, tuple[int, int]]:
        """Planned placements to the impressions of their flights, and to the impressions after a balance."""
        return {name: (int(whole), int(after)) for name, whole, after in self._db.all(rows.DELIVERED)}

    def flight_impressions_since(self, from_ms: int) -> dict[str, int]:
        """Planned placements to the impressions of their flights from a minute on, without zeros."""
        return {name: int(amount) for name, amount in self._db.all(rows.DELIVERED_SINCE, [from_ms])}

    @cached_property
    def labels(self) -> dict[str, tuple[str | None, ...]]:
        """Placements to their labels of `LABELS`."""
        return {name: tuple(labels) for name, *labels in self._db.all(rows.LABELS)}

    @cached_property
    def bases(self) -> dict[Key, str]:
        """Rows to the basis of their impressions; `mixed` for several bases."""
        return {(scope, name): basis for scope, name, basis in self._db.all(bases.ROW_BASES)}

    @cached_property
    def currencies(self) -> dict[Key, str]:
        """Rows to the currency of their values, without rows that have no value in it."""
        rows = self._db.all(
            "SELECT DISTINCT scope, id, known FROM currencies JOIN valued USING (scope, id) "
            "WHERE currency = known AND NOT odd"
        )
        return {(scope, name): known for scope, name, known in rows}

    @cached_property
    def campaigns(self) -> dict[str, Counts]:
        """Campaigns to all of `FREQUENCY_METRICS` and `ACCOUNT_METRICS`."""
        nothing = dict.fromkeys((*FREQUENCY_METRICS, *ACCOUNT_METRICS), 0)
        campaigns: dict[str, Counts] = {name: dict(nothing) for name in self.names("campaign")}
        for name, metric, amount in self._db.all(crediting.FREQUENCY):
            campaigns[name][metric] = number(metric, amount)
        for name, metric, amount in self._db.all(crediting.ACCOUNTS):
            campaigns[name][f"flight.conversions_{metric}"] = int(amount)
        return campaigns

    def names(self, scope: str) -> list[str]:
        """All ids of a scope that the log or a plan has, sorted."""
        names = self._db.all(
            "SELECT id FROM members WHERE scope = $1 UNION SELECT id FROM credited_rows WHERE scope = $1",
            [scope],
        )
        planned: dict[str, list[str | None]] = {
            "placement": list(self.rules.plans),
            "campaign": [plan.campaign for plan in self.rules.plans.values()],
        }
        counted = {name for (name,) in names if (scope, name) in self._latest}
        return sorted(counted | {name for name in planned.get(scope, ()) if name})

    @cached_property
    def _latest(self) -> dict[Key, tuple[int | None, int]]:
        """Rows to `since_ms` and `latest_ms` of `Truth`."""
        since_and_latest: dict[Key, tuple[int | None, int]] = {}
        for scope, name, since, latest in self._db.all(rows.ROWS):
            before = since_and_latest.get((scope, name), (None, 0))
            since_and_latest[scope, name] = since if before[0] is None else before[0], max(before[1], latest)
        return since_and_latest

    def silences(self, at_least: timedelta) -> dict[Key, list[int]]:
        """Rows to the minutes, ascending, of their first pixel or credit after a silence of at least
        `at_least`.
        """
        silences: dict[Key, list[int]] = {}
        span = self._db.first(rows.SPAN)
        if span is not None and (span[0] or 0) >= ms(at_least):
            for scope, name, minute in self._db.all(rows.SILENCES, [ms(at_least)]):
                silences.setdefault((scope, name), []).append(minute)
        return silences

    def restart_rows(self, restarts: Mapping[Key, int]) -> None:
        """Leave out all that these rows had before a minute, epoch ms. Other rows have everything."""
        self._db.run("DELETE FROM restarts")
        self._db.insert("restarts", ((*key, minute) for key, minute in restarts.items()))
        self._clear(*_OF_RESTARTS)

    def _clear(self, *names: str) -> None:
        """Drop the values of cached properties."""
        for name in names:
            self.__dict__.pop(name, None)

    def erase(self, erased: bool) -> None:
        """Make all numbers as if the listeners on the deny-list had been on it from the log's beginning
        (`erased`), or never.

        Raises:
            SettingsError: the order of events of one moment matters, and its key is unknown.
        """
        self._db.set({"erased": erased})
        self._db.run(client_windows.SENDS)
        self._check_ties()
        self._db.insert(
            "days", ((minute, self._day(minute)) for (minute,) in self._db.all(client_windows.MINUTES))
        )
        self._db.run(client_windows.SIDES)
        self._db.run(crediting.TOUCHES)
        self._db.run(crediting.CREDITS)
        self._db.run(rows.FACTS)
        self._clear(*_OF_RESTARTS, "minutes", "delivered", "flight_impressions", "currencies", "capped")
        totals = self._db.first(crediting.CONVERSIONS)
        assert totals is not None, "an aggregate without groups has one row"
        self.totals["conversions"], self.totals["unattributed"], self.totals["noisy_household"] = totals

    @cached_property
    def capped(self) -> dict[Key, int]:
        """Rows that capped conversions may be credited to, to the number of these conversions. A cap left out
        a touch of a capped conversion, so that the flow may have credited other touches.
        """
        return {(scope, name): count for scope, name, count in self._db.all(crediting.CAPPED)}

    def _check_ties(self) -> None:
        """Raise SettingsError if events of one client and moment need an order, and its key is unknown."""
        tied = self._db.first(client_windows.TIED)
        if tied is not None and tied[0] and not self.rules.tie_key:
            raise SettingsError(
                f"{tied[0]} times one client has downloads or deliveries of different rows in a millisecond, "
                "which a key orders: set AUDIOPIXEL_LISTENER_KEY to the flow's"
            )

    def _day(self, minute: int) -> int:
        return datetime.fromtimestamp(minute / 1000, ZoneInfo(self.rules.timezone)).date().toordinal()

    def rows(self, moments: Sequence[RowMoments]) -> Iterator[tuple[Key, Truth]]:
        """The log's numbers of some rows, in their order."""
        columns = [
            (row.scope, row.id, *self._moments(row.at_ms), *self._moments(row.reached_ms)) for row in moments
        ]
        self._db.run(
            "CREATE OR REPLACE TABLE row_moments (scope VARCHAR, id VARCHAR, moment BIGINT, day_from BIGINT, "
            "day_to BIGINT, mature BIGINT, moment_2 BIGINT, day_from_2 BIGINT, day_to_2 BIGINT, "
            "mature_2 BIGINT)"
        )
        self._db.insert("row_moments", columns)
        sums: dict[Key, dict[str, tuple[int, ...]]] = {}
        for query in (rows.WINDOWS, rows.REACHED, rows.DELAYS):
            for scope, name, metric, *amounts in self._db.all(query):
                sums.setdefault((scope, name), {})[metric] = tuple(amount or 0 for amount in amounts)
        for row_moments in moments:
            key = row_moments.scope, row_moments.id
            row_sums = sums.pop(key, {})
            starts, completes = row_sums.get("starts", _NONE), row_sums.get("completes", _NONE)
            windows = {metric: (each[0], each[1], each[2], each[3]) for metric, each in row_sums.items()}
            mature = (starts[4], completes[4]), (starts[5], completes[5])
            yield key, Truth(windows, mature, *self._latest.get(key, (None, None)))

    def last_minute(self) -> int:
        """The last minute with any count, epoch ms."""
        row = self._db.first("SELECT max(minute) FROM facts")
        return 0 if row is None or row[0] is None else int(row[0])

    def _moments(self, at_ms: int) -> tuple[int, int, int, int]:
        """The minute of a moment, the [begin, end) of its calendar day, and the minute before which cohorts
        are mature; all in epoch ms.
        """
        minute = at_ms - at_ms % 60_000
        if minute not in self._days:
            zone = ZoneInfo(self.rules.timezone)
            day = datetime.fromtimestamp(minute / 1000, zone).date()
            ends = (datetime.combine(each, time.min, zone) for each in (day, day + timedelta(days=1)))
            first, second = (round(end.astimezone(UTC).timestamp()) * 1000 for end in ends)
            self._days[minute] = first, second
        mature = at_ms - ms(self.rules.mature_after)
        return minute, *self._days[minute], mature - mature % 60_000


_NONE: Final = (0, 0, 0, 0, 0, 0)


def number(metric: str, amount: int) -> Number:
    """The published number of an amount. Amounts of conversions are in millionths."""
    if "conversion" not in metric or metric.startswith("conversion_value"):
        return int(amount)
    return int(amount) // 1_000_000 if amount % 1_000_000 == 0 else amount / 1_000_000
