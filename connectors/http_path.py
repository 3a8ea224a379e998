"""Paths as this server hands them on: granian decodes one, and keeps nothing of how it was sent."""

from __future__ import annotations

from urllib.parse import quote, unquote


def encoded(path: str) -> str:
    """A decoded path, encoded again: a parameter's value in it may hold what parts parameters.

    Of `;` and `=` nobody can tell whether they were encoded; they part what they stand in.
    """
    return quote(path, safe="/;=:,@!$'()*", errors="replace") if ";" in path else path


def as_served(path: str) -> str:
    """The path that a handler is given where a client sends this one."""
    return encoded(unquote(path))
