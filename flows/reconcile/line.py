"""The oracle's strict reading of one NDJSON line. It shares no code with the flow, and so no error either."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from decimal import MIN_EMIN, Decimal, InvalidOperation, localcontext
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import parse_qsl, urlsplit

from flows.model.catalogue.metrics import CONVERSION_TYPES
from flows.reconcile.holds import CollectorTimes
from flows.reconcile.scan import CODES, MAX_BYTES, NAMES, NEVER

LISTENER, HOUSEHOLD = KINDS = ("listener", "household")
Denied = Callable[[str, bytes], bool]
"""Returns whether a `LISTENER` (also a client) or a `HOUSEHOLD`, as UTF-8, is on the deny-list. A text may be
both: each kind has a key of its own.
"""
_CONVERSION_TYPES: Final = frozenset(CONVERSION_TYPES)
_TEXTS: Final = (
    *(*NAMES, "play_id", "listener_id", "user_agent", "landing_url", "invalid_traffic", "ip"),
    *("collector", "basis", "client_id", "episode", "household_id"),
)
_LIMITED: Final = frozenset(
    {*NAMES, "event_id", "play_id", "listener_id", "household_id", "order_id", "collector", "client_id"}
    | {"episode"}
)
_MAX_CHARACTERS: Final = 128
_CUT_AT: Final = {"user_agent": 1_024, "landing_url": 4_096}
"""The greatest length of a text, in bytes; the bytes beyond it are not read."""
_MAX_DIGITS: Final = 4_300
_MAX_VALUE: Final = Decimal(10) ** 13

_MACRO: Final = re.compile(
    r"\[[^\[\]]+\]|%5[Bb](?:(?!%5[BbDd]).)+%5[Dd]|\$\{[^{}]+\}|\{[^{}]+\}|@[^@]+@|-[12]", re.DOTALL
)
_MACRO_STARTS: Final = frozenset("[%${@-")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1)


class Rejected(Exception):
    """Raised for a line that is no pixel, with the wrong field and the reason of the rejection."""

    def __init__(self, field: str, reason: str = "invalid") -> None:
        super().__init__(field)
        self.reason = reason


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


class Pixel(NamedTuple):
    """A well-formed pixel as it was sent; times in epoch ms.

    Attributes:
        names: its names of `flows.reconcile.scan.NAMES`.
        categories: its content categories.
        invalid: whether it has a reason of invalid traffic.
        collector: its collector and low mark.
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
    agent: str | None
    invalid: bool
    consent: bool | None
    playhead: int | None
    conversion: Conversion | None
    collector: CollectorTimes | None = None
    basis: str | None = None
    confirmed: bool = False
    client: str | None = None
    episode: str | None = None
    household: str | None = None
    before: tuple[str | None, str | None] = (None, None)


def pixel_of(document: dict[str, Any], apps: bool) -> Pixel:
    """The pixel of a JSON object; `apps` is whether pixels are counted by app.

    Raises:
        Rejected: the object is no pixel.
    """
    (event_id,), (event,) = _texts(document, ("event_id",)), _texts(document, ("event",))
    if event_id is None or event is None:
        raise Rejected("event_id" if event_id is None else "event")
    if event not in CODES:
        raise Rejected("event", "unknown_event")
    *names, play, listener, agent, url, invalid, _, collector, basis, client, episode, household = _texts(
        document, _TEXTS
    )
    if names[0] is None and event != "conversion":
        raise Rejected("placement_id")
    ts, received_at = _time(document, "ts"), _time(document, "received_at")
    if ts is None:
        raise Rejected("ts")
    if received_at is not None and not 0 <= received_at < NEVER:
        raise Rejected("received_at")
    if received_at is None and not 0 <= ts < NEVER:
        raise Rejected("ts")
    playhead, *_ = (_integer(document, name) for name in ("playhead_ms", "duration_ms", "low_ms"))
    low, consent = _meaning(document.get("low_ms")), _meaning(document.get("consent"))
    if consent is not None and consent.__class__ is not bool:
        raise Rejected("consent")
    confirmed = _meaning(document.get("device_confirmed"))
    if confirmed is not None and confirmed.__class__ is not bool:
        raise Rejected("device_confirmed")
    categories = _categories(document)
    conversion_fields = document.get("conversion")
    if conversion_fields is not None and not isinstance(conversion_fields, dict):
        raise Rejected("conversion")
    conversion = None
    before: tuple[str | None, str | None] = (None, None)
    if event == "conversion":
        if conversion_fields is None:
            raise Rejected("conversion")
        conversion = _conversion(conversion_fields, _utm_content(url) if url else None)
        before = _before(document.get("previous"))
    return Pixel(
        event=event,
        ts=ts,
        received_at=received_at,
        event_id=event_id,
        names=tuple(names) if apps else (*names[:-1], None),
        categories=tuple(categories),
        play=play,
        listener=listener,
        agent=agent,
        invalid=invalid is not None,
        consent=consent,
        playhead=playhead,
        conversion=conversion,
        collector=None
        if collector is None or low is None
        else CollectorTimes(collector, min(max(low, 0), NEVER)),
        basis=basis,
        confirmed=bool(confirmed),
        client=client,
        episode=episode,
        household=household,
        before=before,
    )


def mark_of(document: dict[str, Any] | None) -> CollectorTimes | None:
    """The values of a mark about its collector; None for a message that is no mark."""
    if document is None or document.get("event") is not None:
        return None
    collector, low, bye = (document.get(name) for name in ("collector", "low_ms", "bye"))
    times = [document.get(name) for name in ("now_ms", "logged_ms")]
    if (
        collector.__class__ is str
        and 0 < len(collector) <= _MAX_CHARACTERS
        and not is_macro(collector)
        and low.__class__ is int
        and 0 <= low < NEVER
        and bye.__class__ in (bool, type(None))
        and document.get("method", "").__class__ is str
        and all(ms is None or (ms.__class__ is int and 0 <= ms < NEVER) for ms in times)
    ):
        now_ms, logged_ms = (ms or None for ms in times)  # 0 stands for none
        return CollectorTimes(collector, None if bye else low, now_ms, logged_ms)
    return None


def parse(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None if it is `malformed`."""
    if len(line) > MAX_BYTES:
        return None
    try:
        # json.loads of bytes also takes UTF-16 and UTF-32, and builds a decoder each time.
        decoder = _JSON if _SURROGATE.search(line) is None else _STRICT_JSON
        document = decoder.decode(line.decode())
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # such as an exponent of twenty digits
        return Decimal("NaN")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _whole(digits: str) -> int | Decimal:
    """An integer. No known field takes a number that is too long for Python's integers. A line with such a
    number is not malformed.
    """
    return int(digits) if len(digits) <= _MAX_DIGITS else _decimal(digits)


def _refuse_surrogates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of pairs; raises ValueError for half a character, even in a replaced value."""
    json.dumps(pairs, ensure_ascii=False, default=str).encode()
    return dict(pairs)


_JSON: Final = json.JSONDecoder(parse_float=_decimal, parse_int=_whole, parse_constant=_refuse_constant)
_STRICT_JSON: Final = json.JSONDecoder(
    parse_float=_decimal,
    parse_int=_whole,
    parse_constant=_refuse_constant,
    object_pairs_hook=_refuse_surrogates,
)


def is_macro(text: str) -> bool:
    return text[0] in _MACRO_STARTS and _MACRO.fullmatch(text) is not None


def _texts(document: dict[str, Any], names: tuple[str, ...]) -> list[str | None]:
    """The texts of fields, None for an absent one; raises Rejected for a value that is no valid text."""
    texts: list[str | None] = []
    for name in names:
        value = document.get(name)
        if value is not None:
            if value.__class__ is not str:
                raise Rejected(name)
            if name in _LIMITED and len(value) > _MAX_CHARACTERS:
                raise Rejected(name)
            if name in _CUT_AT:
                value = value.encode()[: _CUT_AT[name]].decode(errors="ignore")
            if not value or is_macro(value):
                value = None
        texts.append(value)
    return texts


def _integer(document: dict[str, Any], name: str) -> int | None:
    """The integer of a field, None for an absent one; raises Rejected for another value."""
    value = _meaning(document.get(name))
    if value is None:
        return None
    if value.__class__ is not int:
        raise Rejected(name)
    return None if value in (-1, -2) else int(value)


def _meaning(value: Any) -> Any:
    """A value; None for an empty text or a macro, which count as absent."""
    return None if value.__class__ is str and (not value or is_macro(value)) else value


def _time(document: dict[str, Any], name: str) -> int | None:
    """The epoch ms of a time in ms or RFC 3339, None for an absent one; raises Rejected for another value."""
    value = document.get(name)
    if value.__class__ is int:
        return int(value)
    (text,) = _texts(document, (name,))
    if text is None:
        return None
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise Rejected(name)
    day, hour, minute, second, fraction, sign, *offset = match.groups()
    if int(hour) > 23 or int(minute) > 59 or int(second) > 60:
        raise Rejected(name)
    try:
        days = (datetime.fromisoformat(day) - _EPOCH).days
    except ValueError:
        raise Rejected(name) from None
    offset_minutes = 0
    if sign:
        if int(offset[0]) > 23 or int(offset[1]) > 59:
            raise Rejected(name)
        offset_minutes = (int(offset[0]) * 60 + int(offset[1])) * (1 if sign == "+" else -1)
    seconds = days * 86_400 + int(hour) * 3600 + (int(minute) - offset_minutes) * 60 + int(second)
    return seconds * 1000 + int(((fraction or "") + "000")[:3])


def _categories(document: dict[str, Any]) -> list[str]:
    value = document.get("content_category")
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(item, str) for item in values):
        raise Rejected("content_category")
    return values


def _conversion(fields: dict[str, Any], utm: str | None) -> Conversion:
    kind, currency, order_id = _texts(fields, ("type", "currency", "order_id"))
    if kind not in _CONVERSION_TYPES:
        raise Rejected("conversion.type")
    if currency is not None and not re.fullmatch("[A-Z]{3}", currency):
        raise Rejected("conversion.currency")
    value, odd = _micros(fields.get("value"))
    claimed = fields.get("claimed")
    if not isinstance(claimed, bool | None):
        raise Rejected("conversion.claimed")
    return Conversion(str(kind), order_id, value, odd, currency, utm, claimed is True)


def _before(previous: Any) -> tuple[str | None, str | None]:
    if previous is None:
        return None, None
    if not isinstance(previous, dict):
        raise Rejected("previous")
    listener, household = _texts(previous, ("listener_id", "household_id"))
    return listener, household


def _micros(value: Any) -> tuple[int | None, bool]:
    """A conversion's value in millionths, and whether it has a value that is no decimal of six places within
    10^13.
    """
    if value.__class__ is str:
        if not value or is_macro(value):
            return None, False
        number = _decimal(value) if _DECIMAL.fullmatch(value) else None
    elif value is None:
        return None, False
    else:
        number = Decimal(value) if value.__class__ in (int, Decimal) else None
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


def _utm_content(url: str) -> str | None:
    try:
        query = parse_qsl(urlsplit(url).query)
    except ValueError:
        return None
    return next((value for name, value in query if name == "utm_content"), None)
