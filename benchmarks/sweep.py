"""How the cost of an event grows with the rate, placements and listeners of a log, and the allowed lateness.

`python -m benchmarks.sweep [--events N]`: one table for each, of replays one after the other, each in a
process of its own, the one of least processor time of two. Other properties are as a case has them of itself:
2,000 a second, 1,000 placements, 200,000 listeners, ten minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from operator import itemgetter
from typing import Final

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
GROUPS: Final = ("CPU", "elapsed", "decode", "plays", "attribution", "rows", "publish", "snapshots")
"""Columns: sums of the stages whose names begin so."""


def apart(case: Case) -> dict[str, float]:
    """Measure in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(measure, case).result()


def main(events: int) -> None:
    """Print the tables as Markdown, µs an event."""
    for what, values in SWEEP.items():
        print(f"\n| {what} | {' | '.join(GROUPS)} |\n|{'---|' * (1 + len(GROUPS))}")
        for value in values:
            case = Case(events, rate=SLOW if what == "lateness" else Case(events).rate)
            found = min((apart(case._replace(**{what: value})) for _ in range(RUNS)), key=itemgetter("CPU"))
            costs = [sum(cost for stage, cost in found.items() if stage.startswith(one)) for one in GROUPS]
            print(f"| {value:,} | {' | '.join(f'{cost:.2f}' for cost in costs)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=__doc__)
    parser.add_argument("--events", type=int, default=500_000)
    main(parser.parse_args().events)
