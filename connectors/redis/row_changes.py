"""Changes from one version of a row to another, found in their packed values by compiled loops over
MessagePack: unpacking both and comparing takes five times as long.

Only writers load it: numba takes a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec
import numba
import numpy as np
import numpy.typing as npt

from connectors.redis.fenced_hash import FencedHash, RowVersion

_MAX_NEW: Final = 8
"""Fields that a changed row may get, before it is written whole, in the layout's order: new ones stand behind
the others in the hash, where the server finds them late.
"""
_NIL: Final = 0xC0
_packed: Final = msgspec.msgpack.Encoder().encode

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Version: TypeAlias = tuple[int, int, int]
Base: TypeAlias = Version | str
"""The version of a row that another is built on: one that the store holds, `usual` or `none`."""
Int: TypeAlias = Any
"""A number of whatever machine type numba infers."""
F = TypeVar("F", bound=Callable[..., Any])


def _kernel(function: F) -> F:
    """Compile `function` on first use, cached on disk, without the interpreter's lock."""
    compiled: F = numba.njit(cache=True, nogil=True)(function)
    return compiled


@_kernel
def _end(block: U8, at: Int) -> Int:
    """The end of the value at `at`, which is null, an integer, text or bytes."""
    kind = np.int64(block[at])
    if kind < 0x80 or kind >= 0xE0 or kind == _NIL:
        return at + 1
    if 0xA0 <= kind < 0xC0:
        return at + 1 + (kind & 0x1F)
    if 0xCC <= kind <= 0xD3:
        return at + 1 + (1 << (kind & 3))
    size = kind - 0xC4 if kind < 0xC7 else kind - 0xD9
    assert 0 <= size <= 2
    length = np.int64(0)
    for place in range(1 << size):
        length = length << 8 | np.int64(block[at + 1 + place])
    return at + 1 + (1 << size) + length


@_kernel
def _same(block: U8, one: Int, other: Int, length: Int) -> bool:
    place = 0
    while place < length and block[one + place] == block[other + place]:
        place += 1
    return bool(place == length)


@_kernel
def _put(to: U8, at: Int, block: U8, begin: Int, end: Int) -> Int:
    for place in range(begin, end):
        to[at] = block[place]
        at += 1
    return at


@_kernel
def _changes(block: U8, begins: I64, names: U8, name_ends: I64, to: U8) -> I64:
    """Changes of rows, written to `to`: each new name and value, then each name that goes.

    Args:
        begins: (rows, 2) where the values of the old version begin in `block`, -1 where there is none, and
            those of the new one.

    Returns:
        (rows, 5): how many fields there are, how many of them the old version lacks, how many go, and where
        in `to` the fields and those that go end.
    """
    found = np.zeros((len(begins), 5), np.int64)
    gone = np.empty(len(name_ends), np.int64)
    at = 0
    for row in range(len(begins)):
        old, new = begins[row]
        fields = added = going = 0
        for field in range(len(name_ends)):
            begin, new = new, _end(block, new)
            lacked, same = True, block[begin] == _NIL
            if old >= 0:
                before, old = old, _end(block, old)
                lacked = block[before] == _NIL
                same = old - before == new - begin and _same(block, before, begin, new - begin)
            if same:
                continue
            if block[begin] == _NIL:
                gone[going] = field
                going += 1
            else:
                at = _put(to, at, names, name_ends[field - 1] if field else 0, name_ends[field])
                at = _put(to, at, block, begin, new)
                fields += 1
                added += lacked
        found[row, 0], found[row, 1], found[row, 2], found[row, 3] = fields, added, going, at
        for place in range(going):
            field = gone[place]
            at = _put(to, at, names, name_ends[field - 1] if field else 0, name_ends[field])
        found[row, 4] = at
    return found


class Changes(NamedTuple):
    """Numbers of the fields that a version has anew, of those of them that the version before lacks, and of
    those that go; names and values of the former in turn, and names of the latter, packed.
    """

    fields: int
    added: int
    gone: int
    packed: bytes
    packed_gone: bytes


_NOTHING: Final = Changes(0, 0, 0, b"", b"")


class RowChanges:
    """Finds the changes of rows of one layout."""

    def __init__(self, layout: FencedHash) -> None:
        names = [_packed(name) for name in layout.fields]
        self._names = np.frombuffer(b"".join(names), np.uint8)
        self._ends = np.cumsum([len(name) for name in names])
        self._begin = layout.begin

    def argument(self, rows: Sequence[RowVersion], bases: Mapping[str, RowVersion], now_ms: int) -> bytes:
        """The argument of `connectors.redis.scripts.WRITE` that writes `rows`: where the store holds a row of
        `bases`, by what has changed. Of those that it does not hold the first is written whole, and others as
        copies of it, which is cheap, with what is theirs alone.
        """
        first: RowVersion | None = None
        on, olds = list[Base](), list[bytes | None]()
        for row in rows:
            base = bases.get(row.key)
            if base is not None and base.layout == row.layout:
                on.append(base.version)
                olds.append(base.packed)
            elif first is None:
                first = row
                on.append("usual")
                olds.append(None)
            else:
                alike = row.ttl_ms == first.ttl_ms
                on.append("usual" if alike else "none")
                olds.append(first.packed if alike else None)
        found = self.of(olds, [row.packed for row in rows])
        many = [at for at, one in enumerate(found) if one.added > _MAX_NEW and olds[at] is not None]
        for at, one in zip(many, self.of([None] * len(many), [rows[at].packed for at in many]), strict=True):
            on[at], found[at] = "none", one
        usual, told = _array(0), [_array(len(rows))]
        for row, built_on, one in zip(rows, on, found, strict=True):
            if row is first:
                names, stamp = _stamp(row.version, "none", now_ms)
                usual, one = b"".join((_array(names + 2 * one.fields), stamp, one.packed)), _NOTHING
            below = first.version if first is not None and built_on == "usual" else built_on
            names, stamp = _stamp(row.version, below, now_ms)
            told += (_head(row.version, row.ttl_ms or 0, built_on), _array(names + 2 * one.fields), stamp)
            told += (one.packed, _array(one.gone), one.packed_gone)
        return b"".join((_array(2), usual, *told))

    def of(self, olds: Sequence[bytes | None], news: Sequence[bytes]) -> list[Changes]:
        """The changes from each packed version to a newer one; None is a row that is not there."""
        if not news:
            return []
        parts = [packed or b"" for versions in zip(olds, news, strict=True) for packed in versions]
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        begins = np.where(lengths, np.cumsum(lengths) - lengths + self._begin, -1).reshape(-1, 2)
        block = np.frombuffer(b"".join(parts), np.uint8)
        to = np.empty(len(news) * len(self._names) + len(block), np.uint8)
        counts = _changes(block, begins, self._names, self._ends, to).tolist()
        raw, found, begin = to[: counts[-1][-1]].tobytes(), list[Changes](), 0
        for fields, added, gone, behind, end in counts:
            found.append(Changes(fields, added, gone, raw[begin:behind], raw[behind:end]))
            begin = end
        return found


@lru_cache(maxsize=256)
def _stamp(version: Version, below: Base, now_ms: int) -> tuple[int, bytes]:
    """A version's own fields that the one below it lacks: how many names and values they are, and these. They
    come first: the server looks for a field from the front of a hash.
    """
    if version == below:
        return 0, b""
    generation, fence, rev = version
    fields: list[int | str] = ["rev", rev, "updated_ms", now_ms]
    if below[:2] != version[:2]:
        fields = ["generation", generation, "fence", fence, *fields]
    return len(fields), _packed(fields)[1:]


@lru_cache(maxsize=256)
def _head(version: Version, ttl_ms: int, base: Base) -> bytes:
    """The first three of the five values that a row has in the argument."""
    return _array(5) + _packed((version, ttl_ms, base))[1:]


@cache
def _array(length: int) -> bytes:
    """The head of an array of so many packed values."""
    return bytes([0x90 | length]) if length < 16 else b"\xdc" + length.to_bytes(2)
