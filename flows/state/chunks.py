"""Chunks: plain values, each packed after its length, so that they follow one another in a segment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from flows.state.journal import Body

_LENGTH: Final = 4
"""The bytes of a chunk's length before it."""


def chunk(value: Any) -> bytes:
    """A plain value, packed, after its length."""
    packed = msgspec.msgpack.encode(value)
    return len(packed).to_bytes(_LENGTH, "little") + packed


def chunks(body: Body) -> Iterator[Any]:
    """The values of chunks that follow one another."""
    view, start = memoryview(body), 0
    while start < len(view):
        start, length = start + _LENGTH, int.from_bytes(view[start : start + _LENGTH], "little")
        yield msgspec.msgpack.decode(view[start : start + length])
        start += length
