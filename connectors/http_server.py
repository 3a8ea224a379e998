"""An HTTP server in the event loop of one process (granian, RSGI), with its limits.

Unit of parallelism: a process; several may listen at one port, and the kernel deals connections out. Limits:
a header must be whole within its deadline, headers are bounded in bytes, a body that is longer than it may be
or comes too slowly is answered 413 or 408 and not read on, and connections are capped. `X-Forwarded-For` is
not looked at here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

HEADER_DEADLINE_MS: Final = 5_000
BODY_DEADLINE_S: Final = 5.0
MOST_BODY_BYTES: Final = 1 << 20
MOST_HEADER_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    peer: str


class Answered(Protocol):
    """What a handler returns."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> list[tuple[str, str]]: ...

    @property
    def body(self) -> bytes: ...


class _BodyError(Exception):
    def __init__(self, status: int) -> None:
        self.status = status


class HttpServer:
    """Serves one handler; `serve` returns when `stop` was called and all answers are out.

    Args:
        handler: answers a request; whatever it raises is answered 500.
        connections: that are taken at a time.
    """

    def __init__(
        self, handler: Callable[[Request], Awaitable[Answered]], host: str, port: int, connections: int
    ) -> None:
        self._handler, self._answering = handler, 0
        self._server = Server(
            self,
            host,
            port,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            websockets=False,
            backlog=1024,
            backpressure=connections,
            http1_settings=HTTP1Settings(
                header_read_timeout=HEADER_DEADLINE_MS, max_buffer_size=MOST_HEADER_BYTES
            ),
            log_enabled=False,
        )

    async def serve(self) -> None:
        """Serve until `stop`."""
        await self._server.serve()
        while self._answering:
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Take no more connections, answer what is there, and let `serve` return."""
        self._server.stop()  # type: ignore[no-untyped-call]  # it has no types
        self._server.main_loop_interrupt.set()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """One request, as granian gives it."""
        if scope.proto != "http":
            return
        self._answering += 1
        try:
            try:
                body = await _body(scope, protocol)
                answer = await self._handler(_request(scope, body))
                status, headers, content = answer.status, answer.headers, answer.body
            except _BodyError as error:
                status, headers, content = error.status, [("connection", "close")], b""
            protocol.response_bytes(status, headers, content)
        finally:
            self._answering -= 1


def _request(scope: Any, body: bytes) -> Request:
    headers = {name.lower(): value for name, value in scope.headers.items()}
    peer = str(scope.client).rpartition(":")[0].strip("[]")
    return Request(scope.method, scope.path, scope.query_string, headers, body, peer)


async def _body(scope: Any, protocol: Any) -> bytes:
    """The body, as far as it is allowed to be."""
    if scope.method not in ("POST", "PUT", "PATCH"):
        return b""
    told = scope.headers.get("content-length")
    if told is not None and (not told.isdigit() or int(told) > MOST_BODY_BYTES):
        raise _BodyError(413)
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            async for chunk in protocol:
                size += len(chunk)
                if size > MOST_BODY_BYTES:
                    raise _BodyError(413)
                chunks.append(chunk)
    except TimeoutError:
        raise _BodyError(408) from None
    return b"".join(chunks)
