"""Words errors of settings. Pydantic's errors are about types, ours about the value to write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic_core import ErrorDetails

DURATION: Final = "takes a duration: PT10M, 00:10:00, or seconds"
TABLE: Final = (
    'takes names and texts: as JSON in the environment, {"name": "text"}, or as a table in the file'
)

LIST: Final = "takes a list: as JSON in the environment, or as an array in the file"


class Takes(str):
    """The values of a setting in words, as metadata of a type that `takes` cannot describe."""


_Facts = Mapping[str, Any]
_durations: Final = TypeAdapter(timedelta)


def iso(duration: timedelta) -> str:
    """A duration in ISO 8601, as a setting takes it: `PT10M`."""
    return str(_durations.dump_python(duration, mode="json"))


def _bound(word: str, name: str) -> Callable[[_Facts], str]:
    return lambda facts: f"takes {word} " + str(facts[name]).replace("000 microseconds", " ms")


_WORDINGS: Final[Mapping[str, Callable[[_Facts], str]]] = {
    "value_error": lambda facts: str(facts["error"]),
    "extra_forbidden": lambda _: "no such field",
    "missing": lambda _: "is required",
    "literal_error": lambda facts: f"takes {str(facts['expected']).replace(chr(39), '')}",
    "greater_than": _bound("more than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
    **dict.fromkeys(("time_delta_parsing", "time_delta_type"), lambda _: DURATION),
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), lambda _: "takes a whole number"),
    **dict.fromkeys(
        ("float_parsing", "float_type", "finite_number"), lambda _: "takes a ratio, such as 0.95"
    ),
    **dict.fromkeys(("dict_type", "dict_parsing"), lambda _: TABLE),
    **dict.fromkeys(("tuple_type", "list_type"), lambda _: LIST),
    **dict.fromkeys(("bool_type", "bool_parsing"), lambda _: "takes true or false"),
    **dict.fromkeys(("string_type", "path_type"), lambda _: "takes a text"),
}


def in_our_words(problem: ErrorDetails) -> str:
    """The fault of a setting: the values that it takes, without the wrong value."""
    wording = _WORDINGS.get(problem["type"])
    return wording(problem.get("ctx", {})) if wording is not None else problem["msg"]


def nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """The nearest of `names` as a question; empty if none is near."""
    matches = get_close_matches(name, list(names), 1, 0.75)
    return f" (did you mean {prefix}{matches[0]}?)" if matches else ""
