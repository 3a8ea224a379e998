"""The canonical pixel event: its form, strict decoding, and the closed set of reasons to reject a message.

`decode` is the way in for the messages that are right; `explain` says of any other why it is not, in the
order that the specification of events sets: malformed, invalid id or event, unknown event, invalid others.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation, localcontext
from math import isfinite
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import msgspec

MAX_MESSAGE_BYTES: Final = 64 * 1024
MAX_ID: Final = 128
"""Characters of an id or label."""
MAX_AGENT_BYTES: Final = 1024
MAX_URL_BYTES: Final = 4096
"""Of UTF-8, to which user agents and landing URLs are cut."""
MAX_MS: Final = 4_102_444_800_000
"""Times lie in [0, year 2100): what a 32-bit minute and every calendar can hold."""

EVENTS: Final = (
    "impression",
    "start",
    "firstQuartile",
    "midpoint",
    "thirdQuartile",
    "complete",
    "skip",
    "mute",
    "click",
    "error",
    "unmute",
    "pause",
    "resume",
    "progress",
    "conversion",
)
"""VAST 4.2 spellings, `click` and `conversion`; an event's code is its place, part of the state's format."""

CODES: Final = {name: code for code, name in enumerate(EVENTS)}
(IMPRESSION, START, FIRST_QUARTILE, MIDPOINT, THIRD_QUARTILE, COMPLETE, SKIP, MUTE, CLICK, ERROR) = range(10)
PROGRESS: Final = CODES["progress"]
CONVERSION: Final = CODES["conversion"]

CONVERSION_TYPES: Final = (
    "site_visit",
    "sign_up",
    "purchase",
    "app_download",
    "phone_call",
    "form_submission",
)

MALFORMED, INVALID, UNKNOWN_EVENT, TOO_LATE = REASONS = ("malformed", "invalid", "unknown_event", "too_late")

_MACRO = re.compile(
    r"\[[^\[\]]+\]|%5B(?:(?!%5B|%5D).)+%5D|\$\{[^{}]+\}|\{[^{}]+\}|@[^@]+@|-[12]", re.IGNORECASE | re.DOTALL
)
_MOST_DIGITS: Final = 400
"""Of an integer: Python reads no more than 4,300, and no known field needs a tenth of these."""
_SUSPECT = frozenset("[%${@-")
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:)(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII
)
_EPOCH = datetime(1970, 1, 1)
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PRICE = re.compile(r"([0-9]{1,13})(?:\.([0-9]{1,6}))?")
"""The common form of a value, which takes a quarter of the time."""
MAX_VALUE_MICROS: Final = 10**19
_CURRENCY = re.compile("[A-Z]{3}")
"""The form of an ISO 4217 code."""


def absent(text: str | None) -> bool:
    """Whether a string says nothing: missing, empty, an ad server's unreplaced macro, or VAST's -1 and -2."""
    return not text or (text[0] in _SUSPECT and _MACRO.fullmatch(text) is not None)


def present(text: str | None) -> str | None:
    """`text`, or None where it is `absent`."""
    return None if absent(text) else text


def presents(texts: Iterable[str | None]) -> tuple[str | None, ...]:
    """Each text, or None where it is `absent`."""
    return tuple(
        [
            text if text and text[0] not in _SUSPECT else present(text) for text in texts
        ]  # most are as they are
    )


def cut(text: str, most_bytes: int) -> str:
    """`text` to so many bytes of UTF-8, by whole characters."""
    if len(text) * 4 <= most_bytes:  # the most that a character takes
        return text
    return text.encode()[:most_bytes].decode(errors="ignore")


Id = Annotated[str, msgspec.Meta(max_length=MAX_ID)]


class Conversion(msgspec.Struct, gc=False):
    """What a listener did; `value` is its text, so that it stays exact."""

    type: str
    order_id: Id | None = None
    value: msgspec.Raw = msgspec.Raw(b"null")
    currency: str | None = None


NO_CONVERSION: Final = msgspec.Raw(b"null")


class Event(msgspec.Struct, gc=False):
    """One pixel call as its caller sent it. A JSON null counts as absent; unknown fields are ignored.

    What is in `conversion` is looked at where the event is one.
    """

    event_id: Id
    event: str
    ts: int | str
    received_at: int | str | None = None
    placement_id: Id | None = None
    play_id: Id | None = None
    campaign_id: Id | None = None
    creative_id: Id | None = None
    platform: Id | None = None
    station: Id | None = None
    podcast: Id | None = None
    program: Id | None = None
    listener_id: Id | None = None
    consent: bool | None = None
    playhead_ms: int | None = None
    duration_ms: int | None = None
    user_agent: str | None = None
    ip: str | None = None
    content_category: str | list[str] | None = None
    landing_url: str | None = None
    conversion: msgspec.Raw = NO_CONVERSION


decode = msgspec.json.Decoder(Event).decode
"""Bytes to an `Event`; raises msgspec.MsgspecError, RecursionError, or UnicodeDecodeError."""

_decode_conversion = msgspec.json.Decoder(Conversion).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="deterministic").encode


class Invalid(ValueError):
    """A field of a well-formed event is wrong; `field` names it."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


def epoch_ms(value: int | str, field: str) -> int:
    """Epoch milliseconds of an integer or an RFC 3339 string with its offset; may lie outside [0, `MAX_MS`).

    Raises:
        Invalid: not such a string.
    """
    if isinstance(value, int):
        return value
    match = _RFC3339.fullmatch(value)
    try:
        if match is None:
            raise Invalid(field)
        day, clock, second, fraction, offset = match.groups()
        leap = second == "60"
        # Not by a conversion to UTC, which raises where that would be outside the years 1 to 9999.
        since = datetime.fromisoformat(f"{day}T{clock}{'59' if leap else second}") - _EPOCH
        away = datetime.fromisoformat(f"1970-01-01T00:00:00{offset.upper()}").utcoffset()
    except ValueError:
        raise Invalid(field) from None
    assert away is not None, "the pattern asks for an offset"
    since += timedelta(seconds=leap) - away
    return since.days * 86_400_000 + since.seconds * 1000 + int(((fraction or "") + "000")[:3])


def micros(raw: msgspec.Raw) -> tuple[int | None, bool]:
    """Integer millionths of a JSON number, or of a string that holds one, None where there are none to count;
    and whether something is there that does not count: no number, not whole millionths, or beyond
    `MAX_VALUE_MICROS`.
    """
    text = bytes(raw).decode()
    if text[0] == '"':
        text = text[1:-1] if "\\" not in text else msgspec.json.decode(text)
        if absent(text):
            return None, False
    elif text == "null":
        return None, False
    if price := _PRICE.fullmatch(text):
        whole, part = price.groups("")
        return int(whole + part.ljust(6, "0")), False
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
        at_fault = " - at `$." in str(error)
        raise Invalid(f"conversion.{_field_of(str(error))}" if at_fault else "conversion") from None
    if conversion.type not in CONVERSION_TYPES:
        raise Invalid("conversion.type")
    currency = present(conversion.currency)
    if currency is not None and not _CURRENCY.fullmatch(currency):
        raise Invalid("conversion.currency")
    return conversion


def utm_content(url: str | None) -> str | None:
    """What a landing URL's query says in `utm_content`, decoded; None where it says nothing or is no URL."""
    if not url or absent(url := cut(url, MAX_URL_BYTES)):
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


class Rejection(msgspec.Struct, frozen=True):
    """Why a message is no pixel, and what of it may be kept: of a malformed one its length and digest."""

    reason: str
    field: str | None
    kept: dict[str, Any]


def _document(raw: bytes) -> Any:
    """Any JSON, also with a number that no machine type holds, which msgspec takes for no JSON at all: such a
    number is None.

    Raises:
        ValueError, msgspec.MsgspecError, RecursionError: it is no JSON.
    """
    try:
        return _decode_any(raw)
    except msgspec.DecodeError as error:
        if "out of range" not in str(error):
            raise
    document = json.loads(raw, parse_float=_float, parse_int=_integer, parse_constant=_refused)
    json.dumps(document, ensure_ascii=False).encode()  # half a character passes json, and no encoder
    return document


def _float(digits: str) -> float | None:
    value = float(digits)
    return value if isfinite(value) else None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _MOST_DIGITS else None


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def explain(raw: bytes, suspect: str = "?") -> Rejection:
    """Why `raw`, which was refused, is rejected; `suspect` is the field that was stumbled on, if any."""
    malformed = Rejection(MALFORMED, None, {"length": len(raw), "sha256": hashlib.sha256(raw).hexdigest()})
    if len(raw) > MAX_MESSAGE_BYTES:
        return malformed
    try:
        raw.decode()
        document = _document(raw)
    except (ValueError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return malformed
    if not isinstance(document, dict):
        return malformed
    kept = {"event": keepable(document)}
    for field in ("event_id", "event"):
        value = document.get(field)
        if not isinstance(value, str) or absent(value) or (field == "event_id" and len(value) > 128):
            return Rejection(INVALID, field, kept)
    if document["event"] not in CODES:
        return Rejection(UNKNOWN_EVENT, "event", kept)
    return Rejection(INVALID, _wrong_field(raw) or suspect, kept)


def _wrong_field(raw: bytes) -> str | None:
    """The first field of the wrong type, or of the wrong form; None when all have theirs."""
    try:
        decode(raw)
    except msgspec.ValidationError as error:
        return _field_of(str(error))
    except msgspec.MsgspecError:
        return None
    return None


def _field_of(message: str) -> str | None:
    """The field that a validation error is about; None where it is about none."""
    if " - at `$." in message:
        return message.rsplit(" - at `$.", 1)[1].rstrip("`").split("[")[0]
    missing = re.search(r"missing required field `(\w+)`", message)
    return missing.group(1) if missing else None


_KEPT: Final = (
    "event_id",
    "event",
    "ts",
    "received_at",
    "placement_id",
    "play_id",
    "campaign_id",
    "creative_id",
    "platform",
    "station",
    "podcast",
    "program",
    "consent",
    "playhead_ms",
    "duration_ms",
)


def keepable(document: dict[str, Any]) -> dict[str, Any]:
    """The known fields that identify nobody: scalars, cut to 128 characters; URLs without their query."""
    kept: dict[str, Any] = {name: _short(document[name]) for name in _KEPT if _is_scalar(document.get(name))}
    conversion = document.get("conversion")
    if isinstance(conversion, dict):
        kept["conversion"] = {
            name: _short(conversion[name])
            for name in ("type", "order_id", "value", "currency")
            if _is_scalar(conversion.get(name))
        }
    url = document.get("landing_url")
    if isinstance(url, str):
        try:
            parts = urlsplit(cut(url, MAX_URL_BYTES))
            host = parts.hostname or ""
            kept["landing_url"] = _short(f"{parts.scheme}://{host}{parts.path}")
            kept |= {name: _short(text) for name, text in parse_qsl(parts.query) if name.startswith("utm_")}
        except ValueError:
            pass  # no URL, nothing of it is kept
    return kept


def _is_scalar(value: object) -> bool:
    return isinstance(value, (str, int, float)) and value is not None


def _short(value: Any) -> Any:
    return value[:128] if isinstance(value, str) else value


def letter(partition: str, position: int, rejection: Rejection) -> tuple[bytes, bytes]:
    """A dead letter as (key, JSON): keyed by its position, so that repeats of it collapse."""
    where = f"{partition}/{position}"
    body: dict[str, Any] = {
        "reason": rejection.reason,
        "position": where,
        "partition": partition,
        "offset": position,
    }
    if rejection.field is not None:
        body["field"] = rejection.field
    return where.encode(), _encode(body | rejection.kept)
