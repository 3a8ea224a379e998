"""audiopixel from a file to Redis without attribution: no touches and no frequency of listeners."""

from __future__ import annotations

from benchmarks import flow_file
from benchmarks.measure import Job, Result


def run(job: Job) -> Result:
    """Replay the log."""
    return flow_file.run(job, attribution="off")
