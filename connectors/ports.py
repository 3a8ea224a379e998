"""Addresses and ports of this machine."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress


def family_of(host: str) -> socket.AddressFamily:
    """The address family of a host to listen on."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def url_of(host: str, port: int) -> str:
    """`http://HOST:PORT`."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` different ports that are free now. Another process may bind them first."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind((host, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def free_run(count: int, host: str = "127.0.0.1") -> int:
    """The first of `count` consecutive ports that are free now.

    The kernel's own choice (port 0) would be unsafe: outgoing connections soon get its neighbours.
    """
    while True:
        first = random.randrange(20_000, 32_000 - count)
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + count):
                opened = stack.enter_context(socket.socket())
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                opened.bind((host, port))
            return first
