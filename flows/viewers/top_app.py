"""The table of `audiopixel top` in a terminal: filter, order, scroll, open, quit.

Only the visible lines are rendered, so ten thousand rows cost as much as fifty. A thread reads Redis, so a
Redis that hangs blocks no key.
"""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

from rich.console import Group
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.message import Message
from textual.screen import ModalScreen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Footer, Input, Static

from connectors.stream import ConnectError
from flows.shown import LINE, shown
from flows.viewers.access import EVERY_S, Owners
from flows.viewers.columns import COLUMNS
from flows.viewers.desk import Desk, Row
from flows.viewers.reader import RowsReader, Snapshot
from flows.viewers.row_sentence import Tags, sentence_of
from flows.viewers.row_sheet import sheet
from flows.viewers.table import ORDERS, Layout, lay_out, ordered, sort_words
from flows.viewers.top_lines import SCOPES, state, styled, sums
from flows.viewers.words import STATES

RESORT_S: Final = 5.0
"""The time for which rows keep their places, in s: a table that jumps each second cannot be read."""
_PLURAL: Final = {scope: f"{scope}s" for scope in SCOPES}


class Grid(ScrollView, can_focus=True):
    """The rows of the table, as many as there is room for."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "down", show=False),
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("pagedown,space", "page(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("home,g", "move(-1000000000)", show=False),
        Binding("end,G", "move(1000000000)", show=False),
        Binding("enter", "open", "open"),
    ]

    class Opened(Message):
        """A message: the user opens a row."""

        def __init__(self, row: Row) -> None:
            super().__init__()
            self.row = row

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.desk = Desk({})
        self.scope = "placement"
        self.layout_of: Layout = Layout((), ())
        self._chosen: str | None = None
        self._lines: dict[int, Strip] = {}
        self._sizes: dict[str, int] = {}

    def show_rows(self, rows: list[Row], desk: Desk, scope: str) -> None:
        """Show these rows; the chosen one stays chosen at its new place."""
        if scope != self.scope:
            self._sizes.clear()
            self._chosen = None
            self.scroll_to(0, 0, animate=False)
        self.rows, self.desk, self.scope = rows, desk, scope
        self.virtual_size = Size(1, len(rows))
        self.draw()

    def draw(self) -> None:
        """Redraw the visible lines."""
        first = int(self.scroll_offset.y)
        visible = self.rows[first : first + max(1, self.size.height)]
        width = self.scrollable_content_region.width
        self.layout_of, cells = lay_out(visible, self.desk, self.scope, width, self._sizes)
        self._sizes |= {
            column.key: size
            for column, size in zip(self.layout_of.columns, self.layout_of.widths, strict=True)
        }
        self._lines = {}
        for place, (row, texts) in enumerate(zip(visible, cells, strict=True)):
            line = styled(self.layout_of, row, texts)
            line.truncate(width, pad=True)
            if row.id == self._chosen:
                line.stylize("reverse")
            self._lines[first + place] = Strip(line.render(self.app.console)).adjust_cell_length(width)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """A line of the screen."""
        return self._lines.get(int(self.scroll_offset.y) + y, Strip.blank(self.size.width))

    def watch_scroll_y(self, old: float, new: float) -> None:
        """Follow the wheel and the keys."""
        super().watch_scroll_y(old, new)
        self.draw()

    def on_resize(self) -> None:
        """Fit the new width."""
        self._sizes.clear()
        self.draw()

    @property
    def chosen(self) -> int:
        """The place of the chosen row, or -1."""
        return next((place for place, row in enumerate(self.rows) if row.id == self._chosen), -1)

    def action_move(self, steps: int) -> None:
        """Choose a row further down or up."""
        if not self.rows:
            return
        index = max(0, min(len(self.rows) - 1, self.chosen + steps if self._chosen or abs(steps) > 1 else 0))
        self._chosen = self.rows[index].id
        top, room = int(self.scroll_offset.y), self.size.height
        if not top <= index < top + room:
            self.scroll_to(0, index if index < top else index - room + 1, animate=False)
        self.draw()

    def action_page(self, pages: int) -> None:
        """Choose a row a screen further."""
        self.action_move(pages * max(2, self.size.height - 1))

    def action_open(self) -> None:
        """Show the chosen row whole, or the first one without a choice."""
        if self.rows:
            self.post_message(self.Opened(self.rows[max(0, self.chosen)]))


class Sheet(ModalScreen[None]):
    """A text over the table, until Escape."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "dismiss", "close"),
        Binding("down,j", "scroll(1)", show=False),
        Binding("up,k", "scroll(-1)", show=False),
    ]

    def __init__(self, content: Group) -> None:
        super().__init__()
        self._content = content

    def compose(self) -> ComposeResult:
        """The text, which scrolls."""
        with VerticalScroll():
            yield Static(self._content)
        yield Footer()

    def action_scroll(self, lines: int) -> None:
        """Scroll by lines."""
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    async def action_dismiss(self, result: Any = None) -> None:
        """Close."""
        self.dismiss(None)


class TopApp(App[None]):
    """`audiopixel top` in a terminal.

    Args:
        reader: reads the rows of `flows.viewers.top_lines.SCOPES`.
        interval: the time between two reads of Redis.
        scope: the first scope shown.
        owners: the owners of the planned placements.
        tags: returns the fault of a placement's tag.
    """

    TITLE = "audiopixel top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: auto; }
    #sums { height: 1; }
    #heads { height: 2; }
    #filter { display: none; border: none; height: 1; padding: 0; }
    #filter.asked { display: block; }
    Grid { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
    Sheet { align: center middle; }
    Sheet VerticalScroll { width: 100%; height: 1fr; padding: 1 2; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "ask", "filter"),
        Binding("s", "next_order", "order"),
        Binding("left_angle_bracket,comma", "by_column(-1)", "by column <", show=False),
        Binding("right_angle_bracket,full_stop", "by_column(1)", "by column >", show=False),
        Binding("r", "reverse", "reverse"),
        Binding("tab", "next_scope", "next scope", priority=True),
        Binding("escape", "leave", "close", show=False),
        Binding("question_mark", "keys", "keys"),
        Binding("q,ctrl+c", "quit", "quit"),
    ]

    def __init__(
        self,
        reader: RowsReader,
        interval: timedelta,
        scope: str,
        owners: Owners | None = None,
        tags: Tags = lambda _: None,
    ) -> None:
        super().__init__()
        self._tags = tags
        self._owners = owners or Owners()
        self._owners_read_s = float("-inf")
        self._reader = reader
        self._interval = interval
        self._scope = scope
        self._sort = ""
        self._words: list[str] = []
        self._snapshot = Snapshot()
        self._sorted: list[str] = []
        self._sorted_s = float("-inf")

    def compose(self) -> ComposeResult:
        """The head, the table, the filter and the keys."""
        yield Static(id="head")
        yield Static(id="sums")
        yield Static(id="heads")
        yield Grid()
        yield Input(placeholder="filter: placement, its labels or its state", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to read."""
        self.theme = "ansi-dark"
        self.query_one(Grid).focus()
        # Textual handles the key alone, and not the signal that a supervisor sends.
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self.exit)
        self.set_interval(self._interval.total_seconds(), self.look)
        self.look()

    @work(thread=True, exclusive=True)
    def look(self) -> None:
        """Read Redis, in a thread."""
        if time.monotonic() - self._owners_read_s > EVERY_S:
            self._owners.refresh()
            self._owners_read_s = time.monotonic()
        snapshot = self._owners.relabelled(self._reader.refresh())
        self.call_from_thread(self.take, snapshot)

    def take(self, snapshot: Snapshot) -> None:
        """Show a reading."""
        self._snapshot = snapshot
        self.show(fresh=time.monotonic() - self._sorted_s > RESORT_S)

    def show(self, fresh: bool = True) -> None:
        """Filter, order if that is due, and draw."""
        now_s = time.time()
        desk = Desk.from_scopes(self._snapshot.rows, 1000 * now_s)
        if fresh:
            self._sorted_s = time.monotonic()
            matching = [row for row in desk.rows[self._scope] if row.matches(self._words)]
            rows = ordered(matching, self._sort, desk)
            self._sorted = [row.id for row in rows]
        else:
            row_by_id = desk.by_id[self._scope]
            rows = [row_by_id[name] for name in self._sorted if name in row_by_id]
        grid = self.query_one(Grid)
        grid.show_rows(rows, desk, self._scope)
        self.query_one("#head", Static).update(Group(*state(self._snapshot, now_s)))
        heads = grid.layout_of.heads(desk, self._scope)
        self.query_one("#heads", Static).update(
            Group(
                *(Text(head, style, no_wrap=True) for head, style in zip(heads, ("bold", "dim"), strict=True))
            )
        )
        total = len(desk.rows[self._scope])
        many = f"{len(rows):,} of {total:,}" if self._words else f"{total:,}"
        sums_line = f"{many} {_PLURAL[self._scope]} · {sort_words(self._sort)} · {sums(rows, desk)}"
        sums_line += f" · filter: {' '.join(self._words)}" if self._words else ""
        self.query_one("#sums", Static).update(
            Text(shown(sums_line, LINE), "bold", no_wrap=True, overflow="ellipsis")
        )

    # Keys

    def action_ask(self) -> None:
        """Open the filter."""
        filter_input = self.query_one("#filter", Input)
        filter_input.add_class("asked")
        filter_input.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter at each letter."""
        self._words = event.value.lower().split()
        self.show()

    def on_input_submitted(self) -> None:
        """Go back to the table, and keep the filter."""
        self.query_one("#filter", Input).remove_class("asked")
        self.query_one(Grid).focus()

    def action_leave(self) -> None:
        """Empty the filter."""
        self.query_one("#filter", Input).value = ""
        self.on_input_submitted()

    def action_next_order(self) -> None:
        """Take the next of the page's orders."""
        names = list(ORDERS)
        index = names.index(self._sort) if self._sort in names else -1
        self._order(names[(index + 1) % len(names)])

    def action_by_column(self, steps: int) -> None:
        """Order by the next column to the right or to the left of those in sight."""
        columns = self.query_one(Grid).layout_of.columns or COLUMNS
        keys = [column.key for column in columns]
        now = self._sort.removeprefix("-")
        column = columns[(keys.index(now) + steps) % len(keys) if now in keys else 0]
        self._order(f"-{column.key}" if column.down else column.key)

    def action_reverse(self) -> None:
        """Turn the order round."""
        if self._sort:
            self._order(self._sort.removeprefix("-") if self._sort.startswith("-") else f"-{self._sort}")

    def _order(self, sort: str) -> None:
        self._sort = sort
        self.show()

    def action_next_scope(self) -> None:
        """Change between placements, campaigns, creatives and apps."""
        if isinstance(self.screen, Sheet):
            return
        self._scope = SCOPES[(SCOPES.index(self._scope) + 1) % len(SCOPES)]
        self.show()

    def action_keys(self) -> None:
        """Show the keys, the columns and the states."""
        self.push_screen(Sheet(legend()))

    def on_grid_opened(self, event: Grid.Opened) -> None:
        """Show a whole row."""
        self.open(event.row)

    @work(thread=True, exclusive=True, group="open")
    def open(self, row: Row) -> None:
        """Read one row and show it, in a thread."""
        try:
            fields = self._reader.row(row.scope, row.id)
        except ConnectError as error:
            self.call_from_thread(self.notify, shown(str(error), LINE), severity="error")
            return
        whole, now_ms = Row(row.scope, row.id, fields), 1000 * time.time()
        zone = datetime.now().astimezone().tzinfo or UTC
        sentence = sentence_of(
            self._reader, self._snapshot, row.scope, row.id, fields, zone=zone, tags=self._tags
        )
        sheet_text = sheet(whole, Desk.from_scopes(self._snapshot.rows, now_ms), sentence=sentence)
        self.call_from_thread(self.push_screen, Sheet(sheet_text))


KEYS: Final = (
    ("/", "filter by placement, its labels or its state; Esc empties it"),
    ("j k, arrows", "next or previous row; PgUp PgDn a screen; g G first, last"),
    ("Enter", "open the row; Esc closes it"),
    ("s", "next order; < > by the column left or right; r turns it round"),
    ("Tab", "placements, campaigns, creatives or apps"),
    ("?", "this sheet"),
    ("q", "quit"),
)


def legend() -> Group:
    """Keys, columns and states, each with its meaning."""
    lines = [Text("Keys", "bold"), *(Text(f"  {key:<14}{words}") for key, words in KEYS)]
    lines += [Text("\nColumns", "bold")]
    for column in COLUMNS:
        unit = "the plan's currency" if column.unit == "money" else column.unit
        lines.append(Text(f"  {column.title:<21}{column.means}{f' Unit: {unit}.' if unit else ''}"))
    lines += [Text("\nStates", "bold"), *(Text(f"  {words:<14}{means}") for words, means in STATES.values())]
    return Group(*lines)
