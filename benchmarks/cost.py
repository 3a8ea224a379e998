"""The bars of cost: every bench that they need, in one run; then each bar with pass, miss, or why it was not
run. `python -m benchmarks --bars`.

Each bench compares outputs before it looks at times. Other work on the machine over a tenth of a core spoils
a bench, which is repeated. After three spoiled turns the least loaded one stands, and its bars are marked
*loaded*. A bar in seconds is then a miss only where it misses by more than decoding alone, timed around the
bench, was slower than the fastest decoding of this run.
"""

from __future__ import annotations

import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec
from rich.console import Console

from benchmarks import bars
from benchmarks.bars import ROOT, Saved, show
from benchmarks.bench import SMOKE_EVENTS, Bench

SPOILS: Final = 0.1
"""Cores of other work."""
TURNS: Final = 3


class Bar(NamedTuple):
    """A bar of `benchmarks.bars` under the name that it has here.

    Attributes:
        stretch: a further bound; None without one.
        seconds: whether the figure is a time of this machine.
        where: how to get the figure where its bench left none.
    """

    name: str
    of: bars.Bar
    stretch: float | None
    seconds: bool = False
    where: str = "its bench failed: see above"

    def passed(self, value: float, bound: float, slower: float = 1.0) -> bool:
        """Whether it is within a bound, on a machine that was so many times as slow."""
        return value >= bound if self.of.at_least else value <= bound * (slower if self.seconds else 1.0)


def _of(bench: str, figure: str) -> bars.Bar:
    return next(bar for bar in bars.BARS if (bar.bench, bar.figure) == (bench, figure))


_RIVAL: Final = "the rival is not installed: `python -m benchmarks --peers` says how to get it"
BARS: Final = (
    Bar("Kafka, 472 bytes, by DuckDB's query of a file ¹", _of("second", "kafka_by_duckdb"), 1.0),
    Bar("file, 271 bytes, by DuckDB's query of it ¹", _of("second", "first_by_duckdb"), 1.2),
    Bar("by Flink DataStream, a third of the work ¹", _of("peers", "by_flink"), 1.5, where=_RIVAL),
    Bar("by Hazelcast Jet, a third of the work ¹", _of("peers", "by_jet"), 1.2, where=_RIVAL),
    Bar("by the rival of equal work ¹", _of("equal", "by_equal"), 4.0, where=_RIVAL),
    Bar("472 bytes by 271 bytes ¹", _of("second", "by_first"), 0.8),
    Bar("Kafka by file, 472 bytes ¹", _of("second", "kafka_by_file"), 0.95),
    Bar("200,000 a second: half within, s", _of("freshness", "200000.p50"), 0.35, seconds=True),
    Bar("99 of 100 within, s", _of("freshness", "200000.p99"), 0.6, seconds=True),
    Bar("longest gap, s", _of("freshness", "200000.gap"), None, seconds=True),
    Bar("memory with 10 M plays, MiB", _of("recovery", "peak_mib"), 1200.0),
    Bar("100,000 placements, a tenth changed: 99 of 100, s", _of("rows", "p99"), 1.0, seconds=True),
    Bar("exporter with the page open, of two cores", _of("exporter", "page"), 0.01),
    Bar("the collector's durable call, in fixed GIFs", _of("collector", "by_gif"), 2.0),
    Bar("two processes by one, work a CPU second", _of("members", "by_one.2"), 1.0),
    Bar("four processes by one", _of("members", "by_one.4"), 1.0),
    Bar("fresh clone to the right picture, s", _of("first_start", "seconds"), 60.0, seconds=True),
    Bar("second start, s", _of("first_start", "second_s"), 5.0, seconds=True),
)
BENCHES: Final = tuple(dict.fromkeys(bar.of.bench for bar in BARS))
OPTIONS: Final[Mapping[str, Sequence[str]]] = {"freshness": ["--rate", "200000"]}
"""What of a bench the bars need, where that is a part."""


class Turn(NamedTuple):
    """A run of a bench: its figures, other work in cores, how much slower decoding was, and its results."""

    figures: Mapping[str, float]
    load: float
    slower: float = 1.0
    run: Saved | None = None


class Load:
    """Other work on the machine, in cores, from when it is made."""

    def __init__(self) -> None:
        self._began_s, self._busy_s, self._own_s = time.monotonic(), busy_s(), _own_s()

    def cores(self) -> float:
        """The mean so far; 0 where there is no /proc."""
        others_s = busy_s() - self._busy_s - (_own_s() - self._own_s)
        return max(0.0, others_s / max(time.monotonic() - self._began_s, 0.001))


def busy_s(stat: Path = Path("/proc/stat")) -> float:
    """Processor seconds of all that has run on this machine, and of what its host has taken away."""
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, stat.read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


class Floor:
    """Decoding alone, timed again and again; the fastest is what this machine can do."""

    def __init__(self, bench: Bench) -> None:
        self._bench, self.fastest_s = bench, math.inf

    @classmethod
    def over(cls, directory: Path) -> Self:
        """Over a small log in a directory."""
        bench = Bench(SMOKE_EVENTS, True, directory, progress=Console(quiet=True))
        bench.log = bench.warm = directory / "floor.ndjson"
        bench._write(bench.log, SMOKE_EVENTS)
        return cls(bench)

    def time(self) -> float:
        """Seconds elapsed."""
        seconds = self._bench._child("decode_floor").seconds
        self.fastest_s = min(self.fastest_s, seconds)
        return seconds


def verdict(bar: Bar, turns: Mapping[str, Turn]) -> list[str]:
    """A bar's line: found, pass or miss with the mark of a loaded run, and the stretch."""
    asked = f"at {'least' if bar.of.at_least else 'most'} {bar.of.bound:g}"
    turn = turns.get(bar.of.bench)
    if turn is None or bar.of.figure not in turn.figures:
        return [bar.name, asked, "", f"not run: {bar.where}", "", ""]
    value, loaded = turn.figures[bar.of.figure], turn.load > SPOILS
    slower = turn.slower if loaded else 1.0
    outcome = "pass" if bar.passed(value, bar.of.bound, slower) else "**miss**"
    stretch = "" if bar.stretch is None else "yes" if bar.passed(value, bar.stretch) else "no"
    mark = f", loaded, decoding {turn.slower:.2f} ×" if loaded else ""
    found = f"{value:,.0f}" if value >= 100 else f"{value:.3f}" if bar.of.bound < 0.1 else f"{value:.2f}"
    return [bar.name, asked, found, outcome + mark, stretch, f"{turn.load:.2f}"]


def least_loaded(turns: Sequence[Turn]) -> Turn:
    """The turn that stands."""
    return min(turns, key=lambda turn: turn.load)


def run(smoke: bool) -> int:
    """Run all benches and print the bars; returns 1 where one is missed, or a bench has left no figure.

    Args:
        smoke: one short turn of each bench, of which none leaves a figure.
    """
    turns = dict[str, Turn]()
    with tempfile.TemporaryDirectory(prefix="audiopixel-bars-") as name:
        floor = Floor.over(Path(name))
        floor.time()
        for bench in BENCHES:
            taken = list[Turn]()
            while len(taken) < (1 if smoke else TURNS) and (not taken or taken[-1].load > SPOILS):
                taken.append(_turn(bench, Path(name, f"{bench}-{len(taken)}"), floor, smoke))
            turns[bench] = turn = least_loaded(taken)
            if turn.run is not None:
                bars.keep(bench, turn.run)
    lines = [verdict(bar, turns) for bar in BARS]
    show([["bar", "asked", "found", "", "stretch", "others, cores"], *lines])
    print("¹ By elapsed time or by processor time, whichever is worse.")
    failed = not smoke and any(not turn.figures for turn in turns.values())
    return int(failed or any(line[3].startswith("**miss**") for line in lines))


def _turn(bench: str, results: Path, floor: Floor, smoke: bool) -> Turn:
    """Run a bench, which leaves its figures in a directory unless outputs differ."""
    before_s, load = floor.time(), Load()
    options = ["--smoke"] if smoke and bench != "collector" else OPTIONS.get(bench, [])
    command = [sys.executable, "-m", "benchmarks"]
    if bench == "peers":
        command += ["--peers"]
    elif bench != "bench":
        command[-1] += f".{bench}"
    environment = {**os.environ, "BENCH_RESULTS": str(results)}
    print(f"== {bench}", flush=True)
    subprocess.run([*command, *options], cwd=ROOT, env=environment, check=False)
    cores = load.cores()
    slower = max(before_s, floor.time()) / floor.fastest_s
    print(f"other work meanwhile: {cores:.2f} cores; decoding {slower:.2f} × its fastest", flush=True)
    path = results / f"{bench}.json"
    if not path.exists():
        return Turn({}, cores, slower)
    run = msgspec.json.decode(path.read_bytes(), type=Saved)
    return Turn(run.figures, cores, slower, run)
