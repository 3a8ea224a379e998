"""uvicorn's HTTP/1.1 with a deadline: a request that is not whole in time ends its connection.

uvicorn itself waits for ever for the rest of a head or a body, so that anybody could hold all its descriptors
by a byte a second. An answer may take as long as it likes.
"""

from __future__ import annotations

import asyncio
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

WHOLE_S = 10.0
"""From the connection, or the answer before, until the whole request is here, in s."""
_AWAITED: Final = (h11.IDLE, h11.SEND_BODY)


class InTime(H11Protocol):
    """One connection."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as there
        """Wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing."""
        super().connection_lost(exc)
        self._unwatch()

    def _watch(self) -> None:
        if self.conn.their_state not in _AWAITED:
            self._unwatch()
        elif self._due is None and not self.transport.is_closing():
            self._due = self.loop.call_later(WHOLE_S, self.transport.abort)

    def _unwatch(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
