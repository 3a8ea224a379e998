"""Measure the flow beside others on one log: outputs are compared, then times, memory and the bars shown."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks import cost
from benchmarks.bars import last, show, verdicts, write_documents
from benchmarks.bench import EVENTS, LONG_EVENTS, SMOKE_EVENTS, Bench, run
from benchmarks.peers.bench import PeersBench

ALL: Final = (
    "",
    "second",
    "peers",
    "equal",
    "freshness",
    "rows",
    "recovery",
    "members",
    "primaries",
    "shard_messages",
    "exporter",
    "collector",
    "bidder_client",
    "soak",
    "stages",
    "floods",
    "first_start",
)
"""The benches in the order of `--all`; the first is this module's own."""


def main() -> int:
    """`python -m benchmarks`; exit code 1 where outputs differ or a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    sizes = f"{EVENTS:,}; {LONG_EVENTS:,} with --peers; {SMOKE_EVENTS:,} in a smoke run"
    parser.add_argument("--events", type=int, help=f"how many ({sizes})")
    parser.add_argument("--smoke", action="store_true", help="short: compare outputs, judge no bar")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the log, outputs and results there")
    parser.add_argument("--peers", action="store_true", help="beside engines that others build, instead")
    parser.add_argument("--bars", action="store_true", help="the bars of cost, each with pass or miss")
    parser.add_argument("--all", action="store_true", help="every bench, one after the other")
    parser.add_argument(
        "--readme", action="store_true", help="run nothing: write the last results into docs/performance.md"
    )
    arguments = parser.parse_args()
    if arguments.readme:
        write_documents()
        return 0
    if arguments.bars:
        return cost.run(arguments.smoke)
    if arguments.all:
        return run_all(arguments.smoke)
    bench = PeersBench if arguments.peers else Bench
    return run(bench, arguments.events, arguments.smoke, arguments.keep)


def run_all(smoke: bool) -> int:
    """Run every bench in a process of its own, then print all lines; exit code 1 where one is missed."""
    code = 0
    for name in ALL:
        module = f"benchmarks.{name}" if name not in ("", "peers") else "benchmarks"
        began_s = time.monotonic()
        options = [*(["--peers"] if name == "peers" else []), *(["--smoke"] if smoke else [])]
        done = subprocess.run([sys.executable, "-m", module, *options], check=False)
        code |= done.returncode
        print(
            f"{name or 'bench'}: {time.monotonic() - began_s:,.0f} s, exit code {done.returncode}\n",
            flush=True,
        )
    show(verdicts(last()))
    return int(code != 0)


if __name__ == "__main__":
    sys.exit(main())
