"""`audiopixel config`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.cli.app import command


@command
def config(
    name: Annotated[
        str, typer.Argument(help="A part of a setting's name, such as KAFKA.", show_default=False)
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="Show every setting.")] = False,
    example: Annotated[
        bool, typer.Option("--example", help="Write an audiopixel.toml, each setting commented out.")
    ] = False,
) -> None:
    """Show the settings that are needed, and those that differ from their default: the value, where it comes
    from, what it takes and what it means. Secrets are not shown.

    Set a setting by its name in the environment, or in audiopixel.toml by the rest of the name in lower case
    (`flush_interval = "PT0.5S"`). {text: text} and […] are JSON in the environment, a table or an array in
    the file. Durations: PT10M, 00:10:00, or seconds. AUDIOPIXEL_CONFIG names another file. Without a setting,
    the number of shards is that of the recovery store.
    """
    from flows.engine import settings_of_store
    from flows.errors import StateError, UsageError
    from flows.settings import load
    from flows.settings import show as views

    if example:
        if name or every:
            raise UsageError("--example writes every setting: leave out the name and --all")
        views.example(sys.stdout)
        return
    settings = load()
    try:
        shards = settings_of_store(settings).shards
    except StateError:  # a starting flow reports it
        shards = settings.shards
    sources = {"shards": "the recovery store"} if shards != settings.shards else {}
    views.show(settings.model_copy(update={"shards": shards}), sources, name, every)
