"""The canonical event as a strict schema, and the parsing of its times, values and URLs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation, localcontext
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import msgspec

from flows.errors import UNREADABLE
from flows.model.catalogue.fields import FIELDS, Field, Kind
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
    """A listener's conversion. `value` is the text of the number, so that it stays exact. `claimed`: a public
    tag has sent it.
    """

    type: str
    order_id: Id | None = None
    value: msgspec.Raw = msgspec.Raw(b"null")
    currency: str | None = None
    claimed: bool | None = None


class Previous(msgspec.Struct, gc=False):
    """The listener and the household of a conversion, hashed with the edge's previous key."""

    listener_id: Id | None = None
    household_id: Id | None = None


_TYPES: Final[Mapping[Kind, Any]] = {
    Kind.ID: Id,
    Kind.TEXT: str,
    Kind.MOMENT: int | str,
    Kind.WHOLE: int,
    Kind.TRUTH: bool,
    Kind.CATEGORIES: str | list[str],
    Kind.OBJECT: msgspec.Raw,
}
NOTHING: Final = msgspec.Raw(b"null")
"""The value of an absent object."""
_NUMBERS: Final = (Kind.WHOLE, Kind.TRUTH)
_NO_TEXTS: Final = tuple(field.name for field in FIELDS if field.kind in _NUMBERS)


def _member(field: Field, lenient: bool) -> tuple[Any, ...]:
    """A member of `Event`: name, type and default. With `lenient` a number may be a text without meaning."""
    kind = _TYPES[field.kind] | str if lenient and field.kind in _NUMBERS else _TYPES[field.kind]
    if field.required:
        return field.name, kind
    if field.kind is Kind.OBJECT:
        return field.name, kind, NOTHING
    return field.name, kind | None, None


if TYPE_CHECKING:

    class Event(msgspec.Struct):
        """A pixel call as sent. A JSON null counts as absent; unknown fields are ignored.

        `conversion` and `previous` are decoded only for a conversion.
        """

        def __getattr__(self, name: str) -> Any: ...

    _LenientEvent = Event
else:
    Event = msgspec.defstruct("Event", [_member(field, False) for field in FIELDS], module=__name__, gc=False)
    _LenientEvent = msgspec.defstruct(
        "_LenientEvent", [_member(field, True) for field in FIELDS], bases=(Event,), module=__name__, gc=False
    )


class Mark(msgspec.Struct, gc=False):
    """A collector's mark of the events that it has not yet written to the log. A mark is no pixel.

    Attributes:
        now_ms: the collector's clock.
        logged_ms: when the mark was written to the topic; in a log on disk alone.
    """

    collector: Id
    low_ms: int
    event: None = None
    bye: bool | None = None
    method: str = ""
    now_ms: int | None = None
    logged_ms: int | None = None


_decode = msgspec.json.Decoder(_LenientEvent).decode
_decode_conversion = msgspec.json.Decoder(Conversion).decode
_decode_previous = msgspec.json.Decoder(Previous | None).decode
_decode_any = msgspec.json.Decoder().decode
_decode_mark = msgspec.json.Decoder(Mark).decode


def mark_of(raw: bytes) -> Mark | None:
    """The mark of a message; None for any other message."""
    if len(raw) > MAX_MESSAGE_BYTES:
        return None
    try:
        raw.decode()  # msgspec skips unread fields, including their bad UTF-8
        mark = _decode_mark(raw)
    except UNREADABLE:
        return None
    times = (mark.low_ms, mark.now_ms or 0, mark.logged_ms or 0)
    return mark if all(0 <= ms < MAX_MS for ms in times) and not absent(mark.collector) else None


class _Named(msgspec.Struct, gc=False):
    collector: object = None


_decode_named = msgspec.json.Decoder(_Named).decode


def collector_in(raw: bytes) -> str:
    """The readable id of the collector that a pixel or a mark names; empty without one."""
    try:
        name = _decode_named(raw).collector
    except UNREADABLE:
        return ""
    return name if isinstance(name, str) else ""


class Invalid(ValueError):
    """A field of a well-formed event is invalid; `field` is its name."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


def decode(raw: bytes) -> Event:
    """Read an event.

    Raises:
        Invalid: a number or a truth value is a text with a meaning. msgspec.MsgspecError, RecursionError,
        UnicodeDecodeError: it is no event.
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
        Invalid: the string has another form.
    """
    if isinstance(value, int):
        return value
    parsed_ms = rfc3339_ms(value)
    if parsed_ms is None:
        raise Invalid(field)
    return parsed_ms


def times(event: Event, stamp: int) -> tuple[int, int]:
    """A pixel's time by the caller's clock, and its time of receipt; 0 if unknown.

    Raises:
        Invalid: a field is no time.
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
        ts = min(max(ts, 0), MAX_MS)  # the receipt bounds it in any case
    return ts, received


def read_ms(value: object) -> int:
    """Epoch milliseconds of a possible time; 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return 0
    try:
        parsed_ms = epoch_ms(value, "")
    except Invalid:
        return 0
    return parsed_ms if 0 < parsed_ms < MAX_MS else 0


def micros(raw: msgspec.Raw) -> tuple[int | None, bool]:
    """Integer millionths of a JSON number, or of a string with a number; None without a number that counts.
    The second value is True for a value that does not count: no number, not whole millionths, or beyond
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
        Invalid: it is missing, a field has the wrong type, the type of the conversion is unknown, or the
            currency is no code.
    """
    if event.conversion is NOTHING:
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
    """The listener and the household of a `conversion` event, hashed with the edge's previous key.

    Raises:
        Invalid: they are of the wrong type.
    """
    if event.previous is NOTHING:
        return None, None
    try:
        previous = _decode_previous(event.previous) or Previous()
    except msgspec.ValidationError as error:
        raise _within("previous", error) from None
    return present(previous.listener_id), present(previous.household_id)


def _within(field: str, error: msgspec.ValidationError) -> Invalid:
    """The error for an object's wrong field, or for a value that is no object."""
    inside = " - at `$." in str(error)
    return Invalid(f"{field}.{field_of(str(error))}" if inside else field)


def utm_content(url: str | None) -> str | None:
    """`utm_content` of a landing URL's query, decoded; None if it is absent or the text is no URL."""
    if not url or absent(url := cut_bytes(url, MAX_URL_BYTES)):
        return None
    if not url.isascii() or not url.isprintable() or "[" in url or "]" in url:
        try:
            query_fields = parse_qsl(urlsplit(url).query)
        except ValueError:
            return None
        return next((text for name, text in query_fields if name == "utm_content"), None)
    for pair in url.partition("#")[0].partition("?")[2].split("&"):  # the same, in a fifth of the time
        name, _, text = pair.partition("=")
        if text and _unquoted(name) == "utm_content":
            return _unquoted(text)
    return None


def _unquoted(text: str) -> str:
    return unquote_plus(text) if "%" in text or "+" in text else text


def field_of(message: str) -> str | None:
    """The field that a validation error names, or None."""
    if " - at `$." in message:
        return message.rsplit(" - at `$.", 1)[1].rstrip("`").split("[")[0]
    missing = re.search(r"missing required field `(\w+)`", message)
    return missing.group(1) if missing else None
