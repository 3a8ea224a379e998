"""A comparison as text, and as JSON."""

from __future__ import annotations

import json
from typing import Any, Final

from flows.recompute.moves import Difference, Move
from flows.recompute.sides import Side, moment
from flows.shown import LINE, shown

MOST: Final = 40
MOST_JSON: Final = 100_000
"""Moves in each."""
_HEAD: Final[tuple[str, ...]] = (
    *("placement", "field", "day", "serving", "beside", "difference", "relative", "by"),
)


def report(found: Difference, most: int = MOST) -> list[str]:
    """The lines for people."""
    what = (
        f"{len(found.days)} final days, {found.days[0]} to {found.days[-1]}: the watermarks differ"
        if found.days
        else "rows at one watermark"
    )
    lines = [_side("serving", found.serving), _side("beside", found.other)]
    lines.append(f"compared: {what}; {found.placements:,} placements, {found.values:,} values")
    if found.left_out:
        lines.append(f"left out: {found.left_out:,} days of placements, which are of an earlier generation")
    if not found.methods:
        lines.append("methods: the same")
    for subject, (was, now) in found.methods.items():
        lines += [f"method {shown(subject)}", f"  was {_said(was)}", f"  is  {_said(now)}"]
    if not found.moves:
        return [*lines, "equal"]
    these = f", the {most} that move most:" if most < len(found.moves) else ":"
    lines.append(f"{len(found.moves):,} values move{these}")
    rows = [_HEAD, *map(_row, found.moves[:most])]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD))]
    for row in rows:
        lines.append("  ".join(map(str.ljust, row, widths)).rstrip())
    return lines


def as_json(found: Difference) -> str:
    """The same for programs."""
    return json.dumps(
        {
            "serving": _facts(found.serving),
            "beside": _facts(found.other),
            "days": [day.isoformat() for day in found.days],
            "placements": found.placements,
            "values": found.values,
            "left_out": found.left_out,
            "methods": {of: {"was": was, "is": now} for of, (was, now) in found.methods.items()},
            "moved": len(found.moves),
            "moves": [_move(move) for move in found.moves[:MOST_JSON]],
        },
        indent=1,
    )


def _side(of: str, side: Side) -> str:
    why = f", not judged: {shown(side.reason)}" if side.reason else ""
    return (
        f"{of}: {shown(side.namespace)}, generation {side.generation}, through {moment(side.watermark_ms)}, "
        f"methodology {shown(side.methodology)}{why}"
    )


def _said(text: str | None) -> str:
    return "not there" if text is None else shown(text, LINE)


def _row(move: Move) -> tuple[str, ...]:
    difference = "" if move.difference is None else f"{move.difference:+f}"
    relative = "" if move.relative is None else f"{move.relative:+.2%}"
    cells = (move.placement, move.field, move.day, _value(move.was), _value(move.now))
    return (*(shown(cell, 40) for cell in cells), difference, relative, shown(", ".join(move.by), 60))


def _value(text: str | None) -> str:
    return "-" if text is None else text


def _facts(side: Side) -> dict[str, Any]:
    return {
        "namespace": side.namespace,
        "version": side.version,
        "watermark_ms": side.watermark_ms,
        "unjudged_reason": side.reason or None,
        "methodology": side.methodology,
    }


def _move(move: Move) -> dict[str, Any]:
    return {
        "placement": move.placement,
        "field": move.field,
        "day": move.day or None,
        "serving": move.was,
        "beside": move.now,
        "difference": None if move.difference is None else str(move.difference),
        "relative": move.relative,
        "by": move.by,
    }
