"""Helpers for tests of rules and dashboards: Prometheus's programs and a web site, on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import yaml
from reader_support import READ_ENVIRONMENT, READER

from connectors.ports import free_ports

HOST = "127.0.0.1"
GENERATED = Path(__file__).parents[2] / "dashboards" / "generated"

T = TypeVar("T")


def program(name: str, package: str) -> str:
    """The path of a program of Debian's; skips the test where it is missing, and says how to install it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs {name}: apt-get install --no-install-recommends {package}")
    return path


def promtool(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = program("promtool", "prometheus")
    return subprocess.run([path, *arguments], capture_output=True, text=True, timeout=120, cwd=cwd)


def eventually(get: Callable[[], T], seconds: float = 30) -> T:
    """The first true result of `get`."""
    deadline = time.monotonic() + seconds
    while not (found := get()):
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.05)
    return found


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.TransportError:
        return False


@contextmanager
def process(command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """A program that runs meanwhile; its output is in `log`."""
    with log.open("wb") as out:
        child = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
    try:
        yield
    finally:
        child.kill()
        child.wait()


@contextmanager
def prometheus(directory: Path, config: Mapping[str, Any]) -> Iterator[httpx.Client]:
    """A Prometheus that is ready, as a client of its API; `config` as in prometheus.yml."""
    path = program("prometheus", "prometheus")
    (port,) = free_ports(1)
    (directory / "prometheus.yml").write_text(yaml.safe_dump(dict(config)))
    command = [
        path,
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/tsdb",
        f"--web.listen-address={HOST}:{port}",
        "--log.level=warn",
    ]
    log = directory / "prometheus.log"
    with process(command, log), httpx.Client(base_url=f"http://{HOST}:{port}", timeout=10) as client:
        eventually(lambda: answers(f"{client.base_url}/-/ready"))
        yield client


@contextmanager
def alertmanager(directory: Path, config: str) -> Iterator[httpx.Client]:
    """An Alertmanager that is ready, alone, as a client of its API."""
    path = program("prometheus-alertmanager", "prometheus-alertmanager")
    (port,) = free_ports(1)
    (directory / "alertmanager.yml").write_text(config)
    command = [
        path,
        f"--config.file={directory}/alertmanager.yml",
        f"--storage.path={directory}/alertmanager",
        f"--web.listen-address={HOST}:{port}",
        "--cluster.listen-address=",
    ]
    log = directory / "alertmanager.log"
    with process(command, log), httpx.Client(base_url=f"http://{HOST}:{port}", timeout=10) as client:
        eventually(lambda: answers(f"{client.base_url}/-/ready"))
        yield client


@contextmanager
def exporter(redis_url: str, directory: Path) -> Iterator[int]:
    """The exporter as users start it; its port."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "flows.cli", "exporter", "--host", HOST, "--port", str(port)]
    settings = {**READ_ENVIRONMENT, "AUDIOPIXEL_REDIS_URL": redis_url}
    with process(command, directory / "exporter.log", settings):
        eventually(lambda: answers(f"http://{HOST}:{port}/healthz"))
        yield port


class Site:
    """A web site: serves what `answer` gives for a method and path, and keeps what is posted.

    Attributes:
        posted: (path, decoded JSON) in the order of arrival.
    """

    def __init__(self, answer: Callable[[str, str], tuple[int, bytes]]) -> None:
        self.posted: list[tuple[str, Any]] = []
        self.heads: list[Mapping[str, str]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                site.heads.append(dict(self.headers))
                if length:
                    site.posted.append((self.path, json.loads(self.rfile.read(length))))
                status, body = answer(self.command, self.path)
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.send_header("content-type", "application/json" if body[:1] in b"{[" else "text/plain")
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = _serve

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://{HOST}:{self.port}"

    def __enter__(self) -> Site:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def scrape(job: str, port: int, path: str = "/metrics") -> dict[str, Any]:
    """A scrape job of prometheus.yml, by a token that `exporter` takes."""
    return {
        "job_name": job,
        "metrics_path": path,
        "static_configs": [{"targets": [f"{HOST}:{port}"]}],
        "authorization": {"credentials": READER},
    }
