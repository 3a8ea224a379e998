"""Clients that send little and cost much: a cookie, a context, half a request, one that hangs up."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from access_support import access, app_of, asked, bearer, put_two_advertisers
from board_support import eventually
from starlette.applications import Starlette

from connectors import http_deadline
from connectors.http_deadline import InTime
from flows.settings import Settings, load
from flows.viewers.guard import COOKIE
from flows.viewers.minutes_topic import WAITING, MinutesTopic, MinutesUnread
from flows.viewers.reader import RowsReader

WHOLE_S = 0.5
THREADS = 40
"""Of anyio, for all that may wait."""


@pytest.fixture(scope="module")
def settings(valkey: Any) -> Settings:
    put_two_advertisers(valkey.url, "hostile")
    return load(redis_url=valkey.url, namespace="hostile")


@pytest.fixture(scope="module")
def app(settings: Settings) -> Starlette:
    return app_of(settings, access())


@contextmanager
def served(app: Any) -> Iterator[int]:
    """The port of an application, behind uvicorn as the exporter has it."""
    config = uvicorn.Config(app, http=InTime, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            eventually(lambda: server.started)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture
def port(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(http_deadline, "WHOLE_S", WHOLE_S)
    with served(app) as port:
        yield port


def ended_s(port: int, head: bytes, then: bytes, every_s: float = 0.05) -> float:
    """The time until the server ends a connection on which `then` is sent over and over."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(head)
        began_s = time.monotonic()
        client.setblocking(False)
        while (passed_s := time.monotonic() - began_s) < 10:
            try:
                client.sendall(then)
                while client.recv(1 << 16):
                    pass
                return passed_s
            except BlockingIOError:
                time.sleep(every_s)
            except OSError:
                return passed_s
    return float("inf")


@pytest.mark.parametrize("letters", ["\\", '\\"'])
def test_a_cookie_of_any_letters_costs_next_to_nothing(app: Starlette, letters: str) -> None:
    cookie = f'{COOKIE}="{letters * (60_000 // len(letters))}"'
    began_s = time.process_time()
    (answer,) = asked(app, ("GET", "/v1/meta", {"cookie": cookie}))
    assert time.process_time() - began_s < 1
    assert answer.status_code == 401


def test_a_context_of_any_depth_is_answered_or_refused(app: Starlette) -> None:
    async def statuses() -> list[int]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="https://desk.example") as client:
            answers = [
                await client.post(
                    "/adcp/get_adcp_capabilities",
                    content='{"context":' + '{"a":' * deep + "1" + "}" * (deep + 1),
                    headers=bearer("mine"),
                )
                for deep in range(850, 1_010)
            ]
            return [answer.status_code for answer in answers]

    # Python 3.11 refuses from about 900 on, 3.12 at none of these depths.
    assert set(asyncio.run(statuses())) <= {200, 400}


@pytest.mark.parametrize(
    ("head", "then"),
    [
        (b"", b""),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\na: ", b"a"),
        (b"POST /login HTTP/1.1\r\nhost: x\r\ncontent-length: 4000\r\n\r\n", b"a"),
        (b"POST /login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 4000\r\n\r\n", b"a"),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET", b"a"),
    ],
    ids=["nothing", "head", "body", "chunks", "refused", "second"],
)
def test_an_incomplete_request_ends_its_connection_at_the_deadline(
    port: int, head: bytes, then: bytes
) -> None:
    assert WHOLE_S * 0.9 < ended_s(port, head, then) < 5


def test_an_unread_answer_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_deadline, "TAKEN_S", WHOLE_S)
    ends: list[float] = []

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        began_s = time.monotonic()
        await receive()
        gone = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            await asyncio.sleep(0)
        ends.append(time.monotonic() - began_s)

    with served(endless) as port, socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        eventually(lambda: ends, 8)
    assert ends[0] > WHOLE_S * 0.9


def test_a_stream_and_a_connection_in_use_last_longer(port: int) -> None:
    headers = {**bearer("all"), "host": "desk.example"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
        with client.stream("GET", "/events") as stream:
            assert "all" in next(stream.iter_lines())
            time.sleep(3 * WHOLE_S)
            assert not stream.is_closed
        began_s, opened = time.monotonic(), set()
        while time.monotonic() - began_s < 3 * WHOLE_S:
            answer = client.get("/healthz")
            opened.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
            time.sleep(WHOLE_S / 5)
        assert len(opened) == 1


def test_one_token_has_so_many_streams_and_the_others_have_theirs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.viewers.feed.MAX_STREAMS", 3)

    def opened(port: int, who: str) -> tuple[socket.socket, int]:
        stream = socket.create_connection(("127.0.0.1", port), timeout=10)
        token = bearer(who)["authorization"]
        stream.sendall(f"GET /events HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\n\r\n".encode())
        said = stream.makefile("rb")
        status = int(said.readline().split()[1])
        while status == 200 and said.readline().strip():
            pass
        if status == 200 and who == "all":  # whose rows are there without a tick
            said.readline()
        return stream, status

    with served(app_of(settings, access())) as port:
        streams = [opened(port, "all") for _ in range(4)]
        assert [status for _, status in streams] == [200, 200, 200, 429]
        other, status = opened(port, "mine")
        assert status == 200
        other.close()
        for stream, _ in streams:
            stream.shutdown(socket.SHUT_RDWR)
            stream.close()

        def again() -> bool:
            stream, status = opened(port, "all")
            stream.close()
            return status == 200

        eventually(again)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


@contextmanager
def reading(port: int, many: int) -> Iterator[list[socket.socket]]:
    """Streams of one token, of which nothing is taken."""
    token = bearer("all")["authorization"]
    streams = [socket.socket() for _ in range(many)]
    for stream in streams:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stream.connect(("127.0.0.1", port))
        stream.sendall(f"GET /events HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\n\r\n".encode())
    try:
        yield streams
    finally:
        for stream in streams:
            stream.close()


def test_readers_of_one_version_share_one_copy(settings: Settings) -> None:
    feed = app_of(settings, access()).state.feed
    first = feed.whole()
    assert feed.whole()[1] is first[1]
    feed.tick(watched=True)
    assert feed.whole()[0] == first[0] + 1


def test_readers_that_read_nothing_are_dropped_cheaply(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.viewers.page.TAKEN_S", 3.0)
    app = app_of(settings, access())
    feed, event = app.state.feed, bytes(32 << 20)
    monkeypatch.setattr(feed, "whole", lambda view: (1, event))
    with served(app) as port:
        before_mb = resident_mb()
        with reading(port, 10):
            eventually(lambda: feed.everything.viewers == 10)
            time.sleep(1)
            assert resident_mb() - before_mb < 100, "each would have a copy of 32 MB"
            eventually(lambda: feed.everything.viewers == 0, 10)


def test_a_slowly_dribbling_reader_is_dropped(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.viewers.page.EVENT_S", 1.0)
    monkeypatch.setattr("flows.viewers.page.TAKEN_S", 3.0)
    app = app_of(settings, access())
    feed, event = app.state.feed, bytes(32 << 20)
    monkeypatch.setattr(feed, "whole", lambda view: (1, event))
    with served(app) as port, reading(port, 1) as (stream,):
        eventually(lambda: feed.everything.viewers == 1)
        began_s = time.monotonic()
        while feed.everything.viewers and time.monotonic() - began_s < 20:
            assert stream.recv(1 << 15)
            time.sleep(0.05)
        assert not feed.everything.viewers


def test_all_tokens_together_have_so_many_streams(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.viewers.feed.MAX_ALL_STREAMS", 3)
    app = app_of(settings, access())
    with served(app) as port, reading(port, 3):
        eventually(lambda: app.state.feed.everything.viewers == 3)
        answer = httpx.get(f"http://127.0.0.1:{port}/events", headers=bearer("mine"))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")


@pytest.mark.parametrize("path", ["/login", "/adcp/get_reporting_status", "/api/tag"])
def test_whoever_hangs_up_within_a_body_leaves_no_word(
    port: int, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    with caplog.at_level(logging.WARNING):
        token = bearer("all")["authorization"]
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\ncontent-length: 9\r\n\r\n{{"
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head.encode())
            time.sleep(0.2)
        time.sleep(0.3)
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").text == "ok\n"
    # An earlier test of this process may have left a client of Kafka, which says that its broker has gone.
    said = [one for one in caplog.records if not one.name.startswith("connectors.kafka")]
    assert said == []


# Threads


def test_only_a_few_requests_wait_for_minutes_at_once() -> None:
    def away() -> Any:
        raise MinutesUnread("Kafka is away")

    topic = MinutesTopic(away)
    topic.wait_s = 1.0
    waits_s: list[float] = []

    def ask() -> None:
        began_s = time.monotonic()
        with pytest.raises(MinutesUnread):
            topic.of_placement("a")
        waits_s.append(time.monotonic() - began_s)

    threads = [threading.Thread(target=ask) for _ in range(10 * WAITING)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wait_s > 0.9 for wait_s in waits_s) == WAITING
    topic.close()


def test_it_is_healthy_while_every_thread_waits(
    app: Starlette, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, over = threading.Semaphore(0), threading.Event()

    def row(*_: object) -> dict[str, str]:
        waiting.release()
        over.wait(60)
        return {}

    monkeypatch.setattr(RowsReader, "row", row)
    base = f"http://127.0.0.1:{port}"

    def ask() -> None:
        httpx.get(f"{base}/v1/campaigns/x", headers=bearer("mine"), timeout=60)

    threads = [threading.Thread(target=ask) for _ in range(THREADS + 10)]
    for thread in threads:
        thread.start()
    try:
        assert all(waiting.acquire(timeout=30) for _ in range(THREADS))
        for path in ("/healthz", "/", "/page/page.css"):
            assert httpx.get(base + path, headers=bearer("mine"), timeout=10).status_code == 200
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
