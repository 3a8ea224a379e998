"""The same Java as the engines', in one loop."""

from __future__ import annotations

from benchmarks.measure import Job, Result
from benchmarks.peers import java


def version() -> str:
    """What is measured.

    Raises:
        Unavailable: no JDK, no Maven, or no repository.
    """
    java.prepared()
    return f"Java loop, Jackson {java.version_of('jackson-core')}"


def run(job: Job) -> Result:
    """Run it over the log."""
    return java.run("loop", job)
