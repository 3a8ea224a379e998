"""A flow writes to one primary of Redis, then to three: `python -m benchmarks.primaries`.

The traffic is that of `benchmarks.rows`: 100,000 placements, of which a tenth change a second. A primary runs
each script on one core, so the busiest one's share of a core is what ends first. Flow, broker, sender and all
primaries share this machine's cores, so elapsed times are worse than with machines of their own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.bars import console, finish
from benchmarks.freshness import measure, prepare, running
from benchmarks.measure import process_cpu_s
from benchmarks.rows import MEASURED_S, OF_EACH_1000, PLACEMENTS, introduce

PRIMARIES: Final = (1, 3)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.primaries", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="short")
    smoke = parser.parse_args().smoke
    placements, measured_s = (1000, 2) if smoke else (PLACEMENTS, MEASURED_S)
    rate = placements * OF_EACH_1000 // 1000
    heads = ("half within s", "99 of 100 s", "flow, of a core", "busiest primary, of a core", "all primaries")
    table, figures = [["primaries", *heads]], dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="audiopixel-primaries-") as name:
        with console(stderr=True).status("writing the traffic"):
            traffic = prepare(rate, Path(name), measured_s, placements=placements, skew=0.0)
        for primaries in PRIMARIES:
            status = console(stderr=True).status(f"sending it to {primaries}")
            with status, running(Path(name), primaries) as live:
                introduced = introduce(live, placements)
                before_s = [process_cpu_s(node.pid) or 0.0 for node in live.primaries]
                run = measure(live, traffic, introduced)
                after_s = [process_cpu_s(node.pid) or 0.0 for node in live.primaries]
            cores = [
                (after - before) / traffic.seconds for before, after in zip(before_s, after_s, strict=True)
            ]
            times = (run.p50_s, run.p99_s, run.cores, max(cores), sum(cores))
            table.append([str(primaries), *(f"{value:.2f}" for value in times)])
            figures |= {f"p99.{primaries}": run.p99_s, f"busiest.{primaries}": max(cores)}
    about = f"{placements:,} placements, {rate:,} pixels a second for {traffic.seconds} s"
    return finish("primaries", about, table, figures, not smoke)


if __name__ == "__main__":
    sys.exit(main())
