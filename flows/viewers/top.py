"""`audiopixel top`: the table of `flows.viewers.top_lines`, printed once, or alive in a terminal with keys
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
    """Show the table until it is left; once, if the output is not a terminal.

    Args:
        interval: between two readings of Redis.
        once: print it once and return.
        whole_table: with `once`, print all rows, not those alone that fit the terminal.
        scope: what to begin with, one of `SCOPES`.
        owners: of the planned placements, which are of their plans' campaigns.

    Raises:
        ConnectError: Redis is not there at the start; later it may go and come back.
    """
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    terminal = is_terminal(sys.stdout)
    console = Console(width=None if terminal or "COLUMNS" in os.environ else PLAIN_WIDTH)
    plain = once or not terminal or not is_terminal(sys.stdin) or console.is_dumb_terminal
    scopes = SCOPES[: 1 + SCOPES.index(scope)] if plain else SCOPES
    # Half: a timer that is slightly early reads all the same.
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
    """Print lines that fit already: rich would search words to wrap, for a second in ten thousand lines."""
    if console.is_terminal:
        console.print(table)
        return
    for line in table.renderables:
        assert isinstance(line, Text)
        print(line.plain)
