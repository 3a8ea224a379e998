"""Names and values of a call: query, path parameters, and forms. All are bounded and made valid UTF-8."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode, urlsplit
from urllib.parse import unquote as unquote_any

from flows.model.catalogue.limits import LONGEST_VALUE, MAX_PARAMETERS
from flows.model.events import MAX_URL_BYTES, cut_bytes

LONGEST_NAME: Final = 256
"""The greatest length of a parameter's name, still encoded. A longer name is unknown, and is not decoded."""
MAX_DECODINGS: Final = 3
"""The greatest number of decodings: a URL within a URL within a third is encoded three times. Only an enemy
encodes more often.
"""

_PERCENT: Final = re.compile(r"%[A-Za-z_]+!|%%\w+%%")
"""Macros that begin like encoded bytes. `%ecid!` and `%%CACHEBUSTER%%` would decode to a text that looks like
a value, and is the same in every call.
"""
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_LONGEST_SCHEME: Final = 8 * 3**MAX_DECODINGS
"""The greatest length of `https://` after `MAX_DECODINGS` percent-encodings."""
_ASCII: Final = "".join(letter for letter in map(chr, range(128)) if letter != " ")


def unquote(text: str) -> str:
    """A text with its percent-encoding undone; ASCII, which most texts are, takes half of the time."""
    return unquote_to_bytes(text).decode(errors="replace") if text.isascii() else unquote_any(text)


def unquote_plus(text: str) -> str:
    """A text with its percent-encoding undone, in which a plus sign is a space."""
    return unquote(text.replace("+", " "))


def parameters(
    text: str, separators: str = "&", again: list[tuple[str, str]] | None = None
) -> dict[str, str]:
    """The parameters of a query, or of a path that carries some, by name. The first value of a repeated
    parameter counts.

    Values stay encoded, so that unread values are never decoded. See `decoded`.

    Args:
        separators: each of these characters ends a parameter.
        again: receives the later values of repeated parameters.
    """
    values: dict[str, str] = {}
    if not text:
        return values
    for separator in separators[1:]:
        text = text.replace(separator, separators[0])
    for part in text.split(separators[0], MAX_PARAMETERS)[:MAX_PARAMETERS]:
        name, equals, value = part.partition("=")
        if equals and name and len(name) <= LONGEST_NAME:
            name = name_of(name)
            if name not in values:
                values[name] = value
            elif again is not None:
                again.append((name, value))
    return values


def name_of(name: str) -> str:
    """The name of a parameter, decoded."""
    return unquote_plus(name) if "%" in name else name


def root_of(path: str) -> str:
    """The first word of a path, which selects the door: `p`, `b`, `c`."""
    return "p" if path == "/p" else path.split(";", 1)[0].strip("/").split("/", 1)[0]


def readable(text: str) -> str:
    """A text without lone surrogates, as which servers pass on bytes that are no UTF-8."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def decoded(value: str) -> str:
    """A value with its percent-encoding undone, also if it was encoded twice or three times.

    A plus sign is a space in the first pass and itself in later ones. Bytes that are no UTF-8 become U+FFFD.
    """
    value = value[:LONGEST_VALUE]
    if "%" not in value:
        return value.replace("+", " ")
    if _PERCENT.fullmatch(value) is not None:
        return value
    text = unquote_plus(value)
    for _ in range(MAX_DECODINGS - 1):
        if "%" not in text or _PERCENT.fullmatch(text) is not None:
            break
        text, before = unquote_plus(text.replace("+", "%2B")), text
        if text == before:
            break
    return text


def url_of(value: str) -> str:
    """The URL of a parameter, decoded until it is a URL. A URL is decoded no further, since it has a query of
    its own.
    """
    value = value[:LONGEST_VALUE]
    for _ in range(MAX_DECODINGS):
        value = unquote(value)
        if is_url(value):
            break
    return value


def form_value(value: str) -> str:
    """A value of a form. A URL is decoded no further, since it has a query of its own."""
    return url_of(value.replace("+", " ")) if is_url(url_of(value[:_LONGEST_SCHEME])) else decoded(value)


def is_url(value: str) -> bool:
    """True if a value begins as a URL that a browser opens."""
    return value[:8].lower().startswith(("http://", "https://"))


def target_of(value: str) -> str:
    """The URL that a click leads to. Spaces and letters beyond ASCII, which no header takes, are encoded."""
    return quote(url_of(value), safe=_ASCII, errors="replace")


def without_query(url: str) -> str:
    """A landing URL whose query has only its `utm_*` parameters: others may identify a person."""
    try:
        parts = urlsplit(url[:MAX_URL_BYTES])
        utm = [(name, value) for name, value in parse_qsl(parts.query) if name.startswith("utm_")]
    except ValueError:
        return ""
    address = f"{parts.scheme}://{parts.hostname or ''}{parts.path}" if parts.scheme else parts.path
    # A percent-encoded letter may take twelve characters, and the flow takes no event over 64 KiB.
    return cut_bytes(f"{address}?{urlencode(utm)}" if utm else address, MAX_URL_BYTES)
