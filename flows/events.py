"""The canonical pixel event: its form, strict decoding, and the closed set of reasons to reject a message.

`decode` is the way in for the messages that are right; `explain` says of any other why it is not, in the
order that the specification of events sets: malformed, invalid id or event, unknown event, invalid others.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation, localcontext
from math import isfinite
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

MAX_MESSAGE_BYTES: Final = 64 * 1024
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
    r"\[[^\[\]]*\]|%5B(?:(?!%5B|%5D).)*%5D|\$\{[^{}]*\}|\{[^{}]*\}|@[^@]*@|-[12]", re.IGNORECASE | re.DOTALL
)
_MOST_DIGITS: Final = 400
"""Of an integer: Python reads no more than 4,300, and no known field needs a tenth of these."""
_SUSPECT = frozenset("[%${@-")
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:)(\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII
)
_EPOCH = datetime(1970, 1, 1)
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CURRENCY = re.compile("[A-Z]{3}")
"""The form of an ISO 4217 code."""


def absent(text: str | None) -> bool:
    """Whether a string says nothing: missing, empty, an ad server's unreplaced macro, or VAST's -1 and -2."""
    return not text or (text[0] in _SUSPECT and _MACRO.fullmatch(text) is not None)


def present(text: str | None) -> str | None:
    """`text`, or None where it is `absent`."""
    return None if absent(text) else text


Id = Annotated[str, msgspec.Meta(max_length=128)]


class Conversion(msgspec.Struct, gc=False):
    """What a listener did; `value` is its text, so that it stays exact."""

    type: str
    order_id: Id | None = None
    value: msgspec.Raw = msgspec.Raw(b"null")
    currency: str | None = None


class Event(msgspec.Struct, gc=False):
    """One pixel call as its caller sent it. A JSON null counts as absent; unknown fields are ignored."""

    event_id: Id
    event: str
    ts: int | str
    received_at: int | str | None = None
    placement_id: Id | None = None
    play_id: Id | None = None
    campaign_id: Id | None = None
    creative_id: Id | None = None
    platform: str | None = None
    station: str | None = None
    podcast: str | None = None
    program: str | None = None
    listener_id: Id | None = None
    consent: bool | None = None
    playhead_ms: int | None = None
    duration_ms: int | None = None
    user_agent: str | None = None
    ip: str | None = None
    content_category: str | list[str] | None = None
    landing_url: str | None = None
    conversion: Conversion | None = None


decode = msgspec.json.Decoder(Event).decode
"""Bytes to an `Event`; raises msgspec.MsgspecError, RecursionError, or UnicodeDecodeError."""

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


def micros(raw: msgspec.Raw) -> int | None:
    """Integer millionths, half-even, of a JSON number or of a string that holds one; None where it is absent.

    Raises:
        Invalid: neither, or beyond 64 bits of millionths.
    """
    text = bytes(raw).decode()
    if text == "null":
        return None
    if text.startswith('"'):
        told: str = msgspec.json.decode(text)
        if absent(told):
            return None
        text = told
    if not _DECIMAL.fullmatch(text):
        raise Invalid("conversion.value")
    try:
        value = Decimal(text)
    except InvalidOperation:  # an exponent beyond any machine
        raise Invalid("conversion.value") from None
    if value.adjusted() > 12:
        raise Invalid("conversion.value")
    with localcontext(prec=MAX_MESSAGE_BYTES):
        number = int(value.scaleb(6).to_integral_value(ROUND_HALF_EVEN))
    if not -(2**63) <= number < 2**63:
        raise Invalid("conversion.value")
    return number


def check_conversion(event: Event) -> Conversion:
    """The conversion of a `conversion` event.

    Raises:
        Invalid: it is missing, or its type or value is none of the known.
    """
    conversion = event.conversion
    if conversion is None:
        raise Invalid("conversion")
    if conversion.type not in CONVERSION_TYPES:
        raise Invalid("conversion.type")
    currency = present(conversion.currency)
    if currency is not None and not _CURRENCY.fullmatch(currency):
        raise Invalid("conversion.currency")
    micros(conversion.value)
    return conversion


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
        message = str(error)
        if " - at `$." in message:
            return message.rsplit(" - at `$.", 1)[1].rstrip("`").split("[")[0]
        missing = re.search(r"missing required field `(\w+)`", message)
        return missing.group(1) if missing else None
    except msgspec.MsgspecError:
        return None
    return None


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
            parts = urlsplit(url)
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
