"""The order of a bench: every contender on one seeded log, outputs compared, then the table and the bars."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from benchmarks import topic, touches
from benchmarks.answers import differences
from benchmarks.measure import Answers, Job, Result, process_cpu_s
from benchmarks.report import Bar, Row, bars, markdown, ratios, show, show_bars
from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from flows.errors import AudiopixelError
from flows.settings.fields import PREFIX
from flows.simulate.plain_log import write_log

SEED: Final = 1
WARM_EVENTS: Final = 20_000
RUNS: Final = 3
LONGER: Final = 10
LISTENERS: Final = (1_000_000, 10_000_000)
SHORT_S: Final = 4_500.0
"""Log time of a tenth of the long log: it fills the hour's windows and the horizon."""
_TIME_LIMIT_S: Final = 900


@dataclass
class Bench:
    """One bench.

    Args:
        events: of the log.
        smoke: compare outputs, judge no bar.
        directory: for logs and outputs.
        readme: print the tables of README alone; all else goes to the error output.
    """

    events: int
    smoke: bool
    directory: Path
    readme: bool = False
    results: dict[str, Result] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    progress: Console = field(default_factory=lambda: Console(stderr=True))

    def run(self) -> int:
        """Run and print it; the exit code is 1 where numbers differ or (not in a smoke run) a bar is missed.

        Raises:
            AudiopixelError: a contender failed.
        """
        wide = None if sys.stdout.isatty() else 160
        self.console = Console(width=wide, stderr=self.readme)
        console, date = self.console, datetime.now(UTC).date()
        self.log, self.warm = self.directory / "log.ndjson", self.directory / "warm.ndjson"
        size = self._write(self.log, self.events)
        self._write(self.warm, WARM_EVENTS)
        about = f"{self.events:,} events of {size / self.events:.0f} bytes, seed {SEED}"
        about += f"; Python {sys.version.split()[0]}, {os.cpu_count()} cores"
        console.print(about)
        self._contend()
        for line in self.wrong[:20]:
            console.print(line, markup=False, highlight=False)
        compared = f"{len(self.truth.flights):,} flights and {len(self.truth.minutes):,} minutes"
        console.print(
            f"outputs: {f'{len(self.wrong):,} differences' if self.wrong else 'equal'} in {compared}"
        )
        show(console, self.rows)
        if self.smoke:
            console.print("A smoke run: one run a contender, and nothing that takes long.")
        found = self._bars()
        show_bars(console, found, judged=not self.smoke)
        figures = " ".join(f"{name}={value:.2f}" for name, value in self._ratios().items())
        console.print(f"ratios: {figures}", highlight=False)
        if self.readme:
            print("\n".join(markdown(f"{date}: {about}", self.rows, found)))
        return int(bool(self.wrong) or not (self.smoke or all(bar.passed for bar in found)))

    def _contend(self) -> None:
        """Run every contender, and compare what it found."""
        self._add("decode_floor", "decode floor", self._child("decode_floor"), "msgspec alone")
        batch = self._child("duckdb_batch")
        self.truth = batch.answers
        self._add("duckdb_batch", "DuckDB, one thread", batch, "exact batch query")
        with EmbeddedValkey() as valkey:
            self._plain(valkey)
            self._file(valkey)
            self._kafka(valkey)
            if not self.smoke:
                self._memory(valkey)

    def _bars(self) -> list[Bar]:
        found = bars(self.results)
        return found if self.smoke else found + self._conversions()

    def _ratios(self) -> dict[str, float]:
        return ratios(self.results)

    def _plain(self, valkey: EmbeddedValkey) -> None:
        for contender, name, note in (
            ("plain_bytewax", "plain Bytewax", "closed minutes only, no cohort, no roll-ups"),
            ("plain_tuned", "plain Bytewax, tuned", "the same unordered, 20,000 lines at once"),
        ):
            plain = self._child(contender, redis_url=valkey.url)
            self._compare(name, plain.answers)
            self._add(contender, name, plain, note)

    def _file(self, valkey: EmbeddedValkey) -> None:
        median, note = self._median("flow_file", redis_url=valkey.url)
        self._add("flow_file", "audiopixel, file", median, f"to Redis, recovery on{note}")
        whole = self._child("flow_file", "minutes", redis_url=valkey.url, minutes=True)
        self._compare("audiopixel", whole.answers)
        self._add("flow_minutes", "audiopixel, file, minutes", whole, "and minutes.ndjson, compared too")

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
            self._add("kafka_floor", "Kafka consumer alone", floor, f"embedded broker, nothing decoded{cost}")
            median, note = self._median("flow_kafka", redis_url=valkey.url, brokers=broker.bootstrap)
        share = median.rate / self.results["flow_file"].rate
        self._add(
            "flow_kafka", "audiopixel, Kafka", median, f"catching up, elapsed {share:.2f} of file{note}"
        )

    def _median(self, contender: str, *, redis_url: str = "", brokers: str = "") -> tuple[Result, str]:
        """The median run by processor time, all being compared, and a note of them."""
        runs = [
            self._child(contender, f"run {number + 1}", redis_url=redis_url, brokers=brokers)
            for number in range(1 if self.smoke else RUNS)
        ]
        for one in runs:
            self._compare(contender, one.answers)
        middle = statistics.median_low([one.cpu_rate for one in runs])
        median = next(one for one in runs if one.cpu_rate == middle)
        costs = ", ".join(f"{1e6 / one.cpu_rate:.2f}" for one in runs)
        return median, f"; median of {costs}" if len(runs) > 1 else ""

    def _memory(self, valkey: EmbeddedValkey) -> None:
        path, events = self.directory / "long.ndjson", LONGER * self.events
        self._write(path, events, rate=self.events / SHORT_S)
        long = self._child("flow_counts", log=path, events=events, redis_url=valkey.url)
        path.unlink()
        facts = long.facts
        note = (
            f"{LONGER * SHORT_S / 3600:g} h of log, conversions off; at half {facts['half_mib']:,.0f} MiB; "
            f"recovery store {facts['recovery_mib']:.0f} MiB"
        )
        self._add("flow_long", "audiopixel, long log", long, note)

    def _conversions(self) -> list[Bar]:
        with self.progress.status("conversions"):
            states = [touches.held(count, self.directory / f"touches-{count}") for count in LISTENERS]
            shares = touches.share(self.events, self.directory)
        return touches.show(self.console, *shares, states)

    def _write(self, path: Path, events: int, rate: float = 2000.0) -> int:
        with self.progress.status(f"writing {path.name}"):
            return write_log(path, events, SEED, rate=rate)

    def _add(self, key: str, name: str, result: Result, note: str) -> None:
        self.results[key] = result
        self.rows.append(Row(key, name, result, note))

    def _compare(self, who: str, answers: Answers) -> None:
        self.wrong += [f"{who} differs from DuckDB: {line}" for line in differences(self.truth, answers)]

    def _child(
        self,
        contender: str,
        variant: str = "",
        *,
        log: Path | None = None,
        events: int = 0,
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
            warm=str(self.warm),
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
        return msgspec.json.decode(result.read_bytes(), type=Result)
