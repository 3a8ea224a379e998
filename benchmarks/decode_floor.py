"""The floor: read lines and have msgspec decode each to a typed struct, strictly, and nothing else."""

from __future__ import annotations

from collections import deque

from benchmarks.measure import Answers, Job, Meter, Result
from flows.intake.schema import decode


def run(job: Job) -> Result:
    """Decode every line."""
    _decode(job.warm)
    with Meter() as meter:
        _decode(job.log)
    return meter.result(job.events, Answers())


def _decode(log: str) -> None:
    with open(log, "rb", 1 << 20) as lines:
        deque(map(decode, lines), maxlen=0)
