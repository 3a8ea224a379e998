"""Parcels that are HTTP calls: their connections, and the meaning of an answer.

A status about the message (400, 413, 415, 422, 431) makes the message a dead letter. Any other failure is
about the target, such as a wrong address or token. The call is then tried again, so a mistake in the settings
loses nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import Final, Protocol

from connectors.http_client import Answer, CallFailed, HttpClient, retry_after
from connectors.kafka import Record
from flows.exports.handover import Busy, Refused

_OF_THE_MESSAGE: Final = frozenset((400, 413, 415, 422, 431))
AGENT: Final = {"user-agent": f"audiopixel/{version('audiopixel')}"}


class Caller:
    """Posts to one address, with a connection for each thread.

    Raises:
        ValueError: the address is no URL of HTTP.
    """

    def __init__(self, url: str, timeout: timedelta) -> None:
        self._url, self._timeout, self._of_thread = url, timeout, threading.local()
        HttpClient(url, timeout)

    def post(self, body: bytes, headers: Mapping[str, str], query: str = "") -> Answer:
        """Send, and return the answer of a success.

        Raises:
            Busy: there is no answer, or its status is about the target.
            Refused: its status is about the message.
        """
        client: HttpClient | None = getattr(self._of_thread, "client", None)
        if client is None:
            client = self._of_thread.client = HttpClient(self._url, self._timeout)
        try:
            answer = client.post(body, {**AGENT, **headers}, query)
        except CallFailed as error:
            raise Busy(error.reason, str(error)) from None
        if 200 <= answer.status < 300:
            return answer
        if answer.status in _OF_THE_MESSAGE:
            raise Refused(f"status_{answer.status}")
        after = retry_after(answer.headers.get("retry-after"), time.time())
        raise Busy(f"status_{answer.status}", after=after)


@dataclass(frozen=True)
class Event:
    """An event for people or programs.

    Attributes:
        key: the same at each attempt.
        kind: `delivery.state_changed`, `feed.state_changed` or `methodology.changed`.
        at_ms: the event's time, in epoch ms.
        data: its facts by name.
    """

    key: str
    kind: str
    at_ms: int
    data: Mapping[str, object]


class Form(Protocol):
    """The form of a message's call."""

    def call(self, event: Event) -> tuple[bytes, Mapping[str, str]]:
        """The body and headers of an attempt. The key is the same at each attempt."""
        ...


@dataclass
class Notice:
    """An event as one call."""

    caller: Caller
    form: Form
    event: Event
    records: Sequence[Record]

    def hand_over(self) -> None:
        try:
            body, headers = self.form.call(self.event)
        except RecursionError:  # writing needs more stack than reading
            raise Refused("malformed", "has too many levels") from None
        self.caller.post(body, headers)
