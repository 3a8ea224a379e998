"""Report of a comparison: its findings as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from flows.reconcile.fields import Check
from flows.reconcile.truth import Recomputation
from flows.shown import shown


@dataclass(frozen=True, order=True)
class Difference:
    """A published value that differs from the log's.

    Attributes:
        scope, id: of the row; (`minute`, `<placement>|<minute in epoch ms>`) for a minute; (`meta`, ""),
            (`partition`, its name) and (`other`, scope) for the others.
        metric: the field's name; `row` for a row that is missing or extra, `index` for its index entry.
        expected, actual: as texts; "" for an absent value.
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
        differences: all differences, sorted.
        compared: the number of compared fields, by `Check`.
        rows: the number of compared rows.
        unknown_deliveries: the number of planned rows with an unknown delivery, since their plans came late.
        erased_fields: the number of fields that erased listeners may have changed, and that lie within their
            bounds.
        capped_fields: the number of fields that a cap on touches may have changed, and that lie within their
            bounds; see `flows.reconcile.bounds`.
    """

    differences: list[Difference] = field(default_factory=list)
    compared: Counter[str] = field(default_factory=Counter)
    unknown_deliveries: int = 0
    erased_fields: int = 0
    capped_fields: int = 0
    rows: int = 0


def summary(comparison: Comparison, recomputation: Recomputation) -> str:
    """The comparison in one line: the fields by check, and the fields that were only compared with bounds."""
    compared = comparison.compared
    counts = ", ".join(f"{compared[check]:,} {check}" for check in Check if compared[check])
    erased = recomputation.erased
    text = (
        f"{len(comparison.differences)} differences in {compared.total():,} fields ({counts}) of "
        f"{comparison.rows:,} rows, of {recomputation.totals['received']:,} messages"
    )
    if comparison.unknown_deliveries:
        text += f"; {comparison.unknown_deliveries:,} rows of late plans have no delivered impressions"
    if erased:
        text += (
            f"; {erased:,} pixels are of listeners on the deny-list, and {comparison.erased_fields:,} fields "
            "lie between their values without and with these pixels"
        )
    if comparison.capped_fields:
        text += f"; caps on touches may have changed {comparison.capped_fields:,} fields, within their bounds"
    return text


def format_differences(differences: Sequence[Difference], limit: int = 50) -> str:
    """The first `limit` differences as a table in plain text, and the number of others; "" without any."""
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
