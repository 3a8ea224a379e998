"""The oracle's own strict reading of NDJSON lines; it shares nothing with the flow, so no mistake either.

Listeners become numbers and user agents a flag here: what reaches the database identifies nobody.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation, localcontext
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn
from urllib.parse import parse_qsl, urlsplit

import zstandard

from flows.errors import AudiopixelError

READ_ERRORS: Final = (OSError, EOFError, zlib.error, zstandard.ZstdError)
"""What reading a file of `open_log` may raise."""

_EVENTS: Final = frozenset(
    {
        *("impression", "start", "firstQuartile", "midpoint", "thirdQuartile", "complete", "skip", "mute"),
        *("unmute", "pause", "resume", "progress", "error", "click", "conversion"),
    }
)
_CONVERSION_TYPES: Final = frozenset(
    {"site_visit", "sign_up", "purchase", "app_download", "phone_call", "form_submission"}
)
_TEXTS: Final = (
    *("placement_id", "play_id", "campaign_id", "platform", "station", "podcast", "program", "listener_id"),
    *("user_agent", "landing_url", "creative_id", "ip"),
)
_MAX_BYTES: Final = 65_536
_MAX_ID: Final = 128
_DAY_MS: Final = 86_400_000

_MACRO: Final = re.compile(
    r"\[[^\[\]]+\]|%5[Bb](?:(?!%5[BbDd]).)+%5[Dd]|\$\{[^{}]+\}|\{[^{}]+\}|@[^@]+@|-[12]", re.DOTALL
)
_MACRO_STARTS: Final = frozenset("[%${@-")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_CATEGORY_WITH_PARTS: Final = re.compile(r"IAB[0-9]+", re.IGNORECASE)
_BOT: Final = re.compile(r"bot\b|bot/|crawler|spider", re.IGNORECASE)
_EPOCH: Final = datetime(1970, 1, 1)


class Rejected(Exception):
    """A line is no pixel, for `reason`; its argument is the field."""

    def __init__(self, field: str, reason: str = "invalid") -> None:
        super().__init__(field)
        self.reason = reason


class Pixel(NamedTuple):
    """One well-formed pixel, as a row of the table `pixels`; `value` in micros, times in epoch ms."""

    src: int
    pos: int
    event: str
    t: int
    greatest: int | None
    event_id: str
    placement: str | None
    play: str | None
    campaign: str | None
    platform: str | None
    station: str | None
    podcast: str | None
    program: str | None
    listener: int | None
    consent: bool
    bot: bool
    playhead: int | None
    conversion_type: str | None
    order_id: str | None
    value: int | None
    currency: str | None
    utm: str | None
    blocked: bool


class Reader:
    """Reads source partitions, one `read` a file, and keeps the account of what is no pixel.

    Args:
        consent_default: whether a pixel that says nothing of consent may be measured.
        podcast_apps: a regular expression, case-insensitive; a user agent that it finds is no bot.
        agents: more such expressions, of user agents that are as bots.
        blocked: placements to the content categories that are blocked there; of Content Taxonomy 1, `IAB26`
            blocks its parts, such as `IAB26-1`, too. Case does not matter.

    Attributes:
        received: lines by partition number.
        rejected: (partition number, reason) to lines; `too_late` is not known here.
        clock_skewed: pixels by partition number whose `ts` was clamped by more than 5 min.
    """

    def __init__(
        self,
        consent_default: bool,
        podcast_apps: str,
        blocked: Mapping[str, Sequence[str]] | None = None,
        agents: Collection[str] = (),
    ) -> None:
        self.received: Counter[int] = Counter()
        self.rejected: Counter[tuple[int, str]] = Counter()
        self.clock_skewed: Counter[int] = Counter()
        self._consent_default = consent_default
        self._podcast_app = re.compile(podcast_apps, re.IGNORECASE)
        self._agents = [re.compile(own, re.IGNORECASE) for own in agents]
        self._listeners: dict[str, int] = {}
        self._bots: dict[str, bool] = {}
        self._blocking = {placement: _any_of(names) for placement, names in (blocked or {}).items()}

    def read(self, src: int, path: Path) -> Iterator[Pixel]:
        """The well-formed pixels of a file, plain, `.gz` or `.zst`, in its order.

        Raises:
            AudiopixelError: the file cannot be read.
        """
        clock = _Clock()
        try:
            with open_log(path) as lines:
                for pos, line in enumerate(lines, 1):
                    self.received[src] += 1
                    document = parse(line.removesuffix(b"\n"))
                    if document is None:
                        self.rejected[src, "malformed"] += 1
                        continue
                    try:
                        yield self._pixel(src, pos, document, clock)
                    except Rejected as wrong:
                        self.rejected[src, wrong.reason] += 1
        except READ_ERRORS as error:
            raise AudiopixelError(f"{path}: cannot be read: {error}") from error

    def _pixel(self, src: int, pos: int, document: dict[str, Any], clock: _Clock) -> Pixel:
        (event_id,), (event,) = _texts(document, ("event_id",)), _texts(document, ("event",))
        if event_id is None or event is None:
            raise Rejected("event_id" if event_id is None else "event")
        if event not in _EVENTS:
            raise Rejected("event", "unknown_event")
        placement, play, campaign, platform, station, podcast, program, listener, agent, url, *_ = _texts(
            document, _TEXTS
        )
        if placement is None and event != "conversion":
            raise Rejected("placement_id")
        ts, received_at = _time(document, "ts"), _time(document, "received_at")
        if ts is None:
            raise Rejected("ts")
        playhead, _ = _integer(document, "playhead_ms"), _integer(document, "duration_ms")
        consent = document.get("consent")
        if consent is not None and consent.__class__ is not bool:
            raise Rejected("consent")
        categories = _categories(document)
        conversion = _conversion(document)
        if conversion is None and event == "conversion":
            raise Rejected("conversion")
        # Only from here on is it a pixel: what is refused above must not move the clock.
        t = ts
        if received_at is not None:
            t = min(max(ts, received_at - _DAY_MS), received_at + 60_000)
            self.clock_skewed[src] += abs(t - ts) > 300_000
        greatest = clock.advance(t, bounded=received_at is not None)
        who = None if listener is None else self._listeners.setdefault(listener, len(self._listeners))
        may = self._consent_default if consent is None else consent
        bot = agent is not None and self._is_bot(agent)
        kind, order_id, value, currency = conversion or (None, None, None, None)
        utm = _utm_content(url) if event == "conversion" and url else None
        blocking = self._blocking.get(placement or "")
        is_blocked = blocking is not None and any(map(blocking.fullmatch, categories))
        # fmt: off
        return Pixel(
            src, pos, event, t, greatest, event_id, placement, play, campaign, platform, station, podcast,
            program, who, may, bot, playhead, kind, order_id, value, currency, utm, is_blocked,
        )
        # fmt: on

    def _is_bot(self, agent: str) -> bool:
        if agent not in self._bots:
            bot = bool(_BOT.search(agent)) and not self._podcast_app.search(agent)
            self._bots[agent] = bot or any(own.search(agent) for own in self._agents)
        return self._bots[agent]


class _Clock:
    """The greatest event time of a partition so far, guarded against one mad clock (specification 1.4)."""

    def __init__(self) -> None:
        self._greatest: int | None = None
        self._jump: int | None = None

    def advance(self, t: int, bounded: bool) -> int | None:
        """The greatest event time with this pixel; None while nothing has confirmed any."""
        if self._jump is not None and t >= self._jump - _DAY_MS:
            self._greatest = self._jump if self._greatest is None else max(self._greatest, self._jump)
        self._jump = None
        if bounded or (self._greatest is not None and t <= self._greatest + _DAY_MS):
            self._greatest = t if self._greatest is None else max(self._greatest, t)
        else:
            self._jump = t
        return self._greatest


def parse(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None when it is `malformed`."""
    if len(line) > _MAX_BYTES:
        return None
    try:
        # Not json.loads of the bytes: it guesses UTF-16 and UTF-32, and makes its decoder anew each time.
        document = _JSON.decode(line.decode())
        if _SURROGATE.search(line):
            json.dumps(document, ensure_ascii=False, default=str).encode()
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


_JSON: Final = json.JSONDecoder(parse_float=_decimal, parse_constant=_no_constant)


def _texts(document: dict[str, Any], names: tuple[str, ...]) -> list[str | None]:
    texts: list[str | None] = []
    for name in names:
        value = document.get(name)
        if value is not None:
            if value.__class__ is not str:
                raise Rejected(name)
            if not value or (value[0] in _MACRO_STARTS and _MACRO.fullmatch(value)):
                value = None
            elif len(value) > _MAX_ID and name.endswith("_id"):
                raise Rejected(name)
        texts.append(value)
    return texts


def _integer(document: dict[str, Any], name: str) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if value.__class__ is not int or not -(2**63) <= value < 2**63:
        raise Rejected(name)
    return None if value in (-1, -2) else int(value)


def _time(document: dict[str, Any], name: str) -> int | None:
    value = document.get(name)
    if value.__class__ is int:
        if not -(2**63) <= value < 2**63:
            raise Rejected(name)
        # Beyond any calendar all times are alike, and sums of them must stay within 64 bits.
        return int(min(max(value, -(2**61)), 2**61))
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


def _any_of(categories: Sequence[str]) -> re.Pattern[str]:
    names = [
        re.escape(name) + (r"(?:-\d+)?" if _CATEGORY_WITH_PARTS.fullmatch(name) else "")
        for name in categories
    ]
    return re.compile(rf"\s*(?:{'|'.join(names)})\s*", re.IGNORECASE)


def _conversion(document: dict[str, Any]) -> tuple[str, str | None, int | None, str | None] | None:
    """(type, order id, value in micros, currency)."""
    value = document.get("conversion")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise Rejected("conversion")
    kind, currency, order_id = _texts(value, ("type", "currency", "order_id"))
    if kind not in _CONVERSION_TYPES:
        raise Rejected("conversion.type")
    if currency is not None and not re.fullmatch("[A-Z]{3}", currency):
        raise Rejected("conversion.currency")
    return str(kind), order_id, _micros(value), currency


def _micros(conversion: dict[str, Any]) -> int | None:
    value = conversion.get("value")
    if value.__class__ in (int, Decimal):
        number = Decimal(value)
    else:
        (text,) = _texts(conversion, ("value",))
        if text is None:
            return None
        if not _DECIMAL.fullmatch(text):
            raise Rejected("conversion.value")
        number = _decimal(text)
    if not number.is_finite() or number.adjusted() > 12:
        raise Rejected("conversion.value")
    with localcontext(prec=100_000):
        micros = int(number.scaleb(6).to_integral_value(ROUND_HALF_EVEN))
    if not -(2**63) <= micros < 2**63:
        raise Rejected("conversion.value")
    return micros


def _utm_content(url: str) -> str | None:
    try:
        query = parse_qsl(urlsplit(url).query)
    except ValueError:
        return None
    return next((value for name, value in query if name == "utm_content"), None)


def open_log(path: Path) -> BinaryIO:
    """A file of lines, plain, `.gz` or `.zst`, opened for reading as bytes; one that was cut short raises
    `EOFError` at its end.
    """
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.open(path))
    if path.suffix == ".zst":
        return io.BufferedReader(_ZstFile(path))
    return path.open("rb")


class _ZstFile(io.RawIOBase):
    """Frame after frame; zstandard's own reader takes a file cut within a frame for a whole one."""

    _PIECE: Final = 4096

    def __init__(self, path: Path) -> None:
        self._packed = path.open("rb")
        self._frame: Any = None
        self._waiting = b""
        self._unpacked = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            if not self._waiting:
                self._waiting = self._packed.read(self._PIECE)
            if not self._waiting:
                if self._frame is not None:
                    raise EOFError("the file ends within a compressed frame: it was cut short")
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._unpacked = memoryview(self._frame.decompress(self._waiting))
            self._waiting = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        size = min(len(buffer), len(self._unpacked))
        buffer[:size], self._unpacked = self._unpacked[:size], self._unpacked[size:]
        return size

    def close(self) -> None:
        self._packed.close()
        super().close()
