"""What a contender is given and what it gives back, and the meter that all of them are held to."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

_BORN_S = time.perf_counter()

Counts = dict[str, int]

UNPLANNED: dict[str, int] = {"unplanned_rows": 1_000_000, "unplanned_bytes": 1 << 40}
"""Settings of a bench whose placements have no plan: each of them is to have a row."""


class Job(msgspec.Struct, kw_only=True):
    """One run of one contender, in a process of its own.

    Attributes:
        log: NDJSON file of `events` lines.
        warm: a small one of the same kind, to be run through first: what it costs is start-up.
        scratch: an empty directory of its own.
        minutes: also give every minute; costs time, so it is asked for in runs that are not timed.
    """

    log: str
    events: int
    warm: str
    scratch: str
    redis_url: str = ""
    brokers: str = ""
    minutes: bool = False


class Answers(msgspec.Struct):
    """The numbers that a contender found.

    Attributes:
        flights: `scope/id` to metric to count.
        minutes: `placement|epoch ms` to metric to count.
    """

    flights: dict[str, Counts] = {}
    minutes: dict[str, Counts] = {}


class Result(msgspec.Struct, kw_only=True):
    """One run, measured.

    Attributes:
        seconds: elapsed.
        cpu_s: user and system time of the process, all its threads, servers and other children excluded.
        startup_s: from the first import to the beginning of the measurement.
        peak_mib: most resident memory of the process, start-up included.
        facts: further figures of this contender, by name.
    """

    events: int
    seconds: float
    cpu_s: float
    startup_s: float
    peak_mib: float
    answers: Answers
    facts: dict[str, float] = {}

    @property
    def rate(self) -> float:
        """Events per elapsed second."""
        return self.events / self.seconds

    @property
    def cpu_rate(self) -> float:
        """Events per second of processor time: what the ratios compare."""
        return self.events / self.cpu_s


class Meter:
    """Elapsed and processor time of a stretch of this process."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin; what was before is start-up."""
        self._startup_s = time.perf_counter() - _BORN_S
        self._cpu_s, self._at_s = _cpu_s(), time.perf_counter()

    def stop(self) -> None:
        """End."""
        self.seconds = time.perf_counter() - self._at_s
        self.cpu_s = _cpu_s() - self._cpu_s

    def result(self, events: int, answers: Answers, facts: Mapping[str, float] | None = None) -> Result:
        """The stretch as a result."""
        return Result(
            events=events,
            seconds=self.seconds,
            cpu_s=self.cpu_s,
            startup_s=self._startup_s,
            peak_mib=peak_mib(),
            answers=answers,
            facts=dict(facts or {}),
        )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_mib() -> float:
    """Most resident memory that this process has had."""
    # Linux hands ru_maxrss down from the process that started this one; VmHWM is this program's own.
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) / 1024 for line in status.open() if line.startswith("VmHWM"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def process_cpu_s(pid: int) -> float | None:
    """User and system time of another running process; None where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    hertz = 100  # USER_HZ: fixed, whatever the kernel's own tick
    return (int(fields[11]) + int(fields[12])) / hertz
