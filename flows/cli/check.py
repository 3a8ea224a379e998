"""`audiopixel check`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.app import FILES, command, interruptible


@command
def check(
    files: FILES,
    most: Annotated[
        int, typer.Option(min=0, help="How many lines that are wrong are told one by one.")
    ] = 100,
) -> None:
    """Check logs of pixels before a flow reads them: tells each line that is no pixel by its file and number,
    why it is rejected, in which field, and what that takes. Exit code 1 if there is any.

    It is the flow's own decoder. What is repeated or too late is not judged, and no value is shown.
    """
    from flows.check import Checked
    from flows.check import check as checked
    from flows.cli.progress import progress

    found, told = Checked(), 0

    def tell(line: str) -> None:
        nonlocal told
        told += 1
        if told <= most:
            typer.echo(line)

    interruptible()
    with progress(lambda: f"{found.received:,} messages"):
        checked(files, found, tell)
    if told > most:
        typer.echo(f"… and {told - most:,} more")
    for line in found.summary():
        typer.echo(line)
    if told:
        raise typer.Exit(1)
