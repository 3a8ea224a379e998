"""A decision on a conversion, as text for people."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from rich.console import Group
from rich.table import Table
from rich.text import Text

from flows.model.decisions import Body
from flows.model.fields import quotient
from flows.shown import LINE, cell, shown

RULES: Final = {
    "declared": "declared: the conversion names its placement",
    "utm": "utm: no eligible touch; utm_content names a placement",
    "confirmed": "confirmed: a server has sent an order that a public tag had claimed, with its credits",
    "none": "unattributed: no eligible touch, and utm_content names no placement",
}


def show(decision: Body, zone: ZoneInfo) -> Group:
    """The rule, and the touches with their credits, of a decision.

    Raises:
        ValueError, ArithmeticError: a number of the decision is invalid.
    """

    def moment(ts_ms: int) -> str:
        return datetime.fromtimestamp(ts_ms / 1000, zone).isoformat(sep=" ", timespec="seconds")

    campaign = decision.campaign_id
    head = f"{decision.type} {shown(decision.conversion)} at {moment(decision.ts)}"
    if decision.value_micros is not None:
        head += f", {Decimal(decision.value_micros).scaleb(-6):,.2f} {decision.currency or ''}".rstrip()
    head += " (claimed)" if decision.claimed else ""
    if decision.claimed_value_micros is not None:
        claimed = f"{Decimal(decision.claimed_value_micros).scaleb(-6):,.2f}"
        head += f" (claimed as {claimed} {decision.claimed_currency or ''}".rstrip() + ")"
    head += f", of campaign {shown(campaign)}" if campaign is not None else ", of no campaign"
    touches = "touch" if decision.eligible == 1 else "touches"
    rule = RULES.get(decision.rule) or (
        f"{decision.rule} of {decision.eligible} eligible {touches} of the {decision.joined_by or 'listener'}"
    )
    if decision.noisy_household:
        rule += "; its household has too many listeners to join it"
    table = Table(box=None, pad_edge=False)
    for name in ("placement", "campaign", "way", "credit", "touched at", "before"):
        table.add_column(name, justify="right" if name == "credit" else "left", overflow="fold")
    for credit in decision.credits:
        touched = credit.touched_at
        table.add_row(
            cell(credit.placement_id or "–"),
            cell(credit.campaign_id or "–"),
            cell(credit.way),
            quotient(credit.millionths, 10**6),
            "–" if touched is None else moment(touched),
            "–" if touched is None else str(timedelta(seconds=(decision.ts - touched) // 1000)),
        )
    parts: list[Text | Table] = [Text(shown(head, LINE)), Text(shown(rule, LINE))]
    if decision.credits:
        parts.append(table)
    if decision.methodology is not None:
        parts.append(Text(f"methodology {shown(decision.methodology)}"))
    return Group(*parts)
