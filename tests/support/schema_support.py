"""The part of JSON Schema 2020-12 that docs/pixels.schema.json uses, in a page.

A keyword that is not here is an error, so that a misspelt one holds nothing up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: TYPES["number"](value) and value == int(value),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}
COMMENTS = {"$schema", "$defs", "title", "description", "then", "else"}


def accepts(whole: Mapping[str, Any], schema: Mapping[str, Any], value: Any) -> bool:
    """True if `schema`, a part of `whole`, accepts a value."""

    def by(part: Mapping[str, Any], some: Any = value) -> bool:
        return accepts(whole, part, some)

    def holds(keyword: str, said: Any) -> bool:
        match keyword:
            case "$ref":
                return by(whole["$defs"][said.removeprefix("#/$defs/")])
            case "type":
                return any(TYPES[name](value) for name in ([said] if isinstance(said, str) else said))
            case "const":
                return type(value) is type(said) and value == said
            case "enum":
                return any(type(value) is type(one) and value == one for one in said)
            case "not":
                return not by(said)
            case "anyOf":
                return any(by(part) for part in said)
            case "if":
                return by(schema.get("then" if by(said) else "else", {}))
            case "required":
                return not isinstance(value, dict) or all(name in value for name in said)
            case "properties":
                return not isinstance(value, dict) or all(
                    by(part, value[name]) for name, part in said.items() if name in value
                )
            case "items":
                return not isinstance(value, list) or all(by(said, one) for one in value)
            case "maxLength":
                return not isinstance(value, str) or len(value) <= said
            case "pattern":  # ECMA's $ is the very end, Python's also stands before a last line feed
                return not isinstance(value, str) or bool(re.search(re.sub(r"\$$", r"\\Z", said), value))
            case "minimum":
                return not TYPES["number"](value) or value >= said
            case "maximum":
                return not TYPES["number"](value) or value <= said
            case "exclusiveMaximum":
                return not TYPES["number"](value) or value < said
        assert keyword in COMMENTS, f"{keyword}: not a keyword of this page"
        return True

    return all(holds(keyword, said) for keyword, said in schema.items())
