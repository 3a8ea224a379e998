"""`audiopixel check`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.app import FILES, command, interruptible
from flows.shown import LINE, print_table, shown


@command
def check(
    files: FILES,
    most: Annotated[
        int, typer.Option(min=0, metavar="N", help="Print at most this many rejected lines.")
    ] = 100,
) -> None:
    """Check files of pixels before a flow reads them. Each rejected line is printed with its file, number,
    reason and field, and the values that the field takes. A table of the reasons and fields follows.

    Exit code 0: all lines are pixels or marks. 1: a line is rejected, or a file cannot be read. 2: a wrong
    option.

    The flow's own decoder decides. Repeats and late pixels are not judged, and values are not shown. Fields,
    limits and examples: docs/pixels.md.
    """
    from flows.check import CheckResult
    from flows.check import check as checked
    from flows.cli.progress import progress

    checked_files, printed = CheckResult(), 0

    def print_rejected(line: str) -> None:
        nonlocal printed
        printed += 1
        if printed <= most:
            typer.echo(line)

    interruptible()
    with progress(lambda: f"{checked_files.received:,} messages"):
        checked(files, checked_files, print_rejected)
    if printed > most:
        typer.echo(f"… and {printed - most:,} more")
    typer.echo(checked_files.account())
    for file in checked_files.foreign:
        typer.echo(f"{shown(file, LINE)}: its first line has none of our fields: is it of another shape?")
    if printed:
        print_table(checked_files.table())
        raise typer.Exit(1)
