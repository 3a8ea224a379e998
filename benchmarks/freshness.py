"""How fresh the numbers are: from a pixel's sending until Redis shows it counted, live, at a rate.

`python -m benchmarks.freshness [--rate 2000 300000]`: simulated traffic is sent to the embedded broker in
real time; `audiopixel run` reads it, with recovery on. The first minute, in which the traffic swells, is not
measured. A pixel is shown when the message that ends a flush has been read, and the partitions' accounts,
which are written with the rows, cover its place in its partition.
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
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import numpy as np
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from benchmarks.flow_file import KEY
from benchmarks.measure import process_cpu_s
from benchmarks.topic import PARTITIONS, TOPIC, outputs, partition_of
from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.redis.client import connect
from flows.errors import AudiopixelError
from flows.model.redis_keys import row_key
from flows.settings.fields import PREFIX
from flows.simulate.feed import now_ms
from flows.simulate.plain_log import write_log
from flows.state.kernel import F64, I64

RATES: Final = (2_000, 300_000)
"""The demo's, and half of what the flow reads from Kafka when it catches up (`make bench`)."""
SWELL_S: Final = 65
"""The longest ad and its delay: from then on as many plays end as begin."""
MEASURED_S: Final = 20
MEDIAN_S: Final = 1.0
P99_S: Final = 2.0
CHUNK_MS: Final = 20
NAMESPACE: Final = "bench:freshness"
_LEAD_S: Final = 1.0
_PATIENCE_S: Final = 60.0

Counts = tuple[int, ...]
"""Messages by partition."""


class Chunk(NamedTuple):
    """What arrives within `CHUNK_MS`: ms from the start of the traffic to its end, messages and bytes by
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
    """One rate: messages a second that really were sent, quantiles of their waits in seconds, the most that a
    chunk was sent behind its time, the flow's share of a core.
    """

    rate: float
    p50_s: float
    p99_s: float
    most_s: float
    behind_s: float
    cores: float


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


def send(brokers: str, chunks: Sequence[Chunk], files: Sequence[Path]) -> tuple[list[Mark], float]:
    """Send each chunk when its time has come; returns what was sent when, and the most that a chunk was
    behind its time, in seconds.
    """
    settings = {"linger.ms": 20, "compression.type": "lz4", "queue.buffering.max.messages": 2_000_000}
    producer = Producer({"bootstrap.servers": brokers, **settings})
    produce = producer.produce
    counts, behind_s = [0] * PARTITIONS, 0.0
    began_s = time.monotonic() + _LEAD_S
    sent = [Mark(tuple(counts), began_s)]
    with ExitStack() as stack:
        lines = [stack.enter_context(path.open("rb")) for path in files]
        for chunk in chunks:
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
        self._client = connect(url)
        self._updates: Any = self._client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py's
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

    def until(self, reached: Counts) -> None:
        """Wait until Redis shows it, or shows anything where it is empty.

        Raises:
            AudiopixelError: it does not within a minute.
        """
        deadline_s = time.monotonic() + _PATIENCE_S
        while not self.seen or (reached and self.seen[-1].counts != reached):
            if time.monotonic() > deadline_s:
                raise AudiopixelError(f"Redis shows {self.seen[-1:]} of {reached} after {_PATIENCE_S:g} s")
            time.sleep(0.1)


def waits(sent: Sequence[Mark], seen: Sequence[Mark], from_s: float) -> tuple[F64, I64]:
    """Of each chunk and partition sent from `from_s` on: seconds until it was shown whole, its messages."""
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
        if flow.wait(30):
            raise AudiopixelError(f"the flow ended with code {flow.returncode}:\n{log.read_text()[-2000:]}")


def measure(rate: int, directory: Path, progress: Console) -> Freshness:
    """Send the traffic, and hold what Redis shows against it."""
    log, files = directory / "log.ndjson", [directory / f"partition-{p}" for p in range(PARTITIONS)]
    seconds = SWELL_S + MEASURED_S
    # Its clocks stand behind the wall clock by as long as this takes, which nothing here depends on.
    start_ms = now_ms()
    with progress.status(f"{rate:,} pixels a second: writing them"):
        write_log(log, rate * seconds, rate=rate, start_ms=start_ms)
        chunks = split(log, files, start_ms, start_ms + 1000 * seconds)
        log.unlink()
    with EmbeddedBroker() as broker, EmbeddedValkey() as valkey:
        broker.create_topic(TOPIC, PARTITIONS)
        for topic in outputs():
            broker.create_topic(topic, 1)
        with Shown(valkey.url) as shown, _flow(broker, valkey, directory) as flow:
            shown.until(())
            with progress.status(f"{rate:,} pixels a second: {seconds} s of them"):
                before_s = process_cpu_s(flow.pid)
                sent, behind_s = send(broker.bootstrap, chunks, files)
                after_s = process_cpu_s(flow.pid)
            shown.until(sent[-1].counts)
    took_s = sent[-1].at_s - sent[0].at_s
    waited, weights = waits(sent, shown.seen, sent[0].at_s + SWELL_S)
    return Freshness(
        int(weights.sum()) / (took_s - SWELL_S),
        quantile(waited, weights, 0.5),
        quantile(waited, weights, 0.99),
        quantile(waited, weights, 1.0),
        behind_s,
        0.0 if before_s is None or after_s is None else (after_s - before_s) / took_s,
    )


def main(rates: Sequence[int]) -> int:
    """Measure and print; exit code 1 where the numbers are staler than promised."""
    progress = Console(stderr=True)
    table = Table(box=None, pad_edge=False)
    for name in ("pixels/s", "p50 s", "p99 s", "most s", "sent behind s", "flow, of a core"):
        table.add_column(name, justify="right")
    fresh = True
    for rate in rates:
        with tempfile.TemporaryDirectory(prefix="audiopixel-freshness-") as name:
            found = measure(rate, Path(name), progress)
        fresh &= found.p50_s <= MEDIAN_S and found.p99_s <= P99_S
        table.add_row(f"{found.rate:,.0f}", *(f"{one:.2f}" for one in found[1:]))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    print(f"p50 within {MEDIAN_S:g} s and p99 within {P99_S:g} s: {fresh}")
    return int(not fresh)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.freshness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rate", type=int, nargs="+", default=RATES, help="pixels a second")
    sys.exit(main(parser.parse_args().rate))
