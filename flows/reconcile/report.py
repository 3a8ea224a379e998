"""Report of a comparison: its findings as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from flows.reconcile.fields import (
    How,
)
from flows.reconcile.truth import Recomputation
from flows.shown import shown


@dataclass(frozen=True, order=True)
class Difference:
    """A number that differs from the log's.

    Attributes:
        scope, id: of the row; (`minute`, `<placement>|<minute in epoch ms>`) of a minute; (`meta`, ""),
            (`partition`, its name).
        metric: the field's name; `row` for a whole row that is missing or extra, `index` for its entry there.
        expected, actual: as text; "" for an absent one.
    """

    scope: str
    id: str
    metric: str
    expected: str
    actual: str


@dataclass
class Comparison:
    """The findings of a comparison.

    Attributes:
        differences: all of them, sorted.
        compared: the number of compared fields, by how.
        rows: the number of rows.
        undelivered: the number of planned placements' rows without their delivery, since their plans came too
            late.
        bounded: the number of fields that could not be recomputed, since a listener was forgotten meanwhile;
            they lie between the values without that listener and with.
        moved: the number of fields that a cap on touches may have changed, and that lie within their bounds.
    """

    differences: list[Difference] = field(default_factory=list)
    compared: Counter[str] = field(default_factory=Counter)
    undelivered: int = 0
    bounded: int = 0
    moved: int = 0
    rows: int = 0


def summary(comparison: Comparison, recomputation: Recomputation) -> str:
    """The comparison in one line: counts of fields by class, and the fields that could not be recomputed."""
    counts = ", ".join(f"{comparison.compared[how]:,} {how}" for how in How if comparison.compared[how])
    erased = recomputation.erased
    text = (
        f"{len(comparison.differences)} differences in {comparison.compared.total():,} fields ({counts}) of "
        f"{comparison.rows:,} rows, of {recomputation.totals['received']:,} messages"
    )
    if comparison.undelivered:
        text += f"; {comparison.undelivered:,} rows of late plans do not say what was delivered"
    if erased:
        text += (
            f"; {erased:,} pixels are of listeners on the deny-list, {comparison.bounded:,} fields lie "
            "between what they are without and with them"
        )
    if comparison.moved:
        text += f"; caps on touches may have moved {comparison.moved:,} fields, within what they may be"
    return text


def format_differences(differences: Sequence[Difference], limit: int = 50) -> str:
    """A table in plain text, at most `limit` differences and how many more there are; "" for none."""
    if not differences:
        return ""
    head = ("scope", "id", "metric", "expected", "actual")
    rows = [
        head,
        *(
            tuple(map(shown, (d.scope, d.id, d.metric, d.expected, d.actual or "-")))
            for d in differences[:limit]
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    if len(differences) > limit:
        lines.append(f"… and {len(differences) - limit:,} more")
    return "\n".join(lines)
