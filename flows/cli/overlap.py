"""`audiopixel overlap`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console

from flows.cli.app import command
from flows.errors import AudiopixelError, UsageError
from flows.shown import shown


@command
def overlap(
    a: Annotated[str, typer.Argument(help="A placement.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
) -> None:
    """Estimate how many of the listeners that A's flight has reached were also reached by B's, and the other
    way round.
    """
    from connectors.redis import connect, read_rows
    from flows.model.redis_keys import row_key
    from flows.settings import load
    from flows.state.hyperloglog import unpack_registers as unpack
    from flows.viewers.overlap import overlap as estimated
    from flows.viewers.overlap import show

    if a == b:
        raise UsageError(f"{shown(a)!r} is there twice: name two placements")
    settings = load()
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    rows = read_rows(client, [row_key(settings.namespace, "sketch", name) for name in (a, b)])
    for name, row in zip((a, b), rows, strict=True):
        if "registers" not in row:
            raise AudiopixelError(
                f"no sketch of placement {shown(name)!r}: it has no plan and fewer than 100 consenting "
                f"listeners, or none in the last {settings.row_ttl // timedelta(hours=1)} hours, or there is "
                "no such placement"
            )
    sketches = []
    for name, row in zip((a, b), rows, strict=True):
        try:
            sketches.append(unpack(row["registers"]))
        except ValueError as error:
            raise AudiopixelError(
                f"what Redis holds of placement {shown(name)!r} is no sketch ({error}): it is written anew "
                "once the placement has more listeners, or within a day"
            ) from None
    found = estimated(*sketches)
    Console().print(show(a, b, found))
