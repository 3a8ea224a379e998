"""From a call's parameters to their meanings: words and cleaned values, by the call's dialect."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flows.collector import cleaner
from flows.collector.body import NO_PARAMETERS, BodyParameters, Number, Unreadable, field_parameters, flat
from flows.collector.call import Call
from flows.collector.cleaner import How
from flows.collector.dialects import CLAIMS, CONSENT, Dialect, Part
from flows.collector.query import (
    LONGEST_NAME,
    decoded,
    form_value,
    name_of,
    parameters,
    readable,
    url_of,
)
from flows.model.catalogue.limits import LONGEST_VALUE, MAX_PARAMETERS

PER_FIRE: Final = ("cachebuster", "ts", "play_id")
"""Words that differ from call to call: with one of them a query's hash identifies a call and its retries."""
_BOOLEANS: Final = ("gdpr", "lmt", "coppa", "gpc", "consent")
_FLAGS: Final = (*_BOOLEANS, "tracked")
_SIDES: Final = ("0", "1", "2", "3")
"""Values of `server_side`, as of VAST's macro SERVERSIDE."""
_LISTS: Final = ("gpp_sid", "regulations")
_REPEATED: Final = CONSENT | CLAIMS
"""Words of a call whose later values count, too."""
NEVER_FROM_A_CALLER: Final = (
    "collector",
    "low_ms",
    "bye",
    "received_at",
    "client_id",
    "household_id",
    "device_basis",
    "device_confirmed",
    "app",
    "invalid_traffic",
    "previous",
)
"""Fields that only the door itself sets, for any caller."""
_MAX_CATEGORIES: Final = 32
_LONGEST_CATEGORY: Final = 128
_LENGTHS_BY_WORD: Final = (("playhead", "playhead_ms"), ("duration", "duration_ms"))
_LENGTHS: Final = tuple(word for words in _LENGTHS_BY_WORD for word in words)
_NOT_TAKEN: Final = ("", "")
_PLAIN: Final = re.compile(
    r"(?!_|-[12]\Z|(?i:null|undefined|none)\Z|AUDIT\Z|00000000-0000)[A-Za-z0-9._~-]{1,512}"
)
is_plain: Final = _PLAIN.fullmatch
"""A match if a value has only characters that need no decoding, and is no macro and no placeholder; else
None. A function around it would take half as long again.
"""
_WITH_A_FORM: Final = frozenset(("ifa", "value", "gpp_sid", "content_category"))
"""Words whose values have a form of their own."""
_MAX_PARTS: Final = 16_384
"""The greatest number of remembered parameters of a dialect."""
_LONGEST_PART: Final = 256
_SELDOM_REPEATED: Final = frozenset(
    (
        *("play_id", "event_id", "listener_id", "ifa", "cachebuster", "ts", "order_id", "value"),
        *("ip", "ga_client_id", "signature", "target_signature", "playhead", "playhead_ms"),
    )
)
"""Words whose values are new in most calls, or are a person's: they are not remembered."""


@dataclass(slots=True)
class Reading:
    """The parameters of a call, read.

    Attributes:
        words: cleaned values by word; times and playheads in ms.
        word_texts: every parameter with a meaning, as (word, cleaned text), for the id of the call.
        states: by word, the name of its parameter and `given`, `unreplaced` or `empty`.
        cleaned: by word, the actions of the cleaner.
        wrong: the field of a canonical event that is of a wrong type.
    """

    words: dict[str, Any] = field(default_factory=dict)
    word_texts: list[tuple[str, str]] = field(default_factory=list)
    states: dict[str, tuple[str, str]] = field(default_factory=dict)
    cleaned: dict[str, list[How]] = field(default_factory=dict)
    wrong: str = ""
    _unreadable: set[str] = field(default_factory=set)

    def unreadable(self, *words: str) -> bool:
        """True if the call has one of these words with a value that cannot be read."""
        return not self._unreadable.isdisjoint(words)

    @property
    def readable(self) -> bool:
        """True if every value of the call can be read."""
        return not self._unreadable

    def clean(self, word: str, how: How) -> None:
        """Note an action of the cleaner on a word, once."""
        actions = self.cleaned.setdefault(word, [])
        if how not in actions:
            actions.append(how)
        if how == "unreadable":
            self._unreadable.add(word)

    def leave_out(self, word: str, name: str) -> None:
        """Treat a word as present and unreadable.

        Args:
            name: the parameter that has the word.
        """
        self.words.pop(word, None)
        self.word_texts = [word_text for word_text in self.word_texts if word_text[0] != word]
        self.states.setdefault(word, (name, "given"))
        self.clean(word, "unreadable")


def read(call: Call, dialect: Dialect, extra: BodyParameters = NO_PARAMETERS) -> Reading:
    """Read a call's parameters by its dialect; raises for no input.

    Args:
        extra: parameters of a body, which come after those of the URL.
    """
    again: list[tuple[str, str]] = []
    of_path: dict[str, str] = {}
    raw = _parts(readable(call.query), dialect, again)
    if dialect.split and (begin := _path_parameters(call.path, dialect)) < len(call.path):
        of_path = parameters(readable(call.path[begin:]), dialect.separators, again)
        again += [(name, value) for name, value in of_path.items() if name in raw]
        of_path = {name: value for name, value in of_path.items() if name not in raw}
    call.laps.end("parse")
    reading, meanings = Reading(), dialect.meanings
    for name, value in of_path.items():
        if (word := meanings.get(name)) is not None:
            _take(reading, dialect, word, name, value, decoded)
    words, states, word_texts = reading.words, reading.states, reading.word_texts
    for name, value, word, pair, state in raw.values():
        if word is None:
            continue
        if pair is not None and word not in states:
            word_texts.append(pair)
            words[word], states[word] = value, state
        else:
            _take(reading, dialect, word, name, value, decoded)
    for name, value in extra.values.items():
        if (word := meanings.get(name)) is not None:
            _take(reading, dialect, word, name, value, extra.decode)
    for decode, pairs in ((decoded, again), (extra.decode, extra.again)):
        for name, value in pairs:
            if (word := meanings.get(name)) in _REPEATED:
                _take(reading, dialect, word, name, value, decode)
    if of_path:
        _leave_out_hidden(reading, meanings, of_path)
    named: dict[str, str] = {}
    if dialect.case_parameters:
        sent = {name: part[1] for name, part in raw.items()} | of_path
        named = {name: decoded(sent[name]) for name in dialect.case_parameters if name in sent}
        named |= {name: extra.get(name) for name in dialect.case_parameters if name in extra.values}
    for word, meant in dialect.fixed.items():
        if not reading.unreadable(word):
            reading.words.setdefault(word, meant)
    for case, meanings_of_case in dialect.when.items():
        parameter, _, wanted = case.partition("=")
        if named.get(parameter) == wanted:
            for word, meant in meanings_of_case.items():
                if word == "event_from":
                    reading.words["event"] = named.get(meant, "")
                    reading.states["event"] = (meant, "given")
                else:
                    reading.words[word] = meant
    _settle(reading, dialect)
    if not reading.readable:
        _lessen(reading)
    return reading


def _parts(query: str, dialect: Dialect, again: list[tuple[str, str]]) -> dict[str, Part]:
    """The parameters of a query by name, as `flows.collector.query.parameters` separates them.

    Plain values repeat from call to call, such as a placement's id, so a dialect remembers them.
    """
    parts: dict[str, Part] = {}
    if not query:
        return parts
    for separator in dialect.split:
        query = query.replace(separator, "&")
    remembered = dialect.remembered_parts
    for text in query.split("&", MAX_PARAMETERS)[:MAX_PARAMETERS]:
        part = remembered.get(text)
        if part is None:
            name, equals, value = text.partition("=")
            if not equals or not name or len(name) > LONGEST_NAME:
                continue
            part = _part(name_of(name), value, dialect)
            if part[3] is not None and part[2] not in _SELDOM_REPEATED and len(text) <= _LONGEST_PART:
                if len(remembered) >= _MAX_PARTS:
                    remembered.clear()
                remembered[text] = part
        if part[0] not in parts:
            parts[part[0]] = part
        else:
            again.append((part[0], part[1]))
    return parts


def _part(name: str, value: str, dialect: Dialect) -> Part:
    """A parameter, with its (word, value) and its state if the value is plain and is taken as it is."""
    word = dialect.meanings.get(name)
    if (
        word is not None
        and value
        and (word not in _WITH_A_FORM or (word == "ifa" and value[0] not in "0-"))
        and is_plain(value)
        and dialect.is_whole(word, value)
    ):
        return name, value, word, (word, value), (name, "given")
    return name, value, word, None, _NOT_TAKEN


def _leave_out_hidden(reading: Reading, meanings: Mapping[str, str], of_path: Mapping[str, str]) -> None:
    """Leave out words that stand within another value of a path. The server shows an ampersand there encoded,
    so it is unknown whether it separated parameters.
    """
    for value in of_path.values():
        for piece in value.split("%26")[1:]:
            name, equals, _ = piece.partition("=")
            if equals and (word := meanings.get(name)) is not None and word not in reading.states:
                reading.leave_out(word, name)


def _path_parameters(path: str, dialect: Dialect) -> int:
    """The place in a path at which its parameters begin. Parameters begin after the first separator, or after
    the slash before it if the first parameter stands there (`/b/claritas/g=sale;ord=7`).
    """
    places = (path.find(separator) for separator in dialect.split)
    first = min((place for place in places if place >= 0), default=len(path))
    slash = path.rfind("/", 0, first)
    return slash + 1 if "=" in path[slash:first] else first + 1


def is_cut(call: Call, dialect: Dialect) -> bool:
    """True if a URL has more parameters than are read: the unread ones may hold a refusal, or a claim."""
    query, path = call.query.count("&"), call.path.count("&")
    for mark in dialect.split:
        query += call.query.count(mark)
        path += call.path.count(mark)
    return query >= MAX_PARAMETERS or path >= MAX_PARAMETERS


def _take(
    reading: Reading, dialect: Dialect, word: str, name: str, value: str, decode: Callable[[str], str]
) -> None:
    """Take the value of a word from a parameter."""
    if (earlier := reading.states.get(word)) is not None and earlier[1] == "given":
        if word in _REPEATED:
            _take_again(reading, word, name, value, decode)
        return
    if not value and value.__class__ is not Unreadable:
        reading.states[word] = (name, "empty")
        reading.clean(word, "empty")
        return
    if (
        decode is not str
        and (word not in _WITH_A_FORM or (word == "ifa" and value[0] not in "0-"))
        and is_plain(value)
        and dialect.is_whole(word, value)
    ):
        reading.states[word] = (name, "given")  # the same result in a third of the time
        reading.words[word] = value
        reading.word_texts.append((word, value))
        return
    text, how = _meant(word, value, decode)
    if isinstance(text, str) and not dialect.is_whole(word, text):
        text, how = None, "unreplaced"
    if how is not None:
        reading.clean(word, how)
    state = "empty" if how == "empty" else "unreplaced"
    reading.states[word] = (name, "given" if text is not None or how == "unreadable" else state)
    if text is not None:
        reading.words[word] = text
        reading.word_texts.append((word, text if isinstance(text, str) else ",".join(text)))


def _meant(word: str, value: str, decode: Callable[[str], str]) -> tuple[str | list[str] | None, How | None]:
    """A value as it was meant, or None with the reason."""
    if isinstance(value, Unreadable):
        return None, "unreadable"
    number = isinstance(value, Number)
    if decode is form_value:  # a list, too, is decoded as a whole
        value, decode = form_value(value), str
    elif word == "landing_url" and decode is decoded:
        decode = url_of
    value = value[:LONGEST_VALUE]
    if word == "content_category":  # a list is split before its values are decoded
        return _categories(value, decode)
    meant = decode(value)
    text, how = (cleaner.device_id if word == "ifa" else cleaner.present)(meant)
    if number and word == "value":
        return f"{value}.0" if text is None else meant, None  # to the flow, -1.0 is no placeholder
    if text is not None:
        if word != "cachebuster" and not cleaner.is_text(meant):
            text, how = None, "unreadable"
        elif word == "value":
            text, how = cleaner.amount(text)
    return text, how


def _categories(value: str, decode: Callable[[str], str]) -> tuple[list[str] | None, How | None]:
    """The categories of a list. If it has none, or an unreadable one, None with the reason."""
    if is_plain(value):
        return [value[:_LONGEST_CATEGORY]], None
    texts = [decode(part) for part in value.split(",", _MAX_CATEGORIES)]
    parts = [cleaner.present(text) for text in texts]
    if not all(
        cleaner.is_text(meant) for (text, _), meant in zip(parts, texts, strict=True) if text is not None
    ):
        return None, "unreadable"
    values = [text[:_LONGEST_CATEGORY] for text, _ in parts[:_MAX_CATEGORIES] if text]
    return values or None, next((how for _, how in parts if how is not None), None)


def _take_again(reading: Reading, word: str, name: str, value: str, decode: Callable[[str], str]) -> None:
    """Take a further value of a word on consent, or of a word that names a device."""
    text, how = _meant(word, value, decode)
    if how == "unreadable":
        reading.clean(word, "unreadable")
    elif isinstance(text, str) and word in CONSENT and word in reading.words:
        reading.words[word] = _stricter(word, reading.words[word], text)
    elif text is not None and word in CLAIMS and text != reading.words.get(word):
        reading.words["server_side"] = "1"  # a caller that names two devices is a server
        reading.states["server_side"] = name, "given"


def _lessen(reading: Reading) -> None:
    """Leave out values whose meaning depends on an unreadable value."""
    words = reading.words
    if reading.unreadable("currency") and "value" in words:
        reading.leave_out("value", "value")
    if reading.unreadable("listener_id"):
        words.pop("ifa", None)


def _stricter(word: str, first: str, second: str) -> str:
    """The stricter of two values on consent: the value that refuses, or cannot be read. The first of two
    strings counts.
    """
    if word in _LISTS:
        return f"{first},{second}"[:LONGEST_VALUE]
    if word in _BOOLEANS:
        allows = word == "consent"
        return first if cleaner.boolean(second)[0] is allows else second
    if word == "us_privacy":
        return first if second[2:3].upper() in ("N", "-") else second
    return first


def _settle(reading: Reading, dialect: Dialect) -> None:
    """Give values their types; an unreadable value is treated as absent."""
    words = reading.words
    if "gpp_sid" in words:
        _typed(reading, "gpp_sid", "gpp_sid", cleaner.sections(words["gpp_sid"]))
    for word in _FLAGS:
        if word in words:
            _typed(reading, word, word, cleaner.boolean(words[word]))
    if "ts" in words:
        _typed(reading, "ts", "ts", cleaner.epoch_ms(words["ts"], _unit(dialect)))
    for word, meant in () if words.keys().isdisjoint(_LENGTHS) else _LENGTHS_BY_WORD:
        if word in words:
            _typed(reading, word, meant, cleaner.playhead_ms(words[word], dialect.playhead))
        if isinstance(words.get(meant), str):
            _typed(reading, meant, meant, cleaner.playhead_ms(words[meant]))
    if "currency" in words:
        _typed(reading, "currency", "currency", cleaner.currency(words["currency"]))
    if words.get("server_side", "0") not in _SIDES:
        reading.clean("server_side", "unreadable")
    if isinstance(event := words.get("event"), str):
        translated = dialect.events.get(event, event)
        words["event"], how = cleaner.event_name(translated)
        if how is not None or translated != event:
            reading.clean("event", "event")
    if isinstance(laws := words.pop("regulations", None), str):
        named = {law.lower() for law in laws.split(",")}
        if not all(map(str.isalnum, named)):
            reading.clean("regulations", "unreadable")
        words["gdpr"] = "gdpr" in named or words.get("gdpr")
        words["coppa"] = words.get("coppa") or "coppa" in named


def _unit(dialect: Dialect) -> str:
    return "" if dialect.time == "iso" else dialect.time


def _typed(reading: Reading, word: str, meant: str, cleaned: tuple[Any, How | None]) -> None:
    """Replace a word by the word `meant`, with the value that the cleaner returned."""
    del reading.words[word]
    value, how = cleaned
    if how is not None:
        reading.clean(word, how)
    if value is not None:
        reading.words[meant] = value


def canonical(raw: Mapping[str, Any], dialect: Dialect) -> Reading:
    """The reading of a canonical event, whose fields are words already. Fields that no caller may set are
    left out.
    """
    conversion = raw.get("conversion")
    fields = flat({name: value for name, value in raw.items() if name not in NEVER_FROM_A_CALLER})
    read_fields = {name: value for name, value in fields.items() if dialect.word(name) is not None}
    reading = read(Call("POST", "/v1/events", "", {}, b"", "", 0), dialect, field_parameters(read_fields))
    # A retry may have another consent, and must have the same id.
    reading.word_texts = [word_text for word_text in reading.word_texts if word_text[0] != "consent"]
    if reading.unreadable("consent"):
        reading.wrong = "consent"
    if isinstance(conversion, dict) and conversion.get("claimed") is True:
        reading.words["claimed"] = True
    return reading
