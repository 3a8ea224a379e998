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
        metric: the field's name; `row` where a whole row is missing or too many, `index` for its entry there.
        expected, actual: as text; "" where there is none.
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
        found: all differences, sorted.
        compared: how many fields were compared, by how.
        rows: how many there were.
        undelivered: how many rows of planned placements do not say what was delivered, for their plans came
            too late.
        bounded: how many could not be recomputed, for a listener was forgotten on the way, and lie between
            what they are without that listener and with.
        moved: how many a cap on touches may have changed, and lie between what they may be.
    """

    found: list[Difference] = field(default_factory=list)
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
        f"{len(comparison.found)} differences in {comparison.compared.total():,} fields ({counts}) of "
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


def format_differences(found: Sequence[Difference], limit: int = 50) -> str:
    """A table in plain text, at most `limit` differences and how many more there are; "" for none."""
    if not found:
        return ""
    head = ("scope", "id", "metric", "expected", "actual")
    rows = [
        head,
        *(tuple(map(shown, (d.scope, d.id, d.metric, d.expected, d.actual or "-"))) for d in found[:limit]),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    if len(found) > limit:
        lines.append(f"… and {len(found) - limit:,} more")
    return "\n".join(lines)
