"""The log as lanes write to it: lines of events, marks, and reports of their arrival."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from connectors.kafka_reports import Produced, Report, ReportingProducer

_KEY: Final = b',"_key":'
_RECEIVED: Final = b'{"received_at":'
_encode: Final = msgspec.json.Encoder().encode
"""Encodes in less time than `msgspec.json.encode`, which makes an encoder for each value."""


class Line(NamedTuple):
    """An event as JSON that begins with its time of receipt, and its Kafka key."""

    body: bytes
    key: bytes

    def sealed(self) -> bytes:
        """The line as it rests on the spool: with its key."""
        return b"%s%s%s}" % (self.body[:-1], _KEY, msgspec.json.encode(self.key.decode()))


def line_of(event: dict[str, Any], key: bytes) -> Line:
    """The line of a canonical event."""
    body = _encode(event)
    if not body.startswith(_RECEIVED):
        body = _encode({"received_at": event["received_at"]} | event)
    return Line(body, key)


def unsealed(body: bytes) -> Line:
    """The line of a record of the spool."""
    key_begin = body.rindex(_KEY)
    key: str = msgspec.json.decode(body[key_begin + len(_KEY) : -1])
    return Line(body[:key_begin] + b"}", key.encode())


def received_ms(body: bytes) -> int:
    """The time of receipt of an event's line."""
    begin = len(_RECEIVED)
    return int(body[begin : body.index(b",", begin)])


def mark_of(
    collector: str, low_ms: int, now_ms: int | None = None, bye: bool = False, method: str = ""
) -> bytes:
    """A mark, which is no pixel: a collector's low mark, its clock, and its method's hash.

    `now_ms` is None for a mark that carries no clock.
    """
    optional = {"now_ms": now_ms, "bye": bye or None, "method": method or None}
    present = {name: value for name, value in optional.items() if value is not None}
    return msgspec.json.encode({"collector": collector, "low_ms": low_ms} | present)


class Sending:
    """Messages on their way into the log.

    Attributes:
        reports: the report of each message, in their order; None while there is none.
        ended: done once all messages are reported.
        safe: whether all messages are in the log.
    """

    __slots__ = ("_stored", "_waiting", "ended", "reports")

    def __init__(self, count: int) -> None:
        self.reports: list[Report | None] = [None] * count
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting, self._stored = count, 0
        if not count:
            self.ended.set_result(None)

    def note(self, place: int, report: Report) -> None:
        """Note the report of the message at a place."""
        self.reports[place] = report
        self._waiting -= 1
        self._stored += not report.error
        if not self._waiting:
            self.ended.set_result(None)

    @property
    def safe(self) -> bool:
        """True if all messages are in the log."""
        return self._stored == len(self.reports)

    async def within(self, seconds: float | None = None) -> list[Report | None]:
        """The reports that have come once all have, or after `seconds`; None for a message without one."""
        await asyncio.wait((self.ended,), timeout=seconds)
        return list(self.reports)


class Log:
    """The topic, as lanes write to it; give `take_reports` to its producer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.producer: ReportingProducer

    def send(self, messages: Sequence[Produced]) -> Sending:
        """Put messages into the log; a message without room in the queue is reported at once."""
        sending = Sending(len(messages))
        numbered = [((sending, place), message) for place, message in enumerate(messages)]
        for _, place in self.producer.produce(numbered):
            sending.note(place, Report((sending, place), -1, "the producer's queue is full"))
        return sending

    def take_reports(self, reports: list[Report]) -> None:
        """Take the producer's reports; called in the producer's thread."""
        self._loop.call_soon_threadsafe(_settle, reports)


def _settle(reports: list[Report]) -> None:
    for report in reports:
        sending, place = report.token
        sending.note(place, report)


def safe(report: Report | None) -> bool:
    """True if a message is in the log."""
    return report is not None and not report.error
