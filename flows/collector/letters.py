"""Dead letters of rejected calls. The collector sends a letter to its topic, or drops it; none is spooled."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import uuid4

import msgspec

from connectors.kafka_reports import Produced, Report, ReportingProducer
from flows.collector.body import CONVERSION_FIELDS
from flows.collector.call import Understood
from flows.model.catalogue.fields import IN_LETTERS
from flows.model.events import are_categories

MAX_A_SECOND: Final = 100
"""The greatest number of letters a second of each reason, so that a flood of calls does not fill the topic.
Further events are only counted.
"""
_FIELDS: Final = {*IN_LETTERS, "content_category", "invalid_traffic", "landing_url"} - {"play_id", "app"}
"""Fields that identify nobody. A letter may also have a conversion, and a play whose id does not name its
listener.
"""
_LONGEST: Final = 128


class Letters:
    """Sends dead letters, keyed by position so that repeats collapse.

    Attributes:
        collector: the id that stands in positions.
        unsent: the number of letters beyond `MAX_A_SECOND`, without room in the queue, or that Kafka refused.
    """

    def __init__(self, brokers: str, topic: str, options: Mapping[str, str]) -> None:
        self.collector, self.unsent = "", 0
        self._producer = ReportingProducer(brokers, topic, options, self._reported)
        self._second, self._sent = 0, dict[str, int]()

    def send(self, rejected: Sequence[Understood]) -> None:
        """Send the letters of a call's rejected events; waits for nothing."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._sent = second, {}
        messages = []
        for result in rejected:
            sent = self._sent[result.reason] = self._sent.get(result.reason, 0) + 1
            if sent > MAX_A_SECOND:
                self.unsent += 1
                continue
            messages.append((0, letter(self.collector, result)))
        if messages:
            self.unsent += len(self._producer.produce(messages))

    def _reported(self, reports: list[Report]) -> None:
        self.unsent += sum(bool(report.error) for report in reports)

    def close(self) -> None:
        """Send the queued letters, for at most a second."""
        self._producer.flush(timedelta(seconds=1))
        self._producer.close()


def letter(collector: str, rejected: Understood, position: str = "") -> Produced:
    """The dead letter of one event, with fields that identify no listener.

    Args:
        position: of the rejected message; empty for the collector and the event's id.
    """
    event = {
        name: value[:_LONGEST] if isinstance(value, str) else value
        for name, value in rejected.event.items()
        if name in _FIELDS and (name != "content_category" or are_categories(value))
    }
    if "landing_url" in rejected.event:
        event |= _landing_fields(rejected.event["landing_url"])
    if rejected.keeps_play and "play_id" in rejected.event:
        event["play_id"] = rejected.event["play_id"][:_LONGEST]
    withheld = [name for name in ("play_id", "content_category") if name in rejected.event.keys() - event]
    conversion = rejected.event.get("conversion", {})
    if parts := {
        name: str(conversion[name])[:_LONGEST] for name in CONVERSION_FIELDS if conversion.get(name)
    }:
        event["conversion"] = parts | ({"claimed": True} if conversion.get("claimed") else {})
    event_id = str(event.get("event_id") or uuid4().hex)[:_LONGEST]
    position = position or f"collector/{collector}/{event_id}"
    body: dict[str, Any] = {"reason": rejected.reason, "position": position, "event": event}
    body["sender"] = rejected.sender
    if rejected.wrong:
        body["field"] = rejected.wrong
    if withheld:
        body["withheld"] = withheld
    return Produced(msgspec.json.encode(body), position.encode())


def _landing_fields(landing_url: str) -> dict[str, str]:
    """A landing URL without its query, and each `utm_*` parameter of it as a field; the first of a repeated
    name counts.
    """
    address, _, query = landing_url.partition("?")
    parts = {"landing_url": address[:_LONGEST]}
    for name, text in parse_qsl(query):
        parts.setdefault(name, text[:_LONGEST])
    return parts
