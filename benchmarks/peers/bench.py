"""The order of a bench of rivals: all on one log, outputs compared, then the table and the bars."""

from __future__ import annotations

import importlib
from typing import Final

from benchmarks.bench import Bench
from benchmarks.measure import Answers
from benchmarks.peers.job import Unavailable
from benchmarks.report import OURS, Bar, worse
from connectors.embedded import EmbeddedValkey

TRUTH: Final = "duckdb_job"
RIVALS: Final = {
    TRUTH: "batch, one thread",
    "clickhouse": "batch, one thread",
    "polars_streaming": "streaming engine, one thread; nothing saved",
    "flink": "one slot, one chain, exactly-once checkpoint a second",
    "jet": "one cooperative thread, exactly-once snapshot a second",
    "java_loop": "the same Java without an engine",
    "rust_loop": "the floor: one compiled loop",
}
BARS: Final = {"flink": 1.5, "jet": 1.5}
"""Rivals that keep their state safe, as the flow does, and how many times as fast as they it has to be."""


class PeersBench(Bench):
    """Audiopixel with everything on, beside rivals that do a third of its work.

    The flow is held to the full batch query, and so is DuckDB's answer to the rivals' job, where both
    count the same. The rivals are held to that answer.
    """

    def _contend(self) -> None:
        self.truth = self._child("duckdb_batch").answers
        with EmbeddedValkey() as valkey:
            median, note = self._median(OURS, redis_url=valkey.url)
        self._add(OURS, "audiopixel", median, f"everything, to Redis, recovery on{note}")
        for rival, about in RIVALS.items():
            module = importlib.import_module(f"benchmarks.peers.{rival}")
            try:
                with self.progress.status(f"building {rival}"):
                    name = module.version()
            except Unavailable as reason:
                self.console.print(f"left out: {rival}: {reason}", markup=False, highlight=False)
                continue
            median, note = self._median(f"peers.{rival}")
            if rival == TRUTH:
                self.truth = Answers(self.truth.flights, median.answers.minutes)
            self._add(rival, name, median, f"{about}{note}")

    def _bars(self) -> list[Bar]:
        ours = self.results[OURS]
        return [
            Bar(f"flow by {rival}, the worse of elapsed and CPU", worse(ours, self.results[rival]), bound)
            for rival, bound in BARS.items()
            if rival in self.results
        ]

    def _ratios(self) -> dict[str, float]:
        ours = self.results[OURS].cpu_rate
        return {rival: ours / self.results[rival].cpu_rate for rival in RIVALS if rival in self.results}
