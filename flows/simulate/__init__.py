"""Simulated traffic whose truth is known.

Owns: nothing. Receives: a seed. Sends: calls of pixels, and the tally of the numbers that are right for them.
Must not import: anything of ours but errors.
"""

from __future__ import annotations

from flows.simulate.client_truth import COUNTS
from flows.simulate.feed import now_ms, plans, pump, run_log, write_lines, write_plans
from flows.simulate.first_day import FirstDay
from flows.simulate.history import History
from flows.simulate.traffic import Call, Traffic
from flows.simulate.truth import Expected, PlayTruth, Tally, Truth

__all__ = [
    "COUNTS",
    "Call",
    "Expected",
    "FirstDay",
    "History",
    "PlayTruth",
    "Tally",
    "Traffic",
    "Truth",
    "now_ms",
    "plans",
    "pump",
    "run_log",
    "write_lines",
    "write_plans",
]
