"""The oracle's strict reading of one NDJSON line: a msgspec struct decides what a pixel is.

The oracle shares no code with the flow. If a field is there several times, each of its values must be of its
type, and the last one counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from decimal import MIN_EMIN, Decimal, InvalidOperation, localcontext
from operator import attrgetter
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec

from flows.model.catalogue.metrics import CONVERSION_TYPES
from flows.reconcile.fields import CODES, NAMES
from flows.reconcile.holds import CollectorTimes

LISTENER, HOUSEHOLD = KINDS = ("listener", "household")
Denied = Callable[[str, bytes], bool]
"""Returns whether a `LISTENER` (also a client) or a `HOUSEHOLD`, as UTF-8, is on the deny-list. A text may be
both: each kind has a key of its own.
"""
NEVER: Final = 4_102_444_800_000
"""The year 2100, before which all times are."""
_MAX_BYTES: Final = 65_536
_MAX_CHARACTERS: Final = 128
_CUT_AT: Final = {"user_agent": 1_024, "landing_url": 4_096}
"""The greatest length of a text, in bytes; the bytes beyond it are not read."""
_MAX_VALUE: Final = Decimal(10) ** 13
_CONVERSION_TYPES: Final = frozenset(CONVERSION_TYPES)
_NULL: Final = msgspec.Raw(b"null")

_MACRO: Final = re.compile(
    r"\[[^\[\]]+\]|%5[Bb](?:(?!%5[BbDd]).)+%5[Dd]|\$\{[^{}]+\}|\{[^{}]+\}|@[^@]+@|-[12]", re.DOTALL
)
_MACRO_STARTS: Final = frozenset("[%${@-")
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1)

_Id = Annotated[str, msgspec.Meta(max_length=_MAX_CHARACTERS)]


class Rejected(Exception):
    """Raised for a line that is no pixel; its text is the reason of the rejection."""


class _Invalid(Exception):
    """Raised for a field whose value has the right type and a wrong meaning."""


class Conversion(NamedTuple):
    """The fields of a conversion that other pixels do not have.

    Attributes:
        kind: its type, such as `purchase`.
        value: in millionths; None without a valid value.
        odd: whether it has a value that is invalid or out of bounds.
        utm: `utm_content` of its landing URL.
        claimed: whether a public tag has sent it.
        apart: whether it is claimed, and only server conversions count for its campaign.
    """

    kind: str
    order_id: str | None
    value: int | None
    odd: bool
    currency: str | None
    utm: str | None
    claimed: bool
    apart: bool = False

    @property
    def claims(self) -> bool:
        """True for a public tag's conversion that a server's conversion may confirm."""
        return self.claimed and not self.apart


class _Sale(msgspec.Struct, gc=False):
    """The object `conversion` of a conversion. `value` is JSON text, so that it stays exact."""

    type: str
    order_id: _Id | None = None
    value: msgspec.Raw = _NULL
    currency: str | None = None
    claimed: bool | None = None


class _People(msgspec.Struct, gc=False):
    """The listener and the household of a conversion by the edge's previous key."""

    listener_id: _Id | None = None
    household_id: _Id | None = None


class _Line(msgspec.Struct, gc=False):
    """A pixel as JSON has it. The type of a pixel also has the fields `NAMES`."""

    event_id: _Id
    event: str
    ts: int | str
    received_at: int | str | None = None
    play_id: _Id | None = None
    listener_id: _Id | None = None
    household_id: _Id | None = None
    client_id: _Id | None = None
    collector: _Id | None = None
    episode: _Id | None = None
    user_agent: str | None = None
    landing_url: str | None = None
    invalid_traffic: str | None = None
    ip: str | None = None
    basis: str | None = None
    playhead_ms: int | str | None = None
    duration_ms: int | str | None = None
    low_ms: int | str | None = None
    consent: bool | str | None = None
    device_confirmed: bool | str | None = None
    content_category: str | list[str] | None = None
    conversion: msgspec.Raw = _NULL
    previous: msgspec.Raw = _NULL


class _Mark(msgspec.Struct, gc=False):
    """A mark of a collector as JSON has it. A mark has no event."""

    collector: _Id
    low_ms: int
    event: None = None
    bye: bool | None = None
    method: str = ""
    now_ms: int | None = None
    logged_ms: int | None = None


class _Named(msgspec.Struct, gc=False):
    """The two fields that decide why a line is rejected."""

    event_id: msgspec.Raw = _NULL
    event: msgspec.Raw = _NULL


_SHORT_TEXTS: Final = (
    *("event_id", "play_id", "listener_id", "household_id", "client_id", "collector", "episode"),
    *("invalid_traffic", "basis"),
)
_texts_of: Final = attrgetter(*NAMES, *_SHORT_TEXTS)
_named_line: Final = msgspec.defstruct(
    "_NamedLine", [(name, _Id | None, None) for name in NAMES], bases=(_Line,), module=__name__, gc=False
)
_decode_line: Final = msgspec.json.Decoder(_named_line).decode
_decode_mark: Final = msgspec.json.Decoder(_Mark).decode
_decode_named: Final = msgspec.json.Decoder(_Named).decode
_decode_sale: Final = msgspec.json.Decoder(_Sale).decode
_decode_people: Final = msgspec.json.Decoder(_People | None).decode
_decode_text: Final = msgspec.json.Decoder(str).decode
_decode_id: Final = msgspec.json.Decoder(_Id).decode
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Pixel(NamedTuple):
    """A well-formed pixel as it was sent; times in epoch ms.

    Attributes:
        names: its names of `flows.reconcile.fields.NAMES`.
        categories: its content categories.
        invalid: whether it has a reason of invalid traffic.
        times: its collector and low mark.
        confirmed: whether the device itself has sent it.
        before: the listener and the household of a conversion by the edge's previous key.
    """

    event: str
    ts: int
    received_at: int | None
    event_id: str
    names: tuple[str | None, ...]
    categories: tuple[str, ...]
    play: str | None
    listener: str | None
    household: str | None
    client: str | None
    episode: str | None
    agent: str | None
    invalid: bool
    consent: bool | None
    playhead: int | None
    basis: str | None
    confirmed: bool
    times: CollectorTimes | None
    conversion: Conversion | None
    before: tuple[str | None, str | None]


def pixel_of(raw: bytes) -> Pixel:
    """The pixel of a line without its LF.

    Raises:
        Rejected: the line is no pixel.
    """
    try:
        if len(raw) <= _MAX_BYTES:
            if not raw.isascii():
                raw.decode()  # msgspec checks no UTF-8 in fields that it skips
            return _checked(_decode_line(raw))
    except (_Invalid, *_UNREADABLE):
        pass
    raise Rejected(_reason(raw))


def _reason(raw: bytes) -> str:
    """The reason why a line is rejected: the first that holds."""
    try:
        raw.decode()
        named = _decode_named(raw)
    except _UNREADABLE:
        return "malformed"
    if len(raw) > _MAX_BYTES:
        return "malformed"
    try:
        event_id, event = _decode_id(named.event_id), _decode_text(named.event)
    except _UNREADABLE:
        return "invalid"
    return "unknown_event" if _present(event_id) and _present(event) and event not in CODES else "invalid"


def mark_of(raw: bytes) -> CollectorTimes | None:
    """The values of a mark about its collector; None for a message that is no mark."""
    try:
        raw.decode()
        mark = _decode_mark(raw)
    except _UNREADABLE:
        return None
    if len(raw) > _MAX_BYTES or _present(mark.collector) is None:
        return None
    if not all(0 <= (ms or 0) < NEVER for ms in (mark.low_ms, mark.now_ms, mark.logged_ms)):
        return None
    # A time of 0 stands for none.
    return CollectorTimes(
        mark.collector, None if mark.bye else mark.low_ms, mark.now_ms or None, mark.logged_ms or None
    )


def _checked(line: Any) -> Pixel:
    """The pixel of a line whose fields have their types; raises `_Invalid` for a value without meaning."""
    *names, event_id, play, listener, household, client, collector, episode, invalid, basis = [
        None if not text or (text[0] in _MACRO_STARTS and _MACRO.fullmatch(text)) else text
        for text in _texts_of(line)
    ]
    event, ts, received_at = line.event, line.ts, line.received_at
    ts = ts if ts.__class__ is int else _epoch_ms(ts)
    if received_at is not None and received_at.__class__ is not int:
        received_at = _epoch_ms(received_at)
    known = ts if received_at is None else received_at
    if event_id is None or event not in CODES or ts is None or known is None or not 0 <= known < NEVER:
        raise _Invalid
    numbers = line.playhead_ms, line.duration_ms, line.low_ms
    playhead, _, low_ms = (None if value.__class__ is str else value for value in numbers)
    consent, confirmed = (
        None if value.__class__ is str else value for value in (line.consent, line.device_confirmed)
    )
    for value in (*numbers, line.consent, line.device_confirmed):
        if value.__class__ is str and _present(value):
            raise _Invalid
    times = None
    if collector is not None and low_ms is not None:
        times = CollectorTimes(collector, min(max(low_ms, 0), NEVER))
    category = line.content_category
    conversion = None
    before: tuple[str | None, str | None] = (None, None)
    if event == "conversion":
        conversion = _conversion(line.conversion, _cut(line.landing_url, "landing_url"))
        if people := _decode_people(line.previous):
            before = _present(people.listener_id), _present(people.household_id)
    elif names[0] is None or bytes(line.conversion)[:1] not in (b"{", b"n"):
        raise _Invalid
    return Pixel(
        event=event,
        ts=ts,
        received_at=None if received_at is None else max(received_at, 1),  # as the flow reads a receipt of 0
        event_id=event_id,
        names=tuple(names),
        categories=(category,) if category.__class__ is str else tuple(category or ()),
        play=play,
        listener=listener,
        household=household,
        client=client,
        episode=episode,
        agent=_cut(line.user_agent, "user_agent"),
        invalid=invalid is not None,
        consent=consent,
        playhead=None if playhead in (-1, -2) else playhead,
        basis=basis,
        confirmed=confirmed is True,
        times=times,
        conversion=conversion,
        before=before,
    )


def _present(text: str | None) -> str | None:
    """A text; None for an empty text or a macro, which count as absent."""
    return None if not text or (text[0] in _MACRO_STARTS and _MACRO.fullmatch(text)) else text


def _cut(text: str | None, field: str) -> str | None:
    """A text without the bytes beyond its field's greatest length."""
    if text is not None and len(text) * 4 > _CUT_AT[field]:
        text = text.encode()[: _CUT_AT[field]].decode(errors="ignore")
    return _present(text)


def _epoch_ms(text: str) -> int | None:
    """The epoch ms of an RFC 3339 text; None for an absent one. Raises `_Invalid` for another text."""
    if not _present(text):
        return None
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise _Invalid
    day, hour, minute, second, fraction, sign, *offset = match.groups()
    if int(hour) > 23 or int(minute) > 59 or int(second) > 60:
        raise _Invalid
    try:
        days = (datetime.fromisoformat(day) - _EPOCH).days
    except ValueError:
        raise _Invalid from None
    offset_minutes = 0
    if sign:
        if int(offset[0]) > 23 or int(offset[1]) > 59:
            raise _Invalid
        offset_minutes = (int(offset[0]) * 60 + int(offset[1])) * (1 if sign == "+" else -1)
    seconds = days * 86_400 + int(hour) * 3600 + (int(minute) - offset_minutes) * 60 + int(second)
    return seconds * 1000 + int(((fraction or "") + "000")[:3])


def _conversion(raw: msgspec.Raw, url: str | None) -> Conversion:
    sale = _decode_sale(raw)
    currency = _present(sale.currency)
    if sale.type not in _CONVERSION_TYPES or (currency and not re.fullmatch("[A-Z]{3}", currency)):
        raise _Invalid
    value, odd = _micros(bytes(sale.value).decode())
    order_id, utm = _present(sale.order_id), _utm_content(url) if url else None
    return Conversion(sale.type, order_id, value, odd, currency, utm, sale.claimed is True)


def _micros(text: str) -> tuple[int | None, bool]:
    """A conversion's value in millionths, and whether it has a value that is no decimal of six places within
    10^13. `text` is the value's JSON.
    """
    if text[0] == '"' and not (text := _present(_decode_text(text)) or ""):
        return None, False
    if text == "null":
        return None, False
    number = _decimal(text) if _DECIMAL.fullmatch(text) else None
    if number is None or not number.is_finite():
        return None, True
    if not number:  # whatever its exponent is
        return 0, False
    if number.adjusted() > 13 or abs(number) > _MAX_VALUE:
        return None, True
    with localcontext(prec=100_000, Emin=MIN_EMIN):
        micros = number.scaleb(6)
        whole = int(micros.to_integral_value())
        return (whole, False) if micros == whole else (None, True)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # such as an exponent of twenty digits
        return Decimal("NaN")


def _utm_content(url: str) -> str | None:
    try:
        query = parse_qsl(urlsplit(url).query)
    except ValueError:
        return None
    return next((value for name, value in query if name == "utm_content"), None)
