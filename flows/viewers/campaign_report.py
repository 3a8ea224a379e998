"""A campaign's report: a page without a script that prints well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any, Final

from flows.model.delivery_fields import shown_state
from flows.shown import cut
from flows.viewers.desk import Row as PlacementRow
from flows.viewers.desk import attention
from flows.viewers.words import NULL, amount, number, percent, state_words, utc_moment, whole

MAX_PLACEMENTS: Final = 500
"""The most placements of a report, those that need attention first."""
LEFT: Final = ' class="left"'
_MAX_NAME_LENGTH: Final = 128
Row = Mapping[str, str]


def report(name: str, campaign: Row, placements: Mapping[str, Row], as_of: str, sentence: str = "") -> str:
    """The report as HTML.

    Args:
        campaign: the campaign's row.
        placements: the rows of the campaign's placements in sight, by id.
        as_of: the moment of the numbers, in words.
        sentence: the campaign's sentence, or empty.
    """
    currency = campaign.get("delivery.currency")
    ordered = sorted(
        placements,
        key=lambda row_id: (
            *attention(PlacementRow("placement", row_id, placements[row_id]), currency),
            row_id,
        ),
    )
    lines = "\n".join(_line(row_id, placements[row_id]) for row_id in ordered[:MAX_PLACEMENTS])
    left = len(ordered) - MAX_PLACEMENTS
    more = f"<p>{left:,} more placements are not shown.</p>" if left > 0 else ""
    facts = "".join(f"<div><dt>{term}</dt><dd>{text}</dd></div>" for term, text in _facts(campaign))
    titles = ("placement", *(title for title, _, _ in _COLUMNS))
    heads = "".join(
        f'<th scope="col"{LEFT if place < 2 else ""}>{title}</th>' for place, title in enumerate(titles)
    )
    share = number(campaign.get("flight.consent_coverage"))
    consent = f" ({percent(share)} of the pixels)" if math.isfinite(share) else ""
    shown_sentence = escape(cut(sentence, 400))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{_shown(name)} · audiopixel</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="dark light">
<link rel="icon" href="/page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/page/page.css"></head>
<body class="plain report"><main><p class="back"><a href="/">Live page</a></p>
<h1>Campaign {_shown(name)}</h1>
<p>As of {escape(as_of)}.</p>{f"<p><strong>{shown_sentence}</strong></p>" if shown_sentence else ""}
<dl class="facts">{facts}</dl>
<h2>Placements</h2>
<div class="wide" tabindex="0" role="region" aria-label="Placements">
<table><thead><tr>{heads}</tr></thead><tbody>
{lines}
</tbody></table></div>{more}
<p class="soft">Reach and frequency are of listeners who consented{consent}: the true
reach is greater. At stake is what is short, at the plan's price.
<a href="/docs/meaning.md">What a number means</a>.</p>
</main></body></html>
"""


def _facts(row: Row) -> list[tuple[str, str]]:
    def n(field: str) -> float:
        return number(row.get(field))

    currency = _shown(row.get("delivery.currency", ""))
    return [
        ("state", _state(row)),
        ("flight starts", _date(n("delivery.start_ms"))),
        ("flight ends", _date(n("delivery.end_ms"))),
        ("delivered", whole(n("delivery.delivered"))),
        ("booked", whole(n("delivery.booked"))),
        ("pacing", percent(n("delivery.indicator"))),
        ("at stake", _money(n("delivery.at_stake"), currency)),
        ("by the end", _money(n("delivery.at_stake_end"), currency)),
        ("cost", _money(n("flight.cost"), currency)),
        ("reach, listeners", whole(n("flight.reach"))),
        ("frequency", f"{n('flight.frequency'):.2f}" if math.isfinite(n("flight.frequency")) else NULL),
        ("completed, flight", percent(n("flight.completion_rate"))),
        ("conversions", whole(n("flight.conversions"))),
        ("in blocked content", whole(n("flight.blocked_impressions"))),
    ]


_COLUMNS: Final = (
    ("state", None, ""),
    ("delivered", "delivery.delivered", ""),
    ("booked", "delivery.booked", ""),
    ("pacing", "delivery.indicator", "%"),
    ("at stake", "delivery.at_stake", "money"),
    ("by the end", "delivery.at_stake_end", "money"),
    ("reach", "flight.reach", ""),
    ("completed, 1 h", "1h.mature_completion_rate", "%"),
)


def _line(name: str, row: Row) -> str:
    cells = []
    for _, field, unit in _COLUMNS:
        value = math.nan if field is None else number(row.get(field))
        if field is None:
            text = _state(row)
        elif unit == "money":
            text = _money(value, _shown(row.get("delivery.currency", "")))
        else:
            text = percent(value) if unit == "%" else whole(value)
        cells.append(f"<td{LEFT if field is None else ''}>{text}</td>")
    return f'<tr><th scope="row"{LEFT}>{_shown(name)}</th>{"".join(cells)}</tr>'


def _state(row: Row) -> str:
    blocked = number(row.get("flight.blocked_impressions"))
    words = escape(state_words(shown_state(row), row.get("delivery.unjudged_reason")))
    return f"blocked {whole(blocked)}, {words}" if blocked > 0 else words


def _date(ms: float) -> str:
    return utc_moment(ms / 1000) if math.isfinite(ms) else NULL


def _money(value: float, currency: str) -> str:
    return f"{currency} {amount(value)}".strip() if math.isfinite(value) else NULL


def _shown(text: Any) -> str:
    return escape(cut(str(text), _MAX_NAME_LENGTH))
