"""`audiopixel top`: the table of `flows.viewers.top_lines`, drawn at each reading of Redis, or printed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from connectors.redis import connect
from connectors.stream import ConnectError
from flows.settings import Settings
from flows.shown import is_terminal
from flows.viewers.access import EVERY_S, Owners
from flows.viewers.columns import FIELDS
from flows.viewers.reader import RowsReader
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
    sort: str = "",
    words: Sequence[str] = (),
    owners: Owners | None = None,
) -> None:
    """Show the table until SIGINT or SIGTERM; print it once if the output is not a terminal.

    Args:
        interval: the time between two reads of Redis.
        once: print the table once and return.
        whole_table: with `once`, print all rows instead of those that fit the terminal.
        scope, sort, words: the rows and their order, see `flows.viewers.top_lines.render`.
        owners: the owners of the planned placements, by which these are labelled with their campaigns.

    Raises:
        ConnectError: Redis is away at the start, or for a table that is printed once. A later outage is
            shown above the last numbers.
    """
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    terminal = is_terminal(sys.stdout)
    console = Console(width=None if terminal or "COLUMNS" in os.environ else PLAIN_WIDTH)
    scopes = SCOPES[: 1 + SCOPES.index(scope)]  # the currency of placements counts for a campaign, too
    reader = RowsReader(client, settings.namespace, FIELDS, scopes=scopes, interval=timedelta(0))
    owners = owners or Owners()
    owners_read_s = float("-inf")

    def table(height: int | None) -> Group:
        nonlocal owners_read_s
        if time.monotonic() - owners_read_s > EVERY_S:
            owners.refresh()
            owners_read_s = time.monotonic()
        snapshot = owners.relabelled(reader.refresh())
        if plain and not snapshot.up:
            raise ConnectError(snapshot.error)
        return render(snapshot, time.time(), console.width, height, scope, sort, words)

    plain = once or not terminal or console.is_dumb_terminal
    try:
        if plain:
            _print(console, table(console.height if terminal and not whole_table else None))
            return
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the screen is left as it was
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(table(console.height), refresh=True)
                time.sleep(interval.total_seconds())
    except KeyboardInterrupt:
        pass
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
