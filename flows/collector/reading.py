"""From a call's parameters to what they mean: words and cleaned values, by the call's dialect."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from flows.collector import cleaner
from flows.collector.call import Call
from flows.collector.cleaner import How
from flows.collector.dialects import CLAIMS, CONSENT, Dialect
from flows.collector.query import (
    LONGEST_VALUE,
    MAX_PARAMETERS,
    decoded,
    form_value,
    parameters,
    readable,
    url_of,
)
from flows.errors import UNREADABLE

PER_FIRE: Final = ("cachebuster", "ts", "play_id")
"""Words that differ from fire to fire: where one is there, a retry of the same URL can be told from another.
"""
_BOOLEANS: Final = ("gdpr", "lmt", "coppa", "gpc", "consent")
_LISTS: Final = ("gpp_sid", "regulations")
_REPEATED: Final = CONSENT | CLAIMS
"""Words of which all values count, and not the first alone."""
OF_A_CONVERSION: Final = ("type", "order_id", "value", "currency")
"""Fields of an event's conversion."""
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
"""Fields that only the door itself sets, whoever calls."""
_MAX_CATEGORIES: Final = 32
_LONGEST_CATEGORY: Final = 128
_LONGEST_NUMBER: Final = 64
"""Of a conversion's value: the flow counts one of twenty digits at the most."""


@dataclass(slots=True)
class Reading:
    """The parameters of a call, read.

    Attributes:
        words: cleaned values by what they mean; times and playheads in ms.
        said: every parameter that means something, as (word, cleaned text), for the id of the call.
        states: by word, the parameter it came from and `given`, `unreplaced`, `empty`.
        cleaned: by word, what the cleaner did.
        wrong: the field of a canonical event that is of a wrong type.
    """

    words: dict[str, Any] = field(default_factory=dict)
    said: list[tuple[str, str]] = field(default_factory=list)
    states: dict[str, tuple[str, str]] = field(default_factory=dict)
    cleaned: dict[str, list[How]] = field(default_factory=dict)
    wrong: str = ""

    def unreadable(self, *words: str) -> bool:
        """True if the call says one of these, and what it says cannot be read."""
        return any("unreadable" in self.cleaned.get(word, ()) for word in words)


class Said(NamedTuple):
    """Parameters of a body by name, each decoded when it is read: of those that nobody reads a stranger may
    send many.

    Attributes:
        again: what parameters that are repeated say behind the first.
    """

    values: Mapping[str, str]
    decode: Callable[[str], str]
    again: Sequence[tuple[str, str]] = ()

    def get(self, name: str) -> str:
        """The value of a parameter, decoded; empty: it is not there."""
        return self.decode(self.values.get(name, ""))


NOTHING: Final = Said({}, str)


class Number(str):
    """An integer of a body of JSON, as text: -1 is a value, and as a text a placeholder."""

    __slots__ = ()


class Unreadable(str):
    """A value of a body of JSON that no parameter takes, such as an object."""

    __slots__ = ()


_NO_PARAMETERS: Final = re.compile(r"\s*(?:multipart/|text/ping\b)", re.IGNORECASE)
"""Types of bodies that are neither a form nor JSON: a beacon of `FormData`, and the `PING` of a link."""
OBJECT: Final = msgspec.json.Decoder(dict[str, Any], float_hook=str)
"""Of a number that is no integer it keeps the digits, of which a float has seventeen."""


def read(call: Call, dialect: Dialect, extra: Said = NOTHING) -> Reading:
    """Read a call's parameters by its dialect; raises for no input.

    Args:
        extra: parameters out of a body, which come behind those of the URL.
    """
    again: list[tuple[str, str]] = []
    raw = parameters(readable(call.query), dialect.separators, again)
    if dialect.split and any(mark in call.path for mark in dialect.split):
        of_path = parameters(readable(call.path), dialect.separators, again)
        again += [(name, value) for name, value in of_path.items() if name in raw]
        raw = of_path | raw
    call.laps.end("parse")
    reading = Reading()
    for name, value in raw.items():
        _take(reading, dialect, name, value, decoded)
    for name, value in extra.values.items():
        _take(reading, dialect, name, value, extra.decode)
    for decode, pairs in ((decoded, again), (extra.decode, extra.again)):
        for name, value in pairs:
            if dialect.word(name) in _REPEATED:
                _take(reading, dialect, name, value, decode)
    named = {name: decoded(raw[name]) for name in dialect.asked if name in raw}
    named |= {name: extra.decode(extra.values[name]) for name in dialect.asked if name in extra.values}
    for word, meant in dialect.fixed.items():
        reading.words.setdefault(word, meant)
    for case, words in dialect.when.items():
        parameter, _, wanted = case.partition("=")
        if named.get(parameter) == wanted:
            for word, meant in words.items():
                if word == "event_from":
                    reading.words["event"] = named.get(meant, "")
                    reading.states["event"] = (meant, "given")
                else:
                    reading.words[word] = meant
    _settle(reading, dialect)
    return reading


def is_cut(call: Call, dialect: Dialect) -> bool:
    """True if a URL has more parameters than are read: a refusal, or a claim, may be behind them."""
    query, path = 0, 0
    for mark in dialect.separators:
        query += call.query.count(mark)
        path += call.path.count(mark)
    return query >= MAX_PARAMETERS or path >= MAX_PARAMETERS


def _take(reading: Reading, dialect: Dialect, name: str, value: str, decode: Callable[[str], str]) -> None:
    word = dialect.word(name)
    if word is None:
        return
    if isinstance(value, Unreadable):
        if word in CONSENT:
            reading.cleaned.setdefault(word, []).append("unreadable")
        return
    if word in reading.words and reading.states[word][1] == "given":
        other = cleaner.present(decode(value))[0] if word in _REPEATED else None
        if other is not None and word in CONSENT:
            reading.words[word] = _stricter(word, reading.words[word], other)
        elif other is not None and other != reading.words[word]:  # who speaks for two devices is neither
            reading.words["server_side"] = "1"
            reading.states["server_side"] = name, "given"
        return
    number = isinstance(value, Number)
    if decode is form_value:  # a list, too, is decoded as a whole
        value, decode = form_value(value), str
    value = value[:LONGEST_VALUE]
    if word == "content_category":  # a list is parted before its values are decoded
        parts = [cleaner.present(decode(part)) for part in value.split(",", _MAX_CATEGORIES)]
        values = [text[:_LONGEST_CATEGORY] for text, _ in parts[:_MAX_CATEGORIES] if text]
        said = next((how for _, how in parts if how is not None), None)
        if said is not None:
            reading.cleaned.setdefault(word, []).append(said)
        reading.states[word] = (name, "given" if values else "empty" if said == "empty" else "unreplaced")
        if values:
            reading.words[word] = values
            reading.said.append((word, ",".join(values)))
        return
    if word == "landing_url" and decode is decoded:
        decode = url_of
    clean = cleaner.device_id if word == "ifa" else cleaner.present
    text, how = clean(decode(value))
    if text is None and number and word == "value":
        text, how = f"{value}.0", None  # so that no text is a placeholder to the flow
    if text is not None and not dialect.is_whole(word, text):
        text, how = None, "unreplaced"
    if how is not None:
        reading.cleaned.setdefault(word, []).append(how)
    reading.states[word] = (
        name,
        "given" if text is not None else "empty" if how == "empty" else "unreplaced",
    )
    if text is not None:
        reading.words[word] = text
        reading.said.append((word, text))


def _stricter(word: str, said: str, other: str) -> str:
    """The one of two values on consent that refuses, or cannot be read; of two strings the first."""
    if word in _LISTS:
        return f"{said},{other}"[:LONGEST_VALUE]
    if word in _BOOLEANS:
        allows = word == "consent"
        return said if cleaner.boolean(other)[0] is allows else other
    if word == "us_privacy":
        return said if other[2:3].upper() in ("N", "-") else other
    return said


def _settle(reading: Reading, dialect: Dialect) -> None:
    """Give values their types; one that cannot be read is as if it were not there."""
    words = reading.words
    if "gpp_sid" in words:
        _typed(reading, "gpp_sid", "gpp_sid", cleaner.sections)
    for word in (*_BOOLEANS, "tracked"):
        if word in words:
            _typed(reading, word, word, cleaner.boolean)
    if "ts" in words:
        _typed(reading, "ts", "ts", lambda text: cleaner.epoch_ms(text, _unit(dialect)))
    for word, meant in (("playhead", "playhead_ms"), ("duration", "duration_ms")):
        if word in words:
            _typed(reading, word, meant, lambda text: cleaner.playhead_ms(text, dialect.playhead))
        if isinstance(words.get(meant), str):
            _typed(reading, meant, meant, cleaner.playhead_ms)
    if "currency" in words:
        _typed(reading, "currency", "currency", cleaner.currency)
    if isinstance(amount := words.get("value"), str):
        words["value"] = amount[:_LONGEST_NUMBER]
    if isinstance(event := words.get("event"), str):
        own = dialect.events.get(event, event)
        words["event"], how = cleaner.event_name(own)
        if how is not None or own != event:
            reading.cleaned.setdefault("event", []).append("event")
    if isinstance(laws := words.pop("regulations", None), str):
        named = {law.strip().lower() for law in laws.split(",")}
        words["gdpr"] = "gdpr" in named or words.get("gdpr")
        words["coppa"] = words.get("coppa") or "coppa" in named


def _unit(dialect: Dialect) -> str:
    return "" if dialect.time == "iso" else dialect.time


def _typed(reading: Reading, word: str, meant: str, clean: Callable[[str], tuple[Any, How | None]]) -> None:
    value, how = clean(reading.words.pop(word))
    if how is not None:
        reading.cleaned.setdefault(word, []).append(how)
    if value is not None:
        reading.words[meant] = value


def body_parameters(call: Call) -> Said | None:
    """The parameters of a POST's body: a form, or one JSON object; None: it cannot be read.

    What sendBeacon sends is text/plain, so the body itself says what it is, unless its type says that it is
    neither: then, and where it holds no parameter, the call is its query.
    """
    body = call.body.strip()
    if not body or _NO_PARAMETERS.match(call.headers.get("content-type", "")) is not None:
        return NOTHING
    if body[:1] == b"{":
        try:
            found = OBJECT.decode(body)
        except UNREADABLE:
            return None
        fields = flat(found)
        if len(fields) > MAX_PARAMETERS:
            return None
        return Said({name: _text(value) for name, value in fields.items() if value is not None}, str)
    if body.count(b"&") >= MAX_PARAMETERS:
        return None
    again: list[tuple[str, str]] = []
    try:
        form = parameters(body.decode(), again=again)
    except UnicodeDecodeError:
        return None
    if not form:
        return NOTHING if call.query else None
    return Said(form, form_value, again)


def flat(event: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event, with those of its conversion before them in place of the object."""
    found = dict(event)
    conversion = found.pop("conversion", None)
    if not isinstance(conversion, dict):
        return found
    own = {name: conversion[name] for name in OF_A_CONVERSION if name in conversion}
    return own | {name: value for name, value in found.items() if name not in OF_A_CONVERSION}


def _text(value: Any) -> str:
    """A value of JSON as a URL would say it."""
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return Number(value)
    return str(value) if isinstance(value, str | float) else Unreadable()


def canonical(raw: Mapping[str, Any], dialect: Dialect) -> Reading:
    """The reading of a canonical event: its fields are words already; what no caller may say is left out."""
    fields = flat({name: value for name, value in raw.items() if name not in NEVER_FROM_A_CALLER})
    found = {name: value for name, value in fields.items() if dialect.word(name) is not None}
    conversion = raw.get("conversion")
    call = Call("POST", "/v1/events", "", {}, msgspec.json.encode(found), "", 0)
    reading = read(call, dialect, body_parameters(call) or NOTHING)
    reading.said = [one for one in reading.said if one[0] != "consent"]  # a retry may have another
    if reading.unreadable("consent"):
        reading.wrong = "consent"
    if isinstance(conversion, dict) and conversion.get("claimed") is True:
        reading.words["claimed"] = True
    return reading
