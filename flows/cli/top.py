"""`audiopixel top`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from flows.cli.app import command, interruptible


@command
def top(
    interval: Annotated[
        float, typer.Option(min=0.2, max=86_400, metavar="SECONDS", help="Time between two readings.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print the table once, as plain text.")] = False,
    whole: Annotated[
        bool, typer.Option("--all", help="With --once: all rows, not only those that fit the terminal.")
    ] = False,
    campaigns: Annotated[bool, typer.Option("--campaigns", help="Begin with the campaigns.")] = False,
    creatives: Annotated[bool, typer.Option("--creatives", help="Begin with the creatives.")] = False,
    apps: Annotated[bool, typer.Option("--apps", help="Begin with the apps, where they have rows.")] = False,
) -> None:
    """Watch placements, campaigns, creatives and apps live in the terminal. Rows that need attention come
    first.

    Keys: / filters, s orders, j and k move, Enter opens a row, Tab changes the kind of rows, q quits. ? shows
    all keys and the meaning of each column. In a pipe the command prints all rows once.
    """
    from flows.cli.owners import owners_of
    from flows.errors import UsageError
    from flows.settings import load
    from flows.viewers.top import run

    if whole and not once:
        raise UsageError("--all goes with --once: the live table scrolls")
    first = {"campaign": campaigns, "creative": creatives, "app": apps}
    begin = [scope for scope, wanted in first.items() if wanted] or ["placement"]
    if len(begin) > 1:
        raise UsageError("--campaigns, --creatives and --apps are three beginnings: give one")
    settings = load()
    interruptible()
    owners = owners_of(settings, needed=False)
    run(settings, timedelta(seconds=interval), once=once, whole_table=whole, scope=begin[0], owners=owners)
