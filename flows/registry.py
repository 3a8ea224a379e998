"""A process's metrics in a registry of their own, made from their definitions, and their port."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, start_http_server

from flows.definition import Definition
from flows.errors import SettingsError


class Registry(CollectorRegistry):
    """Metrics by their definitions."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it ships no type for it
        super().__init__()

    def counter(self, definition: Definition) -> Counter:
        """A counter of this registry."""
        return Counter(definition.name, definition.help, definition.labels, registry=self)

    def gauge(self, definition: Definition) -> Gauge:
        """A gauge of this registry."""
        return Gauge(definition.name, definition.help, definition.labels, registry=self)

    def serve(self, host: str, port: int, setting: str) -> None:
        """Serve /metrics in a thread; port 0 serves nothing.

        Args:
            setting: the variable that has the port.

        Raises:
            SettingsError: the port is taken.
        """
        if not port:
            return
        try:
            start_http_server(port, host, self)
        except OSError as error:
            raise SettingsError(
                f"/metrics cannot be served at {host}:{port} ({error.strerror}): end what listens there, or "
                f"set {setting} (0: none)"
            ) from None
