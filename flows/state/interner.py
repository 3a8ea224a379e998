"""Names by number, from 0 on: their snapshots, and the one rule by which unused names are dropped.

Rows store the number of a name. The owner of the rows checks `is_due` at times of its choice, and passes the
numbers that its rows use to `collect`. If at most half of the names are used, the others are dropped and the
used ones are renumbered. A table therefore has at most twice as many names as its rows used at the last
`collect`, or `DROP_AT` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count, repeat
from typing import Any, Final, Generic, TypeVar

import numpy as np

from flows.state.arrays import I64
from flows.state.chunks import chunk, chunks
from flows.state.journal import Body, Files, Segment

DROP_AT: Final = 100_000
"""The number of names above which `is_due` is true at any time."""
LOOK_AT: Final = 1_000
"""The number of names above which `is_due` is true at a turn of an hour or day of the watermark."""
NO_LIMIT: Final = 1 << 32

Name = TypeVar("Name")


class Interner(Generic[Name]):
    """Names by number. A name is a text, or a tuple of texts and None.

    Args:
        names: the names to begin with.
        limit: the greatest number of names. A new name beyond it is not stored and has the number `limit`.

    Attributes:
        names: the names by number; only this class changes the list.
    """

    def __init__(self, names: Iterable[Name] = (), limit: int = NO_LIMIT) -> None:
        self.limit = limit
        self._set_names(names)
        self._due_at = min(DROP_AT, limit - 1)

    def _set_names(self, names: Iterable[Name]) -> None:
        self.names: list[Name] = [*names]
        self._numbers = {name: number for number, name in enumerate(self.names)}
        # Segments of the names that are packed: a snapshot packs the new names alone. Large ones are files.
        self._pieces, self._packed = list[Segment](), 0

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Name:
        return self.names[number]

    def number(self, name: Name) -> int:
        """The number of a name; a new name gets the next one."""
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            if number >= self.limit:
                del self._numbers[name]
                return self.limit
            self.names.append(name)
        return number

    def numbers(self, names: Sequence[Name]) -> I64:
        """The numbers of names; new names get the next ones, in their order."""
        numbers = self.find(names)
        new = np.flatnonzero(numbers < 0)
        if len(new):
            new_names, known_count = [names[place] for place in new.tolist()], len(self)
            self.names += [*dict.fromkeys(new_names)][: self.limit - known_count]
            self._numbers.update(zip(self.names[known_count:], count(known_count), strict=False))
            new_numbers = self.find(new_names)
            numbers[new] = np.where(new_numbers < 0, self.limit, new_numbers)
        return numbers

    def find(self, names: Sequence[Name | None]) -> I64:
        """The numbers of names; -1 for a name that has none."""
        number_of: Any = self._numbers.get  # None is in no dictionary
        return np.fromiter(map(number_of, names, repeat(-1)), np.int64, len(names))

    def is_due(self, turned: bool = False) -> bool:
        """True if the caller should pass `collect` the numbers in use.

        Args:
            turned: whether this is the call at a turn of the hour or day.
        """
        return len(self) > (min(LOOK_AT, self._due_at) if turned else self._due_at)

    def collect(self, used: I64) -> I64 | None:
        """Drop all names but those with the numbers `used`, if these are at most half of the names, or if the
        limit is reached. `used` is sorted and distinct.

        Returns:
            By former number the new one, -1 for a dropped name; None if no name was dropped.
        """
        former_count = len(self)
        max_used = former_count - 1 if former_count >= self.limit else former_count // 2
        # Close to the limit a few new names make it due again: a flood then renumbers all names each minute.
        self._due_at = min(max(DROP_AT, 2 * len(used)), self.limit - 1)
        if len(used) > max_used:
            return None
        self._set_names([self.names[number] for number in used.tolist()])
        renumbered = np.full(former_count, -1, np.int64)
        renumbered[used] = np.arange(len(used))
        return renumbered

    # State

    def snapshot(self, files: Files) -> list[tuple[str, Body, int, int]]:
        """The names as plain values: the new ones, and the files of earlier snapshots. The caller calls
        `files.keep` with `file_names`.
        """
        if new := self.names[self._packed :]:
            if not self._pieces or self._pieces[-1].name:
                self._pieces.append(Segment())
            self._pieces[-1].add(chunk(new), len(new))
            self._packed = len(self.names)
        for piece in self._pieces[-1:]:
            piece.close(files)
        return [piece.plain() for piece in self._pieces]

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return [piece.name for piece in self._pieces if piece.name]

    def restore(self, state: Iterable[Iterable[Any]], files: Files) -> None:
        """Replace the names by those of `snapshot`.

        Raises:
            StateError: a file is missing or damaged.
        """
        pieces = [Segment(*piece) for piece in state]
        packed = (name for piece in pieces for part in chunks(piece.body(files)) for name in part)
        names: list[Any] = [tuple(name) if isinstance(name, list) else name for name in packed]
        self._set_names(names)
        self._pieces, self._packed = pieces, len(names)
