"""A Redis in which something happens between two commands of a client: a proxy that passes on one by one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import BinaryIO

from proxy import Proxy
from redis import Redis

from connectors.embedded import HOST, EmbeddedValkey

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


class Between(Proxy):
    """Listens for clients of `server`, and calls `then` with the number of commands after each one, before
    the client has its reply. If `then` returns True, the connection ends with the reply, like a restarted
    server. The client gets the reply that `instead` makes.
    """

    def __init__(self, server: EmbeddedValkey) -> None:
        self._server = server
        self.commands: list[str] = []
        self.then: Callable[[int], bool] = lambda _: False
        self.instead: Callable[[bytes], bytes] = lambda reply: reply
        self.refuses = False
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def serve(self, client: socket.socket) -> None:
        """Pass commands and replies on, one by one."""
        if self.refuses:
            return
        with socket.create_connection((HOST, self._server.port)) as server:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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


def whole(stream: BinaryIO) -> bytes:
    """A value of the protocol with all its parts; nothing at the end of the stream."""
    line = stream.readline()
    kind, size = line[:1], line[1:].strip()
    if kind in (b"$", b"=", b"!") and size != b"-1":
        return line + stream.read(int(size) + 2)
    if kind in (b"*", b"~", b">", b"%") and size != b"-1":
        parts = int(size) * (2 if kind == b"%" else 1)
        return line + b"".join(whole(stream) for _ in range(parts))
    return line
