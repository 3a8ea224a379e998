"""An exact batch recomputation of the specification over logs; `flows.reconcile.comparison` compares it with
outputs.

Independent on purpose: it shares no line with the flow. Decoding is `flows.reconcile.decode`; all that
follows is SQL (`flows.reconcile.sql`) in an embedded DuckDB, by other means than the flow's: where the flow
keeps state and goes forward, this sorts and joins the whole log at once. The database keeps what does not
fit its memory in a temporary directory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal
from zoneinfo import ZoneInfo

from flows.errors import AudiopixelError
from flows.reconcile.database import Database
from flows.reconcile.decode import Reader
from flows.reconcile.fields import (
    AGES_S,
)
from flows.reconcile.pacing import Planned, Thresholds
from flows.reconcile.scan import NO_TIME
from flows.reconcile.sql import judging
from flows.reconcile.truth import Recomputation

PODCAST_APPS: Final = (
    r"overcast|pocket ?casts|podimo|castbox|castro|antennapod|applecoremedia|podcasts?/|podcast ?addict"
    r"|podbean|podkicker|player ?fm|radiopublic|spotify/|deezer|tunein|iheartradio|stitcher|audible|downcast"
    r"|bbc ?sounds|globalplayer"
)
"""User agents that are no bots, whatever else they say (specification 1.2): a regular expression."""


def recompute(
    files: Sequence[Path],
    *,
    too_late: Collection[tuple[str, int, str, int]] | None = None,
    out_of_orderness: timedelta = timedelta(seconds=10),
    quiet: timedelta = timedelta(minutes=1),
    max_hold: timedelta = timedelta(hours=6),
    max_state: int = 50_000_000,
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
            out; None: each partition's log alone tells what is late. In both cases it tells orphans.
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
    waits = _ms(out_of_orderness), _ms(quiet), _ms(max_hold), max_state
    reader = Reader(consent == "assumed", podcast_apps, blocked, invalid_agents, guarded, denied, waits=waits)
    db = Database(threads, memory)
    durations = {
        "final_after": timedelta(minutes=1) + allowed_lateness,
        "out_of_orderness": out_of_orderness,
        "horizon": horizon,
        "conversion_horizon": conversion_horizon,
        "click_window": click_window,
        "listen_window": listen_window,
        "half_life": half_life,
    }
    db.set({name: _ms(duration) for name, duration in durations.items()})
    db.set({"judge": too_late is None, "model": model, "ages": list(AGES_S), "erased": denied is not None})
    _judge(db, reader, files, plans, utm_placements or {}, too_late, tell)
    ledger, totals = _ledger(db, reader, files)
    watermarks, end_ms = _ends(reader, files, _ms(out_of_orderness))
    found = Recomputation(
        *(totals, ledger, watermarks, end_ms, plans, reader.denied_pixels, ZoneInfo(timezone)),
        *(_ms(mature_after), _ms(allowed_lateness), _ms(row_ttl), thresholds or Thresholds(), db),
    )
    found.erase(denied is not None)
    return found


def _judge(
    db: Database,
    reader: Reader,
    files: Sequence[Path],
    plans: Mapping[str, Planned],
    utm_placements: Mapping[str, str],
    too_late: Collection[tuple[str, int, str, int]] | None,
    tell: Callable[[str], None],
) -> None:
    """Read the logs, and say of each pixel whether it counts: the table `counted`."""
    db.run(judging.PIXELS)
    rows = ((name, of.currency, of.start_ms, of.end_ms, of.campaign) for name, of in plans.items())
    db.insert("plans", rows)
    db.insert("utm_targets", ({placement: placement for placement in plans} | dict(utm_placements)).items())
    _read(db, reader, files, tell)
    tell("putting in order")
    db.run(judging.ARRIVED.format(n=judging.ONE_FILE if len(files) == 1 else judging.FILES))
    if too_late is not None:
        _take_out(db, too_late, files)
    tell("taking out what came twice or too late")
    db.run(judging.PLAYS)
    while db.first("SELECT 1 FROM pending LIMIT 1"):
        db.run(judging.ROUND)
    db.run(judging.COUNTED)
    tell("crediting conversions and adding up")


def _ends(reader: Reader, files: Sequence[Path], out_of_orderness_ms: int) -> tuple[dict[str, int], int]:
    """The watermark of each partition at its end, and that of the finished logs, ms."""
    greatest = [reader.greatest[src] for src in range(len(files))]
    reached = [of for of, _ in greatest if of != NO_TIME] or [of for _, of in greatest if of != NO_TIME]
    watermarks = {}
    for src, path in enumerate(files):
        holds = reader.holds[src]
        natural = greatest[src][0] - out_of_orderness_ms
        watermarks[str(path)] = max(0, (holds.watermark or 0) if holds.begun else natural)
    return watermarks, max(reached, default=0)


def _read(db: Database, reader: Reader, files: Sequence[Path], tell: Callable[[str], None]) -> None:
    for src, path in enumerate(files):
        tell(f"reading {path}")
        for batch in reader.read(src, path):
            db.insert("combos", batch.combos)
            db.insert("told", batch.conversions)
            db.load(judging.INSERT, batch.pixels)
            tell(f"reading {path}: {reader.received[src]:,} pixels")


def _take_out(db: Database, too_late: Collection[tuple[str, int, str, int]], files: Sequence[Path]) -> None:
    numbers = {str(path): src for src, path in enumerate(files)}
    for name, pos, *_ in too_late:
        if name not in numbers:
            raise AudiopixelError(f"a dead letter is of {name}:{pos}: these are the letters of another log")
    db.insert("letters", ((numbers[name], *more) for name, *more in set(too_late)))
    wrong = db.first(judging.WRONG_LETTERS)
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
    for src, verdict, bot, pixels in db.all(judging.LEDGER):
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
