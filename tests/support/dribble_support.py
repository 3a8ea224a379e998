"""A server that answers little by little."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def dribbling(at_once: bytes, rest: bytes, pause_s: float) -> Iterator[str]:
    """The address of a server that answers one call, `rest` a byte at a time, to the end or until the client
    leaves.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(at_once)
                for byte in rest:
                    try:
                        connection.sendall(bytes([byte]))
                    except OSError:
                        return
                    time.sleep(pause_s)

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
