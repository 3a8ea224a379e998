"""`audiopixel top`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from flows.cli.app import command, interruptible


@command
def top(
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print the table once.")] = False,
) -> None:
    """Watch the placements live in the terminal."""
    from flows.settings import load
    from flows.viewers.top import run as watch

    settings = load()
    interruptible()
    watch(settings, timedelta(seconds=interval), once)
