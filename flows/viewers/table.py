"""Order and layout of the rows of `audiopixel top`, in the orders of the live page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len, set_cell_size

from flows.model.catalogue.columns import ORDERS
from flows.viewers.columns import BY_KEY, COLUMNS, Column
from flows.viewers.desk import Desk, Row, attention
from flows.viewers.words import NULL

GAP: Final = 2
"""Cells between two columns."""
_OF_PLACEMENTS: Final = ("campaign", "platform", "station")


def ordered(rows: Iterable[Row], sort: str, desk: Desk) -> list[Row]:
    """The rows in an order: a column's key, with `-` before it for the greatest first, or empty for the
    most urgent first.

    The most urgent order has the tiers of `ATTENTION`, each sorted by the amount at stake: money if all plans
    have one currency, else impressions. Rows with an unknown amount follow in their tier, sorted by delivered
    impressions.
    """
    if not sort:
        return sorted(rows, key=lambda row: (*attention(row, desk.currency), row.id))
    key, down = sort.removeprefix("-"), sort.startswith("-")
    valued = [(BY_KEY[key].value(row), row) for row in rows]
    with_value = sorted((pair for pair in valued if pair[0] == pair[0]), key=lambda pair: pair[1].id)
    with_value.sort(key=lambda pair: pair[0], reverse=down)
    without_value = sorted((row for value, row in valued if value != value), key=lambda row: row.id)
    return [row for _, row in with_value] + without_value


def sort_words(sort: str) -> str:
    """An order in words: `needs attention first`, `by short by, greatest first`."""
    if sort in ORDERS:
        return ORDERS[sort]
    key, down = sort.removeprefix("-"), sort.startswith("-")
    return f"by {BY_KEY[key].title}, {'greatest' if down else 'least'} first"


# Layout


class Layout(NamedTuple):
    """The columns that fit into a width, each with its cells."""

    columns: tuple[Column, ...]
    widths: tuple[int, ...]

    def line(self, cells: Sequence[str]) -> str:
        """A line of the table."""
        padded = []
        for cell, column, width in zip(cells, self.columns, self.widths, strict=True):
            short = width - _size(cell)
            if short < 0:
                cell, short = set_cell_size(cell, width), 0
            padded.append(cell + " " * short if column.left else " " * short + cell)
        return (" " * GAP).join(padded)

    def heads(self, desk: Desk, scope: str) -> tuple[str, str]:
        """The two lines of headings."""
        titles = [scope if column.key == "id" else column.title for column in self.columns]
        return self.line(titles), self.line([column.heading(desk)[1] for column in self.columns])


def cell_of(column: Column, row: Row, desk: Desk) -> str:
    """A cell; a dash if its field is damaged, which affects no other cell."""
    try:
        return column.text(row, desk)
    except (ValueError, ArithmeticError):
        return NULL


def lay_out(rows: Sequence[Row], desk: Desk, scope: str, width: int) -> tuple[Layout, list[tuple[str, ...]]]:
    """The columns that fit, the most important first, and the cells of `rows` in them."""
    wanted = [column for column in COLUMNS if scope == "placement" or column.key not in _OF_PLACEMENTS]
    cells: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    room = width + GAP
    for column in sorted(wanted, key=lambda column: column.rank):
        title, unit = column.heading(desk)
        texts = [cell_of(column, row, desk) for row in rows]
        heads = len(scope if column.key == "id" else title), len(unit)
        size = max(*heads, max(map(_size, texts), default=0))
        room -= size + GAP
        if room < 0 and column.rank:
            break
        sizes[column.key], cells[column.key] = size, texts
    columns = tuple(column for column in COLUMNS if column.key in sizes)
    layout = Layout(columns, tuple(sizes[column.key] for column in columns))
    return layout, list(zip(*(cells[column.key] for column in columns), strict=True))


def _size(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)
