"""The oracle: recomputes a log in DuckDB and lists every difference from Redis.

Owns: nothing. Receives: logs, the rules as plain values. Sends: differences.
Must not import: anything of ours but errors; its independence is its point.
"""

from __future__ import annotations

from flows.reconcile.comparison import (
    compare,
    differences,
    format_differences,
    late_letters,
    minute_differences,
    summary,
)
from flows.reconcile.pacing import Thresholds
from flows.reconcile.recomputation import Planned, recompute

__all__ = [
    "Planned",
    "Thresholds",
    "compare",
    "differences",
    "format_differences",
    "late_letters",
    "minute_differences",
    "recompute",
    "summary",
]
