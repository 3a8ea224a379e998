"""Google Analytics 4 by its Measurement Protocol: up to 25 events of one client a call.

Google answers 2xx to anything, so this module keeps its limits: names, values of 100 characters, 130 kB a
body, 72 hours. Its validation address, if `AUDIOPIXEL_EXPORT_GA4_URL` names it, answers with its findings.
https://developers.google.com/analytics/devguides/collection/protocol/ga4
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from connectors.kafka import Record
from flows.errors import UNREADABLE
from flows.exports.calls import Caller
from flows.exports.facts import Fact, Pixel, without_forgotten
from flows.exports.handover import Parcel, Refused
from flows.model.events import present
from flows.shown import shown

MAX_EVENTS: Final = 25
MAX_BYTES: Final = 120_000
OLDEST_MS: Final = 72 * 3_600_000
TOO_OLD: Final = "too_old"
_CLIENT: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def client_of(pixel: Pixel) -> str | None:
    """Google's client id; None if the pixel has none, or one of another form."""
    client = pixel.ga_client_id
    if not isinstance(client, str) or present(client) is None:
        return None
    return client if _CLIENT.fullmatch(client) else None


@dataclass
class Ga4:
    """Makes calls to a data stream."""

    caller: Caller
    measurement_id: str
    api_secret: str
    clock_s: Callable[[], float] = time.time

    def parcels(self, facts: Sequence[Fact]) -> list[Parcel]:
        """Calls, each with the events of one client."""
        by_client: dict[str, list[Fact]] = {}
        for fact in facts:
            by_client.setdefault(fact.client_id, []).append(fact)
        return [_Call(self, client, part) for client, own in by_client.items() for part in _split(own)]

    @property
    def query(self) -> str:
        """The stream and its secret."""
        return urlencode({"measurement_id": self.measurement_id, "api_secret": self.api_secret})


@dataclass
class _Call:
    """Events of one client."""

    target: Ga4
    client: str
    facts: Sequence[Fact]

    @property
    def records(self) -> Sequence[Record]:
        return [fact.record for fact in self.facts]

    def hand_over(self) -> None:
        self.facts = without_forgotten(self.facts)
        if not self.facts:
            return
        now_ms = self.target.clock_s() * 1000
        if any(fact.at_ms <= now_ms - OLDEST_MS for fact in self.facts):
            raise Refused(TOO_OLD)
        body = body_of(self.client, self.facts)
        answer = self.target.caller.post(body, {"content-type": "application/json"}, self.target.query)
        if b"validationMessages" in answer.body:
            _judge(answer.body)


def body_of(client: str, facts: Sequence[Fact]) -> bytes:
    """The JSON of a call; a repeat has the same `event_key` in each event."""
    return msgspec.json.encode(
        {
            "client_id": client,
            # The consent in a pixel is to measure, not to advertise.
            "consent": {"ad_user_data": "DENIED", "ad_personalization": "DENIED"},
            "events": [_event(fact) for fact in facts],
        }
    )


def _event(fact: Fact) -> dict[str, Any]:
    return {
        "name": fact.name,
        "timestamp_micros": fact.at_ms * 1000,
        "params": {"event_key": fact.key, "engagement_time_msec": 1, **fact.values},
    }


def _split(facts: Sequence[Fact]) -> list[list[Fact]]:
    """Parts that fit one call each. A part's events are within an hour, so they become too old together."""
    parts: list[list[Fact]] = []
    size = 0
    for fact in sorted(facts, key=lambda fact: fact.at_ms):
        length = len(msgspec.json.encode(_event(fact))) + 1
        fits = bool(parts) and len(parts[-1]) < MAX_EVENTS and size + length <= MAX_BYTES
        if fits and fact.at_ms - parts[-1][0].at_ms < 3_600_000:
            parts[-1].append(fact)
            size += length
        else:
            parts.append([fact])
            size = length + 1_000
    return parts


class _Message(msgspec.Struct):
    path: str = msgspec.field(default="", name="fieldPath")
    code: str = msgspec.field(default="", name="validationCode")


class _Validated(msgspec.Struct):
    messages: list[_Message] = msgspec.field(default=[], name="validationMessages")


def _judge(body: bytes) -> None:
    """Refuse a call in which Google's validation has found a fault. A body of another form is ignored."""
    try:
        messages = msgspec.json.decode(body, type=_Validated).messages
    except UNREADABLE:
        return
    if messages:
        path, code = shown(messages[0].path, 100), shown(messages[0].code, 40)
        raise Refused("validation", f"{path} {code}".strip())
