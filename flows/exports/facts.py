"""Plays and attributed conversions as facts for another system's analytics, limited to those that may be
sent.

A pixel may be sent if it has `consent: true`, is no invalid traffic, and names its listener. A decision names
no listener. Its conversion's pixel does, and `flows.exports.known_conversions` finds that pixel by the fields
that both have.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec

from connectors.kafka import Record
from flows.errors import UNREADABLE
from flows.model.conversion_columns import CONFIRMED_RULE
from flows.model.decisions import Body
from flows.model.events import present
from flows.model.fields import quotient
from flows.model.times import rfc3339_ms
from flows.shown import cut

START, COMPLETE, CONVERSION = "audio_ad_start", "audio_ad_complete", "audio_conversion"
NAMES: Final = {"start": START, "complete": COMPLETE}
MEDIUM: Final = "audio"
LONGEST: Final = 100
"""The greatest length of a value that Google Analytics takes, in characters."""
_UTM: Final = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
_MAX_RECENT: Final = 100_000

Value = str | int | float


class Pixel(msgspec.Struct):
    """The fields of a pixel that exports read. The types are as wide as the flow accepts them: `consent` may
    be any text, and `ga_client_id`, which the flow does not read, may be anything.
    """

    event: str | None = None
    event_id: str | None = None
    ts: int | str | None = None
    placement_id: str | None = None
    play_id: str | None = None
    campaign_id: str | None = None
    platform: str | None = None
    station: str | None = None
    consent: bool | str | None = None
    invalid_traffic: str | None = None
    listener_id: str | None = None
    client_id: str | None = None
    household_id: str | None = None
    ga_client_id: object = None
    landing_url: str | None = None
    conversion: msgspec.Raw = msgspec.Raw(b"null")


class _Order(msgspec.Struct):
    order_id: str | None = None


class Fact(NamedTuple):
    """An event for a target.

    Attributes:
        key: the same at each attempt.
        client_id: the target's id of the listener.
        forgotten: returns whether the listener is on the deny-list now, or raises Busy. Each attempt
            calls it.
    """

    key: str
    name: str
    at_ms: int
    client_id: str
    values: dict[str, Value]
    record: Record
    forgotten: Callable[[], bool] = lambda: False


class KnownConversion(NamedTuple):
    """The pixel of a conversion: its listener, the UTM parameters of its page, and the keyed hashes by which
    its listener may be denied (`flows.exports.denied`).

    Attributes:
        conversion: the hash of its campaign, event and order (`conversion_key`).
    """

    conversion: str
    client_id: str
    utm: dict[str, str]
    keys: str = ""


ClientId = Callable[[Pixel], str | None]
"""The target's id of a pixel's listener, or None."""

_pixel = msgspec.json.Decoder(Pixel)
_order = msgspec.json.Decoder(_Order | None)
_body = msgspec.json.Decoder(Body)
_LATEST_MS: Final = 253_402_300_799_999


def read_pixel(record: Record) -> Pixel | None:
    """A start, a complete or a conversion; None for any other message, and for a malformed one."""
    try:
        pixel = _pixel.decode(record.value)
    except UNREADABLE:
        return None
    return pixel if pixel.event in NAMES or pixel.event == "conversion" else None


def bar_reason(pixel: Pixel) -> str | None:
    """The reason for which a pixel may not be sent, or None."""
    if pixel.consent is not True:
        return "no_consent"
    return "invalid_traffic" if present(pixel.invalid_traffic) else None


def play(record: Record, pixel: Pixel, client_id: str) -> Fact | None:
    """The fact of a start or a complete; None if it has no placement or no id."""
    placement, play_key = present(pixel.placement_id), present(pixel.play_id) or present(pixel.event_id)
    if placement is None or play_key is None:
        return None
    values: dict[str, Value] = {"placement_id": placement, "content": placement, "medium": MEDIUM}
    values["source"] = present(pixel.station) or present(pixel.platform) or MEDIUM
    if (campaign := present(pixel.campaign_id)) is not None:
        values["campaign"] = campaign
    name = NAMES[pixel.event or ""]
    key = _key(name, placement, play_key)
    return Fact(key, name, moment(record, pixel), client_id, _short(values), record)


def known_conversion(record: Record, pixel: Pixel, client_id: str, keys: str) -> KnownConversion | None:
    """The facts of a conversion's pixel that a later decision needs; None if the pixel is malformed."""
    if (event_id := present(pixel.event_id)) is None or len(event_id) > 128:
        return None
    utm: dict[str, str] = {}
    if pixel.landing_url:
        try:
            query = parse_qsl(urlsplit(pixel.landing_url[:4096]).query, max_num_fields=100)
        except ValueError:
            query = []
        utm = {name: cut(value, LONGEST) for name, value in query if name in _UTM}
    try:
        order = _order.decode(pixel.conversion)
    except UNREADABLE:
        return None
    order_id = None if order is None else present(order.order_id)
    return KnownConversion(
        conversion_key(present(pixel.campaign_id), event_id, order_id), client_id, utm, keys
    )


def conversion_key(campaign: str | None, event: str, order: str | None) -> str:
    """The hash that joins a pixel and the decision on it. An event id alone would not: two pixels may have
    the same one.
    """
    return _key(campaign or "", event, order or "")


def decision(record: Record) -> Body:
    """A decision on a conversion.

    Raises:
        ValueError: it is none.
    """
    return _body.decode(record.value)


def conversions(record: Record, body: Body, known: KnownConversion) -> list[Fact]:
    """A fact for each credited touch, with its share of the value. A confirmation makes no fact, since the
    conversion that it confirms was sent.
    """
    facts: list[Fact] = []
    if body.rule == CONFIRMED_RULE:
        return facts
    for number, credit in enumerate(body.credits):
        if not credit.millionths or credit.placement_id is None:
            continue
        values: dict[str, Value] = {
            "conversion_type": body.type,
            "placement_id": credit.placement_id,
            "content": credit.placement_id,
            "source": MEDIUM,
            "medium": MEDIUM,
            "way": credit.way,
            "credit": credit.millionths / 1e6,
            **known.utm,
        }
        if (campaign := credit.campaign_id or body.campaign_id) is not None:
            values["campaign"] = campaign
        if body.order_id is not None:
            values["transaction_id"] = body.order_id
        if body.value_micros is not None and body.currency is not None:
            value = quotient(int(body.value_micros) * credit.millionths, 10**12)
            values |= {"value": float(value), "currency": body.currency}
            values |= {"value_claimed": "yes"} if body.claimed else {}
        if body.methodology is not None:
            values["methodology"] = body.methodology
        key = _key(CONVERSION, known.conversion, credit.placement_id, str(number))
        facts.append(Fact(key, CONVERSION, body.ts, known.client_id, _short(values), record))
    return facts


def moment(record: Record, pixel: Pixel) -> int:
    """The time of a pixel in epoch ms, by its own clock, and at most the record's timestamp."""
    at_ms = pixel.ts
    if isinstance(at_ms, str):
        at_ms = rfc3339_ms(at_ms)
    if at_ms is None:
        return record.timestamp_ms
    return max(0, min(at_ms, record.timestamp_ms or _LATEST_MS))


def _key(*parts: str) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def _short(values: dict[str, Value]) -> dict[str, Value]:
    return {name: cut(value, LONGEST) if isinstance(value, str) else value for name, value in values.items()}


class RecentKeys:
    """The keys of the latest `_MAX_RECENT` facts."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, None] = OrderedDict()

    def add(self, key: str) -> bool:
        """Add a key. False if it was already among them."""
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > _MAX_RECENT:
            self._keys.popitem(last=False)
        return True


def without_forgotten(facts: Sequence[Fact]) -> list[Fact]:
    """The facts whose listeners are not on the deny-list now.

    Raises:
        Busy: Redis does not answer.
    """
    return [fact for fact in facts if not fact.forgotten()]


def without_repeats(facts: Sequence[Fact], recent_keys: RecentKeys) -> list[Fact]:
    """The facts whose keys are not recent. Their keys are recent from now on."""
    return [fact for fact in facts if recent_keys.add(fact.key)]
