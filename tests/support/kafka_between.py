"""A Kafka broker that does not answer some requests: a proxy that keeps them and their answers back."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Self

from connectors.embedded import HOST

FETCH: Final = 1
LIST_OFFSETS: Final = 2
METADATA: Final = 3
DESCRIBE_CONFIGS: Final = 32
"""API keys."""


class Between:
    """Listens for clients of the broker at `port` of this machine; they learn of no other address.

    Attributes:
        deaf: API keys of the requests that stay unanswered, those under way too.
    """

    def __init__(self, port: int) -> None:
        self.deaf: set[int] = set()
        self._listener = socket.create_server((HOST, 0))
        self._ports = port, int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def bootstrap(self) -> str:
        """Its `bootstrap.servers`."""
        return f"{HOST}:{self._ports[1]}"

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
                server = socket.create_connection((HOST, self._ports[0]))
                self._open |= {client, server}
                asked: dict[bytes, int] = {}  # the API key of each request by its number
                threading.Thread(target=self._ask, args=(client, server, asked), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client, asked), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, asked: dict[bytes, int]) -> None:
        with suppress(OSError):
            for request in _frames(client):
                key = asked[request[8:12]] = int.from_bytes(request[4:6])
                if key not in self.deaf:
                    server.sendall(request)
        _end(server)

    def _answer(self, server: socket.socket, client: socket.socket, asked: dict[bytes, int]) -> None:
        its, ours = (HOST.encode() + struct.pack(">i", port) for port in self._ports)
        with suppress(OSError):
            for answer in _frames(server):
                if asked.pop(answer[4:8]) not in self.deaf:
                    client.sendall(answer.replace(its, ours))
        _end(client)


def _frames(connection: socket.socket) -> Iterator[bytes]:
    """The requests or answers of a connection, each with its length in front."""
    stream = connection.makefile("rb")
    while length := stream.read(4):
        yield length + stream.read(int.from_bytes(length))


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
