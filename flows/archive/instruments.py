"""The live metrics of the process that writes an archive."""

from __future__ import annotations

from flows import process_metrics as m
from flows.archive.series import Series
from flows.registry import Registry
from flows.settings import Settings


class Instruments:
    """The progress of each partition, in its own registry."""

    def __init__(self) -> None:
        self.registry = registry = Registry()
        self.messages = registry.counter(m.ARCHIVE_MESSAGES)
        self.retried = registry.counter(m.ARCHIVE_RETRIED)
        self.unreadable = registry.gauge(m.ARCHIVE_UNREADABLE)
        self.forgotten = registry.gauge(m.ARCHIVE_FORGOTTEN)
        self._through, self._lag = registry.gauge(m.ARCHIVE_THROUGH), registry.gauge(m.ARCHIVE_LAG)
        self._missing, self._offset = registry.gauge(m.ARCHIVE_MISSING), registry.gauge(m.ARCHIVE_OFFSET)

    def show(self, series: Series, lag: int) -> None:
        """Show the position of a partition's series, and its number of unread messages."""
        name = series.part.name
        self._through.labels(name).set(series.through_ms / 1000)
        self._lag.labels(name).set(lag)
        self._missing.labels(name).set(series.lost)
        self._offset.labels(name).set(series.part.next)

    def serve(self, settings: Settings) -> None:
        """Serve /metrics in a thread; at port 0 do nothing.

        Raises:
            SettingsError: the port is taken.
        """
        self.registry.serve(settings.metrics_host, settings.archive_port, "AUDIOPIXEL_ARCHIVE_PORT")
