"""Adobe Analytics by its Data Insertion API: one hit a call, in XML.

A visitor is a keyed hash of the listener's id, so no device's id is sent. `purchaseID` is the key of a
conversion, by which Adobe counts a repeat once. The key of a play is `audio.key` in the context data.
https://developer.adobe.com/analytics-collection-apis/methods/data-insertion/
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from connectors.kafka import Record
from flows.exports.calls import Caller
from flows.exports.facts import CONVERSION, Fact, Pixel, without_forgotten
from flows.exports.handover import Parcel, Refused
from flows.model.events import present

_HEAD: Final = '<?xml version="1.0" encoding="UTF-8"?>'


@dataclass
class Adobe:
    """Makes hits of a report suite, which must accept timestamps.

    Args:
        caller: posts the hits.
        suite: the id of the report suite.
        key: the key of the visitors' hash.
    """

    caller: Caller
    suite: str
    key: bytes

    def visitor_id(self, pixel: Pixel) -> str | None:
        """Our visitor id of a listener; None if the pixel names no listener."""
        listener = present(pixel.listener_id)
        if listener is None:
            return None
        return hashlib.blake2b(listener.encode(), digest_size=16, key=self.key, person=b"adobe").hexdigest()

    def parcels(self, facts: Sequence[Fact]) -> list[Parcel]:
        """A hit for each fact."""
        return [_Hit(self, [fact]) for fact in facts]


@dataclass
class _Hit:
    """A fact as a hit. Nothing is sent once its listener is forgotten."""

    target: Adobe
    facts: Sequence[Fact]

    @property
    def records(self) -> Sequence[Record]:
        return [fact.record for fact in self.facts]

    def hand_over(self) -> None:
        self.facts = without_forgotten(self.facts)
        for fact in self.facts:
            hit = xml_of(self.target.suite, fact)
            answer = self.target.caller.post(hit, {"content-type": "application/xml"})
            if b"FAILURE" in answer.body:
                raise Refused("failure")


def xml_of(suite: str, fact: Fact) -> bytes:
    """The XML of a hit. Its link type is custom (`o`), so Adobe counts no page view."""
    context_fields = {"audio.key": fact.key, "audio.event": fact.name}
    context_fields |= {f"audio.{name}": str(value) for name, value in fact.values.items()}
    parts = [
        ("reportSuiteID", suite),
        ("visitorID", fact.client_id),
        ("timestamp", str(fact.at_ms // 1000)),
        ("linkType", "o"),
        ("linkName", fact.name),
        ("campaign", str(fact.values.get("campaign", ""))),
    ]
    if fact.name == CONVERSION:
        parts += [("purchaseID", fact.key[:20]), ("currencyCode", str(fact.values.get("currency", "")))]
    inside = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in parts if value)
    context = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in sorted(context_fields.items()))
    return f"{_HEAD}<request>{inside}<contextData>{context}</contextData></request>".encode()
