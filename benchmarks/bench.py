"""The order of a bench: every contender on one seeded log, outputs compared, then the table and the bars."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

import msgspec
from rich.console import Console

from benchmarks import topic, touches
from benchmarks.answers import differences
from benchmarks.bars import console, finish, last, show, verdicts
from benchmarks.measure import Answers, Job, Result, process_cpu_s
from benchmarks.plain_log import write_log
from benchmarks.report import FOOTNOTE, OURS, Row, ratios, table, worse
from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.stream import ConnectError
from flows.errors import AudiopixelError
from flows.settings.fields import PREFIX

EVENTS: Final = 1_000_000
"""The usual size of a log whose slowest contender takes 16 µs an event."""
LONG_EVENTS: Final = 10_000_000
"""The usual size where a bar of cost is judged: what a run pays once is under 3 % of it."""
RATE: Final = 2000.0
"""Pixels a second of a log's time."""
_BYTES_AN_EVENT: Final = 300
"""Room on the disk, with one contender's own files."""
SMOKE_EVENTS: Final = 60_000
SEED: Final = 1
EVERYTHING: Final = "**audiopixel**, from a file to Redis, recovery on, everything"
WARM_EVENTS: Final = 20_000
RUNS: Final = 3
LONGER: Final = 10
LISTENERS: Final = (1_000_000, 10_000_000)
SHORT_S: Final = 4_500.0
"""Log time of a tenth of the long log: it fills the hour's windows and the horizon."""
_TIME_LIMIT_S: Final = 1200


@dataclass
class Bench:
    """One bench.

    Args:
        events: of the log.
        smoke: compare outputs, judge no bar.
        directory: for logs and outputs.
    """

    events: int
    smoke: bool
    directory: Path
    results: dict[str, Result] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    further: dict[str, float] = field(default_factory=dict)
    progress: Console = field(default_factory=lambda: console(stderr=True))
    truth: Answers = field(default_factory=Answers)
    name: ClassVar[str] = "bench"
    usual: ClassVar[int] = EVENTS
    """Events of a run that is judged."""
    bytes_an_event: ClassVar[int] = _BYTES_AN_EVENT

    def run(self) -> int:
        """Run and print it; the exit code is 1 where numbers differ or (of a run of the usual size) a bar is
        missed.

        Raises:
            AudiopixelError: a contender failed, or the disk is too small.
        """
        need, free = self.events * self.bytes_an_event, shutil.disk_usage(self.directory).free
        if free < need:
            raise AudiopixelError(f"{self.directory} has {free >> 20:,} MiB free, and needs {need >> 20:,}")
        self.log, self.warm = self.directory / "log.ndjson", self.directory / "warm.ndjson"
        self.size = self._write(self.log, self.events)
        self._write(self.warm, WARM_EVENTS)
        self._contend()
        for line in self.wrong[:20]:
            print(line)
        compared = f"{len(self.truth.flights):,} flights and {len(self.truth.minutes):,} minutes"
        print(f"outputs: {f'{len(self.wrong):,} differences' if self.wrong else 'equal'} in {compared}")
        if self.smoke:
            print("A smoke run: one run a contender, and nothing that takes long.")
        kept = self.events == self.usual and not (self.smoke or self.wrong)
        missed = finish(self.name, self._about(), table(self.rows), self._figures(), kept)
        print(FOOTNOTE)
        self._end()
        return int(bool(self.wrong)) or missed

    def _about(self) -> str:
        size, minutes = self.size / self.events, self.events / RATE / 60
        return f"{self.events:,} events of {size:.0f} bytes, seed {SEED}, {minutes:.0f} minutes of log time"

    def _end(self) -> None:
        print("All lines; what this run has not measured is of its last run:")
        show(verdicts(last()))
        figures = " ".join(f"{name}={value:.2f}" for name, value in ratios(self.results).items())
        print(f"ratios: {figures}")

    def _contend(self) -> None:
        """Run every contender, and compare what it found."""
        self._add("decode_floor", "msgspec decoding alone", self._child("decode_floor"))
        self._batch("duckdb_batch", "DuckDB, one exact batch query of the same rows, one thread")
        with EmbeddedValkey() as valkey:
            self._plain(valkey)
            self._file(valkey)
            self._kafka(valkey)
            if not self.smoke:
                self._memory(valkey)
                self._conversions()

    def _figures(self) -> dict[str, float]:
        """The figures of this run's bars."""
        ours, kafka = self.results[OURS], self.results["flow_kafka"]
        return {
            "by_plain": worse(ours, self.results["plain_bytewax"]),
            "waiting": kafka.facts["waited_s"] / kafka.seconds,
            "bytes_a_play": ours.facts["bytes_a_play"],
            **self.further,
        }

    def _batch(self, query: str, name: str, log: Path | None = None, events: int = 0) -> None:
        """Run the query that is the truth."""
        runs = self._runs(query, log, events)
        self.truth = runs[0].answers
        self._take(query, name, runs)

    def _plain(self, valkey: EmbeddedValkey) -> None:
        for contender, name, note in (
            (
                "plain_bytewax",
                "plain Bytewax",
                "`key_on`, `fold_window`, the same sketch; placements' minutes alone",
            ),
            (
                "plain_tuned",
                "the same tuned further",
                "unordered, 20,000 lines at once, which no live source gives",
            ),
        ):
            plain = self._child(contender, redis_url=valkey.url)
            self._compare(name, plain.answers)
            self._add(contender, f"{name}: {note}", plain)

    def _file(self, valkey: EmbeddedValkey) -> None:
        self._take(OURS, EVERYTHING, self._runs(OURS, redis_url=valkey.url))
        whole = self._child(OURS, "minutes", redis_url=valkey.url, minutes=True)
        self._compare("audiopixel", whole.answers)
        self._add("flow_minutes", "the same, every minute written to a file too", whole)

    def _kafka(self, valkey: EmbeddedValkey) -> None:
        with EmbeddedBroker() as broker:
            with self.progress.status("loading the topic"):
                topic.load(self.log, broker)
            before_s = process_cpu_s(broker.pid)
            floor = self._child("kafka_floor", brokers=broker.bootstrap)
            after_s = process_cpu_s(broker.pid)
            cost = ""
            if before_s is not None and after_s is not None:
                cost = f"; the broker itself {1e6 * (after_s - before_s) / self.events:.2f} CPU µs"
            self._add("kafka_floor", f"Kafka's consumer alone: nothing decoded{cost}", floor)
            runs = self._runs("flow_kafka", redis_url=valkey.url, brokers=broker.bootstrap)
        self._take("flow_kafka", "audiopixel from Kafka, catching up", runs)

    def _runs(
        self,
        contender: str,
        log: Path | None = None,
        events: int = 0,
        *,
        redis_url: str = "",
        brokers: str = "",
    ) -> list[Result]:
        return [
            self._child(contender, f"run {number + 1}", log, events, redis_url=redis_url, brokers=brokers)
            for number in range(self.turns)
        ]

    def _by_turns(self, contenders: Mapping[str, Callable[[str], Result]]) -> dict[str, list[Result]]:
        """Run every contender once a turn, so that a slow minute of the machine is not one contender's."""
        runs = {key: list[Result]() for key in contenders}
        for number in range(self.turns):
            for key, run in contenders.items():
                runs[key].append(run(f"run {number + 1}"))
        return runs

    @property
    def turns(self) -> int:
        """Runs of each contender."""
        return 1 if self.smoke else RUNS

    def _take(self, key: str, name: str, runs: Sequence[Result]) -> None:
        """Add the median run by processor time, all being compared."""
        for one in runs:
            self._compare(key, one.answers)
        middle = statistics.median_low([one.cpu_rate for one in runs])
        costs = ", ".join(f"{1e6 / one.cpu_rate:.2f}" for one in runs)
        note = f"; median of {costs}" if len(runs) > 1 else ""
        self._add(key, f"{name}{note}", next(one for one in runs if one.cpu_rate == middle))

    def _memory(self, valkey: EmbeddedValkey) -> None:
        path, events = self.directory / "long.ndjson", LONGER * self.events
        self._write(path, events, rate=self.events / SHORT_S)
        long = self._child("flow_counts", log=path, events=events, redis_url=valkey.url)
        path.unlink()
        facts = long.facts
        note = f"{LONGER * SHORT_S / 3600:g} h, memory {facts['half_mib']:,.0f} MiB at half"
        note += f", recovery store {facts['recovery_mib']:.0f} MiB"
        self._add("flow_long", f"audiopixel, a log ten times as long, without conversions: {note}", long)
        self.further["growth"] = long.peak_mib / facts["half_mib"]

    def _conversions(self) -> None:
        with self.progress.status("conversions"):
            states = [touches.held(count, self.directory / f"touches-{count}") for count in LISTENERS]
            shares = touches.share(self.events, self.directory)
        self.further |= touches.figures(shares, states)

    def _write(self, path: Path, events: int, rate: float = RATE) -> int:
        with self.progress.status(f"writing {path.name}"):
            return write_log(path, events, SEED, rate=rate)

    def _add(self, key: str, name: str, result: Result) -> None:
        self.results[key] = result
        self.rows.append(Row(key, name, result))

    def _compare(self, who: str, answers: Answers) -> None:
        self.wrong += [f"{who} differs from DuckDB: {line}" for line in differences(self.truth, answers)]

    def _child(
        self,
        contender: str,
        variant: str = "",
        log: Path | None = None,
        events: int = 0,
        *,
        warm: Path | None = None,
        redis_url: str = "",
        brokers: str = "",
        minutes: bool = False,
    ) -> Result:
        name = f"{contender} {variant}".strip().replace(" ", "_")
        scratch = self.directory / name
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        job = Job(
            log=str(log or self.log),
            events=events or self.events,
            warm=str(warm or self.warm),
            scratch=str(scratch),
            redis_url=redis_url,
            brokers=brokers,
            minutes=minutes,
        )
        result = scratch / "result.json"
        # As shipped: without the caller's settings, and not where an audiopixel.toml of the caller's may lie.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
        with self.progress.status(name):
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.child", contender, str(result)],
                input=msgspec.json.encode(job),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=scratch,
                env=environment,
                timeout=_TIME_LIMIT_S,
                check=False,
            )
        if done.returncode:
            tail = done.stdout.decode(errors="replace").strip().splitlines()[-8:]
            raise AudiopixelError(f"{name} ended with code {done.returncode}:\n" + "\n".join(tail))
        took = msgspec.json.decode(result.read_bytes(), type=Result)
        for path in scratch.iterdir():
            if path.is_dir():
                shutil.rmtree(path)  # recovery stores and checkpoints of all runs together would fill a disk
        self.progress.print(
            f"{name}: CPU {1e6 / took.cpu_rate:.2f} µs an event, elapsed {1e6 / took.rate:.2f}", style="dim"
        )
        return took


def command(bench: type[Bench], description: str | None) -> int:
    """The command line of one bench, `python -m benchmarks.NAME`; returns the exit code of `Bench.run`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{bench.name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--smoke", action="store_true", help="short: compare outputs, judge no bar")
    sizes = f"{bench.usual:,}; {SMOKE_EVENTS:,} in a smoke run"
    parser.add_argument("--events", type=int, help=f"how many ({sizes})")
    arguments = parser.parse_args()
    return run(bench, arguments.events, arguments.smoke)


def run(bench: type[Bench], events: int | None, smoke: bool, directory: Path | None = None) -> int:
    """Run a bench, and say why it failed; a directory that is not given is deleted, also when stopped."""
    events = events or (SMOKE_EVENTS if smoke else bench.usual)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with ExitStack() as stack:
        try:
            directory = directory or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="audiopixel-bench-"))
            )
            directory.mkdir(parents=True, exist_ok=True)
            return bench(events, smoke, directory.resolve()).run()
        except (AudiopixelError, ConnectError, OSError, subprocess.TimeoutExpired) as error:
            print(f"bench: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            return 130
    return 1
