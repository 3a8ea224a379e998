"""The server of /metrics: metrics, further texts, silent connections, and its end."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry, Gauge

from connectors import http_metrics
from connectors.http_metrics import Page, serve_metrics
from connectors.ports import free_ports, url_of

PAGES: Mapping[str, Page] = {
    "/live": lambda: ("200 OK", b"alive\n"),
    "/ready": lambda: ("503 Service Unavailable", b"not ready\n"),
}


@contextmanager
def serving(pages: Mapping[str, Page]) -> Iterator[int]:
    registry = CollectorRegistry()
    Gauge("up_to_now", "A gauge.", registry=registry).set(7)
    (port,) = free_ports(1)
    stop = serve_metrics("127.0.0.1", port, registry, pages)
    try:
        yield port
    finally:
        stop()


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_metrics_and_texts_are_served_and_other_paths_are_not() -> None:
    with serving(PAGES) as port:
        status, body = get(port, "/metrics")
        assert status == 200
        assert b"up_to_now 7.0" in body
        assert get(port, "/live") == (200, b"alive\n")
        assert get(port, "/ready") == (503, b"not ready\n")
        assert get(port, "/metrics/x") == (404, b"")


def test_without_texts_each_path_has_the_metrics() -> None:
    with serving({}) as port:
        assert b"up_to_now 7.0" in get(port, "/")[1]


def test_a_silent_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_metrics._Handler, "timeout", 0.2)
    with serving({}) as port, socket.create_connection(("127.0.0.1", port), 10) as silent:
        assert silent.recv(1) == b""


def test_its_port_is_free_again_after_its_end() -> None:
    with serving({}) as port:
        pass
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_an_address_is_written_as_a_url() -> None:
    assert url_of("127.0.0.1", 80) == "http://127.0.0.1:80"
    assert url_of("::1", 80) == "http://[::1]:80"
