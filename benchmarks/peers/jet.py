"""Hazelcast Jet on one cooperative thread, exactly-once by a snapshot a second."""

from __future__ import annotations

from benchmarks.measure import Job, Result
from benchmarks.peers import java


def version() -> str:
    """What is measured.

    Raises:
        Unavailable: no JDK, no Maven, or no repository.
    """
    java.prepared()
    return f"Hazelcast Jet {java.version_of('hazelcast')}"


def run(job: Job) -> Result:
    """Run it over the log."""
    return java.run("jet", job)
