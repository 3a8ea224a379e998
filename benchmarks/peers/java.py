"""The engines of Java: their jars from Maven, our classes, and how one is run.

The compiler is warm: the whole log is run through before the measured time, as often as it takes for four
million events and four times at most, which took Jet from 3.4 to 1.8 µs an event. The collector is the serial
one, since with it both engines were faster than with the parallel one (Jet 2.3). The heap is fixed: 4 GiB.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.measure import Answers, Job, Result
from benchmarks.peers.built import HERE, build, directory, measured, tool
from benchmarks.peers.job import read

_HOW_TO: Final = "install a Java 17 JDK and Maven (Debian: openjdk-17-jdk-headless maven)"
_SOURCES: Final = HERE / "java"
_OPENED: Final = (
    *("java.base/java.lang", "java.base/java.util", "java.base/java.nio", "java.base/sun.nio.ch"),
    *("java.management/sun.management", "jdk.management/com.sun.management.internal"),
)
"""Packages of Java that Flink's and Hazelcast's manuals have opened from Java 17 on."""


def prepared() -> Path:
    """The directory of jars and classes, made where it is not there yet.

    Raises:
        Unavailable: no JDK, no Maven, or no repository.
    """
    maven, compiler = tool("mvn", _HOW_TO), tool("javac", _HOW_TO)
    tool("java", _HOW_TO)
    pom, sources = _SOURCES / "pom.xml", sorted(_SOURCES.rglob("*.java"))
    ready = directory("peers-java", [pom, *sources])
    if not ready.is_dir():
        half = ready.with_suffix(".part")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        build(
            [maven, "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={half}"],
            half,
        )
        build([compiler, "-nowarn", "-cp", f"{half}/*", "-d", str(half), *map(str, sources)], half)
        half.rename(ready)
    return ready


def version_of(artifact: str) -> str:
    """The version of a jar that the pom asks for."""
    found = re.search(
        rf"<artifactId>{artifact}</artifactId>\s*<version>([^<]+)<", (_SOURCES / "pom.xml").read_text()
    )
    assert found
    return found[1]


def warm_runs_of(events: int, warm_events: int = 4_000_000, most: int = 4) -> int:
    """As many runs of a log as pass that many events, but not more than `most`."""
    return min(most, -(-warm_events // events))


def run(
    engine: str,
    job: Job,
    options: Sequence[str] = (),
    answers: Callable[[Path], Answers] = read,
    warm_runs: int = 0,
) -> Result:
    """Run an engine over the log.

    Args:
        options: further ones of the virtual machine.
        answers: see `benchmarks.peers.built.measured`.
        warm_runs: runs before the measured one; 0 takes `warm_runs_of`.
    """
    ready = prepared()
    options = [f"-Dwarm.runs={warm_runs or warm_runs_of(job.events)}", *options]
    opened = [part for package in _OPENED for part in ("--add-opens", f"{package}=ALL-UNNAMED")]
    command = [tool("java", _HOW_TO), "-Xms4g", "-Xmx4g", "-XX:+UseSerialGC", *opened, *options]
    return measured([*command, "-cp", f"{ready}:{ready}/*", "peers.Main", engine], job, answers)
