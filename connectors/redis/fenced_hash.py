"""Layouts of fenced hashes, versions of them, and what a version differs in from another one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import compress
from operator import ne
from typing import Any, Final, NamedTuple

import msgspec

_NAME: Final = re.compile(r"[A-Za-z0-9_.:+-]+")
_MAX_FIELDS: Final = 3_000  # Lua's unpack() passes at most 8,000 values
_MAX_NEW: Final = 8
"""Fields that a changed row may get, before it is written whole, in the layout's order."""
_RESERVED: Final = ("generation", "fence", "rev", "updated_ms")

_ARRAY: Final = 0x90
"""MessagePack's first byte of an empty array; of up to 15 values, so many more."""

Value = int | str | None
Changes = tuple[list[Value], list[str]]
_packed: Final = msgspec.msgpack.Encoder().encode


class RowVersion(NamedTuple):
    """One version of one hash.

    `layout` names a `FencedHash` of the store; `packed` comes from its `pack`. (`generation`, `fence`,
    `rev`) are integers from 0 to 2**53, compared in this order. `ttl_ms` None keeps the key for ever. With an
    `index_key`, `member` goes into that sorted set; its score never falls.
    """

    key: str
    layout: str
    packed: bytes
    generation: int
    fence: int
    rev: int
    ttl_ms: int | None = None
    index_key: str | None = None
    member: str = ""
    score: int = 0


class FencedHash:
    """The layout of a hash that is fenced: its field names, in the order of a row's packed values.

    Beside `fields` (at most 3,000) each hash holds `generation`, `fence`, `rev` and `updated_ms`. No other
    field outlives a write.

    Args:
        own: so many of the first values, at most 15, differ between rows that are alike behind them; of such
            new rows in turn the changes behind them are found once.

    Raises:
        ValueError: a name repeated, reserved, or not of letters, digits and `_ . : + -`.
    """

    def __init__(self, fields: Sequence[str], own: int = 0) -> None:
        bad = [name for name in fields if not _NAME.fullmatch(name) or name in _RESERVED]
        if bad or len(set(fields)) < len(fields) or len(fields) > _MAX_FIELDS:
            raise ValueError(f"not a layout: {len(fields)} fields, {bad or 'some repeated or too many'}")
        self.fields: Final = tuple(fields)
        self.own, self.begin = own, len(_packed([None] * len(fields))) - len(fields)

    def pack(self, values: Sequence[Value]) -> bytes:
        """One value a field, in the layout's order.

        An integer within ±2**53, or text (decimals come as text: a float would be written with 17 digits),
        or None for an absent field.
        """
        assert len(values) == len(self.fields), "values do not fit the layout"
        return _packed(values)

    def changes(
        self, old: Sequence[Value], new: Sequence[Value], most_new: int = _MAX_NEW, begin: int = 0
    ) -> Changes | None:
        """Changes from `old` to `new`: names and values in turn, and names of fields that go. None where more
        than `most_new` fields are new: they would stand behind the others, where the server finds them late.

        Args:
            begin: place of the first value in the layout.
        """
        fields: list[Value] = []
        gone, added = [], 0
        for at in compress(range(len(new)), map(ne, old, new)):
            if new[at] is None:
                gone.append(self.fields[begin + at])
            else:
                fields += (self.fields[begin + at], new[at])
                added += old[at] is None
        return None if added > most_new else (fields, gone)

    def whole(self, values: Sequence[Value]) -> Changes:
        """All that a row has."""
        found = self.changes([None] * len(values), values, most_new=_MAX_FIELDS)
        assert found is not None, "all may be new"
        return found

    def argument(self, rows: Sequence[RowVersion], bases: Mapping[str, RowVersion], now_ms: int) -> bytes:
        """The script's argument that writes `rows`: where the store holds a row of `bases`, by what has
        changed. Of those that it does not hold the first is written whole, and others as copies of it, which
        is cheap, with what is theirs alone.
        """
        usual: list[Value] = []
        first: _First | None = None
        told: list[Any] = []
        for row in rows:
            # The version first: the server looks for a field from the front of a hash.
            stamp: list[Value] = ["generation", row[3], "fence", row[4], "rev", row[5], "updated_ms", now_ms]
            on: Any = "none"
            found = None
            base = bases.get(row.key)
            if base is not None and base.layout == row.layout:
                on, old = base[3:6], msgspec.msgpack.decode(base.packed)
                found = self.changes(old, msgspec.msgpack.decode(row.packed))
            elif first is None:
                first = _First(self, row)
                usual = stamp + first.fields
                on, stamp, found = "usual", [], ([], [])
            elif row.ttl_ms == first.row.ttl_ms:
                on, found = "usual", first.changes(row)
                stamp = [] if found is not None and row[3:6] == first.row[3:6] else stamp
            if found is None:
                on, found = "none", self.whole(msgspec.msgpack.decode(row.packed))
            told.append((row[3:6], row.ttl_ms or 0, on, stamp + found[0], found[1]))
        return _packed((usual, told))


class _First:
    """The first new row of a call, and what others differ from it in: behind their own values the row before
    them is looked at once more, if both are alike.
    """

    def __init__(self, layout: FencedHash, row: RowVersion) -> None:
        self._layout, self.row = layout, row
        self._values: list[Value] = msgspec.msgpack.decode(row.packed)
        self.fields = layout.whole(self._values)[0]
        self._tail = self._tail_of(row.packed, self._values)
        self._behind: Changes | None = ([], [])

    def changes(self, row: RowVersion) -> Changes | None:
        """Its changes from the first row; None: it is better written whole."""
        if row.packed == self.row.packed:
            return [], []
        layout = self._layout
        own = self._own_values(row.packed)
        if own is None:
            values: list[Value] = msgspec.msgpack.decode(row.packed)
            own, rest = values[: layout.own], values[layout.own :]
            self._tail = self._tail_of(row.packed, values)
            self._behind = layout.changes(self._values[layout.own :], rest, begin=layout.own)
        found = layout.changes(self._values[: layout.own], own)
        if found is None or self._behind is None:
            return None
        return found[0] + self._behind[0], found[1] + self._behind[1]

    def _tail_of(self, packed: bytes, values: list[Value]) -> bytes:
        return packed[self._layout.begin + len(_packed(values[: self._layout.own])) - 1 :]

    def _own_values(self, packed: bytes) -> list[Value] | None:
        """The values before the tail of the row before; None where they are more or fewer, so that it is no
        tail of values, or where it is not this row's.
        """
        if not packed.endswith(self._tail):
            return None
        own = bytes([_ARRAY + self._layout.own]) + packed[self._layout.begin : len(packed) - len(self._tail)]
        try:
            values: list[Value] = msgspec.msgpack.decode(own)
        except msgspec.DecodeError:
            return None
        return values
