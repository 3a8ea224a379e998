"""The oracle's own strict reading of NDJSON lines; it shares nothing with the flow, so no mistake either.

Listeners become numbers and user agents a flag here: what reaches the database identifies nobody.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import MIN_EMIN, Decimal, InvalidOperation, localcontext
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from flows.errors import AudiopixelError
from flows.reconcile.logs import READ_ERRORS, open_log
from flows.reconcile.scan import (
    AGENT,
    BY_CONVERSION,
    BY_EVENT,
    BY_ORDER,
    BY_PLAY,
    BY_PROGRESS,
    CODES,
    COMBO,
    CONSENT,
    EVENT,
    GREATEST,
    LINKED,
    MAX_BYTES,
    NAMES,
    NEVER,
    NEW_AGENT,
    NEW_COMBO,
    NO_TIME,
    PLAIN,
    RECEIVED,
    ROW,
    SPANS,
    TOLD,
    Hash,
    T,
    clock,
    find_pair,
    scan,
)

_CONVERSION_TYPES: Final = frozenset(
    {"site_visit", "sign_up", "purchase", "app_download", "phone_call", "form_submission"}
)
_TEXTS: Final = (
    *NAMES,
    "play_id",
    "listener_id",
    "user_agent",
    "landing_url",
    "invalid_traffic",
    "creative_id",
    "ip",
    "collector",
)
_LIMITED: Final = frozenset(
    {*NAMES, "event_id", "play_id", "listener_id", "creative_id", "order_id", "collector"},
)
_MOST_CHARACTERS: Final = 128
_CUT_AT: Final = {"user_agent": 1_024, "landing_url": 4_096}
"""Bytes that are left of a text before anything looks at it."""
_AGENT_SPAN: Final = SPANS.index("user_agent")
_LISTENER_SPAN: Final = SPANS.index("listener_id")
_MOST_AGENTS: Final = 1 << 18
_BLOCK_BYTES: Final = 8 << 20
_MAX_LINE_BYTES: Final = 16 << 20
_MOST_BROKEN: Final = 64
_MOST_DIGITS: Final = 4_300
_MOST_VALUE: Final = Decimal(10) ** 13

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


class Conversion(NamedTuple):
    """What a conversion carries beside its pixel.

    `value` is in micros, None where there is none; `odd`: there is one that is no number in bounds.
    """

    kind: str
    order_id: str | None
    value: int | None
    odd: bool
    currency: str | None
    utm: str | None


class Pixel(NamedTuple):
    """One well-formed pixel as it was told; times in epoch ms. `invalid`: it came with a reason."""

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


class Batch(NamedTuple):
    """The pixels of some lines: columns of the table `pixels`, rows of `combos` and of `conversions`."""

    pixels: dict[str, Any]
    combos: list[tuple[Any, ...]]
    conversions: list[tuple[Any, ...]]


class Reader:
    """Reads source partitions, one `read` a file, and keeps the account of what is no pixel.

    Args:
        consent_default: whether a pixel that says nothing of consent may be measured.
        podcast_apps: a regular expression, case-insensitive; a user agent that it finds is no bot.
        agents: more such expressions, of user agents that are as bots.
        blocked: placements to the content categories that are blocked there; of Content Taxonomy 1, `IAB26`
            blocks its parts, such as `IAB26-1`, too. Case does not matter.
        guarded: see `flows.reconcile.scan.clock`.
        denied: whether a listener (UTF-8) is on the deny-list; None: nobody is.
        plainly: whether `flows.reconcile.scan` goes first, which changes the time and nothing else.

    Attributes:
        received: lines by partition number, without the marks of collectors.
        marks: those, by partition number.
        rejected: (partition number, reason) to lines; `too_late` is not known here.
        clock_skewed: pixels by partition number whose `ts` was clamped by more than 5 min.
        greatest: the greatest event time by partition number, and the jump that waits (`NO_TIME`: none).
        denied_pixels: how many consented pixels are of listeners on the deny-list.
    """

    def __init__(
        self,
        consent_default: bool,
        podcast_apps: str,
        blocked: Mapping[str, Sequence[str]] | None = None,
        agents: Collection[str] = (),
        guarded: bool = True,
        denied: Callable[[bytes], bool] | None = None,
        plainly: bool = True,
    ) -> None:
        self.received: Counter[int] = Counter()
        self.marks: Counter[int] = Counter()
        self.rejected: Counter[tuple[int, str]] = Counter()
        self.clock_skewed: Counter[int] = Counter()
        self.greatest: dict[int, tuple[int, int]] = {}
        self.denied_pixels = 0
        self._consent_default = consent_default
        self._podcast_app = re.compile(podcast_apps, re.IGNORECASE)
        self._agents = [re.compile(own, re.IGNORECASE) for own in agents]
        self._blocking = {placement: _any_of(names) for placement, names in (blocked or {}).items()}
        self._guarded, self._denied, self._plainly = guarded, denied, plainly
        self._hash = Hash()
        self._combos, self._combos_used = _table(0), np.zeros(1, np.int64)
        self._begin_agents()

    def read(self, src: int, path: Path) -> Iterator[Batch]:
        """The well-formed pixels of a file, plain, `.gz` or `.zst`, in its order.

        Raises:
            AudiopixelError: the file cannot be read.
        """
        state, line = np.array([NO_TIME, NO_TIME], np.int64), 0
        try:
            for block, ends in _blocks(path):
                self.received[src] += len(ends)
                yield self._batch(src, line, block, ends, state)
                line += len(ends)
        except READ_ERRORS as error:
            raise AudiopixelError(f"{path}: cannot be read: {error}") from error
        self.greatest[src] = int(state[0]), int(state[1])

    def pixel(self, line: bytes) -> Pixel:
        """One line (without its LF) as it was told.

        Raises:
            Rejected: it is no pixel.
        """
        document = parse(line)
        if document is None:
            raise Rejected("", "malformed")
        return _pixel(document)

    def _batch(self, src: int, before: int, block: bytes, ends: Any, state: Any) -> Batch:
        n = len(ends)
        rows, keys = np.zeros((n, ROW), np.int64), np.zeros((n, 4), np.uint64)
        spans = np.full((n, len(SPANS), 2), -1, np.int32)
        self._make_room(n)
        if self._plainly:
            scan(
                np.frombuffer(block + bytes(8), np.uint8), ends, _texts_of(block, ends),
                self._consent_default, bool(self._blocking), self._hash.points, self._combos,
                self._combos_used, self._agent_tags, self._agents_used, rows, keys, spans,
            )  # fmt: skip
        combos: list[tuple[Any, ...]] = []
        plain = np.flatnonzero(rows[:, PLAIN])
        for i in plain[rows[plain, NEW_COMBO] != 0].tolist():
            *names, category = (_at(block, spans[i, field]) for field in range(len(NAMES) + 1))
            combos.append(self._combo(int(rows[i, COMBO]), names, () if category is None else (category,)))
        for i in plain[rows[plain, NEW_AGENT] != 0].tolist():
            self._learn(int(rows[i, AGENT]), _at(block, spans[i, _AGENT_SPAN]))
        bots = np.zeros(n, bool)
        known = plain[rows[plain, AGENT] >= 0]
        bots[known] = self._bot[rows[known, AGENT]]
        denied = np.zeros(n, bool)
        if self._denied is not None:
            heard = plain[(keys[plain, 2] != 0) | (keys[plain, 3] != 0)]
            _, firsts, which = np.unique(keys[heard, 2], return_index=True, return_inverse=True)
            texts = [_at(block, spans[i, _LISTENER_SPAN]) or "" for i in heard[firsts].tolist()]
            denied[heard] = np.array([self._denied(text.encode()) for text in texts], bool)[which]
        conversions = []
        for i in np.flatnonzero(rows[:, PLAIN] == 0).tolist():
            text = block[int(ends[i - 1]) + 1 if i else 0 : int(ends[i])]
            try:
                pixel = self.pixel(text)
            except Rejected as wrong:
                if _is_mark(parse(text)):
                    self.marks[src] += 1
                    self.received[src] -= 1
                    continue
                self.rejected[src, wrong.reason] += 1
                continue
            self._enter(pixel, rows[i], keys[i], combos)
            bots[i] = pixel.invalid or (pixel.agent is not None and self._is_bot(pixel.agent))
            if self._denied is not None and pixel.listener is not None:
                denied[i] = self._denied(pixel.listener.encode())
            if pixel.conversion is not None:
                kind, _, *more = pixel.conversion
                conversions.append((src, before + i + 1, kind, *more))
        self.clock_skewed[src] += clock(rows, state, self._guarded)
        some = np.flatnonzero(rows[:, PLAIN])
        self.denied_pixels += int((denied[some] & (rows[some, CONSENT] != 0)).sum())
        return Batch(
            {
                "src": np.full(len(some), src, np.int32),
                "pos": before + 1 + some,
                "event": rows[some, EVENT].astype(np.uint8),
                "t": rows[some, T],
                "greatest": rows[some, GREATEST],
                "combo": rows[some, COMBO].astype(np.int32),
                "key_1": keys[some, 0],
                "key_2": keys[some, 1],
                "listener_1": keys[some, 2],
                "listener_2": keys[some, 3],
                "linked": rows[some, LINKED].astype(bool),
                "consent": rows[some, CONSENT].astype(bool),
                "bot": bots[some],
                "denied": denied[some],
            },
            combos,
            conversions,
        )

    def _enter(self, pixel: Pixel, row: Any, key: Any, combos: list[tuple[Any, ...]]) -> None:
        """What `scan` fills in, of a line that is not plain."""
        placement, campaign, *_ = pixel.names
        linked = pixel.play is not None and pixel.conversion is None
        kind: int
        texts: tuple[str | None, ...]
        if pixel.conversion is not None:
            order = pixel.conversion.order_id
            kind = BY_CONVERSION if order is None else BY_ORDER
            texts = (
                campaign or "",
                *((pixel.event_id,) if order is None else (pixel.conversion.kind, order)),
            )
        elif not linked:
            kind, texts = BY_EVENT, (placement, pixel.event_id)
        elif pixel.event == "progress":
            kind = BY_PROGRESS
            texts = placement, pixel.play, None if pixel.playhead is None else str(pixel.playhead)
        else:
            kind, texts = BY_PLAY, (placement, pixel.play)
        key[:2] = self._hash(kind, texts)
        if pixel.listener is not None:
            key[2:] = self._hash(0, (pixel.listener,))
        named: tuple[str | None, ...] = pixel.names
        if self._blocking:
            named += pixel.categories or (None,)
        first, second = self._hash(0, named)
        slot = find_pair(self._combos, np.uint64(first), np.uint64(second))
        if not self._combos[slot, 2]:
            self._combos_used[0] += 1
            self._combos[slot] = first, second, self._combos_used[0]
            combos.append(self._combo(int(self._combos_used[0]) - 1, pixel.names, pixel.categories))
        row[COMBO] = int(self._combos[slot, 2]) - 1
        row[EVENT], row[LINKED], row[PLAIN] = CODES[pixel.event], linked, 1
        row[TOLD] = min(max(pixel.ts, -(2**61)), 2**61)
        row[RECEIVED] = NO_TIME if pixel.received_at is None else pixel.received_at
        row[CONSENT] = self._consent_default if pixel.consent is None else pixel.consent

    def _combo(self, number: int, names: Sequence[str | None], categories: Sequence[str]) -> tuple[Any, ...]:
        blocking = self._blocking.get(names[0] or "")
        return number, *names, blocking is not None and any(map(blocking.fullmatch, categories))

    def _make_room(self, lines: int) -> None:
        """Let the tables take as many new names and user agents; where agents are many, begin anew."""
        if 2 * (int(self._combos_used[0]) + lines) > len(self._combos):
            self._combos = _moved(self._combos, int(self._combos_used[0]) + lines)
        if int(self._agents_used[0]) + lines > _MOST_AGENTS:
            self._begin_agents()

    def _begin_agents(self) -> None:
        self._agent_tags, self._agents_used = _table(_MOST_AGENTS), np.zeros(1, np.int64)
        self._bot = np.zeros(_MOST_AGENTS, bool)

    def _learn(self, number: int, agent: str | None) -> None:
        self._bot[number] = agent is not None and not _is_macro(agent) and self._is_bot(agent)

    def _is_bot(self, agent: str) -> bool:
        if _BOT.search(agent) and not self._podcast_app.search(agent):
            return True
        return any(own.search(agent) for own in self._agents)


def _pixel(document: dict[str, Any]) -> Pixel:
    (event_id,), (event,) = _texts(document, ("event_id",)), _texts(document, ("event",))
    if event_id is None or event is None:
        raise Rejected("event_id" if event_id is None else "event")
    if event not in CODES:
        raise Rejected("event", "unknown_event")
    *names, play, listener, agent, url, invalid, _, _, _ = _texts(document, _TEXTS)
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
    consent = document.get("consent")
    if consent is not None and consent.__class__ is not bool:
        raise Rejected("consent")
    categories = _categories(document)
    told = document.get("conversion")
    if told is not None and not isinstance(told, dict):
        raise Rejected("conversion")
    conversion = None
    if event == "conversion":
        if told is None:
            raise Rejected("conversion")
        conversion = _conversion(told, _utm_content(url) if url else None)
    return Pixel(
        event, ts, received_at, event_id, tuple(names), tuple(categories), play, listener, agent,
        invalid is not None, consent, playhead, conversion,
    )  # fmt: skip


def _is_mark(document: dict[str, Any] | None) -> bool:
    """Whether a message is a collector's word of its low mark, and no pixel."""
    if document is None or document.get("event") is not None:
        return False
    collector, low = document.get("collector"), document.get("low_ms")
    return (
        collector.__class__ is str
        and 0 < len(collector) <= _MOST_CHARACTERS
        and not _is_macro(collector)
        and low.__class__ is int
        and 0 <= low < NEVER
        and document.get("bye").__class__ in (bool, type(None))
    )


def _table(room: int) -> Any:
    """An empty table of `flows.reconcile.scan.find_pair`, at most half full with `room` pairs."""
    return np.zeros((1 << max(10, (2 * room).bit_length()), 3), np.uint64)


def _moved(table: Any, room: int) -> Any:
    grown = _table(2 * room)
    for pair in table[table[:, 2] != 0]:
        grown[find_pair(grown, pair[0], pair[1])] = pair
    return grown


def _texts_of(block: bytes, ends: Any) -> Any:
    """Which lines are UTF-8, for sure: behind many that are not, none is said to be."""
    sure, view, begin = np.ones(len(ends), bool), memoryview(block), 0
    for _ in range(_MOST_BROKEN):
        try:
            str(view[begin:], "utf-8")
            return sure
        except UnicodeDecodeError as error:
            line = int(np.searchsorted(ends, begin + error.start))
            if line == len(ends):
                return sure
            sure[line] = False
            begin = int(ends[line]) + 1
    sure[line:] = False
    return sure


def _at(block: bytes, span: Any) -> str | None:
    begin, length = span.tolist()
    return None if length < 0 else block[begin : begin + length].decode()


def _blocks(path: Path) -> Iterator[tuple[bytes, Any]]:
    """Whole lines, some millions of bytes at a time, and where each ends."""
    rest = b""
    with open_log(path) as file:
        while piece := file.read(_BLOCK_BYTES):
            block = rest + piece
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10)
            if not len(ends):
                rest = block
                if len(rest) > _MAX_LINE_BYTES:
                    raise OSError(f"a line is over {_MAX_LINE_BYTES >> 20} MiB: is this an NDJSON file?")
                continue
            rest = block[int(ends[-1]) + 1 :]
            yield block, ends
    if rest:
        yield rest, np.array([len(rest)])


def parse(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line; None when it is `malformed`."""
    if len(line) > MAX_BYTES:
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


def _whole(digits: str) -> int | Decimal:
    """A number too long for Python's integers is none of a known field, and no reason to refuse a line."""
    return int(digits) if len(digits) <= _MOST_DIGITS else _decimal(digits)


_JSON: Final = json.JSONDecoder(parse_float=_decimal, parse_int=_whole, parse_constant=_no_constant)


def _is_macro(text: str) -> bool:
    return text[0] in _MACRO_STARTS and _MACRO.fullmatch(text) is not None


def _texts(document: dict[str, Any], names: tuple[str, ...]) -> list[str | None]:
    texts: list[str | None] = []
    for name in names:
        value = document.get(name)
        if value is not None:
            if value.__class__ is not str:
                raise Rejected(name)
            if name in _LIMITED and len(value) > _MOST_CHARACTERS:
                raise Rejected(name)
            if name in _CUT_AT:
                value = value.encode()[: _CUT_AT[name]].decode(errors="ignore")
            if not value or _is_macro(value):
                value = None
        texts.append(value)
    return texts


def _integer(document: dict[str, Any], name: str) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    if value.__class__ is not int:
        raise Rejected(name)
    return None if value in (-1, -2) else int(value)


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


def _any_of(categories: Sequence[str]) -> re.Pattern[str]:
    names = [
        re.escape(name) + (r"(?:-\d+)?" if _CATEGORY_WITH_PARTS.fullmatch(name) else "")
        for name in categories
    ]
    return re.compile(rf"\s*(?:{'|'.join(names)})\s*", re.IGNORECASE)


def _conversion(told: dict[str, Any], utm: str | None) -> Conversion:
    kind, currency, order_id = _texts(told, ("type", "currency", "order_id"))
    if kind not in _CONVERSION_TYPES:
        raise Rejected("conversion.type")
    if currency is not None and not re.fullmatch("[A-Z]{3}", currency):
        raise Rejected("conversion.currency")
    value, odd = _micros(told.get("value"))
    return Conversion(str(kind), order_id, value, odd, currency, utm)


def _micros(value: Any) -> tuple[int | None, bool]:
    """A conversion's value, and whether there is one that is no decimal of six places within 10^13."""
    if value.__class__ is str:
        if not value or _is_macro(value):
            return None, False
        number = _decimal(value) if _DECIMAL.fullmatch(value) else None
    elif value is None:
        return None, False
    else:
        number = Decimal(value) if value.__class__ in (int, Decimal) else None
    if number is None or not number.is_finite() or number.adjusted() > 13 or abs(number) > _MOST_VALUE:
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
