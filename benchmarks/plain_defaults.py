"""Plain Bytewax as one writes it first: windows in order, which is the default, and 1,000 lines at once."""

from __future__ import annotations

from benchmarks import plain_bytewax
from benchmarks.measure import Job, Result


def run(job: Job) -> Result:
    """Run the flow over the log into Redis."""
    return plain_bytewax.run(job, batch_lines=1_000, ordered=True)
