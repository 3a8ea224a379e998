"""The oracle's strict reading of one NDJSON line. This reading shares no code with the flow, and so
no mistake.
"""

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
from flows.reconcile.scan import (
    CODES,
    MAX_BYTES,
    NAMES,
    NEVER,
)

LISTENER, HOUSEHOLD = KINDS = ("listener", "household")
Denied = Callable[[str, bytes], bool]
"""Answers whether a `LISTENER` (also a client) or a `HOUSEHOLD` (UTF-8) is on the deny-list. One text may be
both, and each has its own key.
"""
_CONVERSION_TYPES: Final = frozenset(CONVERSION_TYPES)
_TEXTS: Final = (
    *NAMES,
    "play_id",
    "listener_id",
    "user_agent",
    "landing_url",
    "invalid_traffic",
    "ip",
    "collector",
    "basis",
    "client_id",
    "episode",
    "household_id",
)
_LIMITED: Final = frozenset(
    {*NAMES, "event_id", "play_id", "listener_id", "household_id", "order_id", "collector", "client_id"}
    | {"episode"},
)
_MAX_CHARACTERS: Final = 128
_CUT_AT: Final = {"user_agent": 1_024, "landing_url": 4_096}
"""The greatest length of a text, in bytes; the rest is cut off before it is read."""
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
    """A line is no pixel, for `reason`; the argument is the field."""

    def __init__(self, field: str, reason: str = "invalid") -> None:
        super().__init__(field)
        self.reason = reason


class Conversion(NamedTuple):
    """The part of a conversion that other pixels do not have.

    Attributes:
        value: in micros; None without one.
        odd: whether it has a value that is no number in bounds.
        claimed: whether a public tag has sent it.
        apart: whether it is claimed where only servers' conversions count.
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
        """True for a public tag's conversion that a server's may confirm."""
        return self.claimed and not self.apart


class Pixel(NamedTuple):
    """A well-formed pixel as it was sent; times in epoch ms.

    Attributes:
        invalid: whether it came with a reason of invalid traffic.
        collector: its collector and low mark.
        confirmed: whether the device itself has called.
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
    """A mark's values of its collector; None for a message that is no mark."""
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
        and all(one is None or (one.__class__ is int and 0 <= one < NEVER) for one in times)
    ):
        now, logged = (one or None for one in times)  # 0 is none
        return CollectorTimes(collector, None if bye else low, now, logged)
    return None


def parse(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None if it is `malformed`."""
    if len(line) > MAX_BYTES:
        return None
    try:
        # json.loads of the bytes would guess UTF-16 and UTF-32, and rebuild its decoder each time.
        half = _SURROGATE.search(line)
        document = (_JSON if half is None else _WATCHFUL).decode(line.decode())
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits
        return Decimal("NaN")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _whole(digits: str) -> int | Decimal:
    """An integer. A number that is too long for Python's integers is the value of no known field, and no
    reason to refuse a line.
    """
    return int(digits) if len(digits) <= _MAX_DIGITS else _decimal(digits)


def _whole_letters(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; raises ValueError for half a character, also in a value that a later one of its name
    replaces.
    """
    json.dumps(pairs, ensure_ascii=False, default=str).encode()
    return dict(pairs)


_JSON: Final = json.JSONDecoder(parse_float=_decimal, parse_int=_whole, parse_constant=_no_constant)
_WATCHFUL: Final = json.JSONDecoder(
    parse_float=_decimal, parse_int=_whole, parse_constant=_no_constant, object_pairs_hook=_whole_letters
)


def is_macro(text: str) -> bool:
    return text[0] in _MACRO_STARTS and _MACRO.fullmatch(text) is not None


def _texts(document: dict[str, Any], names: tuple[str, ...]) -> list[str | None]:
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
    value = _meaning(document.get(name))
    if value is None:
        return None
    if value.__class__ is not int:
        raise Rejected(name)
    return None if value in (-1, -2) else int(value)


def _meaning(value: Any) -> Any:
    """A value that is no text, or None for a text without meaning."""
    return None if value.__class__ is str and (not value or is_macro(value)) else value


def _time(document: dict[str, Any], name: str) -> int | None:
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
    away = 0
    if sign:
        if int(offset[0]) > 23 or int(offset[1]) > 59:
            raise Rejected(name)
        away = (int(offset[0]) * 60 + int(offset[1])) * (1 if sign == "+" else -1)
    seconds = days * 86_400 + int(hour) * 3600 + (int(minute) - away) * 60 + int(second)
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
    """A conversion's value, and whether it has one that is no decimal of six places within 10^13."""
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
    if not number:  # with any exponent
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
