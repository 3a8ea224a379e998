"""`audiopixel forget`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.cli.app import command
from flows.cli.explain import _at_the_edge
from flows.errors import UsageError


@command
def forget(
    listener_ids: Annotated[
        list[str] | None,
        typer.Argument(help="Ids as the pixels have them. Without any, one a line from standard input."),
    ] = None,
) -> None:
    """Erase listeners. Within a minute the flow drops their touches, and takes no more from their pixels.

    With AUDIOPIXEL_COLLECT_KEY set, it also finds them by the collector's pseudonyms. Redis keeps their keyed
    hashes, never the ids, so that a restart does not bring them back. Counts stay. Sketches hold no id that
    could be recovered. Messages of the topic expire by your retention.
    """
    from flows.intake import deny
    from flows.settings import load

    if not listener_ids and sys.stdin.isatty():
        typer.echo("Ids of listeners, one a line, then Ctrl-D:", err=True)
    ids = [one for one in (listener_ids or sys.stdin.read().splitlines()) if one.strip()]
    if not ids:
        raise UsageError("no listener is named: give ids, or one a line on standard input")
    settings = load()
    deny(settings, [*ids, *_at_the_edge(settings, ids)])
    typer.echo(f"{len(ids)} listeners will be forgotten within a minute")
