"""Instruments of a collector: its metrics, its liveness and its readiness."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as Registered

from flows import metrics as m
from flows.collector.call import Understood
from flows.collector.lane import Lane
from flows.collector.ledger import Ledger
from flows.errors import SettingsError

_MOST_LABELS: Final = 1_000


class Instruments(Registered):
    """The collector's metrics, read from its ledger and its lane when they are asked for."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._cleaned: Counter[tuple[str, str, str]] = Counter()
        self._reasons: Counter[str] = Counter()
        self._answers: Counter[int] = Counter()
        self.lane: Callable[[], Lane | None] = lambda: None
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def cleaned(self, dialect: str, word: str, how: str) -> None:
        """A value was cleaned; labels are bounded by the dialects and words that there are."""
        key = (dialect, word, how)
        if key in self._cleaned or len(self._cleaned) < _MOST_LABELS:
            self._cleaned[key] += 1

    def rejected(self, understood: Sequence[Understood]) -> None:
        """Events were rejected."""
        self._reasons.update(one.reason for one in understood)

    def answered(self, status: int) -> None:
        """A call was answered."""
        self._answers[status] += 1

    def describe(self) -> Iterator[Metric]:
        """Describe no metric: the registry then collects none before a scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All metrics as they are; called in other threads than the event loop's."""
        ledger, lane = self._ledger, self.lane()
        outcomes = {
            "stored": ledger.stored,
            "not_counted": ledger.not_counted,
            "rejected": ledger.rejected,
            "refused": ledger.refused,
        }
        yield _counter(m.COLLECT_EVENTS, {(name,): value for name, value in outcomes.items()})
        yield _counter(m.COLLECT_ACKNOWLEDGED, {(): ledger.acknowledged})
        yield _counter(m.COLLECT_REJECTED, {(name,): value for name, value in dict(self._reasons).items()})
        yield _counter(
            m.COLLECT_ANSWERS, {(str(name),): value for name, value in dict(self._answers).items()}
        )
        yield _counter(m.COLLECT_CLEANED, dict(self._cleaned))
        if lane is not None:
            yield _gauge(m.COLLECT_RESTING, lane.resting)
            yield _gauge(m.COLLECT_SPOOL_BYTES, lane.spool.bytes)
            yield _gauge(m.COLLECT_SPOOL_FULL, lane.spool.full)
            yield _gauge(m.COLLECT_LOW, lane.told_ms / 1000)


def _counter(definition: m.Definition, values: dict[Any, int]) -> Metric:
    family = CounterMetricFamily(definition.name, definition.help, labels=definition.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(list(labels), value)
    return family


def _gauge(definition: m.Definition, value: float) -> Metric:
    return GaugeMetricFamily(definition.name, definition.help, value=value)


def health_server(
    host: str, port: int, instruments: Instruments, ready: Callable[[], bool], lane: Callable[[], Lane]
) -> Callable[[], None]:
    """Serve /metrics, /live and /ready in a thread of its own; returns what ends it. Port 0: nothing.

    Raises:
        SettingsError: the port is taken.
    """
    instruments.lane = lane
    if not port:
        return lambda: None

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._say(200, generate_latest(instruments.registry))
            elif self.path == "/live":
                self._say(200, b"alive\n")
            elif self.path == "/ready":
                now = ready()
                self._say(200 if now else 503, b"ready\n" if now else b"not ready\n")
            else:
                self._say(404, b"")

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise SettingsError(
            f"/ready cannot be served at {host}:{port} ({error.strerror}): end what listens there, or set "
            "AUDIOPIXEL_COLLECT_HEALTH_PORT"
        ) from None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server.shutdown
