"""The live metrics of the sources of a process."""

from __future__ import annotations

from collections import Counter

from flows import process_metrics as m
from flows.registry import Registry
from flows.settings import Settings


class Instruments:
    """The messages of each source by outcome, its lag and its low mark, in its own registry."""

    def __init__(self) -> None:
        self.registry = registry = Registry()
        self._messages = registry.counter(m.SOURCE_MESSAGES)
        self._rejected = registry.counter(m.SOURCE_REJECTED)
        self._lag, self._low_mark = registry.gauge(m.SOURCE_LAG), registry.gauge(m.SOURCE_LOW_MARK)
        self._waiting = registry.gauge(m.SOURCE_WAITING)

    def count(self, source: str, outcomes: Counter[str], rejected: Counter[str]) -> None:
        """Count messages of a source.

        Args:
            outcomes: messages by `pixels`, `not_ours` and `rejected`.
            rejected: the rejected ones by reason.
        """
        for outcome, count in outcomes.items():
            self._messages.labels(source, outcome).inc(count)
        for reason, count in rejected.items():
            self._rejected.labels(source, reason).inc(count)

    def mark(self, source: str, low_ms: int, lag: int, waiting: int = 0) -> None:
        """Show a source's low mark, in epoch ms, its number of unread messages, and its number of partitions
        that wait for a schema.
        """
        self._waiting.labels(source).set(waiting)
        self._low_mark.labels(source).set(low_ms / 1000)
        self._lag.labels(source).set(lag)

    def serve(self, settings: Settings) -> None:
        """Serve /metrics in a thread; at port 0 do nothing.

        Raises:
            SettingsError: the port is taken.
        """
        self.registry.serve(settings.metrics_host, settings.sources_port, "AUDIOPIXEL_SOURCES_PORT")
