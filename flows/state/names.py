"""A list of names that grows, in snapshots: each packs the names that are new since the last one.

The list is that of its owner. A renumbered list needs a new journal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from flows.state.journal import Body, Files, Segment

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


@dataclass
class NameJournal:
    """The segments that hold the names, the oldest first; large ones are files."""

    _pieces: list[Segment] = field(default_factory=list)
    _packed: int = 0

    def snapshot(self, names: Sequence[Any], files: Files) -> list[tuple[str, Body, int, int]]:
        """Append the names that are new; returns the segments as plain values, for which the caller calls
        `files.keep`.
        """
        if new := names[self._packed :]:
            if not self._pieces or self._pieces[-1].name:
                self._pieces.append(Segment())
            self._pieces[-1].add(chunk(new), len(new))
            self._packed = len(names)
        for piece in self._pieces[-1:]:
            piece.close(files)
        return [piece.plain() for piece in self._pieces]

    def restore(self, pieces: Iterable[Iterable[object]], files: Files) -> list[Any]:
        """Load the segments; returns the names, each a text or a tuple.

        Raises:
            StateError: a file is missing or damaged.
        """
        self._pieces = [Segment(*piece) for piece in pieces]  # type: ignore[arg-type]  # out of a snapshot
        some = [name for piece in self._pieces for names in chunks(piece.body(files)) for name in names]
        self._packed = len(some)
        return [tuple(name) if isinstance(name, list) else name for name in some]

    def names(self) -> list[str]:
        """The names of the segments that are files."""
        return [piece.name for piece in self._pieces if piece.name]
