"""An exact batch recomputation of the specification over logs; `flows.reconcile.comparison` compares it with
outputs.

The recomputation is independent on purpose: it shares no line with the flow. Decoding is
`flows.reconcile.decode`. All later steps are SQL (`flows.reconcile.sql`) in an embedded DuckDB, by other
means than the flow's: the flow keeps state and goes forward, while the SQL sorts and joins the whole log at
once. The database stores data beyond its memory in a temporary directory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from flows.errors import AudiopixelError
from flows.reconcile.database import Database
from flows.reconcile.decode import NO_APPS, Reader
from flows.reconcile.fields import AGES_S, BASES
from flows.reconcile.line import Denied
from flows.reconcile.rules import Rules, ms
from flows.reconcile.scan import LABELS, NO_TIME
from flows.reconcile.sql import bases, judging
from flows.reconcile.truth import Recomputation

DEFAULTS: Final = Rules()


def recompute(
    files: Sequence[Path],
    rules: Rules = DEFAULTS,
    *,
    too_late: Collection[tuple[str, int, str, int]] | None = None,
    denied: Denied | None = None,
    guarded: bool = True,
    threads: int | None = None,
    memory: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Recomputation:
    """Recompute finite logs: all minutes final at their end, all conversions decided.

    Args:
        files: NDJSON, plain, `.gz` or `.zst`, each a source partition in arrival order.
        rules: the flow's rules of counting.
        too_late: (path as given, line number from 1, event, event time in ms) of the dead letters to take
            out; None lets each partition's log alone decide lateness. It decides orphans in both cases.
        denied: see `flows.reconcile.line.Denied`; None denies no listener.
        guarded: whether a time of receipt is believed no more than a pixel's own: no broker has bounded it.
        threads: of the database; None for one a core.
        memory: the most that the database may take, such as `2GB`; None for four fifths of the machine's.
        progress: receives the present step, for people who wait.

    Raises:
        AudiopixelError: a file cannot be read, or a dead letter is of another log.
        KeyboardInterrupt: also while the database computes.
    """
    reader = _reader(rules, denied, guarded)
    db = Database(threads, memory)
    durations = {
        "final_after": timedelta(minutes=1) + rules.allowed_lateness,
        "out_of_orderness": rules.out_of_orderness,
        "horizon": rules.horizon,
        "conversion_horizon": rules.conversion_horizon,
        "click_window": rules.click_window,
        "listen_window": rules.listen_window,
        "half_life": rules.half_life,
    }
    db.set({name: ms(duration) for name, duration in durations.items()})
    caps = {name: getattr(rules, name) for name in ("touch_listens", "touch_clicks")}
    caps |= {"listens_in_all": rules.touch_listens_in_all, "clicks_in_all": rules.touch_clicks_in_all}
    db.set({"household_listeners": rules.household_listeners, "moved": "", **caps})
    db.set({"judge": too_late is None, "model": rules.model})
    db.set({"ages": list(AGES_S), "erased": denied is not None})
    _judge(db, reader, files, rules, too_late, progress)
    ledger, totals = _ledger(db, reader, files)
    watermarks, end_ms = _ends(reader, files, ms(rules.out_of_orderness))
    since_ms = min(reader.first.values(), default=0)
    recomputation = Recomputation(
        totals, ledger, watermarks, end_ms, since_ms, reader.denied_pixels, rules, db
    )
    recomputation.erase(denied is not None)
    return recomputation


def _reader(rules: Rules, denied: Denied | None, guarded: bool) -> Reader:
    plans = rules.plans.items()
    reader = Reader(
        rules.consent == "assumed",
        rules.podcast_apps,
        {name: plan.blocked_categories for name, plan in plans if plan.blocked_categories},
        rules.invalid_agents,
        guarded,
        denied,
        waits=(ms(rules.out_of_orderness), ms(rules.quiet), ms(rules.max_hold), rules.max_state),
        listed=({} if rules.app_rows else NO_APPS) | _labels(rules),
    )
    reader.tie_key = rules.tie_key
    reader.from_server = _from_server(rules)
    return reader


def _from_server(rules: Rules) -> Callable[[str | None], bool]:
    """The test whether only a campaign's server conversions count: any of its plans may require so."""
    campaign_sources = {
        (plan.campaign, plan.conversions_from) for plan in rules.plans.values() if plan.conversions_from
    }
    campaigns = {campaign for campaign, _ in campaign_sources}

    def by_server(campaign: str | None) -> bool:
        if campaign is not None and campaign in campaigns:
            return (campaign, "server") in campaign_sources
        return rules.conversions_from == "server"

    return by_server


def _labels(rules: Rules) -> dict[str, set[str]]:
    """The labels that count, by a pixel's field, if only labels of plans do."""
    labels_by_field: dict[str, set[str]] = {name: set() for name in LABELS if rules.labels == "planned"}
    for plan in rules.plans.values() if labels_by_field else ():
        for name, labels in plan.labels.items():
            labels_by_field[name].update(labels)
    return labels_by_field


def _judge(
    db: Database,
    reader: Reader,
    files: Sequence[Path],
    rules: Rules,
    too_late: Collection[tuple[str, int, str, int]] | None,
    progress: Callable[[str], None],
) -> None:
    """Read the logs, and judge of each pixel whether it counts: the table `counted`."""
    db.run(judging.PIXELS)
    planned = rules.plans.items()
    rows = ((name, of.currency, of.start_ms, of.end_ms, of.campaign, of.until_ms) for name, of in planned)
    db.insert("plans", rows)
    targets = {placement: placement for placement in rules.plans} | dict(rules.utm_placements)
    db.insert("utm_targets", targets.items())
    usual = ((platform, BASES.index(name)) for platform, name in rules.platform_basis.items())
    db.insert("platform_bases", usual)
    _read(db, reader, files, progress)
    progress("putting in order")
    db.run(judging.ARRIVED.format(n=judging.ONE_FILE if len(files) == 1 else judging.FILES))
    if too_late is not None:
        _take_out(db, too_late, files)
    progress("taking out what came twice or too late")
    db.run(judging.PLAYS)
    while db.first("SELECT 1 FROM pending LIMIT 1"):
        db.run(judging.ROUND)
    db.run(judging.COUNTED)
    db.run(bases.SIDES)
    progress("crediting conversions and adding up")


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


def _read(db: Database, reader: Reader, files: Sequence[Path], progress: Callable[[str], None]) -> None:
    for src, path in enumerate(files):
        progress(f"reading {path}")
        for batch in reader.read(src, path):
            db.insert("combos", batch.combos)
            db.insert("told", batch.conversions)
            db.insert("sent", batch.clients)
            db.load(judging.INSERT, batch.pixels)
            progress(f"reading {path}: {reader.received[src]:,} pixels")


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
