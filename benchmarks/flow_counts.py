"""audiopixel over a long log, without conversions: is its memory flat?

Conversions are left out because their touches are kept for weeks by contract; `benchmarks.touches` weighs
those.
"""

from __future__ import annotations

import threading

from benchmarks import flow_file
from benchmarks.flow_kafka import received
from benchmarks.measure import Job, Result, peak_mib

_POLL_S = 0.05


def run(job: Job) -> Result:
    """Replay the log; `half_mib` among the facts: the peak when half of it was read."""
    half: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while received(without=job.warm) < job.events / 2 and not ended.wait(_POLL_S):
            pass
        half.append(peak_mib())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    result = flow_file.run(job, attribution="off")
    ended.set()
    watcher.join()
    result.facts["half_mib"] = half[0]
    return result
