"""A small HTTP client for the demo's calls to the collector, over a few connections that stay open."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple

ANSWER_S: Final = 10.0
_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Fire(NamedTuple):
    """An HTTP call."""

    target: str
    headers: Mapping[str, str]
    method: str = "GET"
    body: bytes = b""


class Caller:
    """Calls one port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[_Stream] = []

    async def call(self, fire: Fire) -> int:
        """Make a call, and return the status of the answer; 0 if there is none."""
        stream = self._free.pop() if self._free else None
        try:
            if stream is None:
                stream = await asyncio.open_connection("127.0.0.1", self._port)
            status, stays = await asyncio.wait_for(_exchange(stream, fire), ANSWER_S)
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
            if stream is not None:
                stream[1].close()
            return 0
        if stays:
            self._free.append(stream)
        else:
            stream[1].close()
        return status

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._free:
            with suppress(OSError):
                writer.close()


async def _exchange(stream: _Stream, fire: Fire) -> tuple[int, bool]:
    reader, writer = stream
    length = {"content-length": str(len(fire.body))} if fire.method == "POST" else {}
    headers = {"host": "pixels.example", **fire.headers, **length}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"{fire.method} {fire.target} HTTP/1.1\r\n{lines}\r\n".encode() + fire.body)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    if fire.method != "HEAD":
        for line in head.split("\r\n"):
            if line.startswith("content-length:"):
                await reader.readexactly(int(line.partition(":")[2]))
    return int(head.split(" ", 2)[1]), "connection: close" not in head
