"""Writes a comparison as text, and as JSON."""

from __future__ import annotations

import json
from typing import Any, Final

from flows.recompute.comparison_sides import Side, moment
from flows.recompute.namespace_difference import Difference, Move
from flows.shown import LINE, shown

MAX_TEXT_MOVES: Final = 40
MAX_JSON_MOVES: Final = 100_000
_HEAD: Final[tuple[str, ...]] = (
    *("placement", "field", "day", "serving", "beside", "difference", "relative", "by"),
)


def report(comparison: Difference, most: int = MAX_TEXT_MOVES) -> list[str]:
    """The lines for people, with the `most` greatest moves."""
    days = comparison.days
    compared = (
        f"{len(days)} final days, {days[0]} to {days[-1]}: the watermarks differ"
        if days
        else "rows at one watermark"
    )
    lines = [_side("serving", comparison.serving), _side("beside", comparison.second)]
    lines.append(f"compared: {compared}; {comparison.placements:,} placements, {comparison.values:,} values")
    if comparison.left_out:
        lines.append(f"left out: {comparison.left_out:,} days of placements, of an earlier generation")
    if not comparison.methods:
        lines.append("methods: the same")
    for subject, (was, now) in comparison.methods.items():
        lines += [f"method {shown(subject)}", f"  was {_method_text(was)}", f"  is  {_method_text(now)}"]
    if not comparison.moves:
        return [*lines, "equal"]
    most_text = f", the {most} that move most:" if most < len(comparison.moves) else ":"
    lines.append(f"{len(comparison.moves):,} values move{most_text}")
    rows = [_HEAD, *map(_row, comparison.moves[:most])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        lines.append("  ".join(map(str.ljust, row, widths)).rstrip())
    return lines


def as_json(comparison: Difference) -> str:
    """The comparison as JSON, with the `MAX_JSON_MOVES` greatest moves."""
    return json.dumps(
        {
            "serving": _facts(comparison.serving),
            "beside": _facts(comparison.second),
            "days": [day.isoformat() for day in comparison.days],
            "placements": comparison.placements,
            "values": comparison.values,
            "left_out": comparison.left_out,
            "methods": {of: {"was": was, "is": now} for of, (was, now) in comparison.methods.items()},
            "moved": len(comparison.moves),
            "moves": [_move(move) for move in comparison.moves[:MAX_JSON_MOVES]],
        },
        indent=1,
    )


def _side(role: str, side: Side) -> str:
    why = f", not judged: {shown(side.reason)}" if side.reason else ""
    return (
        f"{role}: {shown(side.namespace)}, generation {side.generation}, "
        f"through {moment(side.watermark_ms)}, methodology {shown(side.methodology)}{why}"
    )


def _method_text(text: str | None) -> str:
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
