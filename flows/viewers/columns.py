"""Columns of `audiopixel top`: those that the catalogue declares, except the page's curve, which needs a
history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from flows.model.catalogue import columns as catalogue
from flows.model.catalogue.columns import WORDS, Form
from flows.shown import shown
from flows.viewers.desk import CURRENCY, Desk, Row
from flows.viewers.feed import FIELDS as SHOWN
from flows.viewers.words import NULL, STATES, amount, fixed, left, percent, shares, span, whole

_LONGEST_NAME: Final = 28
Value = Callable[[Row], float | str]
Text = Callable[[Row, Desk], str]


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        key: a short name.
        title: its heading.
        unit: below it; `money` stands for the plans' currency.
        rank: its importance, 0 the greatest; a narrow terminal lacks the columns with the greatest numbers.
        value: returns the number or the text by which a row is sorted.
        text: returns the text of a cell.
        left: true if it is set flush left.
        down: true if its order begins with the greatest.
    """

    key: str
    title: str
    unit: str
    rank: float
    value: Value
    text: Text
    left: bool
    down: bool

    def heading(self, desk: Desk) -> tuple[str, str]:
        """The two lines of its heading."""
        return self.title, (desk.currency or "") if self.unit == "money" else self.unit


def name_of(text: str) -> str:
    """A name of at most 28 cells, without characters that control a terminal."""
    if len(text) <= _LONGEST_NAME and text.isascii() and text.isprintable():
        return text  # as nearly all names; ten thousand are shown at once
    return shown(text, _LONGEST_NAME)


def ends(row: Row, desk: Desk) -> str:
    """Time until the flight's end, by the clock: `2 d 8 h`, `begins 3 h 5 min`, `5 h ago`."""
    start_ms, end_ms = row.get("delivery.start_ms"), row.get("delivery.end_ms")
    if math.isnan(end_ms):
        return NULL
    if desk.now_ms < start_ms:
        return f"begins {left((start_ms - desk.now_ms) / 1000)}"
    left_s = (end_ms - desk.now_ms) / 1000
    return left(left_s) if left_s > 0 else f"{span(-left_s)} ago"


def _booked(row: Row) -> float:
    booked = row.get("delivery.booked")
    return row.get("delivery.delivered") / booked if booked > 0 else math.nan


def _state(row: Row, _: Desk) -> str:
    return f"⊘ blocked {whole(row.blocked)}, {row.words}" if row.blocked > 0 else row.words


SEVERITY: Final = {state: rank for rank, state in enumerate(STATES)}
_VALUES: Final[Mapping[str, Callable[[Row], float]]] = {
    "short": lambda row: row.short,
    "delivered": lambda row: row.delivered,
    "progress": _booked,
}
"""The values of columns of numbers that show more than their field."""
_NUMBERS: Final[Mapping[Form, Callable[[float], str]]] = {
    Form.COUNT: whole,
    Form.PARTS: shares,
    Form.NUMBER: fixed,
    Form.SHARE: percent,
    Form.BAR: percent,
    Form.MONEY: amount,
}


def _text(declared: catalogue.Column, value: Callable[[Row], float]) -> Text:
    """The cells of a column of numbers."""
    words = _NUMBERS[declared.form]

    def text(row: Row, desk: Desk) -> str:
        shown_value = value(row)
        if declared.lack and shown_value == 0:
            return ""
        cell = words(shown_value)
        currency = row.fields.get("delivery.currency") if declared.form is Form.MONEY else None
        return (
            cell if desk.currency or not currency or cell == NULL else f"{shown(currency, CURRENCY)} {cell}"
        )

    return text


def _cells(declared: catalogue.Column) -> tuple[Value, Text]:
    """The values and the texts of a column's cells, by its form."""
    field = declared.fields[0] if declared.fields else ""
    if declared.form is Form.STATE:
        return lambda row: SEVERITY[row.state], _state
    if declared.form is Form.NAME:
        return lambda row: row.id, lambda row, _: name_of(row.id)
    if declared.form is Form.LABEL:
        return lambda row: row.fields.get(field, ""), lambda row, _: name_of(row.fields.get(field, NULL))
    value = _VALUES.get(declared.key, lambda row: row.get(field))
    return value, ends if declared.form is Form.TIME else _text(declared, value)


def _column(declared: catalogue.Column) -> Column:
    value, text = _cells(declared)
    return Column(
        key=declared.key,
        title=declared.title,
        unit=declared.unit,
        rank=declared.rank,
        value=value,
        text=text,
        left=declared.form in WORDS,
        down=declared.down,
    )


COLUMNS: Final = tuple(_column(declared) for declared in catalogue.COLUMNS if declared.form is not Form.CURVE)
BY_KEY: Final = {column.key: column for column in COLUMNS}
FIELDS: Final = (*SHOWN, "final_through_ms")
"""The fields of a row that the table shows."""
