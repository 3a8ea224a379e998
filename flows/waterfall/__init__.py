"""The waterfall: the reasons for which another party's count of impressions differs from ours, taken apart to
the unit. Also opening balances from such counts.

Owns: nothing. Receives: their counts, and ours by day as Redis has them. Sends: a table, JSON, HTML.
Must not import: a stage, the engine.
"""

from __future__ import annotations

from flows.waterfall.balances import Balance, Balances, balances
from flows.waterfall.compare import compare, placements_of
from flows.waterfall.letter import letter
from flows.waterfall.publisher_counts import Claim, read_claims, read_csv
from flows.waterfall.report import as_html, as_json, as_table, body
from flows.waterfall.signed_parts import Band, Difference, Part

__all__ = [
    "Balance",
    "Balances",
    "Band",
    "Claim",
    "Difference",
    "Part",
    "as_html",
    "as_json",
    "as_table",
    "balances",
    "body",
    "compare",
    "letter",
    "placements_of",
    "read_claims",
    "read_csv",
]
