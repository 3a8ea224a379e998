"""An HTTP server in the event loop of one process (granian, RSGI), with its limits.

Unit of parallelism: a process; several may listen at one port, and the kernel distributes connections.
Limits: a header must be complete within its deadline, headers are bounded in bytes, a body that is too long
or comes too slowly is answered 413 or 408 and not read on, and connections are capped. A body that breaks off
before its announced length or its last chunk is answered 400, and no handler gets a part of it.
`X-Forwarded-For` is ignored here.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]  # it is exported at run time alone
from granian.server.embed import Server

from connectors.http_path import encoded
from connectors.ports import family_of

HEADER_DEADLINE_MS: Final = 5_000
BODY_DEADLINE_S: Final = 5.0
MAX_HEADER_BYTES: Final = 64 << 10
NOT_ASCII: Final = "\ufffd"
"""The value of a present header with bytes beyond ASCII: no readable header has this letter."""
OTHER_DESCRIPTORS: Final = 256
"""Descriptors that a process needs besides its connections."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request; header names are in lower case.

    Attributes:
        headers: an unreadable header is `NOT_ASCII`, never missing.
        fault: the status for a body that is not whole, too long or too slow: 400, 413, 408.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    peer: str
    fault: int = 0


class Answered(Protocol):
    """The result of a handler."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> list[tuple[str, str]]: ...

    @property
    def body(self) -> bytes: ...


class HttpServer:
    """Serves one handler; `serve` returns after `stop`, once all answers are sent.

    Args:
        handler: answers a request; whatever it raises is answered 500.
        connections: that are taken at a time.
        body_bytes: the greatest length of a body.
    """

    def __init__(
        self,
        handler: Callable[[Request], Awaitable[Answered]],
        host: str,
        port: int,
        connections: int,
        body_bytes: int,
    ) -> None:
        self._handler, self._body_bytes, self._answering = handler, body_bytes, 0
        self._host, self._port = host, port
        self._server = Server(
            self,
            host,
            port,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            websockets=False,
            backlog=1024,
            backpressure=_descriptors(connections),
            http1_settings=HTTP1Settings(
                header_read_timeout=HEADER_DEADLINE_MS, max_buffer_size=MAX_HEADER_BYTES
            ),
            log_enabled=False,
        )

    async def serve(self) -> None:
        """Serve until `stop`.

        Raises:
            OSError: the port is another program's, or the address is not this machine's.
        """
        with socket.socket(family_of(self._host)) as probe:
            # The server itself would panic; processes that share the port all set this.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind((self._host, self._port))
        await self._server.serve()
        while self._answering:
            await asyncio.sleep(0.01)

    @property
    def listening(self) -> bool:
        """True if connections are taken."""
        return bool(self._server.wrks)

    def stop(self) -> None:
        """Accept no more connections, answer the present requests, and let `serve` return."""
        self._server.stop()  # type: ignore[no-untyped-call]  # it has no types
        self._server.main_loop_interrupt.set()

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Handle a request, as granian passes it."""
        if scope.proto != "http":
            return
        self._answering += 1
        try:
            body, fault = await _body(scope, protocol, self._body_bytes)
            answer = await self._handler(_request(scope, body, fault))
            protocol.response_bytes(answer.status, answer.headers, answer.body)
        finally:
            self._answering -= 1


def _descriptors(connections: int) -> int:
    """Make room for a descriptor for each connection; returns the number of connections with one.

    Without descriptors nothing could be accepted, nor a spool's next file be made.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_DESCRIPTORS
    if hard == resource.RLIM_INFINITY or wanted <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        return connections
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(hard - OTHER_DESCRIPTORS, hard // 2)


def _request(scope: Any, body: bytes, fault: int) -> Request:
    headers: dict[str, str] = {}
    for name, value in scope.headers.items():
        # A repeated header is a list in parts.
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    if len(names := scope.headers.keys()) > len(headers):
        # `items` leaves out what is not ASCII. For a header that is sent twice it returns the right line:
        # proxies join all lines, or append their own to the client's, and their own counts.
        headers |= {name: NOT_ASCII for name in names if name not in headers}
    peer = str(scope.client).rpartition(":")[0].strip("[]")
    return Request(scope.method, encoded(scope.path), scope.query_string, headers, body, peer, fault)


async def _body(scope: Any, protocol: Any, most: int) -> tuple[bytes, int]:
    """The whole body, or the status for one that is not whole, too long or too slow."""
    if scope.method not in ("POST", "PUT", "PATCH"):
        return b"", 0
    length = scope.headers.get("content-length")
    if length is not None and (not length.isdigit() or int(length) > most):
        return b"", 413
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            if length is None:
                return await _chunks(protocol, most)
            body = await protocol()
    except TimeoutError:
        return b"", 408
    except ProtocolClosed:
        return b"", 400
    return (body, 0) if len(body) == int(length) else (b"", 400)


async def _chunks(protocol: Any, most: int) -> tuple[bytes, int]:
    """A body of unknown length.

    The server yields an empty chunk for the end, and one more before it if the body broke off or its framing
    is wrong. It yields the same for trailers, which no sender uses: such a body counts as broken. Awaiting
    the whole body would raise instead, and has no limit.
    """
    chunks, size, empty = [], 0, 0
    async for chunk in protocol:
        size += len(chunk)
        if size > most:
            return b"", 413
        empty += not chunk
        chunks.append(chunk)
    return (b"".join(chunks), 0) if empty == 1 else (b"", 400)
