"""Topics, what a flow tells of itself, and targets that fail, for tests of exports."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from confluent_kafka import Producer

from connectors.kafka import KafkaTable
from connectors.redis.client import Client
from flows.settings import Settings

Answering = Callable[[int], tuple[int, dict[str, str]] | None]
Judge = Callable[[int, str, bytes], bytes]


def _empty(*_: object) -> bytes:
    return b""


class Topic:
    """Puts messages into a topic."""

    def __init__(self, brokers: str) -> None:
        self._producer = Producer({"bootstrap.servers": brokers, "log_level": 0})

    def put(self, topic: str, *messages: tuple[bytes, bytes], partition: int | None = None) -> None:
        for key, value in messages:
            where = {} if partition is None else {"partition": partition}
            self._producer.produce(topic, value, key, **where)
        assert self._producer.flush(20) == 0


class Flow:
    """What a flow tells of itself in `meta`, a flush every 20 ms, each four seconds by its number."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client, self._key = client, f"{settings.namespace}:meta"
        self.fields: dict[str, Any] = {"generation": 0, "fence": 7, "rev": 0, "watermark_ms": 0}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._flush, daemon=True)

    def flush(self) -> None:
        self.fields["rev"] += 200
        self._client.hset(self._key, mapping=dict(self.fields))

    def _flush(self) -> None:
        while not self._over.wait(0.02):
            self.flush()

    def __enter__(self) -> Flow:
        self.flush()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class Site:
    """A target.

    Args:
        answer: of a call's number, status and headers, or None to hang up without an answer.
        judge: of a call's number, query and body, the body of a success.
    """

    def __init__(
        self, answer: Callable[[int], tuple[int, dict[str, str]] | None], judge: Judge = _empty
    ) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.taken: list[tuple[dict[str, str], bytes]] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                call = ({name.lower(): value for name, value in self.headers.items()}, body)
                site.calls.append(call)
                said = answer(len(site.calls))
                if said is None or 200 <= said[0] < 300:
                    site.taken.append(call)
                if said is None:
                    self.close_connection = True
                    return
                words = judge(len(site.calls), self.path.partition("?")[2], body) if said[0] == 200 else b""
                self.send_response(said[0])
                for name, value in {**said[1], "content-length": str(len(words))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(words)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?token=s3cret"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def until(holds: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def letters_of(settings: Settings) -> list[dict[str, Any]]:
    table = KafkaTable(settings.kafka_brokers, settings.kafka_exports_rejected_topic)
    letters: list[dict[str, Any]] = []
    try:
        until(
            lambda: (
                bool(
                    letters.extend(
                        json.loads(one.value or b"") for one in table.read(settings.flush_interval)
                    )
                )
                or table.caught_up
            )
        )
    finally:
        table.close()
    return letters
