"""The time that each stage of a call takes, sampled: the clock is read for one call in `EVERY` alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric

from flows import process_metrics as m
from flows.collector.laps import UNTIMED, Laps
from flows.instruments import WeightedHistogram

STAGES: Final = ("parse", "clean", "device", "consent", "invalid_traffic", "hash", "encode", "durable")
"""The stages in their order. `hash` makes ids, pseudonyms and the signature's check, and fills the event;
`durable` waits for Kafka or the disk.
"""
EVERY: Final = 64
"""One call in this many is timed."""
BUCKETS_S: Final = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)


class Stages:
    """A histogram for each stage."""

    def __init__(self, clock_s: Callable[[], float] = time.perf_counter) -> None:
        self._clock_s = clock_s
        self._calls = 0
        self._times = {stage: WeightedHistogram(m.COLLECT_STAGE, BUCKETS_S) for stage in STAGES}

    def begin(self) -> Laps:
        """The stopwatch of the next call."""
        self._calls += 1
        return Laps(self._observe, self._clock_s) if self._calls % EVERY == 1 else UNTIMED

    def _observe(self, stage: str, seconds: float) -> None:
        self._times[stage].observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Report the family of histograms, by stage."""
        family = HistogramMetricFamily(
            m.COLLECT_STAGE.name, m.COLLECT_STAGE.help, labels=m.COLLECT_STAGE.labels
        )
        for stage, times in self._times.items():
            family.add_metric([stage], times.buckets, times.sum)
        yield family
