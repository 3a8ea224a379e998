"""`audiopixel top`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

import typer

from flows.cli.app import command, interruptible
from flows.model.catalogue.columns import COLUMNS, Form

KEYS: Final = tuple(column.key for column in COLUMNS if column.form is not Form.CURVE)
"""The columns by which the table can be sorted."""


@command
def top(
    interval: Annotated[
        float, typer.Option(min=0.2, max=86_400, metavar="SECONDS", help="Time between two readings.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print the table once, and end.")] = False,
    whole: Annotated[
        bool, typer.Option("--all", help="With --once: all rows, not only those that fit the terminal.")
    ] = False,
    campaigns: Annotated[bool, typer.Option("--campaigns", help="Show campaigns.")] = False,
    creatives: Annotated[bool, typer.Option("--creatives", help="Show creatives.")] = False,
    apps: Annotated[bool, typer.Option("--apps", help="Show apps, where they have rows.")] = False,
    words: Annotated[
        str,
        typer.Option(
            "--filter",
            metavar="WORDS",
            show_default=False,
            help="Only rows with each word in id, labels or state.",
        ),
    ] = "",
    sort: Annotated[
        str,
        typer.Option(
            metavar="COLUMN",
            show_default=False,
            help=f"Sort by a column, numbers from the greatest, pacing from the least: {', '.join(KEYS)}.",
        ),
    ] = "",
    reverse: Annotated[bool, typer.Option("--reverse", help="With --sort: in the other direction.")] = False,
) -> None:
    """Watch a table of placements in the terminal, read again every second. Ctrl-C ends it.

    Rows that need attention come first. A narrow terminal lacks the less important columns, a low one the
    last rows. In a pipe the command prints all rows once. --once ends with 1 if Redis does not answer.
    """
    from flows.cli.owners import owners_of
    from flows.errors import UsageError
    from flows.settings import load
    from flows.viewers.columns import BY_KEY
    from flows.viewers.top import run

    if whole and not once:
        raise UsageError("--all goes with --once: the live table has the rows that fit the terminal")
    if reverse and not sort:
        raise UsageError("--reverse goes with --sort")
    if sort and sort not in KEYS:
        raise UsageError(f"--sort takes one of {', '.join(KEYS)}")
    first = {"campaign": campaigns, "creative": creatives, "app": apps}
    scopes = [scope for scope, wanted in first.items() if wanted] or ["placement"]
    if len(scopes) > 1:
        raise UsageError("--campaigns, --creatives and --apps are three tables: give one")
    settings = load()
    interruptible()
    run(
        settings,
        timedelta(seconds=interval),
        once=once,
        whole_table=whole,
        scope=scopes[0],
        sort=f"-{sort}" if sort and BY_KEY[sort].down != reverse else sort,
        words=words.lower().split(),
        owners=owners_of(settings, needed=False),
    )
