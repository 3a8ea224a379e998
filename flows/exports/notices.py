"""Changes of delivery states, feeds that fell silent, and changes of the methodology, one call each and in
order.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec

from connectors.kafka import Places, Record
from flows.exports.calls import Caller, Event, Form, Notice
from flows.exports.handover import Letter, Malformed, Parcel, Sorted, malformed
from flows.shown import LINE, shown
from flows.viewers.silence import FEED, unit_words
from flows.viewers.words import STATES, amount

REPEATED = "repeated"
DELIVERY: Final = "delivery.state_changed"
FEED_CHANGED: Final = "feed.state_changed"
_WHOLE: Final = ("booked", "delivered", "as_of_ms")
_REAL: Final = (
    *("expected", "short_by", "indicator", "projected", "required_rate"),
    *("at_stake", "at_stake_end", "blocked_at_stake"),
)
_OF_A_FEED: Final = ("since_ms", "placements", "as_of_ms")
_TEXT: Final = ("id", "placement", "campaign", "from", "to", "currency", "sentence", "methodology")
_LATEST_MS: Final = 253_402_300_799_999
_MOST: Final = 2**63 - 1
_N = TypeVar("_N", int, float)
_any = msgspec.json.Decoder(dict[str, Any])
_money = msgspec.json.Decoder(dict[str, str])


@dataclass
class NoticeTarget:
    """Sends a call for each message. Only the first message of a text of methodology is sent, since flows
    and collectors write their texts to the topic at every start. A return to an earlier text is therefore not
    sent.

    Args:
        form: makes the calls.
        alerts_topic: the topic of changes of delivery states and feeds. Other topics have texts of
            methodology.
        known_keys: the keys of the texts that the topic had before the messages that are read.
    """

    caller: Caller
    form: Form
    alerts_topic: str
    known_keys: set[bytes] = field(default_factory=set)
    most: int = 1
    connections: int = 1
    waiting: bool = False

    def sort(self, records: Sequence[Record]) -> Sorted:
        """A notice for each message, without repeats of a text."""
        parcels: list[Parcel] = []
        letters: list[Letter] = []
        left_out: list[str] = []
        for record in records:
            try:
                if record.topic == self.alerts_topic:
                    event = alert(record)
                elif record.key in self.known_keys:
                    left_out.append(REPEATED)
                    continue
                else:
                    event = methodology(record)
                    self.known_keys.add(record.key)
                parcels.append(Notice(self.caller, self.form, event, [record]))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                letters.append(malformed(record, error))
        return Sorted(parcels, letters, left_out)

    def places(self, read: Places) -> Places:
        """All that was read."""
        return read


def alert(record: Record) -> Event:
    """A change of a delivery state, or of a feed. The topic has its numbers as texts.

    Raises:
        ValueError, KeyError, TypeError, OverflowError: the message is neither.
    """
    fields = _any.decode(record.value)
    if fields.get("kind") == FEED:
        return _feed(record, fields)
    data: dict[str, object] = {name: str(fields[name]) for name in _TEXT if name in fields}
    data |= {name: _whole(name, fields[name]) for name in _WHOLE if name in fields}
    data |= {name: _number(float, name, fields[name]) for name in _REAL if name in fields}
    for name in ("id", "placement", "from", "to"):
        if not data[name]:
            raise Malformed(f"{name} is empty")
    return Event(_key(record.topic, str(data["id"])), DELIVERY, _moment(fields["as_of_ms"]), data)


def _feed(record: Record, fields: Mapping[str, Any]) -> Event:
    """A change of a feed: it fell silent, or is back."""
    data: dict[str, object] = {name: str(fields[name]) for name in ("id", "unit", "from", "to")}
    if not data["id"] or not data["unit"]:
        raise Malformed("id or unit is empty")
    if data["to"] not in ("silent", "live"):
        raise Malformed("to is no state of a feed")
    data |= {name: _whole(name, fields[name]) for name in _OF_A_FEED if name in fields}
    if "money_per_hour" in fields:
        money = _money.decode(str(fields["money_per_hour"]))
        data["money_per_hour"] = {
            currency: _number(float, "money_per_hour", value) for currency, value in money.items()
        }
    return Event(_key(record.topic, str(data["id"])), FEED_CHANGED, _moment(fields["as_of_ms"]), data)


def _number(kind: Callable[[Any], _N], name: str, value: Any) -> _N:
    try:
        return kind(value)
    except (ValueError, TypeError, OverflowError):
        raise Malformed(f"{name} is no number") from None


def _whole(name: str, value: Any) -> int:
    number = _number(int, name, value)
    if abs(number) > _MOST:
        raise Malformed(f"{name} is no count")
    return number


def methodology(record: Record) -> Event:
    """A text of methodology, as the topic has it.

    Raises:
        ValueError: the message is no JSON object.
    """
    key = _key(record.topic, record.key.hex())
    return Event(key, "methodology.changed", record.timestamp_ms, _any.decode(record.value))


def _key(topic: str, name: str) -> str:
    """A key for a header, which has letters and digits alone: a hash of the name."""
    return f"msg_{hashlib.sha256(f'{topic}|{name}'.encode()).hexdigest()[:32]}"


def _moment(value: object) -> int:
    at_ms = _number(int, "as_of_ms", str(value))
    if not 0 <= at_ms <= _LATEST_MS:
        raise Malformed("as_of_ms is no time")
    return at_ms


def iso(at_ms: int) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class SignedWebhook:
    """The form of Standard Webhooks, with the headers `webhook-id`, `webhook-timestamp` and
    `webhook-signature`. The signature is HMAC-SHA256 over id, timestamp and body.
    https://www.standardwebhooks.com

    Args:
        secrets: each signs, so that receivers can move from one secret to the next.
    """

    secrets: Sequence[bytes]
    clock_s: Callable[[], float] = time.time

    def call(self, event: Event) -> tuple[bytes, Mapping[str, str]]:
        """Body and headers, signed now."""
        body = msgspec.json.encode({"type": event.kind, "timestamp": iso(event.at_ms), "data": event.data})
        return body, self.headers(event.key, body)

    def headers(self, key: str, body: bytes) -> Mapping[str, str]:
        """The headers of a body, signed now."""
        stamp = str(int(self.clock_s()))
        signed = f"{key}.{stamp}.".encode() + body
        signatures = [
            base64.b64encode(hmac.digest(secret, signed, "sha256")).decode() for secret in self.secrets
        ]
        return {
            "content-type": "application/json",
            "webhook-id": key,
            "webhook-timestamp": stamp,
            "webhook-signature": " ".join(f"v1,{one}" for one in signatures),
        }


@dataclass
class SlackMessage:
    """Slack's message format, for an incoming webhook. Foreign ids are plain text, without the characters
    that Slack would read as a link or a mention.
    """

    def call(self, event: Event) -> tuple[bytes, Mapping[str, str]]:
        """A headline, and the facts."""
        headline, facts = _in_words(event)
        section: dict[str, object] = {"type": "section", "block_id": event.key}
        section["fields"] = [_plain(f"{name}: {fact}", 2_000) for name, fact in facts[:10]]
        body = {
            "text": escaped(" ".join(filter(None, (headline, sentence_of(event))))),
            "mrkdwn": False,
            "blocks": [{"type": "header", "text": _plain(headline, 150)}, *_section(event), section],
        }
        return msgspec.json.encode(body), {"content-type": "application/json"}


def sentence_of(event: Event) -> str:
    """The sentence of a change of a delivery state; empty if there is none."""
    return str(event.data.get("sentence", "")) if event.kind == DELIVERY else ""


def _section(event: Event) -> list[dict[str, object]]:
    sentence = sentence_of(event)
    return [{"type": "section", "text": _plain(sentence, 2_000)}] if sentence else []


def escaped(text: str, most: int = LINE) -> str:
    """A text on one line, with Slack's control characters escaped."""
    line = shown(text, most)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(text: str, most: int) -> dict[str, object]:
    shown_text = escaped(text, most)
    while len(shown_text) > most:  # escapes are longer than their characters
        text = text[: len(text) * 3 // 4]
        shown_text = escaped(text, most)
    return {"type": "plain_text", "text": shown_text, "emoji": False}


def _in_words(event: Event) -> tuple[str, list[tuple[str, str]]]:
    """A headline, and facts by name."""
    data = event.data
    if event.kind == FEED_CHANGED:
        return _of_a_feed(event)
    if event.kind != DELIVERY:
        facts = [(name, str(data[name])) for name in sorted(data)] or [("", "")]
        return "The methodology has changed", facts
    before, after = (STATES.get(str(data[name]), (str(data[name]), "")) for name in ("from", "to"))
    facts = [("State", f"{after[0]}, was {before[0]}"), ("Meaning", after[1])]
    if "campaign" in data:
        facts.append(("Campaign", str(data["campaign"])))
    counts = {"Delivered": "delivered", "Expected": "expected", "Booked": "booked", "Short by": "short_by"}
    for name, key in counts.items():
        if isinstance(number := data.get(key), int | float):
            facts.append((name, f"{number:,.0f}"))
    money_names = {
        "At stake now": "at_stake",
        "At stake by the end": "at_stake_end",
        "In blocked content": "blocked_at_stake",
    }
    for name, key in money_names.items():
        if isinstance(money := data.get(key), float) and money > 0:
            facts.append((name, f"{data.get('currency', '')} {amount(money)}".strip()))
    if isinstance(indicator := data.get("indicator"), float):
        facts.append(("Delivery indicator", f"{indicator:.2f}"))
    facts.append(("As of", iso(event.at_ms)))
    return f"{data['placement']}: {after[0]}", facts


def _of_a_feed(event: Event) -> tuple[str, list[tuple[str, str]]]:
    data, unit = event.data, unit_words(str(event.data["unit"]))
    silent = data["to"] == "silent"
    means = (
        "This is the feed, not delivery: what depends on it is not judged. Do not change its bids."
        if silent
        else "What depended on it is judged again."
    )
    facts = [("Meaning", means)]
    if isinstance(since_ms := data.get("since_ms"), int) and 0 <= since_ms <= _LATEST_MS:
        facts.append(("Silent since", iso(since_ms)))
    if isinstance(placements := data.get("placements"), int):
        facts.append(("Placements with pixels of it", f"{placements:,}"))
    if isinstance(money := data.get("money_per_hour"), dict) and money:
        values = ", ".join(f"{currency} {amount(value)}" for currency, value in sorted(money.items()))
        facts.append(("It brings an hour", values))
    facts.append(("As of", iso(event.at_ms)))
    return f"{unit} {'is silent' if silent else 'is back'}", facts
