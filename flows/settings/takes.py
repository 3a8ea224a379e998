"""Describes the values that a setting takes in words, by its type."""

from __future__ import annotations

import types
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from flows.settings.wording import Takes, iso

_PLAIN: Final = {
    str: "text",
    SecretStr: "secret text",
    bool: "true | false",
    int: "whole number",
    float: "number",
    timedelta: "duration",
    Path: "path",
}


def takes(field: FieldInfo) -> str:
    """The values that a setting takes: alternatives with ` | `, then bounds, then whether it may be unset."""
    own_words = next((str(one) for one in field.metadata if isinstance(one, Takes)), None)
    return own_words or _words_of(field.annotation, field.metadata)


def _words_of(kind: Any, bounds: Sequence[object] = ()) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin is Annotated:
        return _words_of(inner[0], inner[1:])
    if origin in (Union, types.UnionType):
        (value,) = (
            one for one in inner if one is not types.NoneType
        )  # a union of several values has a `Takes`
        return f"{_words_of(value, bounds)}, or unset"
    if origin is dict:
        return f"{{{_words_of(inner[0])}: {_words_of(inner[1])}}}"
    if origin is tuple:
        return f"[{_words_of(inner[0])}, …]"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "{" + ", ".join(f"{name}: {takes(field)}" for name, field in kind.model_fields.items()) + "}"
    return _PLAIN[kind] + _bounds(bounds)


def _bounds(bounds: Sequence[object]) -> str:
    least = next((one.ge for one in bounds if isinstance(one, Ge)), None)
    most = next((one.le for one in bounds if isinstance(one, Le)), None)
    above = next((one.gt for one in bounds if isinstance(one, Gt)), None)
    words = ((", at least ", least), (", above ", above), (", at most ", most))
    return "".join(word + _written(bound) for word, bound in words if bound is not None)


def _written(bound: object) -> str:
    return iso(bound) if isinstance(bound, timedelta) else f"{bound}"
