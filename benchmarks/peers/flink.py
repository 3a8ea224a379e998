"""Flink's DataStream API on one slot: objects reused, one chain, exactly-once checkpoints once a second."""

from __future__ import annotations

from benchmarks.measure import Job, Result
from benchmarks.peers import java


def version() -> str:
    """What is measured.

    Raises:
        Unavailable: no JDK, no Maven, or no repository.
    """
    java.prepared()
    return f"Flink DataStream {java.version_of('flink-streaming-java')}"


def run(job: Job) -> Result:
    """Run it over the log."""
    return java.run("flink", job)
