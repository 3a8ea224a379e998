"""The order of a bench of rivals: all on one log, outputs compared, then the table and the bars."""

from __future__ import annotations

import importlib
from typing import ClassVar, Final

from benchmarks.bench import EVERYTHING, Bench
from benchmarks.measure import Answers
from benchmarks.peers.job import Unavailable
from benchmarks.report import OURS, worse
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
SAFE: Final = ("flink", "jet")
"""Rivals that keep their state safe, as the flow does."""


class PeersBench(Bench):
    """Audiopixel with everything on, beside rivals that do a third of its work.

    The flow is held to the full batch query, and so is DuckDB's answer to the rivals' job, where both
    count the same. The rivals are held to that answer.
    """

    name: ClassVar[str] = "peers"

    def _contend(self) -> None:
        self.truth = self._child("duckdb_batch").answers
        with EmbeddedValkey() as valkey:
            self._take(OURS, EVERYTHING, self._runs(OURS, redis_url=valkey.url))
        for rival, about in RIVALS.items():
            module = importlib.import_module(f"benchmarks.peers.{rival}")
            try:
                with self.progress.status(f"building {rival}"):
                    name = module.version()
            except Unavailable as reason:
                print(f"left out: {rival}: {reason}")
                continue
            runs = self._runs(f"peers.{rival}")
            if rival == TRUTH:
                self._compare(rival, runs[0].answers)  # with the query that the flow is held to
                self.truth = Answers(self.truth.flights, runs[0].answers.minutes)
            self._take(rival, f"{name}: {about}", runs)

    def _figures(self) -> dict[str, float]:
        ours = self.results[OURS]
        return {f"by_{one}": worse(ours, self.results[one]) for one in SAFE if one in self.results}

    def _end(self) -> None:
        """Nothing."""
