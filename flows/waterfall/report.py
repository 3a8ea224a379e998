"""Writes the waterfall: as a table for the terminal, JSON, and HTML with a chart for each row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any, Final

from rich.table import Table

from flows.shown import LINE, cell, shown
from flows.waterfall.signed_parts import BEHIND, PART_WORDS, Band, Difference, Part

MAX_CHARTS: Final = 200
"""The greatest number of rows with a chart. The table has all rows."""
_WIDTH: Final = 760
_BAR: Final = 22
_LEFT: Final = 250
_RIGHT: Final = 90
_COLOURS: Final = {Band.FINE: "green", Band.LOOK: "yellow", Band.BREACH: "red", Band.NONE: "magenta"}
UNEXPLAINED: Final = "unexplained"
_UNKNOWN: Final = "–"


def _with_sign(number: int | None) -> str:
    return _UNKNOWN if number is None else f"{number:+,}" if number else "0"


def _plain(number: int | None) -> str:
    return _UNKNOWN if number is None else f"{number:,}"


def _share(row: Difference) -> str:
    return _UNKNOWN if row.share is None else f"{row.share:+.1%}"


def as_table(rows: Sequence[Difference]) -> Table:
    """A table for the terminal, without parts of 0."""
    table = Table(box=None, pad_edge=False)
    for head in ("row", "when", "ours", "theirs", "difference", "", "band", "made of"):
        table.add_column(head, justify="right" if head in ("ours", "theirs", "difference", "") else "left")
    for row in rows:
        parts = [(part.name, part.impressions) for part in row.parts if part.impressions]
        if row.unexplained is not None:
            parts.append((UNEXPLAINED, row.unexplained))
        words = ", ".join(f"{name} {_with_sign(impressions)}" for name, impressions in parts)
        table.add_row(
            cell(f"{row.scope} {row.name}"),
            _when(row),
            _plain(row.ours),
            f"{row.theirs:,}",
            _with_sign(row.difference),
            _share(row),
            f"[{_COLOURS[row.band]}]{row.band.words}[/]",
            cell(f"{words} ({row.note})" if words and row.note else words or row.note, LINE),
        )
    return table


def _when(row: Difference) -> str:
    return row.when if row.counted == "impressions" else f"{row.when}, {row.counted}"


def as_json(rows: Sequence[Difference]) -> str:
    """All rows with all parts, in ASCII: others choose the ids, and terminals obey some characters."""
    return json.dumps(list(map(body, rows)), indent=2)


def body(row: Difference) -> dict[str, Any]:
    """A row as the object of its JSON, with all parts."""
    return {
        f"{row.scope}_id": row.name,
        "when": row.when,
        "counted": row.counted,
        "ours": row.ours,
        "theirs": row.theirs,
        "difference": row.difference,
        "share": None if row.share is None else round(row.share, 6),
        "tolerance": row.tolerance,
        "band": row.band.value,
        "parts": [
            {"name": part.name, "impressions": part.impressions, "behind": BEHIND[part.kind]}
            for part in row.parts
        ],
        "unexplained": row.unexplained,
        "note": row.note or None,
    }


_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1a1d21; --soft: #5a6270; --paper: #ffffff; --line: #d5dae1;
  --ours: #2f5d8c; --plus: #b45309; --minus: #0f766e; --rest: #8b1e3f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a5adba; --paper: #14171b; --line:
#363c45;
  --ours: #7fb0e0; --plus: #f0a860; --minus: #5cc8bd; --rest: #f28ba8; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .3rem; overflow-wrap: anywhere; }
p { margin: .2rem 0 .6rem; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .2rem .8rem .2rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg { width: 100%; height: auto; } svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
code { font-size: .85em; }
""".strip()


def as_html(rows: Sequence[Difference], title: str) -> str:
    """A page without a script: a summary, and for each row a chart and its parts."""
    over = sum(row.band is Band.BREACH for row in rows)
    unknown = sum(row.band is Band.NONE for row in rows)
    without = f", {unknown:,} without a verdict" if unknown else ""
    parts = "".join(_section(row) for row in rows[:MAX_CHARTS])
    more_rows = len(rows) - MAX_CHARTS
    rest_words = f"<p class=soft>{more_rows:,} more rows are in the table alone.</p>" if more_rows > 0 else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_shown(title)}</title><style>{_STYLE}</style><h1>{_shown(title)}</h1>"
        f"<p>{len(rows):,} rows, {over:,} over the tolerance{without}. Theirs less ours is the sum of the "
        "signed parts and of what is unexplained.</p>"
        "<table><tr><th>row<th>when<th class=n>ours<th class=n>theirs<th class=n>difference<th>band"
        f"<th class=n>unexplained</tr>{''.join(map(_line, rows))}</table>{parts}{rest_words}</html>\n"
    )


def _shown(text: str) -> str:
    return escape(shown(text, LINE))


def _line(row: Difference) -> str:
    numbers = "".join(
        f"<td class=n>{text}"
        for text in (_plain(row.ours), f"{row.theirs:,}", f"{_with_sign(row.difference)} ({_share(row)})")
    )
    return (
        f"<tr><td>{row.scope} {_shown(row.name)}<td>{_when(row)}{numbers}<td>{row.band.words}"
        f"<td class=n>{_with_sign(row.unexplained)}</tr>"
    )


def _section(row: Difference) -> str:
    note = f" {_shown(row.note[:1].upper() + row.note[1:])}." if row.note else ""
    if row.ours is None:
        return (
            f"<h2>{row.scope} {_shown(row.name)}, {_when(row)}</h2>"
            f"<p>{row.band.words}: theirs {row.theirs:,}, ours is not known.{note}</p>"
        )
    tolerance = "" if row.tolerance is None else f", by the plan's tolerance of {row.tolerance:.1%}"
    sums = f"{row.theirs:,}, ours {row.ours:,}, {_with_sign(row.difference)} ({_share(row)})"
    lines = "".join(
        f"<tr><td>{_shown(part.name)}<td class=n>{_with_sign(part.impressions)}<td>{PART_WORDS[part.kind]}"
        f"<td><code>{_shown(BEHIND[part.kind])}</code></tr>"
        for part in row.parts
        if part.impressions
    )
    return (
        f"<h2>{row.scope} {_shown(row.name)}, {_when(row)}</h2><p>{row.band.words}{tolerance}: theirs {sums}."
        f"{note}</p>{_chart(row, row.ours)}"
        f"<table><tr><th>part<th class=n>impressions<th>what it is<th>where to look</tr>{lines}"
        f"<tr><td>{UNEXPLAINED}<td class=n>{_with_sign(row.unexplained)}<td>what no part explains<td></tr>"
        "</table>"
    )


def _chart(row: Difference, ours: int) -> str:
    """Bars from ours to theirs. Each part begins at the end of the part before.

    The axis begins at 0. If the parts would then be too small to see, the axis is cut, and a sentence below
    the chart states where it begins.
    """
    steps = [part for part in row.parts if part.impressions]
    if row.unexplained:
        steps.append(Part(UNEXPLAINED, row.unexplained))
    reached, ends = ours, [ours, row.theirs]
    spans = []
    for part in steps:
        spans.append((part, reached, reached + part.impressions))
        reached += part.impressions
        ends.append(reached)
    low, high = min(ends), max(ends)
    span = max(1, high - low)
    cut = low > 4 * span
    low = low - span if cut else 0
    scale = (_WIDTH - _LEFT - _RIGHT) / max(1, high - low)

    def bar(line: int, name: str, start: int, end: int, text: str, colour: str) -> str:
        left, right = sorted(_LEFT + (one - low) * scale for one in (start, end))
        y = line * (_BAR + 8)
        return (
            f'<text x="0" y="{y + 16}">{_shown(name)}</text><rect x="{left:.1f}" y="{y}" height="{_BAR}" '
            f'width="{max(1.5, right - left):.1f}" rx="2" fill="var(--{colour})"/>'
            f'<text x="{right + 6:.1f}" y="{y + 16}">{text}</text>'
        )

    bars = [bar(0, "ours", low, ours, f"{ours:,}", "ours")]
    for place, (part, start, end) in enumerate(spans, 1):
        colour = "rest" if part.name == UNEXPLAINED else "plus" if part.impressions > 0 else "minus"
        bars.append(bar(place, part.name, start, end, _with_sign(part.impressions), colour))
    bars.append(bar(len(spans) + 1, "theirs", low, row.theirs, f"{row.theirs:,}", "ours"))
    label = _shown(
        f"From ours, {ours:,}, to theirs, {row.theirs:,}, part by part; the axis begins at {low:,}"
    )
    height = (len(spans) + 2) * (_BAR + 8)
    axis = f"The axis is cut: the bars begin at {low:,}, not at 0." if cut else "The axis begins at 0."
    svg = f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{"".join(bars)}</svg>'
    return f"{svg}<p class=soft>{axis}</p>"
