"""The waterfall: splits the difference between another party's count and ours into parts, to the unit. Makes
opening balances from such counts, too. `theirs` is the other party's count, `ours` is the flow's.

Owns: nothing. Receives: theirs from a file, ours by day from Redis. Sends: a table, JSON, HTML.
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
