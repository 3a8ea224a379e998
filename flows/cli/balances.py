"""Opening balances of plans, for `audiopixel plans`, which makes and checks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from flows.errors import UsageError
from flows.shown import LINE, cut, print_table, shown

if TYPE_CHECKING:
    from rich.table import Table

    from flows.model.plan import Plan
    from flows.settings import Settings
    from flows.waterfall import Balances

_MAX_NAMES: Final = 10
"""The greatest number of names or days in a line."""


def balanced_plans(
    report: Path, file: Path, book: Mapping[str, Plan], until: str, source: str | None
) -> bytes:
    """The content of a file of plans with opening balances of a report. The balances are printed.

    Args:
        book: the plans of `file`.
        until: the moment up to which the report counts, as a person writes it.
        source: the source of the balances; None for the name of the report.

    Raises:
        UsageError: `until` is no time, or the report gives no balance.
    """
    from flows import waterfall
    from flows.delivery import MAX_SOURCE, moment_of, moment_text, with_balances
    from flows.settings import load

    zone = load().zone
    try:
        until_ms = moment_of(until.strip(), zone)
    except ValueError as error:
        raise UsageError(f"--until: {error}") from None
    opening = waterfall.balances(waterfall.read_claims(report), book, until_ms, zone)
    print_table(_table(opening))
    for line in _remarks(opening):
        typer.echo(shown(line, LINE), err=True)
    named = cut(report.name, MAX_SOURCE) if source is None else source
    columns = {
        name: {
            "delivered_before": balance.delivered,
            "delivered_before_until": moment_text(balance.until_ms),
            "delivered_before_source": named,
        }
        for name, balance in opening.balances.items()
    }
    return with_balances(file, book, columns)


def refused_moments(settings: Settings, book: Mapping[str, Plan]) -> list[str]:
    """A line for each balance whose moment does not fit the flow's counts.

    If Redis does not answer, or no flow has counted, a line on standard error states that the moments were
    not checked.
    """
    from connectors.redis import RedisUnavailable, connect, read_rows
    from connectors.stream import ConnectError
    from flows.delivery import moment_problem
    from flows.model.redis_keys import row_key

    until_ms = {name: plan.delivered_before_until for name, plan in book.items()}
    try:
        client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
        names = ["counted_since_ms", "watermark_ms"]
        (meta,) = read_rows(client, [f"{settings.namespace}:meta"], names)
        keys = [row_key(settings.namespace, "placement", name) for name in until_ms]
        rows = read_rows(client, keys, ["delivery.delivered_before_until_ms", "delivery.unknown_reason"])
    except (ConnectError, RedisUnavailable) as error:
        typer.echo(f"the moments of balances are not checked: {shown(str(error), LINE)}", err=True)
        return []
    if not all(meta.get(name, "").isdigit() for name in names):
        typer.echo("the moments of balances are not checked: no flow has counted yet", err=True)
        return []
    since_ms, now_ms = (int(meta[name]) for name in names)
    lines = []
    for (name, at_ms), row in zip(until_ms.items(), rows, strict=True):
        is_published = row.get("delivery.delivered_before_until_ms") == str(at_ms)
        if at_ms is None or book[name].start_ms > now_ms:
            continue
        if is_published and row.get("delivery.unknown_reason") != "until":
            continue
        if (problem := moment_problem(at_ms, since_ms, now_ms, settings.zone)) is not None:
            lines.append(f"{shown(name)}: delivered_before_until: {problem}")
    return lines


def _table(opening: Balances) -> Table:
    from rich.table import Table

    from flows.delivery import moment_text
    from flows.shown import cell

    table = Table()
    table.add_column("placement")
    table.add_column("delivered before", justify="right")
    table.add_column("until")
    table.add_column("rows", justify="right")
    for name, balance in opening.balances.items():
        until = moment_text(balance.until_ms)
        table.add_row(cell(name), f"{balance.delivered:,}", until, str(balance.rows))
    return table


def _remarks(opening: Balances) -> list[str]:
    """Lines about rows, days and placements that are in no balance."""
    lines = [f"{count} rows are left out: they are {reason}" for reason, count in opening.left_out.items()]
    lines += [
        f"{name}: the report has no row of {_listed([str(day) for day in balance.missing])}; it counts 0"
        for name, balance in opening.balances.items()
        if balance.missing
    ]
    if opening.unplanned:
        lines.append(f"no plan is of {_listed(opening.unplanned)}")
    if opening.without:
        lines.append(f"the report has nothing of {_listed(opening.without)}, which stay as they are")
    return lines


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(shown(name) for name in names[:_MAX_NAMES])
    return listed if len(names) <= _MAX_NAMES else f"{listed} and {len(names) - _MAX_NAMES} more"
