"""The live metrics of an export's process."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, start_http_server

from flows import metrics_beside as m
from flows.definition import Definition
from flows.errors import SettingsError
from flows.settings import Settings

_NO_CREATED: Final = disable_created_metrics


class Instruments:
    """The outcomes of the messages of each export, in a registry of its own."""

    def __init__(self) -> None:
        _NO_CREATED()  # type: ignore[no-untyped-call]  # it ships no type for it
        self.registry = registry = CollectorRegistry()

        def counter(definition: Definition) -> Counter:
            return Counter(definition.name, definition.help, definition.labels, registry=registry)

        def gauge(definition: Definition) -> Gauge:
            return Gauge(definition.name, definition.help, definition.labels, registry=registry)

        self.sent, self.retried = counter(m.EXPORT_SENT), counter(m.EXPORT_RETRIED)
        self.dead, self.left_out = counter(m.EXPORT_DEAD), counter(m.EXPORT_LEFT_OUT)
        self.waiting, self.lag = gauge(m.EXPORT_WAITING), gauge(m.EXPORT_LAG)

    def serve(self, settings: Settings) -> None:
        """Serve /metrics in a thread; port 0: nothing.

        Raises:
            SettingsError: the port is taken.
        """
        if not settings.export_port:
            return
        host, port = settings.metrics_host, settings.export_port
        try:
            start_http_server(port, host, self.registry)
        except OSError as error:
            raise SettingsError(
                f"/metrics cannot be served at {host}:{port} ({error.strerror}): end what listens there, or "
                "set AUDIOPIXEL_EXPORT_PORT (0: none)"
            ) from None
