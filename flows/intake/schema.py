"""The canonical event as a strict schema, and the readings of its times, values and URLs."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation, localcontext
from typing import Annotated, Final
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import msgspec

from flows.errors import UNREADABLE
from flows.model.events import (
    CONVERSION_TYPES,
    MAX_ID,
    MAX_MESSAGE_BYTES,
    MAX_MS,
    MAX_URL_BYTES,
    absent,
    cut_bytes,
    present,
)
from flows.model.times import rfc3339_ms

_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
MAX_VALUE_MICROS: Final = 10**19
_CURRENCY = re.compile("[A-Z]{3}")
"""The form of an ISO 4217 code."""


Id = Annotated[str, msgspec.Meta(max_length=MAX_ID)]


class Conversion(msgspec.Struct, gc=False):
    """A listener's conversion; `value` is its text, so that it stays exact. `claimed`: a public tag has sent
    it.
    """

    type: str
    order_id: Id | None = None
    value: msgspec.Raw = msgspec.Raw(b"null")
    currency: str | None = None
    claimed: bool | None = None


class Previous(msgspec.Struct, gc=False):
    """Whose a conversion is by the edge's key of before."""

    listener_id: Id | None = None
    household_id: Id | None = None


NO_CONVERSION: Final = msgspec.Raw(b"null")
NO_PREVIOUS: Final = msgspec.Raw(b"null")


class Event(msgspec.Struct, gc=False):
    """One pixel call as its caller sent it. A JSON null counts as absent; unknown fields are ignored.

    What is in `conversion` and `previous` is looked at where the event is a conversion.
    """

    event_id: Id
    event: str
    ts: int | str
    received_at: int | str | None = None
    placement_id: Id | None = None
    play_id: Id | None = None
    campaign_id: Id | None = None
    creative_id: Id | None = None
    app: Id | None = None
    platform: Id | None = None
    station: Id | None = None
    podcast: Id | None = None
    program: Id | None = None
    listener_id: Id | None = None
    consent: bool | None = None
    playhead_ms: int | None = None
    duration_ms: int | None = None
    user_agent: str | None = None
    invalid_traffic: str | None = None
    collector: Id | None = None
    low_ms: int | None = None
    basis: str | None = None
    device_confirmed: bool | None = None
    client_id: Id | None = None
    episode: Id | None = None
    household_id: Id | None = None
    ip: str | None = None
    content_category: str | list[str] | None = None
    landing_url: str | None = None
    conversion: msgspec.Raw = NO_CONVERSION
    previous: msgspec.Raw = NO_PREVIOUS


class Mark(msgspec.Struct, gc=False):
    """A collector's word of what it has not yet put into the log; no pixel.

    `now_ms`: its clock. `logged_ms`: when the mark was put into the topic, in a log on disk alone.
    """

    collector: Id
    low_ms: int
    event: None = None
    bye: bool | None = None
    method: str = ""
    now_ms: int | None = None
    logged_ms: int | None = None


class _Told(Event, gc=False):
    """An `Event` whose numbers and truth values may be texts that say nothing, such as unreplaced macros."""

    consent: bool | str | None = None  # type: ignore[assignment]
    playhead_ms: int | str | None = None  # type: ignore[assignment]
    duration_ms: int | str | None = None  # type: ignore[assignment]
    low_ms: int | str | None = None  # type: ignore[assignment]
    device_confirmed: bool | str | None = None  # type: ignore[assignment]


_NO_TEXTS: Final = ("consent", "playhead_ms", "duration_ms", "low_ms", "device_confirmed")
_decode = msgspec.json.Decoder(_Told).decode
_decode_conversion = msgspec.json.Decoder(Conversion).decode
_decode_previous = msgspec.json.Decoder(Previous | None).decode
_decode_any = msgspec.json.Decoder().decode
_decode_mark = msgspec.json.Decoder(Mark).decode


def mark_of(raw: bytes) -> Mark | None:
    """The mark that a message is; None where it is none."""
    if len(raw) > MAX_MESSAGE_BYTES:
        return None
    try:
        raw.decode()  # msgspec skips what it does not read, bad UTF-8 included
        mark = _decode_mark(raw)
    except UNREADABLE:
        return None
    times = (mark.low_ms, mark.now_ms or 0, mark.logged_ms or 0)
    return mark if all(0 <= ms < MAX_MS for ms in times) and not absent(mark.collector) else None


class _Named(msgspec.Struct, gc=False):
    collector: object = None


_decode_named = msgspec.json.Decoder(_Named).decode


def collector_in(raw: bytes) -> str:
    """The id of the collector that a pixel or a mark names, for people to read; empty where none is found."""
    try:
        name = _decode_named(raw).collector
    except UNREADABLE:
        return ""
    return name if isinstance(name, str) else ""


class Invalid(ValueError):
    """A field of a well-formed event is wrong; `field` names it."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


def decode(raw: bytes) -> Event:
    """Read an event.

    Raises:
        Invalid: a text stands for a number or a truth value, and says something.
        msgspec.MsgspecError, RecursionError, UnicodeDecodeError: it is none.
    """
    event = _decode(raw)
    for name in _NO_TEXTS:
        value = getattr(event, name)
        if value.__class__ is str:
            if not absent(value):
                raise Invalid(name)
            setattr(event, name, None)
    return event


def epoch_ms(value: int | str, field: str) -> int:
    """Epoch milliseconds of an integer or an RFC 3339 string with its offset; may lie outside [0, `MAX_MS`).

    Raises:
        Invalid: not such a string.
    """
    if isinstance(value, int):
        return value
    found = rfc3339_ms(value)
    if found is None:
        raise Invalid(field)
    return found


def times(event: Event, stamp: int) -> tuple[int, int]:
    """A pixel's time by the caller's clock, and its time of receipt; 0: nobody says.

    Raises:
        Invalid: one of them is no time.
    """
    ts = event.ts if event.ts.__class__ is int else epoch_ms(event.ts, "ts")
    received = event.received_at
    if received is None or (isinstance(received, str) and absent(received)):
        received = stamp
    else:
        if received.__class__ is not int:
            received = epoch_ms(received, "received_at")
        received = min(received, stamp + 60_000) if stamp else received
        if not 0 <= received < MAX_MS:
            raise Invalid("received_at")
        received = max(received, 1)  # 0 is no receipt at all
    if not 0 <= ts < MAX_MS:
        if not received:
            raise Invalid("ts")
        ts = min(max(ts, 0), MAX_MS)  # it is bounded by the receipt in any case
    return ts, received


def read_ms(value: object) -> int:
    """Epoch milliseconds of what may be a time; 0 where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return 0
    try:
        found = epoch_ms(value, "")
    except Invalid:
        return 0
    return found if 0 < found < MAX_MS else 0


def micros(raw: msgspec.Raw) -> tuple[int | None, bool]:
    """Integer millionths of a JSON number, or of a string that holds one, None where there are none to count;
    and whether something is there that does not count: no number, not whole millionths, or beyond
    `MAX_VALUE_MICROS`.
    """
    plain = bytes(raw)
    whole, point, part = plain.strip(b'"').partition(b".")
    if whole.isdigit() and len(whole) <= 13 and (part.isdigit() if point else True) and len(part) <= 6:
        return int(whole + part.ljust(6, b"0")), False  # the common form, in a tenth of the time
    text = plain.decode()
    if text[0] == '"':
        text = text[1:-1] if "\\" not in text else msgspec.json.decode(text)
        if absent(text):
            return None, False
    elif text == "null":
        return None, False
    if not _DECIMAL.fullmatch(text):
        return None, True
    try:
        value = Decimal(text)
    except InvalidOperation:  # an exponent beyond any machine
        return None, True
    if not value:
        return 0, False
    if not -6 <= value.adjusted() <= 13:
        return None, True
    with localcontext(prec=MAX_MESSAGE_BYTES):
        scaled = value.scaleb(6)
        number = int(scaled)
        counts = number == scaled and abs(number) <= MAX_VALUE_MICROS
    return (number, False) if counts else (None, True)


def decode_conversion(event: Event) -> Conversion:
    """The conversion of a `conversion` event.

    Raises:
        Invalid: it is missing, a field of it is of the wrong type, its type none of the known, or its
            currency no code.
    """
    if event.conversion is NO_CONVERSION:
        raise Invalid("conversion")
    try:
        conversion = _decode_conversion(event.conversion)
    except msgspec.ValidationError as error:
        raise _within("conversion", error) from None
    if conversion.type not in CONVERSION_TYPES:
        raise Invalid("conversion.type")
    currency = present(conversion.currency)
    if currency is not None and not _CURRENCY.fullmatch(currency):
        raise Invalid("conversion.currency")
    return conversion


def decode_previous(event: Event) -> tuple[str | None, str | None]:
    """The listener and the household of a `conversion` event by the edge's key of before.

    Raises:
        Invalid: they are of the wrong type.
    """
    if event.previous is NO_PREVIOUS:
        return None, None
    try:
        found = _decode_previous(event.previous) or Previous()
    except msgspec.ValidationError as error:
        raise _within("previous", error) from None
    return present(found.listener_id), present(found.household_id)


def _within(field: str, error: msgspec.ValidationError) -> Invalid:
    """An object's wrong field, or that it is no object."""
    inside = " - at `$." in str(error)
    return Invalid(f"{field}.{field_of(str(error))}" if inside else field)


def utm_content(url: str | None) -> str | None:
    """Decode `utm_content` from a landing URL's query; None where it is absent or the text is no URL."""
    if not url or absent(url := cut_bytes(url, MAX_URL_BYTES)):
        return None
    if not url.isascii() or not url.isprintable() or "[" in url or "]" in url:
        try:
            found = parse_qsl(urlsplit(url).query)
        except ValueError:
            return None
        return next((text for name, text in found if name == "utm_content"), None)
    for pair in url.partition("#")[0].partition("?")[2].split("&"):  # the same, in a fifth of the time
        name, _, text = pair.partition("=")
        if text and _unquoted(name) == "utm_content":
            return _unquoted(text)
    return None


def _unquoted(text: str) -> str:
    return unquote_plus(text) if "%" in text or "+" in text else text


def field_of(message: str) -> str | None:
    """The field that a validation error is about; None where it is about none."""
    if " - at `$." in message:
        return message.rsplit(" - at `$.", 1)[1].rstrip("`").split("[")[0]
    missing = re.search(r"missing required field `(\w+)`", message)
    return missing.group(1) if missing else None
