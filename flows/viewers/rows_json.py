"""A published row as JSON and as CSV, for programs: the names of the contract, numbers as numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from flows.model.catalogue.fields import SCOPE_FIELDS
from flows.model.catalogue.metrics import BY_FIELD
from flows.model.catalogue.metrics import TEXTS as TEXT_UNITS

DOUBLES_HOLD: Final = 1 << 53
"""The greatest whole number below which a double holds every whole number."""
TEXTS: Final = frozenset(
    (
        *SCOPE_FIELDS[1:],
        *(field for field, metric in BY_FIELD.items() if metric.unit in TEXT_UNITS),
        *("conversion_currency", "impression_basis", "reach_unit"),
    )
)
"""Fields whose values are texts, even if they look like numbers."""
VERSION: Final = ("generation", "fence", "rev")
TIMES: Final = ("as_of_ms", "final_through_ms", "reach_as_of_ms", "updated_ms")
_FORMULA: Final = (*"=+-@\t\r\n", *"＝＋－＠")
"""The letters that begin a formula in the list of OWASP, with those of an Asian keyboard."""

Value = int | float | str | None


def value_of(name: str, text: str) -> Value:
    """A field's value: a number, or a text. A whole number beyond 2^53 is a text; a damaged value is None."""
    if name in TEXTS:
        return text
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    if not number.is_finite():
        return None
    if number == number.to_integral_value() and "." not in text:
        return int(number) if abs(number) <= DOUBLES_HOLD else text
    return float(number)


def version_of(row: Mapping[str, str]) -> str:
    """A row's version as an entity tag: generation, fence and rev, separated by dots."""
    return ".".join(row.get(name, "0") if row.get(name, "0").isdigit() else "0" for name in VERSION)


def row_json(scope: str, name: str, row: Mapping[str, str]) -> dict[str, Any]:
    """A row: its scope and id, its version, its time, and its fields."""
    return {
        "scope": scope,
        "id": name,
        "version": {part: value_of(part, row.get(part, "0")) or 0 for part in VERSION},
        **{time: value_of(time, row[time]) if time in row else None for time in TIMES},
        "fields": fields_json(row),
    }


def fields_json(row: Mapping[str, str]) -> dict[str, Value]:
    """The fields of a row that have a value, without those of its version and times."""
    value_by_field = {
        field: value_of(field, text) for field, text in row.items() if field not in (*VERSION, *TIMES)
    }
    return {field: value for field, value in value_by_field.items() if value is not None}


def row_csv(scope: str, name: str, row: Mapping[str, str]) -> str:
    """A row as a line below the names of its fields."""
    fields = [field for field in row if field not in (*VERSION, *TIMES)]
    return csv_of((scope, *VERSION, *TIMES, *fields), [{scope: name, **row}], {scope})


def csv_of(columns: Sequence[str], lines: Iterable[Mapping[str, Any]], texts: Iterable[str] = ()) -> str:
    """Lines below a header, in the form of RFC 4180; absent values are empty.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.

    Args:
        texts: columns of texts besides `TEXTS`.
    """
    shown, out = TEXTS | frozenset(texts), io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for line in lines:
        cells = [(name, "" if line.get(name) is None else str(line[name])) for name in columns]
        writer.writerow(
            f"'{text}" if name in shown and text.startswith(_FORMULA) else text for name, text in cells
        )
    return out.getvalue()
