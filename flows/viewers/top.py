"""`audiopixel top`: the table of `flows.viewers.top_lines`, printed once, or redrawn in a terminal with keys
(`flows.viewers.top_app`).
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from typing import Final

from rich.console import Console, Group
from rich.text import Text

from connectors.redis import connect
from flows.settings import Settings
from flows.shown import is_terminal
from flows.viewers.access import Owners
from flows.viewers.collectors import Collectors
from flows.viewers.columns import FIELDS
from flows.viewers.reader import RowsReader
from flows.viewers.row_sentence import tags_of
from flows.viewers.top_lines import SCOPES, render

PLAIN_WIDTH: Final = 120
"""The width of the output, in characters, without a terminal and without COLUMNS."""


def run(
    settings: Settings,
    interval: timedelta = timedelta(seconds=1),
    *,
    once: bool = False,
    whole_table: bool = False,
    scope: str = "placement",
    owners: Owners | None = None,
) -> None:
    """Show the table until the user quits; print it once if the output is not a terminal.

    Args:
        interval: the time between two reads of Redis.
        once: print the table once and return.
        whole_table: with `once`, print all rows instead of those that fit the terminal.
        scope: the first scope shown, one of `SCOPES`.
        owners: the owners of the planned placements, by which these are labelled with their campaigns.

    Raises:
        ConnectError: Redis is away at the start. A later outage raises nothing.
    """
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    terminal = is_terminal(sys.stdout)
    console = Console(width=None if terminal or "COLUMNS" in os.environ else PLAIN_WIDTH)
    plain = once or not terminal or not is_terminal(sys.stdin) or console.is_dumb_terminal
    scopes = SCOPES[: 1 + SCOPES.index(scope)] if plain else SCOPES
    # Half the interval: a timer that fires slightly early must read, too.
    reader = RowsReader(client, settings.namespace, FIELDS, scopes=scopes, interval=interval / 2)
    try:
        if plain:
            height = console.height if terminal and not whole_table else None
            owners = owners or Owners()
            owners.refresh()
            read = owners.relabelled(reader.refresh())
            _print(console, render(read, time.time(), console.width, height, scope))
            return
        from flows.viewers.top_app import TopApp  # loads textual

        TopApp(reader, interval, scope, owners, tags_of(Collectors(client, settings.namespace).read)).run()
    finally:
        reader.close()


def _print(console: Console, table: Group) -> None:
    """Print lines that already fit. Rich would look for words to wrap, which takes 1 s for 10,000 lines."""
    if console.is_terminal:
        console.print(table)
        return
    for line in table.renderables:
        assert isinstance(line, Text)
        print(line.plain)
