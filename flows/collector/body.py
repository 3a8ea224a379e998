"""The body of a call as parameters: a form, or JSON.

The first byte decides which of the two a body is: sendBeacon sends both as text/plain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from flows.collector.call import Call
from flows.collector.query import form_value, parameters
from flows.errors import UNREADABLE
from flows.model.catalogue.limits import MAX_PARAMETERS

CONVERSION_FIELDS: Final = ("type", "order_id", "value", "currency")
"""Fields of an event's conversion."""


class BodyParameters(NamedTuple):
    """Parameters of a body by name. Each is decoded only when it is read: a stranger may send many unused
    ones.

    Attributes:
        again: the later values of repeated parameters.
    """

    values: Mapping[str, str]
    decode: Callable[[str], str]
    again: Sequence[tuple[str, str]] = ()

    def get(self, name: str) -> str:
        """The value of a parameter, decoded; empty if it is absent."""
        return self.decode(self.values.get(name, ""))


NO_PARAMETERS: Final = BodyParameters({}, str)


class Number(str):
    """A number of a JSON body, as text. The number -1 is a value; the text -1 is a placeholder. A number that
    is no integer has the seventeen digits of a float.
    """

    __slots__ = ()


class Unreadable(str):
    """A value of a JSON body that cannot be a parameter, such as an object."""

    __slots__ = ()


_OTHER_TYPE: Final = re.compile(r"\s*(?:multipart/|text/ping\b)", re.IGNORECASE)
"""Types of bodies that are neither a form nor JSON: a beacon of `FormData`, and the `PING` of a link."""
OBJECT: Final = msgspec.json.Decoder(dict[str, Any], float_hook=Number)


def body_parameters(call: Call) -> BodyParameters | None:
    """The parameters of a POST's body, which is a form or one JSON object; None if it cannot be read.

    A body of another type, or without a parameter, has no parameters: the call is its query.
    """
    body = call.body
    if not body.strip() or _OTHER_TYPE.match(call.headers.get("content-type", "")) is not None:
        return NO_PARAMETERS
    if body.lstrip()[:1] == b"{":
        try:
            fields = flat(OBJECT.decode(body))
        except UNREADABLE:
            return None
        return field_parameters(fields) if len(fields) <= MAX_PARAMETERS else None
    if body.count(b"&") >= MAX_PARAMETERS:
        return None
    again: list[tuple[str, str]] = []
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    form = parameters(text, "&", again)
    if not form and not call.query:
        return None
    return BodyParameters(form, form_value, again)


def field_parameters(fields: Mapping[str, Any]) -> BodyParameters:
    """The fields of a JSON object as parameters."""
    return BodyParameters({name: _text(value) for name, value in fields.items() if value is not None}, str)


def flat(event: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an event, flat: the fields of its conversion come first, in place of the object."""
    fields = dict(event)
    conversion = fields.pop("conversion", None)
    if not isinstance(conversion, dict):
        return fields
    flattened = {name: conversion[name] for name in CONVERSION_FIELDS if name in conversion}
    return flattened | {name: value for name, value in fields.items() if name not in CONVERSION_FIELDS}


def _text(value: Any) -> str:
    """A value of JSON as a URL would write it."""
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ",".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return Number(value)
    return value if isinstance(value, str) else Unreadable()
