"""Processor time of one replay by stage. `python -m benchmarks.stages [--events N]`

The methods by which the engine enters a stage are wrapped. A stage is told its own thread's time, less that
of stages within it. What no stage took is the engine's, of files of snapshots, and of Python between stages.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import structlog

from benchmarks.bars import finish
from benchmarks.bench import EVENTS, SMOKE_EVENTS
from benchmarks.flow_file import KEY
from benchmarks.measure import UNPLANNED
from benchmarks.plain_log import write_log
from connectors.embedded import EmbeddedValkey
from flows import engine
from flows.engine import saved_step, sinks, source
from flows.intake.decoder import Decoder
from flows.intake.partition import Intake
from flows.plays.play_shard import PlayShard
from flows.publish.publisher import Publisher
from flows.replay import replay
from flows.settings.loading import load

_STEPS: Final[dict[str, type]] = {
    "plays: cuts, touches": engine.PlaysLogic,
    "attribution": engine.AttributionLogic,
    "households": engine.HouseholdsLogic,
    "clients": engine.ClientsLogic,
    "credits": engine.CreditsLogic,
    "rows": engine.RowsLogic,
    "ledger": engine.LedgerLogic,
}
STAGES: Final[list[tuple[str, type, str]]] = [
    ("read lines", Intake, "_read"),
    ("decode: scan, numbers, hashes", Decoder, "decode"),
    ("intake: event times, shards", source.PixelPartition, "next_batch"),
    ("plays: pixels", PlayShard, "apply"),
    *((stage, step, "on_batch") for stage, step in _STEPS.items()),
    *(("publish, Redis's client", Publisher, method) for method in ("flush", "finish")),
    ("publish, Redis's client", sinks.RedisLogic, "on_batch"),
    ("snapshots", saved_step.Saved, "save"),
    ("snapshots", Intake, "snapshot"),
]
"""Stages, with the classes and methods by which they are entered."""


def meter(took: Counter[str], thread: threading.local, stage: str, owner: type, method: str) -> None:
    """Wrap a method, so that its thread's seconds are added to its stage's in `took`."""
    inner = getattr(owner, method)

    def timed(*given: Any, **named: Any) -> Any:
        outer, thread.within = getattr(thread, "within", 0.0), 0.0
        began = time.thread_time()
        try:
            return inner(*given, **named)
        finally:
            seconds = time.thread_time() - began
            took[stage] += seconds - thread.within
            thread.within = outer + seconds

    setattr(owner, method, timed)


def measure(events: int) -> dict[str, float]:
    """Replay twice, the first time to load the kernels. Returns µs an event of the second replay: in all,
    elapsed, by stage.

    The process is of no use afterwards: the stages stay wrapped.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    took, thread = Counter[str](), threading.local()
    with EmbeddedValkey() as valkey, tempfile.TemporaryDirectory() as name:
        log = Path(name, "log.ndjson")
        write_log(log, events)
        settings = load(redis_url=valkey.url, namespace="warm", **UNPLANNED)
        replay([str(log)], settings, KEY, recompute=True, recovery_dir=Path(name, "warm"))
        for stage, owner, method in STAGES:
            meter(took, thread, stage, owner, method)
        settings = settings.model_copy(update={"namespace": "bench:stages"})
        cpu_s, began_s = time.process_time(), time.perf_counter()
        replay([str(log)], settings, KEY, recovery_dir=Path(name, "recovery"))
        cpu_s, elapsed_s = time.process_time() - cpu_s, time.perf_counter() - began_s
    seconds = {"CPU": cpu_s, "elapsed": elapsed_s} | {stage: took[stage] for stage, _, _ in STAGES}
    seconds["engine, files of snapshots, the rest"] = cpu_s - took.total()
    return {stage: 1e6 * taken / events for stage, taken in seconds.items()}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--smoke", action="store_true", help="short")
    chosen = parser.parse_args()
    events = SMOKE_EVENTS if chosen.smoke else chosen.events
    rows = [[stage, f"{cost:.2f}"] for stage, cost in measure(events).items()]
    about = f"{events:,} events, the second of two replays in one process"
    return finish("stages", about, [["stage", "µs an event"], *rows], {}, events == EVENTS)


if __name__ == "__main__":
    sys.exit(main())
