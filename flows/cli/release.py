"""`audiopixel release`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.app import command
from flows.errors import UsageError
from flows.shown import shown


@command
def release(
    collector: Annotated[
        str, typer.Argument(help="Its id, as alerts and the file `id` of its spool show it.")
    ],
) -> None:
    """Declare a collector gone for good, so that the flow stops waiting for its pixels. Use it where a
    collector will not come back with its spool.
    """
    import asyncio

    from flows.collector.release import release as say_bye
    from flows.settings import load

    if not collector or len(collector) > 128:
        raise UsageError("the id of a collector has 1 to 128 letters")
    partitions = asyncio.run(say_bye(load(), collector))
    typer.echo(f"{shown(collector)} ended in {partitions} partitions")
