"""Paths as granian passes them on: decoded, without a record of the encoding in the request."""

from __future__ import annotations

from urllib.parse import quote, unquote


def encoded(path: str) -> str:
    """A decoded path, encoded again, since the value of a parameter may hold separators of parameters.

    It is unknown whether `;` and `=` were encoded; they stay separators.
    """
    return quote(path, safe="/;=:,@!$'()*", errors="replace") if ";" in path else path


def as_served(path: str) -> str:
    """The path that a handler gets if a client sends `path`."""
    return encoded(unquote(path))
