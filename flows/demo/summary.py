"""The demo's last word: what was sent, held against what Redis has."""

from __future__ import annotations

from rich import box
from rich.table import Table

from connectors.redis import Client, read_rows
from flows.model.dimensions import SCOPES
from flows.model.redis_keys import row_key
from flows.simulate import Expected


def ledger_totals(client: Client, namespace: str) -> dict[str, int]:
    """Sums of the partitions' ledger rows."""
    totals: dict[str, int] = {}
    for key in client.scan_iter(f"{namespace}:partition:*"):
        for name, value in read_rows(client, [str(key)])[0].items():
            totals[name] = totals.get(name, 0) + int(value)
    return totals


def compare(expected: Expected, totals: dict[str, int], client: Client, namespace: str) -> tuple[Table, int]:
    """A table of the truth beside what Redis says, and how many numbers differ (reach beyond 1,000 may by 3.2
    %).
    """
    table = Table(title="the simulator's ledger against Redis", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("number", "ledger", "Redis"):
        table.add_column(name, justify="left" if name == "number" else "right", no_wrap=True)
    table.add_column("")
    wrong = 0

    def check(name: str, want: int, got: int, tolerance: float = 0.0) -> bool:
        return abs(got - want) <= tolerance * want

    for name, want in expected.totals.items():
        if name in totals:
            got = totals[name]
            right = check(name, want, got)
            wrong += not right
            table.add_row(name, f"{want:,}", f"{got:,}", "" if right else "[red]differs")
    rows = read_rows(client, [row_key(namespace, SCOPES[0], name) for name in expected.flight])
    sums: dict[str, list[int]] = {}
    for (placement, counts), row in zip(expected.flight.items(), rows, strict=True):
        for metric, want in counts.items():
            if metric == "repaired":
                continue  # `repaired` counts in a flight when its minute is final
            got = int(row.get(f"flight.{metric}", 0))
            right = check(metric, want, got, 0.032 if metric == "reach" and want > 1000 else 0.0)
            total = sums.setdefault(metric, [0, 0, 0])
            total[0], total[1], total[2] = total[0] + want, total[1] + got, total[2] + (not right)
            if not right:
                wrong += 1
            if not right and wrong <= 20:
                table.add_row(f"{placement} {metric}", f"{want:,}", f"{got:,}", "[red]differs")
    for metric, (want, got, bad) in sums.items():
        shown = (
            f"{bad} of {len(expected.flight)} placements differ"
            if bad
            else f"all {len(expected.flight)} placements equal"
        )
        if metric == "reach" and want != got and not bad:
            shown = "equal within 3.2 %"
        table.add_row(f"flight.{metric}", f"{want:,}", f"{got:,}", shown)
    return table, wrong
