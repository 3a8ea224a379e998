"""Paths as this server passes them on: granian decodes a path, and does not record how it was sent."""

from __future__ import annotations

from urllib.parse import quote, unquote


def encoded(path: str) -> str:
    """A decoded path, encoded again: a parameter's value in it may hold characters that separate parameters.

    For `;` and `=` it is unknown whether they were encoded; they separate.
    """
    return quote(path, safe="/;=:,@!$'()*", errors="replace") if ";" in path else path


def as_served(path: str) -> str:
    """The path that a handler gets if a client sends this one."""
    return encoded(unquote(path))
