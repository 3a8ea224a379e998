"""The oracle: recomputes a log in DuckDB, and lists every difference from Redis.

Owns: nothing. Receives: logs, the rules as plain values. Sends: differences.
Must not import: anything of ours but errors, `flows.shown`, the catalogue; its independence is its point.
"""

from __future__ import annotations

from flows.reconcile.comparison import compare, differences
from flows.reconcile.line import HOUSEHOLD, LISTENER, Denied
from flows.reconcile.pacing import Planned, Thresholds
from flows.reconcile.recomputation import recompute
from flows.reconcile.replay_files import late_letters, minute_differences
from flows.reconcile.report import Difference, format_differences, summary
from flows.reconcile.rules import Rules
from flows.reconcile.truth import Recomputation

__all__ = [
    "HOUSEHOLD",
    "LISTENER",
    "Denied",
    "Difference",
    "Planned",
    "Recomputation",
    "Rules",
    "Thresholds",
    "compare",
    "differences",
    "format_differences",
    "late_letters",
    "minute_differences",
    "recompute",
    "summary",
]
