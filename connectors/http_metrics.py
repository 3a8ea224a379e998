"""`/metrics` of a process, and a few short texts (the standard library's server, prometheus_client).

Unit of parallelism: a connection, each with a thread. Limit: a connection that sends nothing for five seconds
is closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import ThreadingWSGIServer, make_wsgi_app

from connectors.ports import family_of

SILENT_S: Final = 5
Page = Callable[[], tuple[str, bytes]]
"""Returns the status line, such as `200 OK`, and the text."""


class _Handler(WSGIRequestHandler):
    timeout = SILENT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def serve_metrics(
    host: str, port: int, registry: CollectorRegistry, pages: Mapping[str, Page]
) -> Callable[[], None]:
    """Serve the metrics of a registry; returns a function that stops it.

    Args:
        pages: texts by path. Without pages every path returns the metrics; with pages an unknown path returns
            404.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
        OverflowError: there is no such port.
    """
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics" or not pages:
            return metrics(environ, start)  # type: ignore[no-any-return]  # it has no types
        status, body = pages[path]() if path in pages else ("404 Not Found", b"")
        start(status, [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body)))])
        return [body]

    class Server(ThreadingWSGIServer):
        address_family = family_of(host)

    server = make_server(host, port, answer, Server, _Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop
