"""The doors on a real HTTP server, and the outcomes of the calls to it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

from collector_support import HOME, NOW_MS, understanding
from test_doors import Kept

from connectors.http_server import HttpServer, Request
from flows.collector.call import Call
from flows.collector.doors import Answer, Doors
from flows.collector.store import Store
from flows.model.catalogue.limits import MAX_BODY_BYTES


@dataclass
class Served:
    """Doors on their own server. The outcomes of a test's calls are in the book named by its `host`."""

    port: int
    books: dict[str, Kept] = field(default_factory=dict)

    async def answer(self, request: Request) -> Answer:
        call = Call(request.method, request.path, request.query, request.headers, request.body, HOME, NOW_MS)
        book = self.books.setdefault(request.headers["host"], Kept())
        doors = Doors(understanding(), cast(Store, book))
        return await (doors.unread(call, request.fault) if request.fault else doors.answer(call))

    def new_book(self) -> str:
        """The host of the calls of one test."""
        host = f"book-{len(self.books)}"
        self.books[host] = Kept()
        return host

    def outcomes(self, host: str, events: int) -> Counter[str]:
        """The outcomes of a book's events, once there are so many."""
        book, deadline = self.books[host].events, time.monotonic() + 10
        while len(book) < events:
            assert time.monotonic() < deadline, f"{len(book)} of {events} events"
            time.sleep(0.01)
        return Counter(one.reason or one.outcome.value for one in book)


@contextmanager
def serving() -> Iterator[Served]:
    """Serve until the end of the block."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        found = Served(one.getsockname()[1])
    loop = asyncio.new_event_loop()
    server: list[HttpServer] = []

    async def serve() -> None:
        server.append(HttpServer(found.answer, "127.0.0.1", found.port, 4_000, MAX_BODY_BYTES))
        await server[0].serve()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    for _ in range(500):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", found.port)) == 0:
                break
        time.sleep(0.02)
    yield found
    loop.call_soon_threadsafe(server[0].stop)
    thread.join(10)
    assert not thread.is_alive()
