"""Messages as lines of an archive, unchanged except for people who are forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Any, Final

import msgspec

from flows.errors import UNREADABLE
from flows.intake import is_malformed
from flows.state.people import People

OF_A_PERSON: Final = (
    "listener_id",
    "client_id",
    "household_id",
    "previous",
    "ga_client_id",
    "ip",
    "user_agent",
)
"""Fields that become null in the lines of a forgotten person. `consent` becomes false."""
_MOST_REMEMBERED: Final = 1_000_000
_NULL: Final = msgspec.Raw(b"null")
_FALSE: Final = msgspec.Raw(b"false")
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Whose(msgspec.Struct, gc=False):
    listener_id: msgspec.Raw = _NULL
    client_id: msgspec.Raw = _NULL
    household_id: msgspec.Raw = _NULL
    previous: msgspec.Raw = _NULL


_WHOSE: Final = msgspec.json.Decoder(_Whose)
_ANY: Final = msgspec.json.Decoder()


def line_of(value: bytes) -> bytes:
    """A message as a line. Line feeds in JSON stand only between tokens, where a blank means the same."""
    return value.replace(b"\n", b" ") if b"\n" in value else value


def lines_of(values: Collection[bytes]) -> tuple[list[bytes], list[tuple[int, int, str]]]:
    """The lines of messages, with the place, length and SHA-256 of each malformed message. The line of a
    malformed message is empty.
    """
    lines, malformed = list[bytes](), list[tuple[int, int, str]]()
    for place, value in enumerate(values):
        if is_malformed(value):
            malformed.append((place, len(value), hashlib.sha256(value).hexdigest()))
            lines.append(b"")
        else:
            lines.append(line_of(value))
    return lines, malformed


class Forgetting:
    """Removes people from lines.

    Args:
        secret: the listeners' key.
        denied: keyed hashes of listeners, devices and households, as the deny-list has them.
    """

    def __init__(self, secret: bytes, denied: Collection[int]) -> None:
        self._people, self._denied = People(secret), frozenset(denied)
        self._verdicts: tuple[dict[bytes, bool], dict[bytes, bool]] = ({}, {})

    def without(self, line: bytes) -> bytes:
        """The line without people of the list. A line that names one gets null for everything that names
        people.
        """
        if not self._denied or not line:
            return line
        try:
            whose = _WHOSE.decode(line)
            if not self._names_one(whose):
                return line
            fields = _OBJECT.decode(line)
        except UNREADABLE:
            return line  # malformed, which does not occur: the line of a malformed message is empty
        fields.update((name, _NULL) for name in OF_A_PERSON if name in fields)
        fields["consent"] = _FALSE
        return msgspec.json.encode(fields)

    def _names_one(self, whose: _Whose) -> bool:
        if (
            self._has(0, whose.listener_id)
            or self._has(0, whose.client_id)
            or self._has(1, whose.household_id)
        ):
            return True
        if bytes(whose.previous) == b"null":
            return False
        before = _ANY.decode(whose.previous)
        if not isinstance(before, dict):
            return any(self._is_denied(of, text) for of in (0, 1) for text in _texts(before))
        return any(
            self._is_denied(of, text)
            for name, value in before.items()
            for of in ((1,) if name == "household_id" else (0,))
            for text in _texts(value)
        )

    def _has(self, kind: int, raw: msgspec.Raw) -> bool:
        text = bytes(raw)
        if text == b"null":
            return False
        verdicts = self._verdicts[kind]
        denied = verdicts.get(text)
        if denied is None:
            denied = any(self._is_denied(kind, one) for one in _texts(_ANY.decode(text)))
            if len(verdicts) >= _MOST_REMEMBERED:
                verdicts.clear()
            verdicts[text] = denied
        return denied

    def _is_denied(self, kind: int, text: str) -> bool:
        key = self._people.household if kind else self._people.listener
        try:
            return key(text.encode()) in self._denied
        except UnicodeEncodeError:
            return False


def _texts(value: Any) -> Iterator[str]:
    """All texts of a value. A value of a wrong type makes the message no pixel, but may name somebody all the
    same.
    """
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
