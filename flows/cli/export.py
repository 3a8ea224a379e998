"""`audiopixel export`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal

import typer

from flows.cli.app import command
from flows.errors import UsageError
from flows.model.catalogue.exports import EXPORTS

KINDS = {export.name: export for export in EXPORTS}


def _with_kinds(function: Callable[..., None]) -> Callable[..., None]:
    """A command with the kinds of exports in its help."""
    kinds = "\n\n".join(f"{export.name} {export.means}" for export in EXPORTS)
    function.__doc__ = (function.__doc__ or "").replace("KINDS", kinds)
    return function


@command
@_with_kinds
def export(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.", show_default=False)] = "",
    to: Annotated[
        str,
        typer.Option(
            metavar="DIR|s3://BUCKET/PREFIX",
            help="For parquet: the place of the days. Name an S3 server other than Amazon's after a question "
            "mark: ?endpoint=HOST:PORT&scheme=http.",
            show_default=False,
        ),
    ] = "",
    name: Annotated[
        str,
        typer.Option(
            help="Name of this export in its consumer group, metrics and dead letters; by default its kind. "
            "Set it if several exports of a kind run.",
            show_default=False,
        ),
    ] = "",
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="earliest|latest",
            help="Where the first start of this name begins; by default earliest for parquet, latest "
            "for the others.",
            show_default=False,
        ),
    ] = "",
    once: Annotated[
        bool, typer.Option("--once", help="Write all present messages, and end; for a timer.")
    ] = False,
) -> None:
    """Write published numbers to other systems. Each message arrives at least once, and a repeat has the same
    key. A message that a target refuses for good is written to the dead letters of the exports.

    KINDS

    The place is stored in a consumer group; a restart continues there. Run one process for each name. SIGTERM
    or Ctrl-C end it with exit code 0.
    """
    from flows.cli.owners import owners_of
    from flows.exports import RUNS, Exports
    from flows.settings import load, nearest

    if kind not in KINDS:
        problem = "there is no such export" if kind else "export needs a kind"
        raise UsageError(f"{problem}{nearest(kind, KINDS)}; take one of {', '.join(KINDS)}")
    if KINDS[kind].to != bool(to):
        raise UsageError("--to names where days go: parquet needs it, the others have none")
    if re.fullmatch("[A-Za-z0-9_-]{0,64}", name) is None:
        raise UsageError("--name takes up to 64 letters, digits, _ and -")
    begin = _start(start or KINDS[kind].start)
    RUNS[kind](Exports(load(), name or kind, once, begin, to, owners_of))


def _start(word: str) -> Literal["earliest", "latest"]:
    if word == "earliest":
        return "earliest"
    if word == "latest":
        return "latest"
    raise UsageError("--from takes earliest or latest")
