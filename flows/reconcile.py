"""An exact batch recomputation of the specification over logs; `flows.differences` compares it with outputs.

Independent on purpose: it shares no line with the flow. Decoding is `flows.reconcile_decode`; all that
follows is SQL (`flows.reconcile_sql`) in an embedded DuckDB, by other means than the flow's: where the flow
keeps state and goes forward, this sorts and joins the whole log at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Final, Literal

import duckdb
import numpy as np

from flows import reconcile_sql as sql
from flows.reconcile_decode import Pixel, Reader

Number = int | float
Counts = dict[str, Number]

SCOPES: Final = ("placement", "campaign", "platform", "station", "podcast", "program")

MINUTE_METRICS: Final = (
    *("impressions", "starts", "first_quartiles", "midpoints", "third_quartiles", "completes"),
    *("clicks", "errors", "skips", "mutes", "orphans", "repaired"),
    *("unlinked_starts", "unlinked_first_quartiles", "unlinked_midpoints", "unlinked_third_quartiles"),
    *("unlinked_completes", "conversions", "conversion_value", "conversion_value_other_count"),
    *(f"conversions_{kind}" for kind in ("site_visit", "sign_up", "purchase")),
    *(f"conversions_{kind}" for kind in ("app_download", "phone_call", "form_submission")),
    *(f"conversions_{way}" for way in ("click", "listen", "utm", "declared")),
)
FREQUENCY_METRICS: Final = tuple(
    f"frequency.{name}.{metric}"
    for name in ("1", "2", "3", "4-5", "6-10", "11+")
    for metric in ("listeners", "conversions")
)
ACCOUNT_METRICS: Final = tuple(
    f"flight.conversions_{name}" for name in ("accepted", "attributed", "unattributed", "pending")
)
WHOLE_METRICS: Final = ("consented", "repeated", "too_late", "invalid_traffic", "blocked_impressions")
"""Counted since a row's first pixel, also those from before a planned flight."""
FLIGHT_METRICS: Final = (*MINUTE_METRICS, "reach", *WHOLE_METRICS)

PODCAST_APPS: Final = (
    r"overcast|pocket ?casts|podimo|castbox|castro|antennapod|applecoremedia|podcasts?/|podcast ?addict"
    r"|podbean|podkicker|player ?fm|radiopublic|spotify/|deezer|tunein|iheartradio|stitcher|audible|downcast"
    r"|bbc ?sounds|globalplayer"
)
"""User agents that are no bots, whatever else they say (specification 1.2): a regular expression."""

_CHUNK: Final = 65_536
_CONVERSIONS: Final = "conversions"


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
        end_ms: impressions of minutes that begin before it are delivered; None: these are not compared.
    """

    start_ms: int = 0
    currency: str | None = None
    campaign: str | None = None
    blocked_categories: tuple[str, ...] = ()
    end_ms: int | None = None


@dataclass(frozen=True)
class Recomputation:
    """What the log says, exactly.

    Attributes:
        totals: `received`, `accepted`, `repeated`, `rejected.<reason>`, `invalid_traffic` (of the accepted),
            `conversions` (accepted and valid), `unattributed`, `clock_skewed`; a reason not met is missing.
        ledger: the same counts of messages by source partition (its path as given).
        flight: (scope, id) to `flight.<metric>` for all of `FLIGHT_METRICS`; all are integers, but the
            conversions of the models `linear` and `time_decay` (multiples of 0.000001). Planned placements
            and their campaigns are in it without any pixel, the former with `delivery.delivered`. Campaigns
            have all of `FREQUENCY_METRICS` and `ACCOUNT_METRICS` too; listeners are counted since ever.
        minutes: (placement id, minute in epoch ms) to all of `MINUTE_METRICS`; minutes of zeros are missing.
    """

    totals: dict[str, int]
    ledger: dict[str, dict[str, int]]
    flight: dict[tuple[str, str], Counts]
    minutes: dict[tuple[str, int], Counts]


def recompute(
    files: Sequence[Path],
    *,
    too_late: Collection[tuple[str, int]] | None = None,
    out_of_orderness: timedelta = timedelta(seconds=10),
    allowed_lateness: timedelta = timedelta(minutes=10),
    horizon: timedelta = timedelta(minutes=30),
    conversion_horizon: timedelta = timedelta(days=60),
    consent: Literal["required", "assumed"] = "required",
    podcast_apps: str = PODCAST_APPS,
    invalid_agents: Collection[str] = (),
    model: Literal["last_touch", "first_touch", "linear", "time_decay", "off"] = "last_touch",
    click_window: timedelta = timedelta(days=30),
    listen_window: timedelta = timedelta(days=14),
    half_life: timedelta = timedelta(days=7),
    touch_listens: int = 64,
    touch_clicks: int = 16,
    plans: Mapping[str, Planned] | None = None,
    utm_placements: Mapping[str, str] | None = None,
    threads: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Recomputation:
    """Recompute finite logs: all minutes final at their end, all conversions decided.

    Args:
        files: NDJSON, plain, `.gz` or `.zst`, each a source partition in arrival order.
        too_late: (path as given, line number from 1) of the dead letters to take out; None: lateness is
            judged from each partition's log alone. Orphans are told by that watermark in both cases.
        consent: what a pixel that says nothing of consent counts as: not measurable, or measurable.
        podcast_apps: regular expression, case-insensitive; user agents that it finds are no bots.
        invalid_agents: more such expressions, of user agents that are as bots.
        touch_listens, touch_clicks: how many of a listener's newest up to a conversion may be credited.
        plans: what is planned, by placement.
        utm_placements: `utm_content` to a placement, beside the plans' own ids.
        threads: of the database; None: one a core.
        tell: takes what is being done, for people who wait.

    Raises:
        AudiopixelError: a file cannot be read.
        KeyboardInterrupt: also while the database computes.
    """
    plans = plans or {}
    blocked = {name: plan.blocked_categories for name, plan in plans.items() if plan.blocked_categories}
    reader = Reader(consent == "assumed", podcast_apps, blocked, invalid_agents)
    config: dict[str, str | bool | int | float | list[str]] = {"temp_directory": tempfile.gettempdir()}
    if threads:
        config["threads"] = threads
    with duckdb.connect(config=config) as db, _interruptible():
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
            "touch_listens": touch_listens,
            "touch_clicks": touch_clicks,
        }
        for name, value in variables.items():
            db.execute(f"SET VARIABLE {name} = ?", [value])
        db.execute(sql.PIXELS)
        numbers = {str(path): src for src, path in enumerate(files)}
        _insert(db, "letters", ((numbers[name], pos) for name, pos in set(too_late or ()) if name in numbers))
        columns = attrgetter("currency", "start_ms", "end_ms", "campaign")
        _insert(db, "plans", ((name, *columns(plan)) for name, plan in plans.items()))
        targets = {placement: placement for placement in plans} | dict(utm_placements or {})
        _insert(db, "utm_targets", targets.items())
        for src, path in enumerate(files):
            _insert(db, "pixels", _telling(reader.read(src, path), path, tell))
        tell("taking out what came twice or too late")
        db.execute(sql.TIMED)
        while db.execute("SELECT 1 FROM pending LIMIT 1").fetchone():
            db.execute(sql.ROUND)
        for doing, statements in (
            ("counting", sql.COUNTED),
            ("finding touches", sql.TOUCHES),
            ("crediting conversions", sql.CREDITS),
        ):
            tell(doing)
            db.execute(statements)
        tell("adding up")
        return _collect(db, reader, files, plans)


@contextmanager
def _interruptible() -> Iterator[None]:
    """DuckDB makes a failed query of a Ctrl-C."""
    try:
        yield
    except RuntimeError as error:
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from None
        raise


def _telling(rows: Iterable[Pixel], path: Path, tell: Callable[[str], None]) -> Iterator[Pixel]:
    for number, row in enumerate(rows):
        if number % _CHUNK == 0:
            tell(f"reading {path}: {number:,} pixels")
        yield row


def _ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def _insert(
    db: duckdb.DuckDBPyConnection,
    table: str,
    rows: Iterable[tuple[object, ...]],
    kinds: Mapping[str, str] | None = None,
) -> None:
    remaining = iter(rows)
    while chunk := list(islice(remaining, _CHUNK)):
        columns = {f"c{i}": _column(values) for i, values in enumerate(zip(*chunk, strict=True))}
        db.register("chunk", columns)
        db.execute(f"INSERT INTO {table} SELECT * FROM chunk")
        db.unregister("chunk")


def _column(values: Sequence[object]) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _collect(
    db: duckdb.DuckDBPyConnection, reader: Reader, files: Sequence[Path], plans: Mapping[str, Planned]
) -> Recomputation:
    ledger = {str(path): {"received": reader.received[src], "accepted": 0} for src, path in enumerate(files)}
    for (src, reason), lines in reader.rejected.items():
        ledger[str(files[src])][f"rejected.{reason}"] = lines
    for src, verdict, bot, pixels in db.execute(sql.LEDGER).fetchall():
        account = ledger[str(files[src])]
        names = ["rejected.too_late" if verdict == "too_late" else verdict]
        names += ["invalid_traffic"] if bot and verdict == "accepted" else []
        for name in names:
            account[name] = account.get(name, 0) + pixels
    for src, pixels in reader.clock_skewed.items():
        ledger[str(files[src])]["clock_skewed"] = pixels
    totals: dict[str, int] = dict.fromkeys(("received", "accepted", "repeated", "invalid_traffic"), 0)
    for account in ledger.values():
        for name, count in account.items():
            totals[name] = totals.get(name, 0) + count
    found = db.execute(sql.CONVERSIONS).fetchone()
    assert found is not None, "an aggregate without groups has one row"
    totals["conversions"], totals["unattributed"] = found

    flight: dict[tuple[str, str], Counts] = {}
    rows = [("placement", name, None, 0) for name in plans]
    rows += [("campaign", plan.campaign, None, 0) for plan in plans.values() if plan.campaign]
    for scope in SCOPES:
        flown = sql.FLOWN if scope == "placement" else "true"
        whole = ", ".join(f"'{metric}'" for metric in WHOLE_METRICS)
        query = sql.FLIGHT.format(scope=scope, whole=whole, flown=flown)
        rows += [(scope, *row) for row in db.execute(query).fetchall()]
    for scope, name, metric, amount in rows:
        row = flight.setdefault((scope, name), {f"flight.{each}": 0 for each in FLIGHT_METRICS})
        if metric is not None:
            row[f"flight.{metric}"] = _number(metric, amount)
    for name, impressions in db.execute(sql.DELIVERED).fetchall():
        flight["placement", name]["delivery.delivered"] = int(impressions)
    for (scope, _), row in flight.items():
        if scope == "campaign":
            row.update(dict.fromkeys((*FREQUENCY_METRICS, *ACCOUNT_METRICS), 0))
    for name, metric, amount in db.execute(sql.FREQUENCY).fetchall():
        flight["campaign", name][metric] = _number(metric, amount)
    for name, metric, amount in db.execute(sql.ACCOUNTS).fetchall():
        flight["campaign", name][f"flight.conversions_{metric}"] = int(amount)
    minutes: dict[tuple[str, int], Counts] = {}
    for placement, minute, metric, amount in db.execute(sql.MINUTES).fetchall():
        if metric in MINUTE_METRICS:
            counts = minutes.setdefault((placement, minute), dict.fromkeys(MINUTE_METRICS, 0))
            counts[metric] = _number(metric, amount)
    return Recomputation(totals, ledger, flight, minutes)


def _number(metric: str, amount: int) -> Number:
    if _CONVERSIONS not in metric:
        return int(amount)
    return int(amount) // 1_000_000 if amount % 1_000_000 == 0 else amount / 1_000_000
