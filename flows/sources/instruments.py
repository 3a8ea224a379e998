"""The live metrics of the sources of a process."""

from __future__ import annotations

from collections import Counter as Counts
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, start_http_server

from flows import metrics_beside as m
from flows.definition import Definition
from flows.errors import SettingsError
from flows.settings import Settings

_NO_CREATED: Final = disable_created_metrics


class Instruments:
    """The messages of each source by outcome, its lag and its low mark, in a registry of its own."""

    def __init__(self) -> None:
        _NO_CREATED()  # type: ignore[no-untyped-call]  # it ships no type for it
        self.registry = registry = CollectorRegistry()

        def counter(definition: Definition) -> Counter:
            return Counter(definition.name, definition.help, definition.labels, registry=registry)

        def gauge(definition: Definition) -> Gauge:
            return Gauge(definition.name, definition.help, definition.labels, registry=registry)

        self._messages, self._rejected = counter(m.SOURCE_MESSAGES), counter(m.SOURCE_REJECTED)
        self._lag, self._low_mark = gauge(m.SOURCE_LAG), gauge(m.SOURCE_LOW_MARK)

    def count(self, source: str, outcomes: Counts[str], rejected: Counts[str]) -> None:
        """Count messages of a source.

        Args:
            outcomes: messages by `pixels`, `not_ours` and `rejected`.
            rejected: the rejected ones by reason.
        """
        for outcome, count in outcomes.items():
            self._messages.labels(source, outcome).inc(count)
        for reason, count in rejected.items():
            self._rejected.labels(source, reason).inc(count)

    def mark(self, source: str, low_ms: int, lag: int) -> None:
        """Show a source's low mark, epoch ms, and the messages that it has not read."""
        self._low_mark.labels(source).set(low_ms / 1000)
        self._lag.labels(source).set(lag)

    def serve(self, settings: Settings) -> None:
        """Serve /metrics in a thread; port 0: nothing.

        Raises:
            SettingsError: the port is taken.
        """
        if not settings.sources_port:
            return
        host, port = settings.metrics_host, settings.sources_port
        try:
            start_http_server(port, host, self.registry)
        except OSError as error:
            raise SettingsError(
                f"/metrics cannot be served at {host}:{port} ({error.strerror}): end what listens there, or "
                "set AUDIOPIXEL_SOURCES_PORT (0: none)"
            ) from None
