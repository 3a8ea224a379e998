"""`audiopixel top`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from flows.cli.app import command, interruptible


@command
def top(
    interval: Annotated[
        float, typer.Option(min=0.2, metavar="SECONDS", help="Time between two readings.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print the table once, as plain text.")] = False,
    whole: Annotated[
        bool, typer.Option("--all", help="With --once: all rows, not only those that fit the terminal.")
    ] = False,
    campaigns: Annotated[bool, typer.Option("--campaigns", help="Begin with the campaigns.")] = False,
    creatives: Annotated[bool, typer.Option("--creatives", help="Begin with the creatives.")] = False,
) -> None:
    """Watch placements, campaigns and creatives live in the terminal: what needs attention comes first.

    Keys: / filters, s orders, j and k move, Enter opens a row, Tab changes between them,
    ? shows all keys and what each column means, q quits. Into a pipe it prints all rows once.
    """
    from flows.errors import UsageError
    from flows.settings import load
    from flows.viewers.top import run

    if whole and not once:
        raise UsageError("--all goes with --once: the live table scrolls")
    if campaigns and creatives:
        raise UsageError("--campaigns and --creatives are two beginnings: give one")
    scope = "campaign" if campaigns else "creative" if creatives else "placement"
    settings = load()
    interruptible()
    run(settings, timedelta(seconds=interval), once=once, whole_table=whole, scope=scope)
