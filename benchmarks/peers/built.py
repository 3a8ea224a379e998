"""Rivals that are built here: the engines of Java, and the loop of Rust. All is kept under build/."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.measure import Answers, Job, Result
from benchmarks.peers.job import Unavailable, read

HERE: Final = Path(__file__).resolve().parent
BUILD: Final = HERE.parents[1] / "build"
_BUILD_LIMIT_S: Final = 900
_RUN_LIMIT_S: Final = 900


class _Took(msgspec.Struct):
    """What a rival says of its own run, metered within its process."""

    seconds: float
    cpu_s: float
    startup_s: float
    peak_mib: float


def tool(name: str, how_to: str) -> str:
    """The path of a program.

    Raises:
        Unavailable: it is not there.
    """
    path = shutil.which(name)
    if path is None:
        raise Unavailable(f"no {name} here: {how_to}")
    return path


def directory(name: str, sources: Sequence[Path]) -> Path:
    """Where what is made of these sources is kept."""
    content = b"".join(path.read_bytes() for path in sources)
    return BUILD / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"


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


def measured(command: Sequence[str], job: Job, answers: Callable[[Path], Answers] = read) -> Result:
    """Run a rival over the log; its last arguments are the log and the scratch directory.

    Args:
        answers: reads the answers of its `rows.csv`.
    """
    done = subprocess.run(
        [*command, job.log, job.scratch], capture_output=True, text=True, timeout=_RUN_LIMIT_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with code {done.returncode}: {done.stderr[-2000:]}")
    took = msgspec.json.decode(done.stdout.splitlines()[-1], type=_Took)
    return Result(
        events=job.events,
        seconds=took.seconds,
        cpu_s=took.cpu_s,
        startup_s=took.startup_s,
        peak_mib=took.peak_mib,
        answers=answers(Path(job.scratch, "rows.csv")),
    )
