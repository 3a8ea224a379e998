"""A decision on a conversion, for people."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Group
from rich.table import Table
from rich.text import Text


def show(decision: dict[str, Any], zone: ZoneInfo) -> Group:
    """The rule, and the credits with their touches, of a decision as `flows.credits.explained` writes it."""

    def moment(ts_ms: int) -> str:
        return datetime.fromtimestamp(ts_ms / 1000, zone).isoformat(sep=" ", timespec="milliseconds")

    head = f"{decision['type']} {decision['conversion']} at {moment(decision['ts'])}"
    if decision["value_micros"] is not None:
        head += f", {decision['value_micros'] / 1e6:,.2f} {decision['currency'] or ''}".rstrip()
    table = Table(box=None, pad_edge=False)
    for name in ("placement", "campaign", "way", "credit", "touched at", "before"):
        table.add_column(name, justify="right" if name == "credit" else "left")
    for credit in decision["credits"]:
        touched = credit["touched_at"]
        table.add_row(
            credit["placement_id"],
            credit["campaign_id"] or "–",
            credit["way"],
            f"{credit['millionths'] / 1e6:.6f}".rstrip("0").rstrip("."),
            "–" if touched is None else moment(touched),
            "–" if touched is None else str(timedelta(milliseconds=decision["ts"] - touched)),
        )
    parts: list[Text | Table] = [Text(head), Text(decision["rule"])]
    return Group(*parts, *([table] if decision["credits"] else []))
