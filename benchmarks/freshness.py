"""How fresh the numbers are: from a pixel's sending until Redis shows it counted, live, at a rate.

`python -m benchmarks.freshness [--rate 2000 300000]`: simulated traffic is sent to the embedded broker in
real time; `audiopixel run` reads it, with recovery on. The first seconds, in which the traffic swells, are
not measured. A pixel is shown when the message that ends a flush has been read, and the partitions' accounts,
which are written with the rows, cover its place in its partition. A gap is a time in which Redis shows
nothing new. Each run has a broker, a Valkey, and a flow of its own.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np
from confluent_kafka import Producer

from benchmarks.bars import RATES, console, finish
from benchmarks.flow_file import KEY
from benchmarks.measure import UNPLANNED, process_cpu_s
from benchmarks.plain_log import write_log
from benchmarks.topic import PARTITIONS, TOPIC, outputs, partition_of
from connectors.embedded import EmbeddedBroker, EmbeddedValkey, form_cluster
from connectors.redis.client import connect
from flows.errors import AudiopixelError
from flows.model.redis_keys import row_key
from flows.settings.fields import PREFIX
from flows.simulate.feed import now_ms
from flows.state.arrays import F64, I64

RUNS: Final = 5
AD_MS: Final = 15_000
SWELL_S: Final = 22
"""An ad and its delay: from then on as many plays end as begin."""
MEASURED_S: Final = 15
MINUTE_ENDS_S: Final = 5
"""So far into what is measured a minute of event time ends."""
CHUNK_MS: Final = 20
NAMESPACE: Final = "bench:freshness"
_LEAD_S: Final = 1.0
_PATIENCE_S: Final = 300.0

Counts = tuple[int, ...]
"""Messages by partition."""


class Chunk(NamedTuple):
    """The messages of `CHUNK_MS`: ms from the start of the traffic to its end, messages and bytes by
    partition.
    """

    at_ms: int
    messages: Counts
    sizes: Counts


class Mark(NamedTuple):
    """How much had been sent, or was shown, and when (monotonic seconds)."""

    counts: Counts
    at_s: float


class Freshness(NamedTuple):
    """A run: messages a second that were really sent, quantiles of their waits and the longest gap in
    seconds, the greatest delay of a chunk, the flow's share of a core.
    """

    rate: float
    p50_s: float
    p99_s: float
    most_s: float
    gap_s: float
    behind_s: float
    cores: float


class Traffic(NamedTuple):
    """The traffic, one file for each partition: `seconds` of it, of which the last `measured` are
    measured.
    """

    chunks: Sequence[Chunk]
    files: Sequence[Path]
    seconds: int
    measured: int


class Live(NamedTuple):
    """A flow that runs, with its services and what is seen of its numbers. `valkey` is the first primary."""

    broker: EmbeddedBroker
    valkey: EmbeddedValkey
    shown: Shown
    pid: int
    primaries: Sequence[EmbeddedValkey]


def split(log: Path, files: Sequence[Path], start_ms: int, end_ms: int) -> list[Chunk]:
    """Part a log into a file a partition, and say what of them arrives when."""
    chunks: list[Chunk] = []
    messages, sizes = [0] * PARTITIONS, [0] * PARTITIONS
    until_ms = start_ms + CHUNK_MS
    with ExitStack() as stack:
        outs = [stack.enter_context(path.open("wb")) for path in files]
        for line in stack.enter_context(log.open("rb")):
            received_ms = int(line[line.rindex(b":") + 1 : -2])
            if received_ms >= until_ms:
                chunks.append(Chunk(until_ms - start_ms, tuple(messages), tuple(sizes)))
                messages, sizes = [0] * PARTITIONS, [0] * PARTITIONS
                until_ms += -(until_ms - received_ms) // CHUNK_MS * CHUNK_MS + CHUNK_MS
            if received_ms >= end_ms:
                return chunks
            partition = partition_of(line)
            messages[partition] += 1
            sizes[partition] += outs[partition].write(line)
    raise AudiopixelError(f"the log ends {(end_ms - received_ms) / 1000:.1f} s before its time")


def send(brokers: str, traffic: Traffic, before: Counts) -> tuple[list[Mark], float]:
    """Send each chunk when its time has come; returns what was sent when, all before included, and the most
    that a chunk was behind its time, in seconds.
    """
    settings = {"linger.ms": 20, "compression.type": "lz4", "queue.buffering.max.messages": 2_000_000}
    producer = Producer({"bootstrap.servers": brokers, **settings})
    produce = producer.produce
    counts, behind_s = [*before], 0.0
    began_s = time.monotonic() + _LEAD_S
    sent = [Mark(tuple(counts), began_s)]
    with ExitStack() as stack:
        lines = [stack.enter_context(path.open("rb")) for path in traffic.files]
        for chunk in traffic.chunks:
            early_s = began_s + chunk.at_ms / 1000 - time.monotonic()
            behind_s = max(behind_s, -early_s)
            time.sleep(max(0.0, early_s))
            at_s = time.monotonic()
            for partition, size in enumerate(chunk.sizes):
                for value in lines[partition].read(size).splitlines():
                    produce(TOPIC, value, None, partition)
                counts[partition] += chunk.messages[partition]
            producer.poll(0)
            sent.append(Mark(tuple(counts), at_s))
    producer.flush(_PATIENCE_S)
    return sent, behind_s


class Shown:
    """Notes at the end of each flush how much of each partition Redis shows."""

    def __init__(self, url: str) -> None:
        self.seen: list[Mark] = []
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._client: Any = connect(url)
        self._updates: Any = self._client.pubsub(ignore_subscribe_messages=True)
        self._updates.subscribe(f"{NAMESPACE}:updates")
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        keys = [row_key(NAMESPACE, "partition", f"{TOPIC}/{partition}") for partition in range(PARTITIONS)]
        while not self._over.is_set():
            if self._updates.get_message(timeout=0.05) is not None:
                counts = tuple(int(self._client.hget(key, "received") or 0) for key in keys)
                self.seen.append(Mark(counts, time.monotonic()))

    def gap_s(self, from_s: float, to_s: float) -> float:
        """The longest time between two flushes that show more than the one before, within two times."""
        anew = [here.at_s for before, here in itertools.pairwise(self.seen) if here.counts != before.counts]
        within = [from_s, *(at_s for at_s in anew if from_s < at_s < to_s), to_s]
        return max(later - earlier for earlier, later in itertools.pairwise(within))

    def until(self, reached: Counts) -> None:
        """Wait until Redis shows it, or shows anything where it is empty.

        Raises:
            AudiopixelError: it does not within `_PATIENCE_S`.
        """
        deadline_s = time.monotonic() + _PATIENCE_S
        while not self.seen or (reached and self.seen[-1].counts != reached):
            if time.monotonic() > deadline_s:
                raise AudiopixelError(f"Redis shows {self.seen[-1:]} of {reached} after {_PATIENCE_S:g} s")
            time.sleep(0.1)


def waits(sent: Sequence[Mark], seen: Sequence[Mark], from_s: float) -> tuple[F64, I64]:
    """For each chunk and partition sent from `from_s` on: seconds until it was published whole, and its
    number of messages.
    """
    waited: list[float] = []
    weights: list[int] = []
    for partition in range(PARTITIONS):
        shown = [mark.counts[partition] for mark in seen]
        for before, here in itertools.pairwise(sent):
            messages = here.counts[partition] - before.counts[partition]
            if messages and here.at_s >= from_s:
                waited.append(seen[bisect_left(shown, here.counts[partition])].at_s - here.at_s)
                weights.append(messages)
    return np.array(waited), np.array(weights)


def quantile(waited: F64, weights: I64, share: float) -> float:
    """The wait that `share` of the messages do not exceed."""
    order = np.argsort(waited)
    reached = np.cumsum(weights[order])
    return float(waited[order][np.searchsorted(reached, share * reached[-1])])


@contextmanager
def _flow(
    broker: EmbeddedBroker, valkey: EmbeddedValkey, directory: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """`audiopixel run` as shipped, without the caller's settings."""
    told = {
        "KAFKA_BROKERS": broker.bootstrap,
        "REDIS_URL": valkey.url,
        "NAMESPACE": NAMESPACE,
        "LISTENER_KEY": KEY.decode(),
        "RECOVERY_DIR": str(directory / "recovery"),
        "METRICS_PORT": "0",
        **{name.upper(): str(value) for name, value in UNPLANNED.items()},
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment |= {PREFIX + name: value for name, value in told.items()}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    log = directory / "flow.log"
    with log.open("wb") as out:
        flow = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run"], cwd=directory, env=environment, stdout=out, stderr=out
        )
    try:
        yield flow
    finally:
        flow.terminate()
        if flow.wait(_PATIENCE_S):
            raise AudiopixelError(f"the flow ended with code {flow.returncode}:\n{log.read_text()[-2000:]}")


def prepare(
    rate: int, directory: Path, measured: int = MEASURED_S, placements: int = 1000, skew: float = 1.0
) -> Traffic:
    """Write the traffic."""
    log, files = directory / "log.ndjson", [directory / f"partition-{p}" for p in range(PARTITIONS)]
    seconds = SWELL_S + measured
    # While the log is written the wall clock runs on: the log is that much older, without effect.
    start_ms = now_ms() // 60_000 * 60_000 - 1000 * (SWELL_S + MINUTE_ENDS_S)
    events = rate * seconds
    write_log(log, events, 1, placements, rate, start_ms=start_ms, skew=skew, ad_ms=AD_MS)
    chunks = split(log, files, start_ms, start_ms + 1000 * seconds)
    log.unlink()
    return Traffic(chunks, files, seconds, measured)


@contextmanager
def running(directory: Path, primaries: int = 1) -> Iterator[Live]:
    """A flow that has read nothing yet, with services of its own.

    Args:
        primaries: of Redis; several are a Redis Cluster.
    """
    options = {"cluster-enabled": "yes"} if primaries > 1 else {}
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker())
        nodes = [stack.enter_context(EmbeddedValkey(options)) for _ in range(primaries)]
        own = stack.enter_context(tempfile.TemporaryDirectory(dir=directory))
        if primaries > 1:
            form_cluster(*nodes)
        valkey = nodes[0]
        broker.create_topic(TOPIC, PARTITIONS)
        for topic in outputs():
            broker.create_topic(topic, 1)
        with Shown(valkey.url) as shown, _flow(broker, valkey, Path(own)) as flow:
            shown.until(())
            yield Live(broker, valkey, shown, flow.pid, nodes)


def measure(live: Live, traffic: Traffic, before: Counts = (0,) * PARTITIONS) -> Freshness:
    """Send the traffic, and hold what Redis shows against it; `before` are messages that were sent before."""
    before_s = process_cpu_s(live.pid)
    sent, behind_s = send(live.broker.bootstrap, traffic, before)
    after_s = process_cpu_s(live.pid)
    live.shown.until(sent[-1].counts)
    took_s = sent[-1].at_s - sent[0].at_s
    from_s = sent[-1].at_s - traffic.measured
    waited, weights = waits(sent, live.shown.seen, from_s)
    return Freshness(
        int(weights.sum()) / traffic.measured,
        quantile(waited, weights, 0.5),
        quantile(waited, weights, 0.99),
        quantile(waited, weights, 1.0),
        live.shown.gap_s(from_s, sent[-1].at_s),
        behind_s,
        0.0 if before_s is None or after_s is None else (after_s - before_s) / took_s,
    )


def figures(rate: int, runs: Sequence[Freshness]) -> dict[str, float]:
    """Medians of the runs, and how many times as long as the median the worst one's waits are."""
    found = {"p50": [run.p50_s for run in runs], "p99": [run.p99_s for run in runs]}
    worst = max(max(times) / median(times) for times in found.values())
    found["gap"] = [run.gap_s for run in runs]
    return {f"{rate}.{name}": median(times) for name, times in found.items()} | {f"{rate}.worst": worst}


def main() -> int:
    """Measure and print; exit code 1 where a bar is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.freshness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rate", type=int, nargs="+", default=[*RATES], help="pixels a second")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each ({RUNS})")
    parser.add_argument("--smoke", action="store_true", help="short: judge no bar")
    chosen = parser.parse_args()
    if chosen.smoke:
        chosen.rate, chosen.runs = [500], 1
    progress, found = console(stderr=True), dict[str, float]()
    heads = (
        "half within s",
        "99 of 100 s",
        "all within s",
        "longest gap s",
        "sent behind s",
        "flow, of a core",
    )
    table = [["pixels a second", *heads]]
    for rate in chosen.rate:
        with tempfile.TemporaryDirectory(prefix="audiopixel-freshness-") as name:
            runs = []
            with progress.status(f"{rate:,} pixels a second: writing them"):
                traffic = prepare(rate, Path(name), 2 if chosen.smoke else MEASURED_S)
            for number in range(chosen.runs):
                status = progress.status(f"{rate:,} a second, {traffic.seconds} s: run {number + 1}")
                with status, running(Path(name)) as live:
                    runs.append(measure(live, traffic))
        found |= figures(rate, runs)
        columns = [sorted(column) for column in zip(*runs, strict=True)]
        spans = (f"{median(one):.2f} ({one[0]:.2f} to {one[-1]:.2f})" for one in columns[1:])
        table.append([f"{median(columns[0]):,.0f}", *spans])
    about = f"medians of {chosen.runs} runs of {traffic.measured} s, and the least and most"
    return finish("freshness", about, table, found, chosen.runs == RUNS and {*chosen.rate} <= {*RATES})


if __name__ == "__main__":
    sys.exit(main())
