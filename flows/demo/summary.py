"""Makes the demo's summary: compares the true counts with the values in Redis."""

from __future__ import annotations

from typing import Final
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from rich import box
from rich.table import Table

from connectors.redis import Client, read_rows
from flows.demo.door import Door
from flows.model.dimensions import SCOPES
from flows.model.redis_keys import row_key
from flows.process_metrics import COLLECT_EVENTS, COLLECT_NOT_COUNTED, COLLECT_REJECTED, COLLECT_RESTING
from flows.settings import Settings
from flows.simulate import COUNTS, Expected

BY_DOOR: Final = ("confirmed_plays", "household_reach", "conversions_by_household", *COUNTS)
"""Counts that depend on the collector: it decides whether a device has called by itself, and finds client and
household.
"""


def ledger_totals(client: Client, namespace: str) -> dict[str, int]:
    """The sums of the partitions' ledger rows, by field."""
    totals: dict[str, int] = {}
    for key in client.scan_iter(f"{namespace}:partition:*"):
        for name, value in read_rows(client, [str(key)])[0].items():
            totals[name] = totals.get(name, 0) + int(value)
    return totals


def ready(settings: Settings) -> bool:
    """True if the collector reports that it is ready."""
    try:
        with urlopen(f"{_health(settings)}/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def collected(settings: Settings) -> dict[str, int]:
    """The collector's own account: events by outcome, rejected ones by reason, and events on the spool."""
    with urlopen(f"{_health(settings)}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = {
        (sample.name, *sample.labels.values()): int(sample.value)
        for family in families
        for sample in family.samples
    }
    account = {}
    for (name, *labels), value in samples.items():
        if name == COLLECT_EVENTS.name:
            account[labels[0]] = value
        for kind, definition in (("rejected", COLLECT_REJECTED), ("not_counted", COLLECT_NOT_COUNTED)):
            if name == definition.name:
                account[f"{kind}.{labels[0]}"] = value
        if name == COLLECT_RESTING.name:
            account["resting"] = value
    return account


def _health(settings: Settings) -> str:
    return f"http://127.0.0.1:{settings.collect_health_port}"


def compare_calls(door: Door, collected: dict[str, int]) -> tuple[Table, int]:
    """A table of the calls next to the collector's account, and the number of values that differ."""
    table = Table(title="calls against the collector", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("events", "called", "collector"):
        table.add_column(name, justify="left" if name == "events" else "right", no_wrap=True)
    table.add_column("")
    wrong = 0
    for name, expected in [*sorted(door.sent.items()), ("resting", 0), ("lost", 0)]:
        counted = door.lost if name == "lost" else collected.get(name, 0)
        right = expected <= counted <= expected + door.unanswered[name]
        wrong += not right
        remark = f"{counted - expected:,} without an answer, and called again" if counted > expected else ""
        table.add_row(name, f"{expected:,}", f"{counted:,}", remark if right else "[red]differs")
    refused = collected.get("refused", 0)
    if refused or door.again:
        table.add_row("refused", f"{door.again:,}", f"{refused:,}", "or unanswered: called again")
    return table, wrong


def compare(
    expected: Expected,
    totals: dict[str, int],
    client: Client,
    namespace: str,
    doors: frozenset[str] = frozenset(),
) -> tuple[Table, int]:
    """A table of the truth next to the values in Redis, and the number of values that differ. Reach above
    1,000 may differ by 3.2 %.

    If Kafka's acknowledgement comes late, the collector may send a message twice. The message is then
    received and repeated once more. This is allowed for placements of `doors` alone, and only if both counts
    grow by the same number.
    """
    table = Table(title="the simulator's ledger against Redis", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("number", "ledger", "Redis"):
        table.add_column(name, justify="left" if name == "number" else "right", no_wrap=True)
    table.add_column("")
    wrong, twice = 0, totals.get("received", 0) - expected.totals["received"]
    twice = max(twice, 0) if doors else 0

    def check(name: str, want: int, actual: int, tolerance: float = 0.0) -> bool:
        return abs(actual - want) <= tolerance * want

    for name, want in expected.totals.items():
        if name in totals:
            actual = totals[name]
            right = check(name, want + (twice if name in ("received", "repeated") else 0), actual)
            wrong += not right
            remark = f"{twice:,} by the collector twice" if twice and actual != want else ""
            table.add_row(name, f"{want:,}", f"{actual:,}", remark if right else "[red]differs")
    rows = read_rows(client, [row_key(namespace, SCOPES[0], name) for name in expected.flight])
    sums: dict[str, list[int]] = {}
    for (placement, counts), row in zip(expected.flight.items(), rows, strict=True):
        for metric, want in counts.items():
            if metric == "repaired" or (metric in BY_DOOR and placement in doors):
                continue  # `repaired` is known once its minute is final, the others depend on the collector
            actual = int(row.get(f"flight.{metric}", 0))
            right = check(metric, want, actual, 0.032 if metric == "reach" and want > 1000 else 0.0)
            right |= metric == "repeated" and placement in doors and want <= actual <= want + twice
            total = sums.setdefault(metric, [0, 0, 0])
            total[0], total[1], total[2] = total[0] + want, total[1] + actual, total[2] + (not right)
            if not right:
                wrong += 1
            if not right and wrong <= 20:
                table.add_row(f"{placement} {metric}", f"{want:,}", f"{actual:,}", "[red]differs")
    for metric, (want, actual, bad) in sums.items():
        shown = (
            f"{bad} of {len(expected.flight)} placements differ"
            if bad
            else f"all {len(expected.flight)} placements equal"
        )
        if metric == "reach" and want != actual and not bad:
            shown = "equal within 3.2 %"
        table.add_row(f"flight.{metric}", f"{want:,}", f"{actual:,}", shown)
    return table, wrong
