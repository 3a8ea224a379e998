"""The order of a bench of rivals: all on one log, outputs compared, then the table and the bars."""

from __future__ import annotations

import importlib
from functools import partial
from typing import ClassVar, Final

from benchmarks.bench import EVERYTHING, LONG_EVENTS, Bench
from benchmarks.measure import Answers
from benchmarks.peers.job import Unavailable
from benchmarks.report import OURS, worse
from connectors.embedded import EmbeddedValkey

TRUTH: Final = "duckdb_job"
RIVALS: Final = {
    TRUTH: "batch, one thread",
    "flink": "one slot, one chain, exactly-once checkpoint a second",
    "jet": "one cooperative thread, exactly-once snapshot a second",
}
SAFE: Final = ("flink", "jet")
"""Rivals that keep their state safe, as the flow does."""


class PeersBench(Bench):
    """Audiopixel with everything on, beside rivals that do a third of its work.

    The flow is held to the full batch query, and so is DuckDB's answer to the rivals' job, where both
    count the same. The rivals are held to that answer.
    """

    name: ClassVar[str] = "peers"
    usual: ClassVar[int] = LONG_EVENTS

    def _contend(self) -> None:
        self.truth = self._child("duckdb_batch").answers
        names = dict[str, str]()
        for rival, about in RIVALS.items():
            module = importlib.import_module(f"benchmarks.peers.{rival}")
            try:
                with self.progress.status(f"building {rival}"):
                    names[rival] = f"{module.version()}: {about}"
            except Unavailable as reason:
                print(f"left out: {rival}: {reason}", flush=True)
        with EmbeddedValkey() as valkey:
            runs = self._by_turns(
                {OURS: partial(self._child, OURS, redis_url=valkey.url)}
                | {rival: partial(self._child, f"peers.{rival}") for rival in names}
            )
        self._take(OURS, EVERYTHING, runs[OURS])
        truth = runs[TRUTH][0].answers
        self._compare(TRUTH, truth)  # with the query that the flow is held to
        self.truth = Answers(self.truth.flights, truth.minutes)
        for rival, name in names.items():
            self._take(rival, name, runs[rival])

    def _figures(self) -> dict[str, float]:
        ours = self.results[OURS]
        return {f"by_{one}": worse(ours, self.results[one]) for one in SAFE if one in self.results}

    def _end(self) -> None:
        """Nothing."""
