"""Parameters of a URL that no dialect reads: a misspelt name loses its value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from flows.collector.dialects import LITERAL, NATIVE, SIGNALS, WORDS, Dialect
from flows.collector.signatures import DEBUG


def known_names(dialect: Dialect) -> frozenset[str]:
    """The names that a dialect reads."""
    common = LITERAL if dialect.use == "postback" else {*NATIVE, *WORDS}
    return frozenset((*common, *SIGNALS, *dialect.names, *dialect.case_parameters, DEBUG))


def unread_names(dialect: Dialect, names: Iterable[str]) -> Iterator[str]:
    """The names that a dialect neither reads nor drops, in their order."""
    names_read = known_names(dialect)
    return (name for name in names if name not in names_read and name not in dialect.drop)


def near(name: str, dialect: Dialect) -> str:
    """The closest known name; empty if none is near."""
    return next(iter(get_close_matches(name.removeprefix("amp;"), sorted(known_names(dialect)), 1)), "")
