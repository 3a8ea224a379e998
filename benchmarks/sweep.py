"""How the cost of an event grows with the rate, placements and listeners of a log, and the allowed lateness.

`python -m benchmarks.sweep [--events N]`: replays one after the other, each in a process of its own, the one
of least processor time of two. Other properties are as a case has them of itself: 2,000 a second, 1,000
placements, 200,000 listeners, ten minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from operator import itemgetter
from typing import Final

from benchmarks.bars import finish
from benchmarks.stages import Case, measure

SWEEP: Final[dict[str, Sequence[int]]] = {
    "rate": (100, 2_000, 200_000),
    "placements": (100, 10_000),
    "listeners": (2_000, 5_000_000),
    "lateness": (1, 29),
}
"""Values beside those that a case has of itself. Lateness is swept at `SLOW`, where minutes become final."""
SLOW: Final = 100
RUNS: Final = 2
EVENTS: Final = 200_000
GROUPS: Final = ("CPU", "elapsed", "decode", "plays", "attribution", "rows", "publish", "snapshots")
"""Columns: sums of the stages whose names begin so."""


def apart(case: Case) -> dict[str, float]:
    """Measure in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(measure, case).result()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--smoke", action="store_true", help="short")
    chosen = parser.parse_args()
    events, runs = (5_000, 1) if chosen.smoke else (chosen.events, RUNS)
    table = [["µs an event", *GROUPS]]
    for what, values in SWEEP.items():
        for value in values:
            case = Case(events, rate=SLOW if what == "lateness" else Case(events).rate)
            found = min((apart(case._replace(**{what: value})) for _ in range(runs)), key=itemgetter("CPU"))
            costs = [sum(cost for stage, cost in found.items() if stage.startswith(one)) for one in GROUPS]
            table.append([f"{what} {value:,}", *(f"{cost:.2f}" for cost in costs)])
    about = f"{events:,} events a line, the one of least processor time of {runs}"
    return finish("sweep", about, table, {}, events == EVENTS)


if __name__ == "__main__":
    sys.exit(main())
