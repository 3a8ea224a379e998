"""An exact batch recomputation of the specification over logs; `flows.reconcile.comparison` compares it with
outputs.

Independent on purpose: it shares no line with the flow. Decoding is `flows.reconcile.decode`; all that
follows is SQL (`flows.reconcile.sql`) in an embedded DuckDB, by other means than the flow's: where the flow
keeps state and goes forward, this sorts and joins the whole log at once. The database keeps what does not
fit its memory in a temporary directory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from flows.errors import AudiopixelError
from flows.reconcile import sql
from flows.reconcile.database import Database
from flows.reconcile.decode import Reader
from flows.reconcile.fields import (
    ACCOUNT_METRICS,
    AGES_S,
    FLIGHT_METRICS,
    FREQUENCY_METRICS,
    MINUTE_METRICS,
    SCOPES,
)
from flows.reconcile.pacing import Thresholds
from flows.reconcile.scan import NO_TIME

Number = int | float
Counts = dict[str, Number]
Key = tuple[str, str]
"""Scope and id of a row."""

PODCAST_APPS: Final = (
    r"overcast|pocket ?casts|podimo|castbox|castro|antennapod|applecoremedia|podcasts?/|podcast ?addict"
    r"|podbean|podkicker|player ?fm|radiopublic|spotify/|deezer|tunein|iheartradio|stitcher|audible|downcast"
    r"|bbc ?sounds|globalplayer"
)
"""User agents that are no bots, whatever else they say (specification 1.2): a regular expression."""


@dataclass(frozen=True)
class Planned:
    """What a recomputation needs of a plan.

    Attributes:
        start_ms: the placement's flight starts with the minute of it.
        currency: of the placement's conversion values.
        campaign: of whose values the plans' currency is, if they agree on one; it has a row from its plan on,
            as the placement has.
        blocked_categories: content categories in which the placement's ad must not run; `IAB26` stands for
            `IAB26-1` too.
        end_ms: impressions of minutes that begin before it are delivered; None: nothing of delivery is known.
        booked, pauses, curve, timezone, cpm, target: of the delivery; `pauses` are [start, end) in epoch ms,
            the curve is `even`, `frontloaded` or 24 weights of the zone's hours, `cpm` is in whole units.
    """

    start_ms: int = 0
    currency: str | None = None
    campaign: str | None = None
    blocked_categories: tuple[str, ...] = ()
    end_ms: int | None = None
    booked: int = 0
    pauses: tuple[tuple[int, int], ...] = ()
    curve: str | tuple[int, ...] = "even"
    timezone: str = "UTC"
    cpm: Decimal | None = None
    target: float | None = None


class Seen(NamedTuple):
    """A row whose windows are wanted: those at `at_ms`, reach at `reached_ms`."""

    scope: str
    id: str
    at_ms: int
    reached_ms: int


class Truth(NamedTuple):
    """What the log says of one row.

    Attributes:
        windows: metric to its sums in 5m, 1h, 1d and flight; conversions in millionths.
        mature: starts and completes of the minutes of 5m and 1h that are mature.
        since_ms: the least event time of its pixels; None where it never had one.
        latest_ms: its latest pixel or credit, counted or not.
    """

    windows: dict[str, tuple[int, int, int, int]]
    mature: tuple[tuple[int, int], tuple[int, int]]
    since_ms: int | None
    latest_ms: int | None


@dataclass
class Recomputation:
    """What the log says, exactly; asks its database for all that is large.

    Attributes:
        totals: `received`, `marks`, `accepted`, `repeated`, `rejected.<reason>`, `invalid_traffic` (of the
            accepted),
            `conversions` (accepted and valid), `unattributed`, `clock_skewed`; a reason not met is missing.
        ledger: the same counts of messages by source partition (its path as given).
        watermarks: the watermark of each partition at its end, ms.
        end_ms: the watermark of the finished logs.
        erased: consented pixels of listeners on the deny-list.
    """

    totals: dict[str, int]
    ledger: dict[str, dict[str, int]]
    watermarks: dict[str, int]
    end_ms: int
    plans: Mapping[str, Planned]
    erased: int
    zone: ZoneInfo
    mature_ms: int
    lateness_ms: int
    row_ttl_ms: int
    thresholds: Thresholds
    _db: Database
    _days: dict[int, tuple[int, int]] = field(default_factory=dict)

    @cached_property
    def flight(self) -> dict[Key, Counts]:
        """(scope, id) to `flight.<metric>` for all of `FLIGHT_METRICS`; all are integers, but the conversions
        of the models `linear` and `time_decay` (multiples of 0.000001).

        Planned placements and their campaigns are in it without any pixel, the former with
        `delivery.delivered`. Campaigns have all of `FREQUENCY_METRICS` and `ACCOUNT_METRICS` too; listeners
        are counted since ever.
        """
        found: dict[Key, Counts] = {}
        for scope in SCOPES:
            seen = [Seen(scope, name, self.end_ms, self.end_ms) for name in self.names(scope)]
            for (_, name), truth in self.rows(seen):
                found[scope, name] = {
                    f"flight.{metric}": number(metric, truth.windows.get(metric, _NONE)[3])
                    for metric in FLIGHT_METRICS
                }
        for name, delivered in self.delivered.items():
            found["placement", name]["delivery.delivered"] = delivered
        for name, counts in self.campaigns.items():
            found["campaign", name].update(counts)
        return found

    @cached_property
    def minutes(self) -> dict[tuple[str, int], Counts]:
        """(placement id, minute in epoch ms) to all of `MINUTE_METRICS`; minutes of zeros are missing."""
        found: dict[tuple[str, int], Counts] = {}
        for placement, minute, metric, amount in self._db.all(sql.MINUTES):
            if metric in MINUTE_METRICS:
                counts = found.setdefault((placement, minute), dict.fromkeys(MINUTE_METRICS, 0))
                counts[metric] = number(metric, amount)
        return found

    @cached_property
    def delivered(self) -> dict[str, int]:
        """Planned placements to the impressions of their flights."""
        return {name: int(count) for name, count in self._db.all(sql.DELIVERED)}

    @cached_property
    def labels(self) -> dict[str, tuple[str | None, ...]]:
        """Placements to their campaign, platform, station, podcast and program."""
        return {name: tuple(labels) for name, *labels in self._db.all(sql.LABELS)}

    @cached_property
    def currencies(self) -> dict[Key, str]:
        """Rows to the currency of their values."""
        rows = self._db.all("SELECT scope, id, known FROM currencies WHERE known IS NOT NULL")
        return {(scope, name): known for scope, name, known in rows}

    @cached_property
    def campaigns(self) -> dict[str, Counts]:
        """Campaigns to all of `FREQUENCY_METRICS` and `ACCOUNT_METRICS`."""
        nothing = dict.fromkeys((*FREQUENCY_METRICS, *ACCOUNT_METRICS), 0)
        found: dict[str, Counts] = {name: dict(nothing) for name in self.names("campaign")}
        for name, metric, amount in self._db.all(sql.FREQUENCY):
            found[name][metric] = number(metric, amount)
        for name, metric, amount in self._db.all(sql.ACCOUNTS):
            found[name][f"flight.conversions_{metric}"] = int(amount)
        return found

    def names(self, scope: str) -> list[str]:
        """All ids of a scope that the log or a plan has, sorted."""
        names = self._db.all(
            "SELECT id FROM members WHERE scope = $1 UNION SELECT id FROM credited_rows WHERE scope = $1",
            [scope],
        )
        planned: dict[str, list[str | None]] = {
            "placement": list(self.plans),
            "campaign": [of.campaign for of in self.plans.values()],
        }
        counted = {name for (name,) in names if (scope, name) in self._latest}
        return sorted(counted | {name for name in planned.get(scope, ()) if name})

    @cached_property
    def _latest(self) -> dict[Key, tuple[int | None, int]]:
        found: dict[Key, tuple[int | None, int]] = {}
        for scope, name, since, latest in self._db.all(sql.ROWS):
            before = found.get((scope, name), (None, 0))
            found[scope, name] = since if before[0] is None else before[0], max(before[1], latest)
        return found

    def erase(self, erased: bool) -> None:
        """Let all that follows be as if the listeners on the deny-list had been on it from the log's
        beginning, or never.
        """
        self._db.set({"erased": erased})
        for statements in (sql.TOUCHES, sql.CREDITS, sql.FACTS):
            self._db.run(statements)
        for name in ("flight", "minutes", "delivered", "labels", "currencies", "campaigns", "_latest"):
            self.__dict__.pop(name, None)
        found = self._db.first(sql.CONVERSIONS)
        assert found is not None, "an aggregate without groups has one row"
        self.totals["conversions"], self.totals["unattributed"] = found

    def rows(self, seen: Sequence[Seen]) -> Iterator[tuple[Key, Truth]]:
        """What the log says of some rows, in their order."""
        columns = [
            (one.scope, one.id, *self._moments(one.at_ms), *self._moments(one.reached_ms)) for one in seen
        ]
        self._db.run(
            "CREATE OR REPLACE TABLE seen (scope VARCHAR, id VARCHAR, moment BIGINT, day_from BIGINT, "
            "day_to BIGINT, mature BIGINT, moment_2 BIGINT, day_from_2 BIGINT, day_to_2 BIGINT, "
            "mature_2 BIGINT)"
        )
        self._db.insert("seen", columns)
        sums: dict[Key, dict[str, tuple[int, ...]]] = {}
        for query in (sql.WINDOWS, sql.REACHED):
            for scope, name, metric, *amounts in self._db.all(query):
                sums.setdefault((scope, name), {})[metric] = tuple(amount or 0 for amount in amounts)
        for one in seen:
            key = one.scope, one.id
            found = sums.pop(key, {})
            starts, completes = found.get("starts", _NONE), found.get("completes", _NONE)
            windows = {metric: (of[0], of[1], of[2], of[3]) for metric, of in found.items()}
            mature = (starts[4], completes[4]), (starts[5], completes[5])
            yield key, Truth(windows, mature, *self._latest.get(key, (None, None)))

    def last_minute(self) -> int:
        """The last one in which anything is counted, ms."""
        found = self._db.first("SELECT max(minute) FROM facts")
        return 0 if found is None or found[0] is None else int(found[0])

    def heard_between(self, key: Key, begin_ms: int, end_ms: int) -> bool:
        """Whether a row counts anything in the minutes from `begin_ms` to before `end_ms`."""
        found = self._db.first(
            "SELECT 1 FROM facts WHERE scope = ? AND id = ? AND minute >= ? AND minute < ? LIMIT 1",
            [*key, begin_ms, end_ms],
        )
        return found is not None

    def _moments(self, at_ms: int) -> tuple[int, int, int, int]:
        """Of a moment: its minute, its calendar day's begin and end, and the minute before which cohorts are
        mature.
        """
        minute = at_ms - at_ms % 60_000
        if minute not in self._days:
            day = datetime.fromtimestamp(minute / 1000, self.zone).date()
            ends = (datetime.combine(of, time.min, self.zone) for of in (day, day + timedelta(days=1)))
            first, second = (round(end.astimezone(UTC).timestamp()) * 1000 for end in ends)
            self._days[minute] = first, second
        mature = at_ms - self.mature_ms
        return minute, *self._days[minute], mature - mature % 60_000


_NONE: Final = (0, 0, 0, 0, 0, 0)


def recompute(
    files: Sequence[Path],
    *,
    too_late: Collection[tuple[str, int, str, int]] | None = None,
    out_of_orderness: timedelta = timedelta(seconds=10),
    allowed_lateness: timedelta = timedelta(minutes=10),
    horizon: timedelta = timedelta(minutes=30),
    conversion_horizon: timedelta = timedelta(days=60),
    mature_after: timedelta = timedelta(seconds=90),
    row_ttl: timedelta = timedelta(hours=48),
    timezone: str = "Europe/London",
    consent: Literal["required", "assumed"] = "required",
    podcast_apps: str = PODCAST_APPS,
    invalid_agents: Collection[str] = (),
    model: Literal["last_touch", "first_touch", "linear", "time_decay", "off"] = "last_touch",
    click_window: timedelta = timedelta(days=30),
    listen_window: timedelta = timedelta(days=14),
    half_life: timedelta = timedelta(days=7),
    plans: Mapping[str, Planned] | None = None,
    thresholds: Thresholds | None = None,
    utm_placements: Mapping[str, str] | None = None,
    denied: Callable[[bytes], bool] | None = None,
    guarded: bool = True,
    threads: int | None = None,
    memory: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Recomputation:
    """Recompute finite logs: all minutes final at their end, all conversions decided.

    Args:
        files: NDJSON, plain, `.gz` or `.zst`, each a source partition in arrival order.
        too_late: (path as given, line number from 1, event, event time in ms) of the dead letters to take
            out; None: lateness is judged from each partition's log alone. Orphans are told by that watermark
            in both cases.
        mature_after: age of a minute from which its starts' rate is mature.
        row_ttl: how long a row without a plan stays behind its last pixel or credit.
        timezone: whose calendar days are meant.
        consent: what a pixel that says nothing of consent counts as: not measurable, or measurable.
        podcast_apps: regular expression, case-insensitive; user agents that it finds are no bots.
        invalid_agents: more such expressions, of user agents that are as bots.
        plans: what is planned, by placement.
        thresholds: of their delivery; None: the defaults.
        utm_placements: `utm_content` to a placement, beside the plans' own ids.
        denied: whether a listener (UTF-8) is on the deny-list; None: nobody is.
        guarded: whether a time of receipt is believed no more than a pixel's own: no broker has bounded it.
        threads: of the database; None: one a core.
        memory: the most that the database may take, such as `2GB`; None: four fifths of the machine's.
        tell: takes what is being done, for people who wait.

    Raises:
        AudiopixelError: a file cannot be read, or a dead letter is of another log.
        KeyboardInterrupt: also while the database computes.
    """
    plans = plans or {}
    blocked = {name: plan.blocked_categories for name, plan in plans.items() if plan.blocked_categories}
    reader = Reader(consent == "assumed", podcast_apps, blocked, invalid_agents, guarded, denied)
    db = Database(threads, memory)
    variables: dict[str, object] = {
        "judge": too_late is None,
        "model": model,
        "final_after": _ms(timedelta(minutes=1) + allowed_lateness),
        "out_of_orderness": _ms(out_of_orderness),
        "horizon": _ms(horizon),
        "conversion_horizon": _ms(conversion_horizon),
        "click_window": _ms(click_window),
        "listen_window": _ms(listen_window),
        "half_life": _ms(half_life),
        "ages": list(AGES_S),
        "erased": denied is not None,
    }
    db.set(variables)
    db.run(sql.PIXELS)
    db.insert(
        "plans",
        ((name, of.currency, of.start_ms, of.end_ms, of.campaign) for name, of in plans.items()),
    )
    targets = {placement: placement for placement in plans} | dict(utm_placements or {})
    db.insert("utm_targets", targets.items())
    _read(db, reader, files, tell)
    tell("putting in order")
    db.run(sql.ARRIVED.format(n=sql.ONE_FILE if len(files) == 1 else sql.FILES))
    if too_late is not None:
        _take_out(db, too_late, files)
    tell("taking out what came twice or too late")
    db.run(sql.PLAYS)
    while db.first("SELECT 1 FROM pending LIMIT 1"):
        db.run(sql.ROUND)
    db.run(sql.COUNTED)
    tell("crediting conversions and adding up")
    ledger, totals = _ledger(db, reader, files)
    greatest = [reader.greatest[src] for src in range(len(files))]
    reached = [of for of, _ in greatest if of != NO_TIME] or [of for _, of in greatest if of != NO_TIME]
    bound = _ms(out_of_orderness)
    found = Recomputation(
        totals,
        ledger,
        {str(path): max(0, of[0] - bound) for path, of in zip(files, greatest, strict=True)},
        max(reached, default=0),
        plans,
        reader.denied_pixels,
        ZoneInfo(timezone),
        _ms(mature_after),
        _ms(allowed_lateness),
        _ms(row_ttl),
        thresholds or Thresholds(),
        db,
    )
    found.erase(denied is not None)
    return found


def _read(db: Database, reader: Reader, files: Sequence[Path], tell: Callable[[str], None]) -> None:
    for src, path in enumerate(files):
        tell(f"reading {path}")
        for batch in reader.read(src, path):
            db.insert("combos", batch.combos)
            db.insert("told", batch.conversions)
            db.load(sql.INSERT, batch.pixels)
            tell(f"reading {path}: {reader.received[src]:,} pixels")


def _take_out(db: Database, too_late: Collection[tuple[str, int, str, int]], files: Sequence[Path]) -> None:
    numbers = {str(path): src for src, path in enumerate(files)}
    for name, pos, *_ in too_late:
        if name not in numbers:
            raise AudiopixelError(f"a dead letter is of {name}:{pos}: these are the letters of another log")
    db.insert("letters", ((numbers[name], *more) for name, *more in set(too_late)))
    wrong = db.first(sql.WRONG_LETTERS)
    if wrong is not None:
        raise AudiopixelError(
            f"{files[wrong[0]]}:{wrong[1]} is not the pixel that a dead letter says it is: these are the "
            "letters of another log"
        )


def _ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def _ledger(
    db: Database, reader: Reader, files: Sequence[Path]
) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    ledger = {
        str(path): {"received": reader.received[src], "marks": reader.marks[src], "accepted": 0}
        for src, path in enumerate(files)
    }
    for (src, reason), lines in reader.rejected.items():
        ledger[str(files[src])][f"rejected.{reason}"] = lines
    for src, verdict, bot, pixels in db.all(sql.LEDGER):
        account = ledger[str(files[src])]
        names = ["rejected.too_late" if verdict == "too_late" else verdict]
        names += ["invalid_traffic"] if bot and verdict == "accepted" else []
        for name in names:
            account[name] = account.get(name, 0) + pixels
    for src, pixels in reader.clock_skewed.items():
        ledger[str(files[src])]["clock_skewed"] = pixels
    totals: dict[str, int] = dict.fromkeys(
        ("received", "marks", "accepted", "repeated", "invalid_traffic"), 0
    )
    for account in ledger.values():
        for name, count in account.items():
            totals[name] = totals.get(name, 0) + count
    return ledger, totals


def number(metric: str, amount: int) -> Number:
    """An amount as it is published: conversions are counted in millionths."""
    if "conversion" not in metric or metric.startswith("conversion_value"):
        return int(amount)
    return int(amount) // 1_000_000 if amount % 1_000_000 == 0 else amount / 1_000_000
