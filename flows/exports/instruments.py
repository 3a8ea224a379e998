"""The live metrics of an export's process."""

from __future__ import annotations

from flows import process_metrics as m
from flows.registry import Registry
from flows.settings import Settings


class Instruments:
    """The outcomes of the messages of each export, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = Registry()
        self.sent, self.retried = registry.counter(m.EXPORT_SENT), registry.counter(m.EXPORT_RETRIED)
        self.dead, self.left_out = registry.counter(m.EXPORT_DEAD), registry.counter(m.EXPORT_LEFT_OUT)
        self.waiting, self.lag = registry.gauge(m.EXPORT_WAITING), registry.gauge(m.EXPORT_LAG)

    def serve(self, settings: Settings) -> None:
        """Serve /metrics in a thread; port 0 serves nothing.

        Raises:
            SettingsError: the port is taken.
        """
        self.registry.serve(settings.metrics_host, settings.export_port, "AUDIOPIXEL_EXPORT_PORT")
