"""POST to one address over a connection that is kept open (the standard library's client).

Unit of parallelism: a client; each belongs to one thread. Guarantee: an answer, or `CallFailed`, within twice
the timeout, whatever the other side does. Redirects are not followed, proxies are not used, and at most 64
KiB of an answer are read. The server may have accepted a failed call all the same.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection, RemoteDisconnected
from typing import Final, NamedTuple
from urllib.parse import urlsplit

MAX_ANSWER_BYTES: Final = 64 << 10
_NO_ANSWER: Final = (OSError, HTTPException, ValueError)
"""The errors of a call. ValueError is the standard library's for a chunk of negative length."""
_STALE: Final = (RemoteDisconnected, ConnectionResetError, BrokenPipeError)


class CallFailed(Exception):
    """A call has no answer.

    Attributes:
        reason: `timeout`, or `away` for every other failure.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Answer(NamedTuple):
    """An answer. Header names are in lower case. A body over 64 KiB is cut to its beginning."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def retry_after(header: str | None, now_s: float) -> timedelta | None:
    """The pause in seconds that `Retry-After` asks for, in seconds or by a date; None if it is unreadable."""
    if header is None:
        return None
    if header.isascii() and header.isdigit():
        # Six digits exceed a day, and Python refuses numbers of thousands of digits.
        return timedelta(seconds=min(int(header.lstrip("0")[:6] or "0"), 86_400))
    try:
        return timedelta(seconds=max(0.0, parsedate_to_datetime(header).timestamp() - now_s))
    except (ValueError, OverflowError):
        return None


class HttpClient:
    """A client of one address.

    Args:
        url: `https://…` or `http://…`; its path and query may be secret, so no message contains them.
        timeout: for connecting, and again for the rest of a call.

    Raises:
        ValueError: the address is malformed.
    """

    def __init__(self, url: str, timeout: timedelta) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError("takes https://HOST/PATH or http://HOST/PATH, without a user")
        self._host, self._secure = parts.hostname, parts.scheme == "https"
        # Without a port, the client would parse the end of an IPv6 address as one.
        self._port = parts.port if parts.port is not None else 443 if self._secure else 80
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout_s = timeout.total_seconds()
        self._connection: HTTPConnection | None = None
        self._late = False

    def post(self, body: bytes, headers: Mapping[str, str], query: str = "") -> Answer:
        """Send `body`; `query` is appended to the address's own.

        Raises:
            CallFailed: there is no answer.
        """
        target = self._target
        if query:
            target += f"{'&' if '?' in target else '?'}{query}"
        reused = self._connection is not None
        try:
            return self._post(target, body, headers)
        except _STALE as error:
            if reused and not self._late:  # the server had closed the kept-alive connection
                return self._fresh(target, body, headers)
            raise self._failed(error) from None
        except _NO_ANSWER as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _fresh(self, target: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        self.close()
        try:
            return self._post(target, body, headers)
        except _NO_ANSWER as error:
            raise self._failed(error) from None

    def _post(self, target: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        if self._connection is None:
            make = HTTPSConnection if self._secure else HTTPConnection
            self._connection = make(self._host, self._port, timeout=self._timeout_s)
        connection, self._late = self._connection, False
        connection.connect() if connection.sock is None else None
        # A socket's timeout is for each read: a byte now and then would delay the call for ever.
        deadline = threading.Timer(self._timeout_s, self._cut, (connection.sock,))
        deadline.daemon = True
        deadline.start()
        try:
            connection.request("POST", target, body, dict(headers))
            answer = connection.getresponse()
            content = answer.read(MAX_ANSWER_BYTES)
            if self._late:
                raise TimeoutError
            answer_headers = {name.lower(): value for name, value in answer.getheaders()}
            if not answer.isclosed():  # there is more of it
                self.close()
            return Answer(answer.status, answer_headers, content)
        finally:
            deadline.cancel()

    def _cut(self, connected: socket.socket) -> None:
        self._late = True
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    def _failed(self, error: Exception) -> CallFailed:
        self.close()
        reason = "timeout" if self._late or isinstance(error, TimeoutError) else "away"
        return CallFailed(reason, f"{self._host}: {type(error).__name__}")
