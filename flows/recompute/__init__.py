"""Recomputation: counts an archive again while the live flow goes on, compares both, and switches.

Owns: nothing. Receives: rows, days and texts of methods of two namespaces in Redis.
Sends: requests for a switch (`flows.publish.switching`). The second flow is the ordinary one with other
settings (`derived`).
Must not import: a stage but publish, the engine.
"""

from __future__ import annotations

from flows.recompute.comparison_sides import Side, progress_of, side_of
from flows.recompute.difference_text import as_json, report
from flows.recompute.namespace_difference import Difference, Move, difference
from flows.recompute.second_settings import begins_anew, checked, derived
from flows.recompute.switch import SwitchResult, turn

__all__ = [
    "Difference",
    "Move",
    "Side",
    "SwitchResult",
    "as_json",
    "begins_anew",
    "checked",
    "derived",
    "difference",
    "progress_of",
    "report",
    "side_of",
    "turn",
]
