"""The live metrics of one process, made from their definitions in `flows.metrics`."""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, disable_created_metrics
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from flows.metrics import (
    ACCEPTED,
    BUILD,
    CAPPED_DECISIONS,
    CLOCK_SKEWED,
    DROPPED_TOUCHES,
    EVENT_TO_REDIS,
    FLUSH_DURATION,
    FLUSHED_ROWS,
    HOLDS_EVICTED,
    INVALID_TRAFFIC,
    KAFKA_ERRORS,
    LAG,
    LAST_FLUSH,
    LOW_MARK,
    MARKS,
    PARTITION_WATERMARK,
    PENDING_ROWS,
    RECEIVED,
    REDIS_ERRORS,
    REJECTED,
    REPEATED,
    SKIPPED,
    STATE_BYTES,
    STATE_PLAYS,
    STATE_ROWS,
    STATE_TOUCHES,
    WATERMARK,
    Definition,
)

LATENCY_BUCKETS: Final = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
FLUSH_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class WeightedHistogram(Collector):
    """A histogram whose observations have weights: thousands of pixels at once."""

    def __init__(self, definition: Definition, buckets: tuple[float, ...]) -> None:
        self._definition = definition
        self._bounds = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0

    def observe(self, value: float, weight: int = 1) -> None:
        """`weight` observations of `value`."""
        self._counts[bisect_left(self._bounds, value)] += weight
        self._sum += value * weight

    def collect(self) -> Iterator[Metric]:
        """One family without labels."""
        total = 0
        buckets = []
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        yield HistogramMetricFamily(
            self._definition.name, self._definition.help, buckets=buckets, sum_value=self._sum
        )


class Instruments:
    """The pipeline's metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it ships no type for it
        self.registry = registry = CollectorRegistry()

        def counter(definition: Definition) -> Counter:
            return Counter(definition.name, definition.help, definition.labels, registry=registry)

        def gauge(definition: Definition) -> Gauge:
            return Gauge(definition.name, definition.help, definition.labels, registry=registry)

        self.received, self.accepted, self.repeated = counter(RECEIVED), counter(ACCEPTED), counter(REPEATED)
        self.rejected, self.invalid_traffic = counter(REJECTED), counter(INVALID_TRAFFIC)
        self.clock_skewed, self.skipped, self.marks = counter(CLOCK_SKEWED), counter(SKIPPED), counter(MARKS)
        self.low_mark, self.holds_evicted = gauge(LOW_MARK), counter(HOLDS_EVICTED)
        self.lag, self.partition_watermark, self.watermark = (
            gauge(LAG),
            gauge(PARTITION_WATERMARK),
            gauge(WATERMARK),
        )
        self.last_flush, self.pending_rows = gauge(LAST_FLUSH), gauge(PENDING_ROWS)
        self.flushed_rows, self.redis_errors, self.kafka_errors = (
            counter(FLUSHED_ROWS),
            counter(REDIS_ERRORS),
            counter(KAFKA_ERRORS),
        )
        self.state_plays, self.state_bytes, self.state_rows = (
            gauge(STATE_PLAYS),
            gauge(STATE_BYTES),
            gauge(STATE_ROWS),
        )
        self.state_touches, self.dropped_touches = gauge(STATE_TOUCHES), gauge(DROPPED_TOUCHES)
        self.capped_decisions = gauge(CAPPED_DECISIONS)
        self.event_to_redis = WeightedHistogram(EVENT_TO_REDIS, LATENCY_BUCKETS)
        self.flush_duration = WeightedHistogram(FLUSH_DURATION, FLUSH_BUCKETS)
        registry.register(self.event_to_redis)
        registry.register(self.flush_duration)
        build = Info(BUILD.name.removesuffix("_info"), BUILD.help, registry=registry)
        build.info(
            {
                "version": version("audiopixel"),
                "python": platform.python_version(),
                "bytewax": version("bytewax"),
            }
        )


@cache
def instruments() -> Instruments:
    """The instruments of this process, made on first use."""
    return Instruments()
