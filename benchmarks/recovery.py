"""What recovery costs: saves and a restart with millions of plays and listeners alive.

`python -m benchmarks.recovery [--plays 1000000 10000000]`: each play is of a listener of its own, all within
the horizon. The flow reads them from a file and saves as shipped, is stopped shortly before the end, and
started anew on what it left.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from benchmarks.bars import finish
from benchmarks.flow_kafka import received
from benchmarks.measure import peak_mib
from connectors.embedded import EmbeddedValkey
from flows.engine.saves import Saved
from flows.engine.source import StopSignal
from flows.instruments import instruments
from flows.metrics import STATE_PLAYS, STATE_TOUCHES
from flows.model.ticks import Cut
from flows.replay import replay
from flows.settings.loading import load

KEY: Final = b"sixteen secret b"
PLACEMENTS: Final = 1000
SPREAD_MS: Final = 25 * 60_000
T0_MS: Final = 1_764_000_000_000
PLAYS: Final = (1_000_000, 10_000_000)
SMOKE: Final = (100_000, 200_000)
STOP_AT: Final = 0.9
_POLL_S: Final = 0.002


class Life(NamedTuple):
    """One run of the flow: seconds to its first pixel, pixels read and how fast, the longest time without
    one, plays and touches at the end, most memory; saves, the longest time that the flow stood still for one,
    the most processor time that its thread took meanwhile, and the longest from the begin of one to that of
    the next.
    """

    first_s: float
    pixels: int
    rate: float
    stall_s: float
    plays: int
    touches: int
    peak_mib: float
    saves: int
    pause_s: float
    pause_cpu_s: float
    between_s: float


def write(path: Path, plays: int) -> None:
    """An impression a play."""
    rng = random.Random(1)
    step = SPREAD_MS / plays
    line = (
        '{"event_id":"e%d","event":"impression","ts":%d,"placement_id":"pl-%d","campaign_id":"c-%d",'
        '"play_id":"play-%d","listener_id":"listener-%d","consent":true}\n'
    )
    with path.open("w") as out:
        for start in range(0, plays, 100_000):
            lines = []
            for number in range(start, min(plays, start + 100_000)):
                place = rng.randrange(PLACEMENTS)
                ts = T0_MS + int(number * step)
                lines.append(line % (number, ts, place, place % 40, number, number))
            out.writelines(lines)


def live(log: str, plays: int, directory: str, redis_url: str) -> Life:
    """Run the flow over the log until `STOP_AT` of it has been read, in a process of its own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    settings = load(redis_url=redis_url, namespace=f"bench:recovery:{plays}", recovery_dir=Path(directory))
    stop = StopSignal()
    pauses = measured()
    began_s = time.perf_counter()
    moments: list[tuple[float, int]] = []
    over = threading.Event()

    def watch() -> None:
        goal = plays * STOP_AT
        while not (stop.asked or over.wait(_POLL_S)):
            count = received(without="")
            if count and (not moments or count > moments[-1][1]):
                moments.append((time.perf_counter(), count))
            if count >= goal:
                stop.set()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    replay([log], settings, KEY, recovery_dir=Path(directory), stop=stop)
    over.set()
    watcher.join()
    (first_s, before), (last_s, after) = moments[0], moments[-1]
    stall_s = max((b[0] - a[0] for a, b in itertools.pairwise(moments)), default=0.0)
    return Life(
        first_s=first_s - began_s,
        pixels=after,
        rate=(after - before) / max(1e-9, last_s - first_s),
        stall_s=stall_s,
        plays=_gauge(STATE_PLAYS.name),
        touches=_gauge(STATE_TOUCHES.name),
        peak_mib=peak_mib(),
        saves=len(pauses),
        pause_s=max((one.elapsed_s for one in pauses.values()), default=0.0),
        pause_cpu_s=max((one.cpu_s for one in pauses.values()), default=0.0),
        between_s=max((b.began_s - a.began_s for a, b in itertools.pairwise(pauses.values())), default=0.0),
    )


@dataclass
class Pause:
    """A save as the flow has it: its begin, how long the flow stood still, and the processor time of that."""

    began_s: float
    elapsed_s: float = 0.0
    cpu_s: float = 0.0


def measured() -> dict[int, Pause]:
    """Let this process note, from now on, its pause for each cut that it saves."""
    pauses: dict[int, Pause] = {}
    save = Saved.save

    def timed(self: Saved, cut: Cut) -> None:
        if not cut.save:
            return
        began_s, cpu_s = time.perf_counter(), time.thread_time()
        pause = pauses.setdefault(cut.number, Pause(began_s))
        save(self, cut)
        pause.elapsed_s += time.perf_counter() - began_s
        pause.cpu_s += time.thread_time() - cpu_s

    Saved.save = timed  # type: ignore[method-assign]
    return pauses


def _gauge(name: str) -> int:
    families = instruments().registry.collect()
    return int(sum(one.value for family in families if family.name == name for one in family.samples))


def alone(log: Path, plays: int, directory: Path, redis_url: str) -> Life:
    """Run `live` in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(live, str(log), plays, str(directory), redis_url).result()


def main() -> int:
    """Measure and print; exit code 1 where a bar is missed, or the second run does not go on where the first
    one stopped.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("--plays", type=int, nargs="+", default=[*PLAYS])
    parser.add_argument("--smoke", action="store_true", help="short: judge no bar")
    chosen = parser.parse_args()
    plays = [*SMOKE] if chosen.smoke else chosen.plays
    heads = (
        "plays kept",
        "touches kept",
        "events a second",
        "longest stall s",
        "saves",
        "longest pause ms",
        "its processor ms",
        "longest between s",
        "pieces MiB",
        "segments MiB",
    )
    table, lives, right = [["plays and listeners", *heads, "memory MiB", "restart s"]], [], True
    with tempfile.TemporaryDirectory(prefix="audiopixel-recovery-") as name, EmbeddedValkey() as valkey:
        for count in plays:
            log, store = Path(name, f"{count}.ndjson"), Path(name, f"store-{count}")
            write(log, count)
            first = alone(log, count, store, valkey.url)
            sizes = [
                sum(path.stat().st_size for path in store.rglob(pattern)) / (1 << 20)
                for pattern in ("saves/*/*", "*/*/*")
            ]
            sizes[1] -= sizes[0]
            again = alone(log, count, store, valkey.url)
            # The rest alone is read: a silent fresh start would read it all.
            right &= 0 < again.pixels <= count - first.pixels < count // 10 and again.plays == count
            log.unlink()
            lives.append(first)
            counts = (f"{number:,}" for number in (count, first.plays, first.touches))
            paused = (f"{1000 * one:,.0f}" for one in (first.pause_s, first.pause_cpu_s))
            pauses = f"{first.saves}", *paused, f"{first.between_s:.1f}"
            sized = (f"{size:,.0f}" for size in (*sizes, first.peak_mib))
            stall, restart = f"{first.stall_s:.2f}", f"{again.first_s:.2f}"
            table.append([*counts, f"{first.rate:,.0f}", stall, *pauses, *sized, restart])
    print(f"after the restart the rest alone was read, and every play is remembered: {right}")
    figures = {"share": lives[-1].rate / lives[0].rate, "peak_mib": lives[-1].peak_mib}
    figures |= {"pause_ms": 1000 * lives[-1].pause_s, "restart_s": again.first_s}
    usual = right and plays == [*PLAYS]
    about = "an impression a play, each with a listener of its own, in 25 minutes"
    return finish("recovery", about, table, figures, usual) or int(not right)


if __name__ == "__main__":
    sys.exit(main())
