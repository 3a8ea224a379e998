"""The live metrics of one process, made from their definitions in `flows.metrics`."""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from itertools import accumulate
from typing import Final

from prometheus_client import Info
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from flows import metrics as m
from flows.metrics import Definition
from flows.model.release import VERSION
from flows.registry import Registry

LATENCY_BUCKETS: Final = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
FLUSH_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class WeightedHistogram(Collector):
    """A histogram whose observations have weights, so that thousands of pixels are one observation.

    Attributes:
        sum: the sum of all observations by weight.
    """

    def __init__(self, definition: Definition, buckets: tuple[float, ...]) -> None:
        self._definition = definition
        self._bounds = buckets
        self._counts = [0] * (len(buckets) + 1)
        self.sum = 0.0

    def observe(self, value: float, weight: int = 1) -> None:
        """Add `weight` observations of `value`."""
        self._counts[bisect_left(self._bounds, value)] += weight
        self.sum += value * weight

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """Each upper bound, with the weight of all observations up to it."""
        bounds = [*map(str, self._bounds), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True))

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram, which has no labels."""
        yield HistogramMetricFamily(
            self._definition.name, self._definition.help, buckets=self.buckets, sum_value=self.sum
        )


class Instruments:
    """The pipeline's metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = Registry()
        counter, gauge = registry.counter, registry.gauge
        self.received, self.marks = counter(m.RECEIVED), counter(m.MARKS)
        self.accepted, self.repeated = counter(m.ACCEPTED), counter(m.REPEATED)
        self.rejected, self.invalid_traffic = counter(m.REJECTED), counter(m.INVALID_TRAFFIC)
        self.clock_skewed, self.skipped = counter(m.CLOCK_SKEWED), counter(m.SKIPPED)
        self.unknown_labels = counter(m.UNKNOWN_LABELS)
        self.held_pixels, self.holds_released = gauge(m.HELD_PIXELS), counter(m.HOLDS_RELEASED)
        self.hold_since, self.feed_silent_since = gauge(m.HOLD_SINCE), gauge(m.FEED_SILENT_SINCE)
        self.low_mark, self.holds_evicted = gauge(m.LOW_MARK), counter(m.HOLDS_EVICTED)
        self.wrong_clocks, self.cloned = gauge(m.WRONG_CLOCKS), gauge(m.CLONED)
        self.lag, self.partition_watermark = gauge(m.LAG), gauge(m.PARTITION_WATERMARK)
        self.watermark, self.last_flush = gauge(m.WATERMARK), gauge(m.LAST_FLUSH)
        self.pending_rows, self.flushed_rows = gauge(m.PENDING_ROWS), counter(m.FLUSHED_ROWS)
        self.redis_errors, self.kafka_errors = counter(m.REDIS_ERRORS), counter(m.KAFKA_ERRORS)
        self.save_pause, self.save_waits = counter(m.SAVE_PAUSE), counter(m.SAVE_WAITS)
        self.state_plays, self.state_bytes = gauge(m.STATE_PLAYS), gauge(m.STATE_BYTES)
        self.state_rows, self.state_touches = gauge(m.STATE_ROWS), gauge(m.STATE_TOUCHES)
        self.state_clients = gauge(m.STATE_CLIENTS)
        self.dropped_touches = gauge(m.DROPPED_TOUCHES)
        self.state_home_touches = gauge(m.STATE_HOME_TOUCHES)
        self.capped_decisions = gauge(m.CAPPED_DECISIONS)
        self.state_claims, self.confirmed = gauge(m.STATE_CLAIMS), counter(m.CONFIRMED)
        self.event_to_redis = WeightedHistogram(m.EVENT_TO_REDIS, LATENCY_BUCKETS)
        self.flush_duration = WeightedHistogram(m.FLUSH_DURATION, FLUSH_BUCKETS)
        registry.register(self.event_to_redis)
        registry.register(self.flush_duration)
        build = Info(m.BUILD.name.removesuffix("_info"), m.BUILD.help, registry=registry)
        build.info({"version": VERSION, "python": platform.python_version(), "bytewax": version("bytewax")})


@cache
def instruments() -> Instruments:
    """The instruments of this process, made on first use."""
    return Instruments()
