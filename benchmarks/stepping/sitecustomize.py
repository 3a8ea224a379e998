"""A wall clock that can be set while a process runs; Python imports this at its start, from PYTHONPATH.

The file that `CHAOS_CLOCK` names holds two numbers: seconds by which the clock of every process is off, and
seconds more for those with an odd number, so that members of a cluster differ.
"""

from __future__ import annotations

import os
import time

path = os.environ.get("CHAOS_CLOCK", "")
if path:
    _time, _time_ns, _odd = time.time, time.time_ns, os.getpid() % 2

    def offset_s() -> float:
        """By how much this process's clock is off now."""
        try:
            with open(path) as file:
                every, odd = map(float, file.read().split())
        except (OSError, ValueError):
            return 0.0
        return every + _odd * odd

    time.time = lambda: _time() + offset_s()
    time.time_ns = lambda: _time_ns() + int(offset_s() * 1e9)
