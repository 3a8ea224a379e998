"""`audiopixel doctor`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flows.cli.app import command, interruptible
from flows.shown import LINE, shown


@command
def doctor(as_json: Annotated[bool, typer.Option("--json", help="An object a line.")] = False) -> None:
    """Examine this installation by its settings: Kafka, topics, Redis, clocks, disks, the flow, settings that
    disagree with it, lag, collectors, sources. Each part has one line: ok, look or wrong, and what to do.

    The command writes nothing. Exit code 0: no line is wrong. 1: a line is wrong. 2: a setting cannot be
    read.
    """
    from flows.doctor import Doctor, Level
    from flows.settings import load

    interruptible()
    is_wrong = False
    for finding in Doctor(load()).findings():
        is_wrong |= finding.level == Level.WRONG
        if as_json:
            typer.echo(json.dumps(finding._asdict()))
            continue
        colour = {Level.OK: "green", Level.LOOK: "yellow", Level.WRONG: "red"}[finding.level]
        level = typer.style(f"{finding.level.value:<6}", fg=colour)
        typer.echo(f"{level} {finding.part:<13} {shown(finding.words, LINE)}")
        if finding.remedy:
            typer.echo(f"{'':<20} → {finding.remedy}")
    if is_wrong:
        raise typer.Exit(1)
