"""A Kafka broker that does not answer some requests: a proxy that keeps them and their answers back."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from proxy import Proxy, end

from connectors.embedded import HOST

FETCH: Final = 1
LIST_OFFSETS: Final = 2
METADATA: Final = 3
DESCRIBE_CONFIGS: Final = 32
"""API keys."""


class Between(Proxy):
    """Listens for clients of the broker at `port` of this machine; they learn of no other address.

    Attributes:
        deaf: API keys of the requests that stay unanswered, those under way too.
    """

    def __init__(self, port: int) -> None:
        self.deaf: set[int] = set()
        self._broker = port
        super().__init__()

    @property
    def bootstrap(self) -> str:
        """Its `bootstrap.servers`."""
        return f"{HOST}:{self.port}"

    def serve(self, client: socket.socket) -> None:
        """Pass requests on, and answers by a thread of their own."""
        server = socket.create_connection((HOST, self._broker))
        self.open.add(server)
        asked: dict[bytes, int] = {}  # the API key of each request by its number
        threading.Thread(target=self._answer, args=(server, client, asked), daemon=True).start()
        with suppress(OSError):
            for request in _frames(client):
                key = asked[request[8:12]] = int.from_bytes(request[4:6])
                if key not in self.deaf:
                    server.sendall(request)
        end(server)

    def _answer(self, server: socket.socket, client: socket.socket, asked: dict[bytes, int]) -> None:
        its, ours = (HOST.encode() + struct.pack(">i", port) for port in (self._broker, self.port))
        with suppress(OSError):
            for answer in _frames(server):
                if asked.pop(answer[4:8]) not in self.deaf:
                    client.sendall(answer.replace(its, ours))
        end(client)


def _frames(connection: socket.socket) -> Iterator[bytes]:
    """The requests or answers of a connection, each with its length in front."""
    stream = connection.makefile("rb")
    while length := stream.read(4):
        yield length + stream.read(int.from_bytes(length))
