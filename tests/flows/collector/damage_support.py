"""Good calls of every door, of which one byte is replaced by one that its place cannot have.

The call then is the good one's event; an event of which something is absent that may be (consent, listener,
device, play, order, value, labels, times); or rejected. It is never another placement, campaign, event, play,
order or value, and takes from nobody a refusal of consent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from string import ascii_letters, digits
from typing import Any, Final, cast
from urllib.parse import quote, quote_plus, unquote

from collector_support import CONSENT, HOME, NOW_MS, PLAYER, SECRET, token, understanding

from connectors.http_path import as_served
from flows.collector.call import Call, Outcome, Understood
from flows.collector.callers import Callers, networks
from flows.collector.consent import Policy
from flows.collector.dialects import LITERAL, NATIVE, SIGNALS, load_dialects, plain
from flows.collector.doors import Doors
from flows.collector.signatures import LABELS, Signatures
from flows.collector.store import Store
from flows.collector.understand import Understanding
from flows.model.events import CONVERSION_TYPES

DIALECTS: Final = load_dialects()
SIGNING: Final = Signatures({"a1": b"a signing key"}, frozenset({"shop.example"}))
_REFUSED: Final = "CQtDjkAQtDjkAAfAAAENCWFgAAAAAAAAAAwIAAAAAAAA.IAAA.YAAAAAAAAAAA"
_SERVER: Final = "198.51.100.7"
_PLACEMENTS: Final = (
    "breakfast-uk",
    "breakfast",
    "R&B soul",
    "früh/1",
    "100% Hits",
    "a.b:c@d",
    "7",
    "x_4142-2F",
)
_TEXTS: Final = ("spring", "spring-26", "Der Hügel, live", "a=b&c", "12", "x|y", "S0 (UK)", "50%")
_IDS: Final = ("play-1", "0f9a2c4e-77aa-4bd0-9d1c-0242ac120002", "2534", "a+b/c==", "Qm9iJ3M_", "user@1")


def _number(rng: Random) -> str:
    return rng.choice(("12", "1234.50", "0.99", "172534", "12041.50", "19.9", "7", "100", "1.5E7"))


def _time(rng: Random) -> str:
    ms = NOW_MS - rng.randrange(1, 90_000)
    return rng.choice((str(ms), str(ms // 1000), "2026-11-25T10:26:39.500Z"))


MAKE: Final[Mapping[str, Callable[[Random], str]]] = {
    **dict.fromkeys(("placement_id",), lambda rng: rng.choice(_PLACEMENTS)),
    **dict.fromkeys(("campaign_id", "creative_id", *LABELS, "episode"), lambda rng: rng.choice(_TEXTS)),
    **dict.fromkeys(("play_id", "event_id", "listener_id", "order_id"), lambda rng: rng.choice(_IDS)),
    "ifa": lambda rng: f"{rng.getrandbits(128):032x}",
    "ifa_type": lambda rng: "idfa",
    **dict.fromkeys(("gdpr", "consent"), lambda rng: rng.choice(("1", "0", "true", "false"))),
    **dict.fromkeys(("lmt", "coppa", "gpc"), lambda rng: rng.choice(("0", "0", "1", "true", "yes"))),
    "server_side": lambda rng: rng.choice("0123"),
    "tracked": lambda rng: "1",
    "ip": lambda rng: rng.choice((HOME, "9.9.9.9", "2001:4860:4860::8888")),
    "user_agent": lambda rng: rng.choice((PLAYER, "Overcast/3.0 (+http://overcast.fm/; iOS)", "VLC/3.0")),
    "gdpr_consent": lambda rng: rng.choice((CONSENT, _REFUSED, CONSENT.split(".")[0])),
    "gpp": lambda rng: rng.choice(("DBABMA~" + CONSENT, "DBABTA~1YYN", "DBABTA~1YNN")),
    "gpp_sid": lambda rng: rng.choice(("2", "6", "2,6", "6_2")),
    "us_privacy": lambda rng: rng.choice(("1YNN", "1YYN", "1---")),
    "regulations": lambda rng: rng.choice(("gdpr", "coppa", "gdpr,coppa")),
    "country": lambda rng: rng.choice(("GB", "US", "de")),
    "ts": _time,
    **dict.fromkeys(("playhead", "duration"), lambda rng: rng.choice(("15000", "15", "00:00:15.250"))),
    **dict.fromkeys(("playhead_ms", "duration_ms"), lambda rng: "15000"),
    "content_category": lambda rng: rng.choice(("IAB7-39", "432", "IAB1,IAB7-39")),
    "cachebuster": lambda rng: str(rng.randrange(10**8)),
    "landing_url": lambda rng: rng.choice(("https://shop.example/?x=1&utm_source=a%20b", "https://shop.example/a")),
    "type": lambda rng: rng.choice(CONVERSION_TYPES),
    "value": _number,
    "currency": lambda rng: rng.choice(("GBP", "JPY", "eur")),
    "ga_client_id": lambda rng: "1234567.890",
    "basis": lambda rng: rng.choice(("vast_impression", "audible_2s", "ad_delivered")),
    "event": lambda rng: rng.choice(
        ("start", "impression", "imp", "midPoint", "complete", "click", "conversion")
    ),
}  # fmt: skip
"""A good value of each word."""

_FLAG: Final = r"[01](?:\.0)?|true|false|yes|no|y|n"
_NUMBER: Final = r"-?\d+(?:\.\d*)?|-?\.\d+|-?\d\.\d+E-?\d+|-?\d(?:\.\d+)?e\+\d+"
GRAMMAR: Final[Mapping[str, str]] = {
    **dict.fromkeys(("gdpr", "consent", "lmt", "coppa", "gpc", "tracked"), _FLAG),
    "server_side": r"[0-3]",
    "ip": r"[0-9a-fA-F:.]+",
    "gdpr_consent": r"[A-Za-z0-9_.-]+",
    "gpp": r"[A-Za-z0-9_.~-]+",
    "gpp_sid": r"\d+(?:[,_]\d+)*",
    "us_privacy": r"1[YNyn-]{3}",
    "regulations": r"[a-z]+(?:,[a-z]+)*",
    "country": r"[A-Za-z]{2,3}",
    "ts": r"\d+(?:\.\d*)?(?:[eE]\d+)?|[0-9TtZz:.,+ -]+",
    **dict.fromkeys(
        ("playhead", "duration", "playhead_ms", "duration_ms"), r"\d+(?:\.\d*)?(?:[eE]\d+)?|[0-9:.,]+"
    ),
    "value": _NUMBER,
    "currency": r"[A-Za-z]{3}",
    "signature": r"[A-Za-z0-9_.,-]+",
}
"""The forms that a value of some words has; other words have any text."""
_WIRE: Final = re.compile(rb"(?:[A-Za-z0-9._~!$'()*,;:@/?+-]|%[0-9A-Fa-f]{2})*")
_ALNUM_ENCODED: Final = re.compile(rb"%(?:3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa])")
_NAME: Final = re.compile(r"[A-Za-z0-9_.~-]+")
_MACROS: Final = re.compile(r"[$%][A-Za-z_]*!?|@[^@]+@|#[^#]+#|__[^_].*__|\(x-[^()]+\)|-[12]|null|none")
"""Texts that are a macro or a placeholder in themselves."""


def is_text(text: str) -> bool:
    """True if a text has letters alone that an id may have."""
    return all(one.isprintable() and one != "\ufffd" for one in text) and text == text.strip()


def is_good(word: str, text: str) -> bool:
    """True if a decoded text is of a word's form."""
    form = GRAMMAR.get(word)
    if form is not None:
        return re.fullmatch(form, text, re.IGNORECASE if form is _FLAG else 0) is not None
    return is_text(text)


@dataclass(frozen=True)
class Piece:
    """A part of what is sent: a `word`'s value, `name`, `=` or `&` of one, or anything else."""

    what: str
    text: bytes
    word: str = ""


@dataclass
class Case:
    """A good call, and the same with one byte replaced."""

    settings: int
    method: str
    path: str
    pieces: list[Piece]
    headers: dict[str, str]
    of_json: bool
    at: int = 0
    byte: int = 0
    split: str = ""
    in_path: bool = False

    @property
    def good(self) -> bytes:
        return b"".join(piece.text for piece in self.pieces)

    @property
    def bad(self) -> bytes:
        good = self.good
        return good[: self.at] + bytes((self.byte,)) + good[self.at + 1 :]

    def piece(self) -> tuple[Piece, int]:
        """The piece that is damaged, and where."""
        at = self.at
        for piece in self.pieces:
            if at < len(piece.text):
                return piece, at
            at -= len(piece.text)
        raise AssertionError


# Whether a replaced byte may stand where it does


def may_be(case: Case) -> bool:
    """True if a byte may stand in its place: what comes of it is a good call, another one perhaps."""
    if case.bad == case.good:
        return True
    piece, at = case.piece()
    new = piece.text[:at] + bytes((case.byte,)) + piece.text[at + 1 :]
    if case.of_json:
        return _may_be_in_json(case, piece, new)
    letter = chr(case.byte)
    if piece.what == "name":
        return _NAME.fullmatch(new.decode("latin1")) is not None
    if piece.what == "&" and letter == "?" and re.search(rb"u(?:rl)?=http", case.good):
        return True  # that URL may have a query
    if piece.what in ("=", "&"):
        return _NAME.fullmatch(letter) is not None
    if case.in_path and piece.word in (*LABELS, "episode", "creative_id"):
        return True  # the server shows the path decoded, so that a label may have any letter
    if piece.what != "value":
        return piece.what == "dialect" and re.fullmatch(rb"/[\w.-]+/?", new) is not None
    if piece.word in ("campaign_id", "placement_id") and re.fullmatch(rb"[$%][A-Za-z_]+!?", new):
        return True  # an unreplaced macro: there is none
    if case.in_path and _WIRE.fullmatch(new) and not _ALNUM_ENCODED.search(piece.text):
        new = quote(unquote(new.decode()), safe="").encode()  # as the server hands it on
    if _WIRE.fullmatch(new) is None or _ALNUM_ENCODED.search(new) or letter in case.split:
        return False
    text = unquote(new.decode().replace("+", " ") if piece.word != "landing_url" else new.decode())
    return is_good(piece.word, text) or (piece.word not in GRAMMAR and _MACROS.fullmatch(text) is not None)


def _may_be_in_json(case: Case, piece: Piece, new: bytes) -> bool:
    if piece.what == "name":
        return _NAME.fullmatch(new.decode("latin1")) is not None
    try:
        found = json.loads(new)
    except ValueError:
        return False
    if piece.what == "number":
        return True  # white space is allowed next to a number
    return piece.what == "value" and isinstance(found, str) and is_good(piece.word, found)


# Good calls


_TARGETS: Final = {word: name for name, word in NATIVE.items()}
_ALWAYS: Final = ("event", "placement_id", "campaign_id")


def _sample_words(rng: Random, words: Sequence[str], least: int) -> list[str]:
    found = [word for word in words if word in MAKE]
    return rng.sample(found, min(len(found), rng.randint(least, least + 8)))


def _values(rng: Random, words: Sequence[str]) -> dict[str, str]:
    values = {word: MAKE[word](rng) for word in words}
    if values.get("event") == "conversion":
        for word in ("type", "order_id", "value", "currency"):
            if rng.random() < 0.8 or word == "type":
                values[word] = MAKE[word](rng)
    return values


def _signed(rng: Random, values: Mapping[str, str]) -> str:
    labels = {label: values[label] for label in LABELS if label in values and rng.random() < 0.5}
    return SIGNING.of_tag(values.get("placement_id"), values.get("campaign_id"), labels)


def _pairs(rng: Random, named: Sequence[tuple[str, str, str]], split: str) -> list[Piece]:
    """Parameters as they are sent: of each a name, a word and a value."""
    pieces: list[Piece] = []
    encode = rng.choice(
        (lambda text: quote(text, safe=""), quote_plus, lambda text: quote(text, safe="/:@,!()*"))
    )
    for name, word, value in named:
        if pieces:
            pieces.append(Piece("&", rng.choice("&" + split).encode()))
        raw = encode(value).replace(";", "%3B") if split else encode(value)
        pieces += [Piece("name", name.encode(), word), Piece("=", b"="), Piece("value", raw.encode(), word)]
    return pieces


def _query(rng: Random) -> Case:
    """A call of the door of pixels, of clicks, or of postbacks, by its URL or with a form."""
    name = rng.choice([*DIALECTS, "native", "native", "native"])
    dialect = DIALECTS[name]
    door = "b" if dialect.use == "postback" else rng.choice("pppc")
    names = {plain(word): foreign for foreign, word in dialect.names.items()}
    own = LITERAL if dialect.use == "postback" else NATIVE
    names |= {word: foreign for foreign, word in (own | SIGNALS).items() if foreign not in dialect.names}
    chosen = _sample_words(rng, [word for word in names if word not in _ALWAYS], 3)
    values = _values(rng, [*(word for word in _ALWAYS if word in names), *chosen])
    extra = [("unread", "", "1"), ("utm_source", "", "x")][: rng.choice((0, 0, 1, 2))]
    named = [
        (names[word], word, value) for word, value in values.items() if word in names and word != "dialect"
    ]
    if dialect.when:
        case = rng.choice(list(dialect.when))
        named.append((case.partition("=")[0], "case", case.partition("=")[2]))
        if "event_from" in dialect.when[case]:
            named.append((dialect.when[case]["event_from"], "case", "start"))
    if "signature" in names and rng.random() < 0.6:
        named.append((names["signature"], "signature", _signed(rng, values)))
    if door == "c":
        named = [one for one in named if one[1] != "landing_url"]
        target = MAKE["landing_url"](rng)
        named += [("u", "landing_url", target), ("s", "target_signature", SIGNING.of_target(target))]
    rng.shuffle(named)
    named = list({one[0]: one for one in (*named, *extra)}.values())
    split = "".join(dialect.split)
    pieces = _pairs(rng, named, split)
    path = f"/{door}/{name}" if name != "native" or rng.random() < 0.3 else f"/{door}"
    if door == "p" and name != "native" and rng.random() < 0.2:
        path = "/p"
        pieces += [
            Piece("&", b"&"),
            Piece("name", b"d"),
            Piece("=", b"="),
            Piece("value", name.encode(), "dialect"),
        ]
    if door != "c" and rng.random() < 0.35:
        pieces = [Piece("&", b"&") if piece.what == "&" else piece for piece in pieces]
        return Case(0, "POST", path, pieces, {}, False)
    before = [Piece("path", path[:2].encode()), Piece("dialect", path[2:].encode())]
    if split and door != "b" and rng.random() < 0.3:
        pieces = [*before, Piece("path", b";"), *_of_path(pieces)]
        return Case(0, "GET", "", pieces, {}, False, split=split, in_path=True)
    return Case(0, "GET", "", [*before, Piece("path", b"?"), *pieces], {}, False, split=split)


def _of_path(pieces: Sequence[Piece]) -> list[Piece]:
    """Parameters as they stand in a path: a dialect's own character parts them."""
    found = []
    for piece in pieces:
        text = piece.text
        if piece.what == "&":
            text = b";"
        if piece.what == "value":
            text = text.replace(b"%3B", b"").replace(b"%26", b"").replace(b"%3D", b"").replace(b"+", b"%20")
            text = text.replace(b"%25", b"")
        found.append(Piece(piece.what, text, piece.word))
    return found


def _event(rng: Random) -> dict[str, Any]:
    words = [word for word in MAKE if word not in ("event", "basis", "tracked", "regulations", "type")]
    own = [word for word in words if word not in ("order_id", "value", "currency", "playhead", "duration")]
    event: dict[str, Any] = {"event": rng.choice(("start", "impression", "conversion"))}
    event |= {word: MAKE[word](rng) for word in (*_ALWAYS[1:], *_sample_words(rng, own, 4))}
    for word in ("ts", "playhead_ms", "duration_ms"):
        if word in event and event[word].isdigit() and rng.random() < 0.5:
            event[word] = int(event[word])
    if rng.random() < 0.5:
        event["consent"] = rng.random() < 0.5
    if event["event"] == "conversion":
        conversion: dict[str, Any] = {
            word: MAKE[word](rng) for word in ("type", "order_id", "value", "currency")
        }
        if rng.random() < 0.3:
            conversion["claimed"] = True
        if rng.random() < 0.3:
            conversion["value"] = rng.choice((12, 1234.5))
        event["conversion"] = conversion
    return event


def _json_pieces(value: Any, word: str = "") -> list[Piece]:
    """A document as it is sent, with what each part of it is."""
    if isinstance(value, dict):
        pieces = [Piece("other", b"{")]
        for name, inner in value.items():
            if len(pieces) > 1:
                pieces.append(Piece("other", b","))
            meant = NATIVE.get(name) or name
            pieces += [Piece("other", b'"'), Piece("name", name.encode(), meant), Piece("other", b'":')]
            pieces += _json_pieces(inner, meant)
        return [*pieces, Piece("other", b"}")]
    if isinstance(value, list):
        pieces = [Piece("other", b"[")]
        for inner in value:
            pieces += [*([Piece("other", b",")] if len(pieces) > 1 else []), *_json_pieces(inner)]
        return [*pieces, Piece("other", b"]")]
    kind = "number" if isinstance(value, int | float) and not isinstance(value, bool) else "value"
    return [Piece(kind, json.dumps(value, ensure_ascii=False).encode(), word)]


def _document(rng: Random) -> Case:
    """A body of JSON: of a pixel, or of a caller with a token."""
    if rng.random() < 0.4:
        words = [word for word in _TARGETS if word not in _ALWAYS and word in MAKE]
        values = _values(rng, [*_ALWAYS, *rng.sample(words, rng.randint(3, 10))])
        named = {_TARGETS.get(word, word): value for word, value in values.items()}
        if rng.random() < 0.6:
            named["k"] = _signed(rng, values)
        return Case(0, "POST", "/p", _json_pieces(named), {}, True)
    events = [_event(rng) for _ in range(rng.randint(1, 3))]
    form = rng.randrange(3)
    if form == 0:
        pieces = _json_pieces(events[0])
    elif form == 1:
        pieces = _json_pieces(events)
    else:
        pieces = [one for event in events for one in (*_json_pieces(event), Piece("other", b"\n"))]
    headers = {"authorization": f"Bearer host.{SECRET}"}
    return Case(0, "POST", "/v1/events", pieces, headers, True)


_BYTES: Final = (
    *b"&=%+;#?/\\\"'<>{}[]()$@!~^`|,.:-_ \t\r\n\0\x01\x1f\x7f\x80\x9f\xa0\xc3\xe9\xff",
    *digits.encode(),
    *(ord(letter) for letter in ascii_letters),
)


def case_of(seed: int) -> Case:
    """The case of a seed: a good call, and a byte that cannot stand where it does."""
    rng = Random(seed)
    case = _query(rng) if rng.random() < 0.65 else _document(rng)
    case.settings = rng.randrange(len(worlds()))
    if case.path != "/v1/events" and rng.random() < 0.3:
        case.headers = {"authorization": f"Bearer host.{SECRET}"}
    if rng.random() < 0.15:
        case.headers["peer"] = _SERVER
    size = len(case.good)
    for _ in range(200):
        case.at, case.byte = rng.randrange(size), rng.choice(_BYTES)
        if not may_be(case):
            break
    return case


# What becomes of it


@cache
def worlds() -> tuple[Understanding, ...]:
    """Collectors of several settings."""
    callers = Callers(
        {"host": token(rights=frozenset({"write"}))},
        networks(["10.0.0.0/8"]),
        [(networks(["198.51.100.0/24"])[0], "query")],
    )
    planned = {("breakfast-uk", "spring"), ("breakfast", "spring")}

    def is_planned(placement: str | None, campaign: str | None) -> bool:
        return any((placement or one) == one and (campaign or other) == other for one, other in planned)

    policies = (Policy(5), Policy(5, required=False), Policy(5, free=frozenset({"US"})))
    return tuple(
        understanding(
            callers=callers, policy=policy, placements=placements, planned=is_planned, signatures=SIGNING
        )
        for policy in policies
        for placements in ("any", "signed", "planned")
    )


@dataclass
class _Book:
    """A store that keeps what it is given."""

    events: list[Understood] = field(default_factory=list)

    async def keep(self, understood: Sequence[Understood], received_ms: int) -> bool:
        self.events += understood
        return True

    def refuse(self, events: int, reason: str) -> None:
        raise AssertionError(reason)


_NO_URL: Final = re.compile(rb'[\0-\x20"<>\x7f]')
"""Bytes that the HTTP server takes in no target."""


def target_of(wire: bytes) -> tuple[str, str] | None:
    """Path and query as the HTTP server passes them on; None if the server answers 400 itself."""
    if _NO_URL.search(wire) or not wire.startswith(b"/"):
        return None
    try:
        path, _, query = wire.partition(b"#")[0].decode().partition("?")
    except UnicodeDecodeError:
        return None
    return as_served(path), query


async def became(case: Case, wire: bytes) -> list[Understood] | None:
    """The outcomes of the events of a call; None if no door accepts the call."""
    path, query, body = case.path, "", wire
    if case.method == "GET":
        found = target_of(wire)
        if found is None:
            return None
        (path, query), body = found, b""
    headers = {"user-agent": PLAYER} | case.headers
    peer = headers.pop("peer", HOME)
    book = _Book()
    doors = Doors(worlds()[case.settings], cast(Store, book))
    answer = await doors.answer(Call(case.method, path, query, headers, body, peer, NOW_MS))
    assert answer.status < 500, answer
    return book.events if answer.status != 404 else None


_MAY_BE_ABSENT: Final = frozenset(
    (
        *("play_id", "creative_id", *LABELS, "episode", "listener_id", "client_id", "household_id"),
        *("ga_client_id", "playhead_ms", "duration_ms", "content_category", "basis", "landing_url", "app"),
        *("device_confirmed", "invalid_traffic", "previous"),
    )
)
_MAY_BE_ABSENT_OF_A_CONVERSION: Final = frozenset(("order_id", "value", "currency"))


def differs(good: Mapping[str, Any], bad: Mapping[str, Any], case: Case) -> str:
    """The forbidden content of a damaged call's event; empty if there is none."""
    for name in good.keys() | bad.keys():
        one, other = good.get(name), bad.get(name)
        if one == other or (other is None and name in _MAY_BE_ABSENT):
            continue
        if name == "event_id":
            continue  # of another call, or new
        if name == "ts" and other == NOW_MS:
            continue
        if name == "consent" and other is False:
            continue
        if name == "device_basis" and other == "claimed":
            continue
        moved = case.piece()[0].what == "path" and name in (*LABELS, "episode", "creative_id")
        if moved and str(one).replace(" ", "+") == str(other).replace(" ", "+"):
            continue  # a plus sign is a space in a query alone
        if name == "content_category" and case.in_path and ",".join(one or ()) == ",".join(other or ()):
            continue  # the server shows a path decoded, so that an encoded comma parts a list there alone
        if name == "conversion" and isinstance(one, dict) and isinstance(other, dict):
            wrong = [
                f"{part}: {one.get(part)!r} became {other.get(part)!r}"
                for part in one.keys() | other.keys()
                if one.get(part) != other.get(part)
                and not (other.get(part) is None and part in _MAY_BE_ABSENT_OF_A_CONVERSION)
                and not (part == "claimed" and "value" not in other)
            ]
            if "value" in other and one.get("currency") != other.get("currency"):
                wrong.append("a value without its currency")
            if wrong:
                return "; ".join(wrong)
            continue
        return f"{name}: {one!r} became {other!r}"
    return ""


def is_cut(case: Case) -> bool:
    """True if the byte ends the URL: the HTTP server removes the rest."""
    return case.method == "GET" and case.byte == ord("#")


async def judge(case: Case) -> str:
    """The outcome of a case.

    Raises:
        AssertionError: it is a harm.
    """
    if may_be(case):
        return "no damage"
    good, bad = await became(case, case.good), await became(case, case.bad)
    if good is None or not any(one.outcome is Outcome.STORED for one in good):
        return "no good call"
    return verdict(case, good, bad)


def verdict(case: Case, good: Sequence[Understood], bad: Sequence[Understood] | None) -> str:
    """The outcome of a case, by what became of the good and the damaged call's events.

    Raises:
        AssertionError: it is a harm.
    """
    stored = [one for one in bad or () if one.outcome is Outcome.STORED]
    if not stored:
        reasons = {one.reason for one in bad or ()}
        changed = _signed_changed(case)
        assert not changed or is_cut(case) or reasons <= {"unsigned", "malformed"}, (
            f"{changed} was changed, and is {reasons}: {case_text(case)}"
        )
        return "rejected"
    if is_cut(case):
        return "cut"
    before = {one.event.get("event_id"): one.event for one in good}
    same, less = True, False
    for number, one in enumerate(stored):
        # The remaining events of a body keep their order.
        candidates = [before.get(one.event["event_id"])] if one.event["event_id"] in before else []
        candidates += [other.event for other in good if other.outcome is Outcome.STORED]
        wrongs = [differs(other, one.event, case) for other in candidates if other]
        assert "" in wrongs, f"{wrongs[min(number, len(wrongs) - 1)]}: {case_text(case)}"
        same = same and one.event in candidates
        less = less or not same
    return "less" if less else "the same"


def _signed_changed(case: Case) -> str:
    """The signed parameter whose value was damaged in a call with its signature; empty if there is none."""
    piece, _ = case.piece()
    signatures = [one.text for one in case.pieces if one.word == "signature" and one.what == "value"]
    if piece.what != "value" or not signatures:
        return ""
    labels = unquote(signatures[0].decode().strip('"')).split(".")[2:]
    return piece.word if piece.word in ("placement_id", "campaign_id", *",".join(labels).split(",")) else ""


def case_text(case: Case) -> str:
    """A case in words for debugging."""
    piece, _ = case.piece()
    world = worlds()[case.settings]
    said = (
        *(case.method, case.path, case.headers.get("authorization", "")[:11], case.headers.get("peer", "")),
        *(world.placements, "required" if world.policy.required else "assumed", f"at {case.at} of {piece}:"),
    )
    return " ".join(said) + f"\n  {case.good!r}\n  {case.bad!r}"
