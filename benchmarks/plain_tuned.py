"""Plain Bytewax tuned as far as we could: windows unordered, and 20,000 lines at once, which no live source
gives.
"""

from __future__ import annotations

from benchmarks import plain_bytewax
from benchmarks.measure import Job, Result


def run(job: Job) -> Result:
    """Run the flow over the log into Redis."""
    return plain_bytewax.run(job, batch_lines=20_000, ordered=False)
