"""Traffic whose truth is known.

Owns: nothing. Receives: a seed. Sends: calls of pixels, and the tally that they must give.
Must not import: anything of ours but errors.
"""

from __future__ import annotations

from flows.simulate.feed import now_ms, plans, pump, run_log, write_plans
from flows.simulate.traffic import Traffic
from flows.simulate.truth import Expected

__all__ = ["Expected", "Traffic", "now_ms", "plans", "pump", "run_log", "write_plans"]
