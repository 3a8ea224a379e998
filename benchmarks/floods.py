"""Costs of a new placement, a conversion, an event of the oracle.

`python -m benchmarks.floods [--many 200000] [--smoke]`

A new placement is one pixel of a name that nobody knows, less one of a known name; a conversion is its line
behind an impression of its listener, less the log without it. Both are of processor time of a whole replay,
the flow's and Redis's, by turns; the least of each counts, since others can only add to it.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from benchmarks.bars import finish
from benchmarks.flow_file import KEY
from benchmarks.measure import UNPLANNED, Meter, process_cpu_s
from benchmarks.plain_log import write_log
from connectors.embedded import EmbeddedValkey
from flows.replay import replay
from flows.settings.fields import PREFIX
from flows.settings.loading import load

MANY: Final = 20_000
KNOWN: Final = 200
RUNS: Final = 4
EVENTS: Final = 5_000_000
T0_MS: Final = 1_764_000_000_000


def impressions(names: int, many: int, converted: bool = False) -> Iterator[str]:
    """Lines of one impression of each of `KNOWN` placements, then of `many` that have `names` names, then, of
    each listener, a conversion.
    """
    for number in range(KNOWN + many):
        place = number if number < KNOWN else number % names + (KNOWN if names > KNOWN else 0)
        at = f'"ts":{T0_MS + number},"campaign_id":"c-{place % 40}"'
        who = f'"listener_id":"L{number:06d}","consent":true,"received_at":{T0_MS + number + 500}'
        yield (
            f'{{"event_id":"i-{number}","event":"impression",{at},"placement_id":"pl-{place:05d}",'
            f'"platform":"acast","station":"st-{place % 60}","play_id":"play-{number}",{who}}}\n'
        )
    for number in range(many if converted else 0):
        at = f'"ts":{T0_MS + 60_000 + number},"campaign_id":"c-{number % KNOWN % 40}"'
        who = f'"listener_id":"L{number:06d}","consent":true,"received_at":{T0_MS + 60_500 + number}'
        yield (
            f'{{"event_id":"c-{number}","event":"conversion",{at},{who},"conversion":{{"type":"purchase",'
            f'"order_id":"o-{number}","value":"19.99","currency":"GBP"}}}}\n'
        )


def replayed(directory: Path, many: int, runs: int) -> dict[str, tuple[float, float]]:
    """The least processor seconds of the flow and of Redis, by log; the logs are replayed by turns."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    kinds = {"known": (KNOWN, False), "new": (many, False), "converted": (KNOWN, True)}
    for kind, (names, converted) in kinds.items():
        with (directory / f"{kind}.ndjson").open("w") as log:
            log.writelines(impressions(names, many, converted))
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    with EmbeddedValkey() as valkey:
        for run in range(runs + 1):  # the first of each is start-up
            for kind, took in found.items():
                name = f"{kind}-{run}"
                settings = load(redis_url=valkey.url, namespace=f"bench:{name}", metrics_port=0, **UNPLANNED)
                before = process_cpu_s(valkey.pid) or 0.0
                with Meter() as meter:
                    replay([str(directory / f"{kind}.ndjson")], settings, KEY, recovery_dir=directory / name)
                took += [(meter.cpu_s, (process_cpu_s(valkey.pid) or 0.0) - before)] if run else []
    return {kind: (min(of for of, _ in took), min(of for _, of in took)) for kind, took in found.items()}


def reconciled(directory: Path, events: int) -> tuple[float, float]:
    """Elapsed and processor seconds of `audiopixel reconcile` over a plain log that was replayed."""
    log = directory / "log.ndjson"
    write_log(log, events)
    with EmbeddedValkey() as valkey:
        settings = load(redis_url=valkey.url, metrics_port=0)
        replay([str(log)], settings, KEY, recovery_dir=directory / "reconciled")
        command = [sys.executable, "-m", "flows.cli", "reconcile", str(log)]
        environment = os.environ | {f"{PREFIX}REDIS_URL": valkey.url}
        before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(command, check=True, env=environment)
        elapsed_s, after = time.monotonic() - began_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Measure and print; exit code 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floods", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="short: judge no bar")
    parser.add_argument("--many", type=int, default=MANY, help=f"of placements and conversions ({MANY:,})")
    chosen = parser.parse_args()
    smoke: bool = chosen.smoke
    many, runs, events = (500, 1, 20_000) if smoke else (chosen.many, RUNS, EVENTS)
    with tempfile.TemporaryDirectory(prefix="audiopixel-floods-") as name:
        took = replayed(Path(name), many, runs)
        elapsed_s, cpu_s = reconciled(Path(name), events)
    table = [["", "flow µs", "Redis µs", "together"]]
    figures = {}
    for what, kind in (("placement", "new"), ("conversion", "converted")):
        costs = [1e6 * (of - less) / many for of, less in zip(took[kind], took["known"], strict=True)]
        figures[what] = sum(costs)
        table.append([f"a new {what}", *(f"{cost:.1f}" for cost in (*costs, sum(costs)))])
    figures["reconcile"] = 1e6 * elapsed_s / events
    own = f"an event of `reconcile`, processor {1e6 * cpu_s / events:.1f}"
    table.append([own, "", "", f"{figures['reconcile']:.1f}"])
    about = f"{many:,} placements and conversions, the least of {runs} runs by turns; {events:,} events"
    return finish("floods", about, table, figures, not smoke)


if __name__ == "__main__":
    sys.exit(main())
