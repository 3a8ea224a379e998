"""The placements as a live table in the terminal, below how fresh the numbers are: first those whose delivery
is bad, then the busiest.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from connectors.redis import connect
from flows.settings import Settings
from flows.shown import LINE, shown
from flows.viewers.reader import RowsReader, Snapshot

NULL: Final = "–"
STALE_S: Final = 10.0
"""Age from which on the last flush is shown in red: ten flush intervals by default."""

PLAIN_WIDTH: Final = 120
"""Columns of the output where there is neither a terminal nor COLUMNS."""

_LONGEST_NAME: Final = 28
_GAP: Final = 2
_HEAD_LINES: Final = 3  # two of names, one below
_PLACEMENT: Final = "placement"
_STATE: Final = "delivery.state"
_INDICATOR: Final = "delivery.indicator"
_IMPRESSIONS: Final = "flight.impressions"
_BAD: Final = ("under", "ended_short", "at_risk", "over")
_STYLES: Final = {
    **dict.fromkeys(("under", "ended_short"), "bold red"),
    "at_risk": "yellow",
    "over": "blue",
    **dict.fromkeys(("on_track", "complete"), "green"),
}
_TIGHT: Final = 30
"""Lines of a terminal in which the reasons of rejections leave their line to a placement."""
_BALANCE: Final = ("received", "accepted", "repeated")
_REJECTED: Final = "rejected."
_COUNTED: Final = (*_BALANCE, _REJECTED)
_LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999."""


def whole(text: str | None) -> int:
    """A count; 0 where Redis holds none, or what is none."""
    with suppress(ValueError):
        return int(text or 0)
    return 0


def count(text: str) -> str:
    """`1,234,567`."""
    return f"{int(text):,}"


def percent(text: str) -> str:
    """`97.3%`; what is below one never reads 100.0%."""
    ratio = float(text)
    return f"{100 * ratio:.1f}%" if ratio >= 1 else f"{min(100 * ratio, 99.9):.1f}%"


def times(text: str) -> str:
    """`1.73`."""
    return f"{float(text):.2f}"


def words(state: str) -> str:
    """`at risk`."""
    return name(state.replace("_", " "))


def three_places(text: str) -> str:
    """`0.667`."""
    return f"{float(text):.3f}"


def name(text: str) -> str:
    """At most 28 cells."""
    return shown(text, _LONGEST_NAME)


class Column(NamedTuple):
    """One column of the table.

    Attributes:
        head: of two lines.
        field: of the row, or `placement`.
        show: its text for people.
        rank: where the terminal is narrow, the greatest goes first.
    """

    head: str
    field: str
    show: Callable[[str], str]
    rank: int


COLUMNS: Final = (
    Column("\nplacement", _PLACEMENT, name, 0),
    Column("\ncampaign", "campaign_id", name, 12),
    Column("\nstate", _STATE, words, 2),
    Column("\ndelivery", _INDICATOR, three_places, 3),
    Column("\nimpressions", _IMPRESSIONS, count, 1),
    Column("\nstarts", "flight.starts", count, 5),
    Column("compl.\nflight", "flight.completion_rate", percent, 4),
    Column("mature\n1h", "1h.mature_completion_rate", percent, 6),
    Column("\nreach", "flight.reach", count, 7),
    Column("\nfreq.", "flight.frequency", times, 8),
    Column("\nrepeated", "flight.repeated", count, 9),
    Column("too\nlate", "flight.too_late", count, 10),
    Column("\ninvalid", "flight.invalid_traffic", count, 11),
    Column("\nconsent", "flight.consent_coverage", percent, 13),
)
PLANNED: Final = (_STATE, _INDICATOR)
"""Fields of the columns that are shown where any placement has a plan."""
FIELDS: Final = (*(column.field for column in COLUMNS if column.field != _PLACEMENT), "final_through_ms")
"""The fields of a row that the table shows, and that its `Board` reads."""


def render(snapshot: Snapshot, now_s: float, width: int, height: int | None = None) -> Group:
    """The table below its lines of state, in `width` columns and `height` lines (None: all placements).

    Args:
        snapshot: of a board that reads at least `FIELDS` of the placements.
        now_s: wall clock, epoch s.
    """
    rows = snapshot.rows.get("placement", {})
    above = state(snapshot, now_s)
    if height is not None and height < _TIGHT and snapshot.flushed_s is not None:
        del above[-1]
    first = sorted(rows, key=lambda placement: _urgency(placement, rows[placement]))
    if height is not None:
        room = max(1, height - len(above) - _HEAD_LINES)
        if len(first) > room:
            first = first[: max(1, room - 1)]
    planned = any(_STATE in row for row in rows.values())
    columns = [column for column in COLUMNS if planned or column.field not in PLANNED]
    table = _table(columns, [{**rows[placement], _PLACEMENT: placement} for placement in first], width)
    rest = len(rows) - len(first)
    below = [_line(f"… and {rest:,} more", "dim")] if rest else []
    return Group(*above, table, *below) if rows else Group(*above)


def _urgency(placement: str, row: Mapping[str, str]) -> tuple[int, float, int, str]:
    """Sorts bad states first: too little by the least indicator, all else by the most impressions."""
    delivery = row.get(_STATE)
    rank = _BAD.index(delivery) if delivery in _BAD else len(_BAD)
    short = 0.0
    if delivery in ("under", "ended_short"):
        with suppress(ValueError):
            short = float(row.get(_INDICATOR, 0))
    return rank, short, -whole(row.get(_IMPRESSIONS)), placement


def _table(columns: list[Column], rows: list[dict[str, str]], width: int) -> Table:
    cells = {
        column: [_shown(column, row[column.field]) if column.field in row else NULL for row in rows]
        for column in columns
    }
    widths = {
        column: max(map(cell_len, [*column.head.split("\n"), *texts]), default=0)
        for column, texts in cells.items()
    }
    while len(widths) > 2 and sum(widths.values()) + _GAP * (len(widths) - 1) > width:
        del widths[max(widths, key=lambda column: column.rank)]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for column in widths:
        table.add_column(
            column.head, justify="left" if column.show in (name, words) else "right", no_wrap=True
        )
    styles = [_STYLES.get(row.get(_STATE, ""), "") for row in rows]
    for style, line in zip(styles, zip(*(cells[column] for column in widths), strict=True), strict=True):
        table.add_row(
            *(
                Text(text, style if column.field in PLANNED else "")
                for column, text in zip(widths, line, strict=True)
            )
        )
    return table


def _shown(column: Column, text: str) -> str:
    # What is damaged is seen to be, and takes no other row with it.
    try:
        return column.show(text)
    except (ValueError, ArithmeticError):
        return name(f"{text}?")


def state(snapshot: Snapshot, now_s: float) -> list[Text]:
    """Lines that say how fresh the numbers are, and what became of everything received."""
    lines = []
    if not snapshot.up:
        since = f"numbers of {age(now_s - snapshot.read_s)} ago" if snapshot.read_s else "no numbers yet"
        lines.append(_line(f"{since}: {snapshot.error}", "bold red"))
    if snapshot.flushed_s is None:
        if snapshot.up:
            lines.append(_line("no flow has written to this namespace of Redis yet", "yellow"))
        return lines
    flushed_s = now_s - snapshot.flushed_s
    fresh = Text.assemble(
        "watermark ",
        "unknown" if snapshot.watermark_s is None else f"{age(now_s - snapshot.watermark_s)} behind",
        " · ",
        (f"flushed {age(flushed_s)} ago", "red" if flushed_s > STALE_S else "green"),
        " · final through ",
        _final_through(snapshot, now_s),
        no_wrap=True,
        overflow="ellipsis",
    )
    return [*lines, fresh, *_ledger(snapshot.accounts.values())]


def _final_through(snapshot: Snapshot, now_s: float) -> str:
    # Of all rows the greatest: a quiet row still shows what was final when it last changed.
    rows = snapshot.rows["placement"].values()
    final_ms = max((whole(row.get("final_through_ms")) for row in rows), default=0)
    if not 0 < final_ms <= _LAST_MS:
        return NULL
    moment = datetime.fromtimestamp(final_ms / 1000, UTC)
    today = moment.date() == datetime.fromtimestamp(now_s, UTC).date()
    return f"{moment:%H:%M} UTC" if today else f"{moment:%Y-%m-%d %H:%M} UTC"


def _ledger(accounts: Collection[Mapping[str, str]]) -> list[Text]:
    sums = Counter[str]()
    for account in accounts:
        sums.update({field: whole(number) for field, number in account.items() if field.startswith(_COUNTED)})
    received, accepted, repeated = (f"{sums.pop(field, 0):,}" for field in _BALANCE)
    listed = " · ".join(f"{field.removeprefix(_REJECTED)} {n:,}" for field, n in sums.most_common() if n)
    return [
        _line(f"received {received} = accepted {accepted} + repeated {repeated} + rejected {sums.total():,}"),
        _line(f"rejected: {listed or 'none'}"),
    ]


def age(seconds: float) -> str:
    """`0.4 s`, `12 s`, `35 min`, `5 h`, `354 d`."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, length, most in (("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < most:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:,.0f} d"


def _line(text: str, style: str = "") -> Text:
    # Never wrapped: the lines above the table are counted.
    return Text(shown(text, LINE), style, no_wrap=True, overflow="ellipsis")


def run(settings: Settings, interval: timedelta = timedelta(seconds=1), once: bool = False) -> None:
    """Show the table until Ctrl-C; once, and whole, where the output is not a terminal.

    Args:
        interval: between two readings of Redis.
        once: print one screenful and return.

    Raises:
        ConnectError: Redis is not there at the start; later it may go and come back.
    """
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    board = RowsReader(client, settings.namespace, FIELDS, interval=interval)
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal or "COLUMNS" in os.environ else PLAIN_WIDTH)

    def view() -> Group:
        return render(board.refresh(), time.time(), console.width, console.height if terminal else None)

    try:
        if once or not terminal or console.is_dumb_terminal:
            console.print(view())
            return
        with Live(console=console, screen=True, auto_refresh=False) as live, suppress(KeyboardInterrupt):
            while True:
                live.update(view(), refresh=True)
                time.sleep(interval.total_seconds())
    finally:
        board.close()
