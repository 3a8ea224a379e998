"""The engines of Java: their jars from Maven, our classes, and how one is run. All is kept under build/.

The compiler is warm: the whole log is run through before the measured time, as often as it takes for four
million events and four times at most, which took Jet from 3.4 to 1.8 µs an event. The collector is the serial
one, since with it both engines were faster than with the parallel one (Jet 2.3). The heap is fixed: 4 GiB.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.measure import Answers, Job, Result
from benchmarks.peers.job import Unavailable, read

_HOW_TO: Final = "install a Java 17 JDK and Maven (Debian: openjdk-17-jdk-headless maven)"
_SOURCES: Final = Path(__file__).resolve().parent / "java"
_BUILD: Final = Path(__file__).resolve().parents[2] / "build"
_BUILD_LIMIT_S: Final = 900
_RUN_LIMIT_S: Final = 900
_OPENED: Final = (
    *("java.base/java.lang", "java.base/java.util", "java.base/java.nio", "java.base/sun.nio.ch"),
    *("java.management/sun.management", "jdk.management/com.sun.management.internal"),
)
"""Packages of Java that Flink's and Hazelcast's manuals have opened from Java 17 on."""


class _Took(msgspec.Struct):
    """What a rival says of its own run, metered within its process."""

    seconds: float
    cpu_s: float
    startup_s: float
    peak_mib: float


def _tool(name: str) -> str:
    """The path of a program.

    Raises:
        Unavailable: it is not there.
    """
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"no {name} here: {_HOW_TO}")
    return path


def build(command: Sequence[str], cwd: Path) -> None:
    """Run one step of a build.

    Raises:
        Unavailable: it fails; with its last lines.
    """
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=_BUILD_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{Path(command[0]).name} did not end within {_BUILD_LIMIT_S} s") from None
    if done.returncode:
        tail = " ".join((done.stdout + done.stderr).split())[-300:]
        raise Unavailable(f"{Path(command[0]).name} could not build it: {tail}")


def prepared() -> Path:
    """The directory of jars and classes, made where it is not there yet.

    Raises:
        Unavailable: no JDK, no Maven, or no repository.
    """
    maven, compiler = _tool("mvn"), _tool("javac")
    _tool("java")
    pom, sources = _SOURCES / "pom.xml", sorted(_SOURCES.rglob("*.java"))
    content = b"".join(path.read_bytes() for path in (pom, *sources))
    ready = _BUILD / f"peers-java-{hashlib.sha256(content).hexdigest()[:12]}"
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
        answers: reads the answers of its `rows.csv`.
        warm_runs: runs before the measured one; 0 takes `warm_runs_of`.
    """
    ready = prepared()
    options = [f"-Dwarm.runs={warm_runs or warm_runs_of(job.events)}", *options]
    opened = [part for package in _OPENED for part in ("--add-opens", f"{package}=ALL-UNNAMED")]
    command = [_tool("java"), "-Xms4g", "-Xmx4g", "-XX:+UseSerialGC", *opened, *options]
    command += ["-cp", f"{ready}:{ready}/*", "peers.Main", engine, job.log, job.scratch]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_LIMIT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{engine} ended with code {done.returncode}: {done.stderr[-2000:]}")
    took = msgspec.json.decode(done.stdout.splitlines()[-1], type=_Took)
    return Result(
        events=job.events,
        seconds=took.seconds,
        cpu_s=took.cpu_s,
        startup_s=took.startup_s,
        peak_mib=took.peak_mib,
        answers=answers(Path(job.scratch, "rows.csv")),
    )
