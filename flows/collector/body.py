"""The body of a call as parameters: a form, or JSON.

The body itself decides which of the two it is: sendBeacon sends both as text/plain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from flows.collector.call import Call
from flows.collector.damage import is_name
from flows.collector.query import MAX_PARAMETERS, form_value, parameters
from flows.errors import UNREADABLE

OF_A_CONVERSION: Final = ("type", "order_id", "value", "currency")
"""Fields of an event's conversion."""


class BodyParameters(NamedTuple):
    """Parameters of a body by name, each decoded only when it is read: a stranger may send many unused ones.

    Attributes:
        again: the later values of parameters that are repeated.
        odd: the form as it came, if parts of it are no parameters.
    """

    values: Mapping[str, str]
    decode: Callable[[str], str]
    again: Sequence[tuple[str, str]] = ()
    odd: str = ""

    def get(self, name: str) -> str:
        """The value of a parameter, decoded; empty if it is absent."""
        return self.decode(self.values.get(name, ""))


NOTHING: Final = BodyParameters({}, str)


class Number(str):
    """A number of a body of JSON, as text: -1 is a value, and as a text a placeholder. A number that is no
    integer keeps the seventeen digits of a float.
    """

    __slots__ = ()


class Unreadable(str):
    """A value of a body of JSON that cannot be a parameter, such as an object."""

    __slots__ = ()


_NO_PARAMETERS: Final = re.compile(r"\s*(?:multipart/|text/ping\b)", re.IGNORECASE)
"""Types of bodies that are neither a form nor JSON: a beacon of `FormData`, and the `PING` of a link."""
OBJECT: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Number)


def body_parameters(call: Call) -> BodyParameters | None:
    """The parameters of a POST's body, which is a form or one JSON object; None if it cannot be read.

    A body of another type, or without a parameter, has no parameters: the call is its query.
    """
    body = call.body
    if not body.strip() or _NO_PARAMETERS.match(call.headers.get("content-type", "")) is not None:
        return NOTHING
    if body.lstrip()[:1] == b"{":
        try:
            fields = flat(OBJECT.decode(body))
        except UNREADABLE:
            return None
        return of_fields(fields) if len(fields) <= MAX_PARAMETERS else None
    if body.count(b"&") >= MAX_PARAMETERS:
        return None
    again: list[tuple[str, str]] = []
    odd: list[str] = []
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    form = parameters(text, "&", again, odd)
    if not form and not call.query:
        return None
    return BodyParameters(form, form_value, again, text if odd else "")


def of_fields(fields: Mapping[str, Any]) -> BodyParameters:
    """The fields of a JSON object as parameters."""
    return BodyParameters({name: _text(value) for name, value in fields.items() if value is not None}, str)


def flat(event: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event, with those of its conversion before them in place of the object."""
    fields = dict(event)
    conversion = fields.pop("conversion", None)
    if not isinstance(conversion, dict):
        return fields
    own = {name: conversion[name] for name in OF_A_CONVERSION if name in conversion}
    own |= {name: value for name, value in conversion.items() if not is_name(name)}  # it may be one of these
    return own | {name: value for name, value in fields.items() if name not in OF_A_CONVERSION}


def _text(value: Any) -> str:
    """A value of JSON as a URL would write it."""
    if isinstance(value, list) and all(isinstance(one, str | int | float) for one in value):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return Number(value)
    return value if isinstance(value, str) else Unreadable()
