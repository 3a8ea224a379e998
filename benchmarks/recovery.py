"""Cost of recovery: saves and a restart with millions of plays and listeners in the state.

`python -m benchmarks.recovery [--plays 1000000 10000000]`: each play is of a listener of its own, all within
the horizon. The flow reads them from a file and saves as shipped: once at `RATE` pixels a second, by which
pauses are judged, and once as fast as it can, by which rates and memory are. Both are stopped shortly before
the end; the fast one is started anew on what it left.
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
from typing import Any, Final, NamedTuple

import structlog

from benchmarks.bars import finish
from benchmarks.flow_kafka import received
from benchmarks.measure import peak_mib
from connectors.embedded import EmbeddedValkey
from connectors.files import FileInput, FileReader
from connectors.stream import Messages
from flows.engine.saved_step import Saved
from flows.engine.source import StopSignal
from flows.instruments import instruments
from flows.metrics import STATE_PLAYS, STATE_TOUCHES
from flows.model.ticks import Cut
from flows.replay import replay
from flows.settings.loading import load
from flows.state.allocator import share_one_arena

KEY: Final = b"sixteen secret b"
PLACEMENTS: Final = 1000
SPREAD_MS: Final = 25 * 60_000
T0_MS: Final = 1_764_000_000_000
PLAYS: Final = (1_000_000, 10_000_000)
SMOKE: Final = (100_000, 200_000)
STOP_AT: Final = 0.9
RATE: Final = 200_000
LUMPS: Final = 10
"""A second, in which a flow with time to wait gathers what comes (`linger`)."""
_POLL_S: Final = 0.002
HEADS: Final = (
    "read",
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
    "memory MiB",
    "restart s",
)


class Life(NamedTuple):
    """A run of the flow.

    First come seconds to the first pixel, pixels read, their rate, the longest time without a pixel, plays
    and touches at the end, and peak memory. Then come the number of saves, the longest time for which steps
    copied at a cut, and whether that cut was a save. The last two are the most processor time of the flow's
    thread for such copies, and the longest time between the begins of two saves.
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


@dataclass
class Paced:
    """A reader of a file that gives so many lines a second."""

    reader: FileReader
    rate: int
    given: int = 0
    begun_s: float = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reader, name)

    def read(self, limit: int) -> Messages | None:
        """The messages that are due by now, in batches."""
        now_s = time.perf_counter()
        self.begun_s = self.begun_s or now_s
        due = int((now_s - self.begun_s) * self.rate) - self.given
        if due < self.rate // LUMPS:
            return None
        found = self.reader.read(min(limit, due))
        self.given += len(found.values)
        return found


def paced(rate: int) -> None:
    """Let files be read at a rate in this process from now on."""
    opened = FileInput.open

    def slowly(self: FileInput, partition: str, position: int | None, log_id: str = "") -> Any:
        return Paced(opened(self, partition, position, log_id), rate)

    FileInput.open = slowly  # type: ignore[method-assign]


def live(log: str, plays: int, directory: str, redis_url: str, rate: int) -> Life:
    """Run the flow over the log until `STOP_AT` of it has been read, in a process of its own; at a rate, or 0
    for as fast as it can.
    """
    share_one_arena()  # as `audiopixel run` and `audiopixel replay` do
    if rate:
        paced(rate)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    namespace = f"bench:recovery:{plays}:{rate}"
    settings = load(redis_url=redis_url, namespace=namespace, recovery_dir=Path(directory))
    stop = StopSignal()
    pauses = measured()
    began_s = time.perf_counter()
    moments: list[tuple[float, int]] = []
    over = threading.Event()

    def watch() -> None:
        goal = plays * STOP_AT
        while not (stop.requested or over.wait(_POLL_S)):
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
    saves = [one for one in pauses.values() if one.save]
    stall_s = max((b[0] - a[0] for a, b in itertools.pairwise(moments)), default=0.0)
    return Life(
        first_s=first_s - began_s,
        pixels=after,
        rate=(after - before) / max(1e-9, last_s - first_s),
        stall_s=stall_s,
        plays=_gauge(STATE_PLAYS.name),
        touches=_gauge(STATE_TOUCHES.name),
        peak_mib=peak_mib(),
        saves=len(saves),
        pause_s=max((one.elapsed_s for one in pauses.values()), default=0.0),
        pause_cpu_s=max((one.cpu_s for one in pauses.values()), default=0.0),
        between_s=max((b.began_s - a.began_s for a, b in itertools.pairwise(saves)), default=0.0),
    )


@dataclass
class Pause:
    """The copying at a cut as the flow has it: its begin, how long the flow stood still, and the processor
    time of that.
    """

    began_s: float
    save: bool
    elapsed_s: float = 0.0
    cpu_s: float = 0.0


def measured() -> dict[int, Pause]:
    """Let this process note, from now on, its pause at each cut."""
    pauses: dict[int, Pause] = {}
    save = Saved.save

    def timed(self: Saved, cut: Cut) -> None:
        began_s, cpu_s = time.perf_counter(), time.thread_time()
        pause = pauses.setdefault(cut.number, Pause(began_s, cut.save))
        save(self, cut)
        pause.elapsed_s += time.perf_counter() - began_s
        pause.cpu_s += time.thread_time() - cpu_s

    Saved.save = timed  # type: ignore[method-assign]
    return pauses


def _gauge(name: str) -> int:
    families = instruments().registry.collect()
    return int(sum(one.value for family in families if family.name == name for one in family.samples))


def alone(log: Path, plays: int, directory: Path, redis_url: str, rate: int = 0) -> Life:
    """Run `live` in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(live, str(log), plays, str(directory), redis_url, rate).result()


def main() -> int:
    """Measure and print; exit code 1 where a bar is missed, or the second run does not go on where the first
    one stopped.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("--plays", type=int, nargs="+", default=[*PLAYS])
    parser.add_argument("--smoke", action="store_true", help="short: judge no bar")
    chosen = parser.parse_args()
    plays = [*SMOKE] if chosen.smoke else chosen.plays
    table, fast, calm, right = [["plays and listeners", *HEADS]], list[Life](), list[Life](), True
    with tempfile.TemporaryDirectory(prefix="audiopixel-recovery-") as name, EmbeddedValkey() as valkey:
        for count in plays:
            log, store, slow = (Path(name, f"{count}{end}") for end in (".ndjson", "-fast", "-calm"))
            write(log, count)
            calm.append(alone(log, count, slow, valkey.url, RATE))
            table.append([f"{count:,}", f"{RATE:,} a second", *row(calm[-1], slow), ""])
            first = alone(log, count, store, valkey.url)
            figures = row(first, store)
            again = alone(log, count, store, valkey.url)
            # The rest alone is read: a silent fresh start would read it all.
            right &= 0 < again.pixels <= count - first.pixels < count // 10 and again.plays == count
            log.unlink()
            fast.append(first)
            table.append([f"{count:,}", "as fast as it can", *figures, f"{again.first_s:.2f}"])
    print(f"after the restart the rest alone was read, and every play is remembered: {right}")
    figures_of = {"share": fast[-1].rate / fast[0].rate, "peak_mib": fast[-1].peak_mib}
    figures_of |= {"restart_s": again.first_s, "fast_pause_ms": 1000 * max(one.pause_s for one in fast)}
    figures_of |= {"few_pause_ms": 1000 * calm[0].pause_s, "pause_ms": 1000 * calm[-1].pause_s}
    figures_of["between_s"] = max(one.between_s for one in calm)
    usual = right and plays == [*PLAYS]
    about = "an impression a play, each with a listener of its own, in 25 minutes of event time"
    return finish("recovery", about, table, figures_of, usual) or int(not right)


def row(life: Life, store: Path) -> list[str]:
    """A run's columns of the table, but for the first and the last."""
    pieces, both = (
        sum(path.stat().st_size for path in store.rglob(pattern)) / (1 << 20)
        for pattern in ("saves/*/*", "*/*/*")
    )
    return [
        f"{life.plays:,}",
        f"{life.touches:,}",
        f"{life.rate:,.0f}",
        f"{life.stall_s:.2f}",
        f"{life.saves}",
        f"{1000 * life.pause_s:,.0f}",
        f"{1000 * life.pause_cpu_s:,.0f}",
        f"{life.between_s:.2f}",
        f"{pieces:,.0f}",
        f"{both - pieces:,.0f}",
        f"{life.peak_mib:,.0f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
