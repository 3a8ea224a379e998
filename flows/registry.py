"""A registry of a process's metrics, made from their definitions, and the port that serves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

from connectors.http_metrics import Page, serve_metrics
from flows.definition import Definition
from flows.errors import SettingsError


class Registry(CollectorRegistry):
    """A registry that makes metrics from their definitions."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no type for it
        super().__init__()

    def counter(self, definition: Definition) -> Counter:
        """A counter of this registry."""
        return Counter(definition.name, definition.help, definition.labels, registry=self)

    def gauge(self, definition: Definition) -> Gauge:
        """A gauge of this registry."""
        return Gauge(definition.name, definition.help, definition.labels, registry=self)

    def serve(
        self, host: str, port: int, setting: str, pages: Mapping[str, Page] | None = None
    ) -> Callable[[], None]:
        """Serve /metrics in a thread; port 0 serves nothing. Returns a function that stops it.

        Args:
            setting: the name of the port's variable. Each of several processes takes the next port.
            pages: further pages, as of `connectors.http_metrics`.

        Raises:
            SettingsError: the port is in use or out of range, or the host is not this machine.
        """
        if not port:
            return lambda: None
        try:
            return serve_metrics(host, port, self, pages or {})
        except OSError as error:
            raise SettingsError(
                f"/metrics cannot be served at {host}:{port} ({error.strerror}): end what listens there, or "
                f"set {setting} (each further process takes the next port; 0: none)"
            ) from None
        except OverflowError:
            raise SettingsError(
                f"/metrics cannot be served at port {port}: ports end at 65535, and each process takes the "
                f"next one: set {setting} lower"
            ) from None
