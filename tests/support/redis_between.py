"""A Redis in which something happens between two commands of a client: a proxy that passes on one by one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, Self

from redis import Redis

from connectors.embedded import EmbeddedValkey

Dump = dict[bytes, tuple[bytes, int]]
"""Key to its content and what is left of its TTL, in ms (0: none)."""


def dump(redis: Redis) -> Dump:
    """All that a server holds."""
    return {key: (redis.dump(key), max(0, redis.pttl(key))) for key in redis.scan_iter(count=1000)}


def bring_back(redis: Redis, held: Dump) -> None:
    """Let a server hold what it once held, and nothing else."""
    redis.flushall()
    for key, (content, ttl_ms) in held.items():
        redis.restore(key, ttl_ms, content)


class Between:
    """Listens for clients of `server`; asks `then` behind each command, with how many there were, before the
    client has its reply. If that says so, the connection ends with the reply: the server was restarted. What
    the client gets is what `instead` makes of the reply.
    """

    def __init__(self, server: EmbeddedValkey) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.commands: list[str] = []
        self.then: Callable[[int], bool] = lambda _: False
        self.instead: Callable[[bytes], bytes] = lambda reply: reply
        self.refuses = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        while self._open:
            _end(self._open.pop())

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refuses:
                    _end(client)
                    continue
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._server.port)) as server:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open.add(client)
            asked, answered = client.makefile("rb"), server.makefile("rb")
            while command := whole(asked):
                server.sendall(command)
                reply = whole(answered)
                if not reply:
                    break
                self.commands.append(command.split(b"\r\n")[2].decode())
                over = self.then(len(self.commands))
                client.sendall(self.instead(reply))
                if over:
                    break
        _end(client)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def whole(stream: BinaryIO) -> bytes:
    """One value of the protocol, with all that is in it; nothing at the end of the stream."""
    line = stream.readline()
    kind, size = line[:1], line[1:].strip()
    if kind in (b"$", b"=", b"!") and size != b"-1":
        return line + stream.read(int(size) + 2)
    if kind in (b"*", b"~", b">", b"%") and size != b"-1":
        parts = int(size) * (2 if kind == b"%" else 1)
        return line + b"".join(whole(stream) for _ in range(parts))
    return line
