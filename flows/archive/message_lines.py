"""Makes an archive's lines from messages. Lines are unchanged, but for forgotten people."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Any, Final

import msgspec

from flows.errors import UNREADABLE
from flows.intake import is_malformed
from flows.state.people import People

OF_A_PERSON: Final = (
    *("listener_id", "client_id", "household_id", "previous"),
    *("ga_client_id", "ip", "user_agent"),
)
"""Fields that become null in the lines of a forgotten person. `consent` becomes false."""
_MAX_REMEMBERED: Final = 1_000_000
"""The greatest number of remembered verdicts of each kind."""
_NULL: Final = msgspec.Raw(b"null")
_FALSE: Final = msgspec.Raw(b"false")
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _Ids(msgspec.Struct, gc=False):
    listener_id: msgspec.Raw = _NULL
    client_id: msgspec.Raw = _NULL
    household_id: msgspec.Raw = _NULL
    previous: msgspec.Raw = _NULL


_IDS: Final = msgspec.json.Decoder(_Ids)
_ANY: Final = msgspec.json.Decoder()


def line_of(value: bytes) -> bytes:
    """A message as a line. In JSON a line feed stands only between tokens, where a blank is as good."""
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
        denied: the deny-list's keyed hashes of listeners, devices and households.
    """

    def __init__(self, secret: bytes, denied: Collection[int]) -> None:
        self._people, self._denied = People(secret), frozenset(denied)
        self._verdicts: tuple[dict[bytes, bool], dict[bytes, bool]] = ({}, {})

    def redacted(self, line: bytes) -> bytes:
        """The line without people of the deny-list. If it names one of them, all its fields of
        `OF_A_PERSON` become null.
        """
        if not self._denied or not line:
            return line
        try:
            ids = _IDS.decode(line)
            if not self._names_denied(ids):
                return line
            fields = _OBJECT.decode(line)
        except UNREADABLE:
            return line  # does not occur: the line of a malformed message is empty
        fields.update((name, _NULL) for name in OF_A_PERSON if name in fields)
        fields["consent"] = _FALSE
        return msgspec.json.encode(fields)

    def _names_denied(self, ids: _Ids) -> bool:
        if (
            self._has_denied(0, ids.listener_id)
            or self._has_denied(0, ids.client_id)
            or self._has_denied(1, ids.household_id)
        ):
            return True
        if bytes(ids.previous) == b"null":
            return False
        previous = _ANY.decode(ids.previous)
        if not isinstance(previous, dict):
            return any(self._is_denied(kind, text) for kind in (0, 1) for text in _texts(previous))
        return any(
            self._is_denied(int(name == "household_id"), text)
            for name, value in previous.items()
            for text in _texts(value)
        )

    def _has_denied(self, kind: int, raw: msgspec.Raw) -> bool:
        text = bytes(raw)
        if text == b"null":
            return False
        verdicts = self._verdicts[kind]
        denied = verdicts.get(text)
        if denied is None:
            denied = any(self._is_denied(kind, one) for one in _texts(_ANY.decode(text)))
            if len(verdicts) >= _MAX_REMEMBERED:
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
    """All texts in a value. A message with an id of a wrong type is no pixel, but may still name a person."""
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
