"""uvicorn's HTTP/1.1 with deadlines. A request that is not complete in time ends its connection, and so does
an answer that the client does not read.

uvicorn itself has no deadline for the rest of a head or a body, so any client could occupy all its
descriptors with a byte a second. The computation of an answer has no deadline.
"""

from __future__ import annotations

import asyncio
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

WHOLE_S = 10.0
"""Seconds from the connection, or from the last answer, until the whole request must have arrived."""
TAKEN_S = 120.0
"""Seconds until a client must have read the pending data. An application can set a shorter time as `taken_s`
in the state of its request's scope.
"""
_AWAITED: Final = (h11.IDLE, h11.SEND_BODY)


class InTime(H11Protocol):
    """A connection with deadlines."""

    _body_timer: asyncio.TimerHandle | None = None
    _receipt_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as there
        """Wait for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Process a part of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadlines."""
        super().connection_lost(exc)
        self._unwatch()
        self._unhold()

    def pause_writing(self) -> None:
        """Start the deadline for the client to read the pending data."""
        super().pause_writing()
        if self._receipt_timer is None:
            state = self.scope.get("state", {}) if self.scope else {}
            self._receipt_timer = self.loop.call_later(state.get("taken_s", TAKEN_S), self.transport.abort)

    def resume_writing(self) -> None:
        """Cancel the deadline for reading."""
        super().resume_writing()
        self._unhold()

    def _unhold(self) -> None:
        if self._receipt_timer is not None:
            self._receipt_timer.cancel()
            self._receipt_timer = None

    def _watch(self) -> None:
        if self.conn.their_state not in _AWAITED:
            self._unwatch()
        elif self._body_timer is None and not self.transport.is_closing():
            self._body_timer = self.loop.call_later(WHOLE_S, self.transport.abort)

    def _unwatch(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
