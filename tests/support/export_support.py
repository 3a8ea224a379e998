"""Topics, what a flow tells of itself, and targets that fail, for tests of exports."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from confluent_kafka import Producer
from page_support import planned

from connectors.kafka import KafkaTable
from connectors.redis.client import Client
from flows.settings import Settings

Answering = Callable[[int], tuple[int, dict[str, str]] | None]
Judge = Callable[[int, str, bytes], bytes]
NOW_MS = int(time.time() * 1000)


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
    """A flow's `meta` with a flush every 20 ms. Each flush counts as four seconds by its number."""

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


def pixel(event: str, number: int, **more: Any) -> tuple[bytes, bytes]:
    body = {
        "event": event,
        "event_id": f"{event}-{number}",
        "ts": NOW_MS - 60_000 + number,
        "placement_id": "breakfast-uk",
        "campaign_id": "spring",
        "platform": "triton",
        "play_id": f"play-{number}",
        "consent": True,
        "listener_id": f"listener-{number}",
        "ga_client_id": f"{number % 3}.1700000000",
    }
    if event == "conversion":
        body |= {
            "landing_url": "https://shop.example/?utm_source=pod&utm_content=x",
            "conversion": {"type": "purchase", "order_id": f"o-{number}"},
        }
        del body["play_id"]
    return f"k{number}".encode(), json.dumps({**body, **more}).encode()


def decision(number: int, millionths: tuple[int, ...] = (1_000_000,)) -> tuple[bytes, bytes]:
    credits = [
        {
            "placement_id": f"p-{at}",
            "campaign_id": "spring",
            "way": "listen",
            "millionths": part,
            "touched_at": None,
        }
        for at, part in enumerate(millionths)
    ]
    body = {"conversion": f"o-{number}", "order_id": f"o-{number}", "event_id": f"conversion-{number}"}
    body |= {"type": "purchase", "ts": NOW_MS - 50_000, "campaign_id": "spring", "value_micros": 20_000_000}
    body |= {
        "currency": "GBP",
        "rule": "linear",
        "eligible": len(credits),
        "capped": False,
        "credits": credits,
    }
    return f"d{number}".encode(), json.dumps(body).encode()


def fill(topic: Topic, settings: Settings) -> None:
    pixels = [pixel(event, number) for number in range(12) for event in ("start", "complete")]
    secret = [
        pixel("start", 100, consent=False, listener_id="secret-a", ga_client_id="secret.a"),
        pixel("start", 101, consent=None, listener_id="secret-b", ga_client_id="secret.b"),
        pixel("conversion", 102, consent=False, listener_id="secret-c", ga_client_id="secret.c"),
        pixel("start", 103, invalid_traffic="declared_bot", ga_client_id="secret.d", listener_id="secret-d"),
        pixel("start", 104, ga_client_id="secret e", listener_id="[ID]"),
        pixel("start", 105, ga_client_id=None, listener_id=None),
    ]
    bought = [pixel("conversion", number) for number in range(4)]
    topic.put(settings.kafka_topic, *pixels, *secret, *bought, pixel("start", 3), (b"", b"{"), (b"", b"\xff"))
    topic.put(
        settings.kafka_credits_topic,
        *(decision(number) for number in range(3)),
        decision(3, (250_000, 750_000, 0)),
        decision(102),
        decision(999),
    )


def alert_of(placement: str, number: int, to: str = "under") -> tuple[bytes, bytes]:
    name = f"{placement}|{to}|{number}"
    fields = {"id": name, "placement": placement, "from": "on_track", "to": to, "booked": "1000"}
    fields |= {"as_of_ms": str(1_780_000_000_000 + number), "delivered": "400", "indicator": "0.512000"}
    return name.encode(), json.dumps(fields).encode()


def put_campaign(
    client: Client, space: str, now_ms: int, state: str = "on_track", name: str = "spring", **more: Any
) -> None:
    """A campaign of one placement, halfway, as of a moment."""
    row = planned(state, 1.0, 4_000, now_ms, campaign_id=name) | more
    for scope, of in (("campaign", name), ("placement", f"breakfast-{name}")):
        client.hset(f"{space}:{scope}:{{{of}}}", mapping={key: str(value) for key, value in row.items()})
        client.zadd(f"{space}:index:{scope}", {of: 1})
    meta = {"flushed_ms": now_ms, "watermark_ms": now_ms - 10_000, "judged": 1}
    client.hset(f"{space}:meta", mapping={key: str(value) for key, value in meta.items()})
