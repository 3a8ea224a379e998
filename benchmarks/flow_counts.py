"""audiopixel from a file to Redis without conversions: what else it holds is bounded by time and by rows."""

from __future__ import annotations

from benchmarks import flow_file
from benchmarks.measure import Job, Result


def run(job: Job) -> Result:
    """Replay the log."""
    return flow_file.run(job, attribution="off")
