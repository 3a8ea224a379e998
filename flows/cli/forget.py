"""`audiopixel forget`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.cli.app import command
from flows.cli.explain import at_the_edge
from flows.errors import UsageError


@command
def forget(
    listener_ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids or addresses, as callers had them. Without any, one a line from standard input."
        ),
    ] = None,
    user_agent: Annotated[
        str,
        typer.Option(help="Of the devices at these addresses: their clients too.", show_default=False),
    ] = "",
) -> None:
    """Erase listeners. Within a minute the flow drops their touches, and takes no more from their pixels.

    With AUDIOPIXEL_COLLECT_KEY set, it also finds them by the collector's pseudonyms: of an
    id, of an address, of an address with a user agent, by each key in force. Redis keeps their keyed
    hashes, never the ids, so that a restart does not bring them back. Counts stay. Sketches hold no id that
    could be recovered. Messages of the topic expire by your retention.
    """
    from flows.intake import deny
    from flows.settings import load

    if not listener_ids and sys.stdin.isatty():
        typer.echo("Ids of listeners, one a line, then Ctrl-D:", err=True)
    ids = [one.strip() for one in (listener_ids or sys.stdin.read().splitlines()) if one.strip()]
    if not ids:
        raise UsageError("no listener is named: give ids, or one a line on standard input")
    settings = load()
    deny(settings, [*ids, *(made for one in ids for _, made in at_the_edge(settings, one, user_agent))])
    typer.echo(f"{len(ids)} listeners will be forgotten within a minute")
