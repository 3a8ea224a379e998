"""An exact batch recomputation of logs by the specification. `flows.reconcile.comparison` compares it with
the published numbers.

The recomputation is independent on purpose: it shares no line with the flow. `flows.reconcile.decode` decodes
the logs. All later steps are SQL (`flows.reconcile.sql`) in an embedded DuckDB. The flow updates state as it
reads, while the SQL sorts and joins the whole log at once. The database stores data beyond its memory in a
temporary directory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from flows.errors import AudiopixelError
from flows.reconcile.database import Database
from flows.reconcile.decode import NO_APPS, Reader
from flows.reconcile.fields import AGES_S, BASES, LISTED_FIELDS
from flows.reconcile.holds import NO_TIME
from flows.reconcile.line import Denied
from flows.reconcile.rules import Rules, ms
from flows.reconcile.sql import bases, judging
from flows.reconcile.truth import Recomputation

DEFAULTS: Final = Rules()


def recompute(
    files: Sequence[Path],
    rules: Rules = DEFAULTS,
    *,
    too_late: Collection[tuple[str, int, str, int]] | None = None,
    denied: Denied | None = None,
    guards_receipts: bool = True,
    threads: int | None = None,
    memory: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Recomputation:
    """Recompute finished logs, at whose end all minutes are final and all conversions decided.

    Args:
        files: NDJSON (plain, `.gz` or `.zst`), each a source partition in order of arrival.
        rules: the flow's rules of counting.
        too_late: the dead letters of late pixels, as (path in `files`, line number from 1, event, event time
            in ms). None if each partition's log decides lateness; it decides orphans in both cases.
        denied: see `flows.reconcile.line.Denied`; None denies no listener.
        guards_receipts: see `flows.reconcile.holds.Clock`.
        threads, memory: see `flows.reconcile.database.Database`.
        progress: called with the name of each step.

    Raises:
        AudiopixelError: a file cannot be read, or a dead letter is of another log.
        KeyboardInterrupt: on Ctrl-C, even while the database computes.
    """
    reader = _reader(rules, denied, guards_receipts)
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
    db.set({"household_listeners": rules.household_listeners, **caps})
    db.set({"judge": too_late is None, "model": rules.model})
    db.set({"ages": list(AGES_S), "erased": denied is not None})
    _judge(db, reader, files, rules, too_late, progress)
    ledger, totals = _ledger(db, reader, files)
    watermarks, end_ms = _ends(reader, files)
    receipts = (clock.first_receipt_ms for clock in reader.clocks.values())
    since_ms = min(filter(None, receipts), default=0)
    recomputation = Recomputation(
        totals, ledger, watermarks, end_ms, since_ms, reader.denied_pixels, rules, db
    )
    recomputation.erase(denied is not None)
    return recomputation


def _reader(rules: Rules, denied: Denied | None, guards_receipts: bool) -> Reader:
    plans = rules.plans.items()
    reader = Reader(
        rules.consent == "assumed",
        rules.podcast_apps,
        {name: plan.blocked_categories for name, plan in plans if plan.blocked_categories},
        rules.invalid_agents,
        guards_receipts,
        denied,
        waits=(ms(rules.out_of_orderness), ms(rules.quiet), ms(rules.max_hold), rules.max_state),
        listed=({} if rules.app_rows else NO_APPS) | _labels(rules),
    )
    reader.tie_key = rules.tie_key
    reader.counts_server_only = _server_only(rules)
    return reader


def _server_only(rules: Rules) -> Callable[[str | None], bool]:
    """The test whether only server conversions of a campaign count, which one of its plans may require."""
    campaign_sources = {
        (plan.campaign, plan.conversions_from) for plan in rules.plans.values() if plan.conversions_from
    }
    campaigns = {campaign for campaign, _ in campaign_sources}

    def is_server_only(campaign: str | None) -> bool:
        if campaign is not None and campaign in campaigns:
            return (campaign, "server") in campaign_sources
        return rules.conversions_from == "server"

    return is_server_only


def _labels(rules: Rules) -> dict[str, set[str]]:
    """Fields of a pixel to the labels that count, if only labels of plans count; else nothing."""
    fields = LISTED_FIELDS if rules.labels == "planned" else ()
    labels_by_field: dict[str, set[str]] = {name: set() for name in fields}
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
    """Read the logs, and judge each pixel: the result is the table `counted`."""
    db.run(judging.PIXELS)
    plans = (
        (name, plan.currency, plan.start_ms, plan.end_ms, plan.campaign, plan.until_ms)
        for name, plan in rules.plans.items()
    )
    db.insert("plans", plans)
    targets = {placement: placement for placement in rules.plans} | dict(rules.utm_placements)
    db.insert("utm_targets", targets.items())
    usual = ((platform, BASES.index(name)) for platform, name in rules.platform_basis.items())
    db.insert("platform_bases", usual)
    _read(db, reader, files, progress)
    progress("sorting")
    db.run(judging.ARRIVED.format(n=judging.ONE_FILE if len(files) == 1 else judging.FILES))
    if too_late is not None:
        _take_out(db, too_late, files)
    progress("removing repeated and late pixels")
    db.run(judging.PLAYS)
    while db.first("SELECT 1 FROM pending LIMIT 1"):
        db.run(judging.ROUND)
    db.run(judging.COUNTED)
    db.run(bases.SIDES)
    progress("crediting conversions and adding up counts")


def _ends(reader: Reader, files: Sequence[Path]) -> tuple[dict[str, int], int]:
    """The watermark of each partition at its end, and the greatest event time of all logs, ms."""
    clocks = [reader.clocks[src] for src in range(len(files))]
    seen_ms = [clock.greatest_ms for clock in clocks if clock.greatest_ms != NO_TIME]
    waiting_ms = [clock.jump_ms for clock in clocks if clock.jump_ms != NO_TIME]
    watermarks = {str(path): clock.watermark_ms for path, clock in zip(files, clocks, strict=True)}
    return watermarks, max(seen_ms or waiting_ms, default=0)


def _read(db: Database, reader: Reader, files: Sequence[Path], progress: Callable[[str], None]) -> None:
    for src, path in enumerate(files):
        progress(f"reading {path}")
        for batch in reader.read(src, path):
            db.insert("combos", batch.combos)
            db.insert("conversion_fields", batch.conversions)
            db.insert("client_keys", batch.clients)
            db.load(judging.INSERT, batch.pixels)
            progress(f"reading {path}: {reader.received[src]:,} pixels")


def _take_out(db: Database, too_late: Collection[tuple[str, int, str, int]], files: Sequence[Path]) -> None:
    """Load the dead letters of late pixels, and check that they are of these logs."""
    numbers = {str(path): src for src, path in enumerate(files)}
    for name, pos, *_ in too_late:
        if name not in numbers:
            raise AudiopixelError(f"a dead letter is of {name}:{pos}: these are the letters of another log")
    db.insert("letters", ((numbers[name], *place) for name, *place in set(too_late)))
    mismatch = db.first(judging.WRONG_LETTERS)
    if mismatch is not None:
        raise AudiopixelError(
            f"{files[mismatch[0]]}:{mismatch[1]} is another pixel than its dead letter has: these are the "
            "letters of another log"
        )


def _ledger(
    db: Database, reader: Reader, files: Sequence[Path]
) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """The ledger of each file, and the sums of all ledgers."""
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
    for src, clock in reader.clocks.items():
        ledger[str(files[src])]["clock_skewed"] = clock.clock_skewed
    counted = ("received", "marks", "accepted", "repeated", "invalid_traffic")
    totals: dict[str, int] = dict.fromkeys(counted, 0)
    for account in ledger.values():
        for name, count in account.items():
            totals[name] = totals.get(name, 0) + count
    return ledger, totals
