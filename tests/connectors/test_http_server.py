"""Hostile clients: each costs a descriptor and a deadline, and the others are answered meanwhile."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import NamedTuple

import pytest

import connectors.http_server as module
from connectors.http_path import as_served
from connectors.http_server import NOT_ASCII, HttpServer, Request

DEADLINE_S = 1.0


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class Served:
    """A server with short deadlines, and what it was asked."""

    port: int
    requests: list[Request] = field(default_factory=list)

    async def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        return Answer(request.fault or 200, [], b"x" * int(request.query or "1"))

    def get(self) -> int:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("GET", "/p")
        return connection.getresponse().status

    def open(self, sent: bytes) -> socket.socket:
        one = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        one.sendall(sent)
        return one


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(module, "HEADER_DEADLINE_MS", int(DEADLINE_S * 1000))
    monkeypatch.setattr(module, "BODY_DEADLINE_S", DEADLINE_S)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        served = Served(one.getsockname()[1])
    loop = asyncio.new_event_loop()
    server: list[HttpServer] = []

    async def serve() -> None:
        server.append(HttpServer(served.answer, "127.0.0.1", served.port, 4_000, 1 << 20))
        await server[0].serve()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    for _ in range(200):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", served.port)) == 0:
                break
        time.sleep(0.02)
    yield served
    loop.call_soon_threadsafe(server[0].stop)
    thread.join(10)
    assert not thread.is_alive()


def rest_of(one: socket.socket) -> bytes:
    """All that comes until the other side closes, which it must do."""
    found = b""
    try:
        while some := one.recv(65_536):
            found += some
    except ConnectionResetError:
        pass
    return found


HALF = b"GET /p HTTP/1.1\r\nHost: x\r\nX-Half: "


@pytest.mark.parametrize("sent", [b"", HALF], ids=["nothing", "half a header"])
def test_an_incomplete_header_closes_the_connection_at_the_deadline(served: Served, sent: bytes) -> None:
    one, began_s = served.open(sent), time.monotonic()
    rest_of(one)
    assert time.monotonic() - began_s < DEADLINE_S + 2
    assert served.requests == []


def test_a_dribbled_header_closes_the_connection_at_the_same_deadline(served: Served) -> None:
    one, began_s = served.open(HALF), time.monotonic()
    while time.monotonic() - began_s < 8:
        try:
            one.sendall(b"a")
        except (BrokenPipeError, ConnectionResetError):
            break
        time.sleep(0.1)
    assert time.monotonic() - began_s < DEADLINE_S + 2


def test_a_silent_kept_connection_is_closed(served: Served) -> None:
    one = served.open(b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" in one.recv(1_000)
    began_s = time.monotonic()
    rest_of(one)
    assert time.monotonic() - began_s < DEADLINE_S + 2


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /p HTTP/1.1\r\nHost: x\r\nX-Large: %s\r\n\r\n" % (b"a" * 5_000_000),
        b"GET /p HTTP/1.1\r\nHost: x\r\n%s\r\n" % (b"".join(b"X-%d: y\r\n" % n for n in range(2_000))),
        b"GET /p?%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 200_000),
        b"\x16\x03\x01 no HTTP\r\n\r\n",
    ],
    ids=["5 MB of header", "2,000 headers", "a long line", "no HTTP"],
)
def test_headers_beyond_bounds_are_refused_and_never_reach_the_doors(served: Served, sent: bytes) -> None:
    try:
        said = rest_of(served.open(sent))
    except (BrokenPipeError, ConnectionResetError):
        said = b""  # it did not even read them
    assert said[9:12] in (b"431", b"414", b"400", b"")
    assert served.requests == []
    assert served.get() == 200


def test_an_unreadable_header_counts_as_present(served: Served) -> None:
    told = "User-Agent: \u0420\u0430\u0434\u0438\u043e/1.2\r\nX-A: 1\r\nX-A: 2\r\n".encode()
    one = served.open(b"GET /p HTTP/1.1\r\nHost: x\r\n" + told + b"X-Forwarded-For: \xe9, 8.8.8.8\r\n\r\n")
    assert b"200" in one.recv(1_000)
    (request,) = served.requests
    assert request.headers == {
        "host": "x", "x-a": "1,2", "user-agent": NOT_ASCII, "x-forwarded-for": NOT_ASCII,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"Content-Length: 1000000000\r\n\r\n", 413),
        (b"Content-Length: 100\r\n\r\nslow", 408),
        (b"Transfer-Encoding: chunked\r\n\r\n" + 40 * (b"8000\r\n" + b"a" * 0x8000 + b"\r\n"), 413),
    ],
    ids=["a length told", "slow", "endless"],
)
def test_bodies_beyond_bounds_are_not_read_on(served: Served, sent: bytes, status: int) -> None:
    one = served.open(b"POST /p HTTP/1.1\r\nHost: x\r\n" + sent)
    assert one.recv(1_000)[9:12] == b"%d" % status
    assert [request.fault for request in served.requests] == [status]
    began_s = time.monotonic()
    try:
        while time.monotonic() - began_s < 8:
            one.sendall(b"1000\r\n" + b"a" * 0x1000 + b"\r\n")
            time.sleep(0.05)
        raise AssertionError("it is read on")
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert served.get() == 200


def test_two_thousand_idle_connections_block_no_request(served: Served) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 4_256:  # the server has raised it as far as it may
        pytest.skip("too few descriptors for both ends")
    idle = [served.open(HALF) for _ in range(2_000)]
    began_s = time.monotonic()
    assert served.get() == 200
    assert time.monotonic() - began_s < 1
    for one in idle:
        one.close()


def test_a_client_that_reads_no_answers_is_not_served_further(served: Served) -> None:
    one = served.open(b"")
    one.setblocking(False)
    request = b"GET /p?60000 HTTP/1.1\r\nHost: x\r\n\r\n"
    began_s = time.monotonic()
    while time.monotonic() - began_s < 1.5:
        try:
            one.send(request * 20)
        except BlockingIOError:
            time.sleep(0.02)
        except (BrokenPipeError, ConnectionResetError):
            break
    answered = len(served.requests)
    time.sleep(0.5)
    assert len(served.requests) == answered < 2_000  # what the two ends' buffers hold, and no more
    assert served.get() == 200
    one.close()


def test_pipelined_requests_are_answered_in_their_order(served: Served) -> None:
    one = served.open(b"".join(b"GET /p?%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in (1, 2, 3)))
    found = b""
    while found.count(b"xxx") < 1:
        found += one.recv(65_536)
    lengths = [line for line in found.lower().split(b"\r\n") if line.startswith(b"content-length")]
    assert lengths == [b"content-length: %d" % n for n in (1, 2, 3)]


def test_a_repeated_header_is_one_list(served: Served) -> None:
    one = served.open(
        b"GET /p HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.1.1.1\r\nX-FORWARDED-FOR: 2.2.2.2\r\n\r\n"
    )
    assert one.recv(1_000)[9:12] == b"200"
    assert served.requests[0].headers["x-forwarded-for"] == "1.1.1.1,2.2.2.2"


def test_letters_beyond_ascii_anywhere_are_answered(served: Served) -> None:
    one = served.open(b"GET /p/\xff?\xc3\xa9=1 HTTP/1.1\r\nHost: x\r\nUser-Agent: \xff\xfe\r\n\r\n")
    assert one.recv(1_000)[9:12] in (b"200", b"400")
    assert served.get() == 200


@pytest.mark.parametrize(
    "path",
    ["/p/cm360;pl=R%26B%2Bsoul;cm=50%25;pc=Der%20H%C3%BCgel;u=https:/%3Fa=1%26b=2%23c", "/p/triton"],
)
def test_an_encoded_path_stays_encoded(served: Served, path: str) -> None:
    one = served.open(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert one.recv(1_000)[9:12] == b"200"
    assert served.requests[0].path == as_served(path) == path


@pytest.mark.parametrize(
    "path",
    [
        *("/p/acast;pc=a%3Bb", "/p/acast%3Bpc=a", "/p/acast;pc=a;b", "/p/acast;pc=a&b", "/p/acast;pc=a+b%2B"),
        *("/p/acast;pc%3Dx=1", "/p/cm360;u=a%2Fb", "/p/acast;pc=50%", "/p/acast;pc=%2541", "/p/%74riton"),
        *("/p/acast;pc=%C3%A9%FF", "/p/acast;pc=%zz%4", "/p/acast;pc=%25zz", "/p/%41%252F", "/p/50%"),
    ],
)
def test_a_path_is_served_as_is_said(served: Served, path: str) -> None:
    one = served.open(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert one.recv(1_000)[9:12] == b"200"
    assert served.requests[0].path == as_served(path)
