"""Changes between two versions of a row, found by compiled loops over the packed values (MessagePack).
Unpacking and comparing both takes five times as long.

Only writers load this module, since numba takes a second to load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import numba
import numpy as np
import numpy.typing as npt

from connectors.redis.fenced_hash import FencedHash, RowVersion

_MAX_NEW: Final = 8
"""The greatest number of fields that a changed row may gain before it is written whole, in the order of the
layout. Added fields are last in the hash, where the server finds them slowly.
"""
_NIL, _THREE = 0xC0, b"\x93"
"""Null, and the head of an array of three values, in MessagePack."""
_BEGIN, _OFTEN = range(2)
"""The columns of `places`."""
_NOWHERE: Final = -1
"""The place of the values of a missing version."""
_packed: Final = msgspec.msgpack.Encoder().encode

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Version: TypeAlias = tuple[int, int, int]
Base: TypeAlias = Version | str
"""The version that a row's changes start from: a version in the store, `usual` or `none`."""
Int: TypeAlias = Any
"""An integer of any machine type that numba infers."""
F = TypeVar("F", bound=Callable[..., Any])


def _kernel(function: F) -> F:
    """Compile `function` on first use, cached on disk, without the interpreter's lock."""
    compiled: F = numba.njit(cache=True, nogil=True)(function)
    return compiled


@_kernel
def _end(block: U8, begin: Int) -> Int:
    """The end of the value at `begin`: null, an integer, text or bytes."""
    kind = np.int64(block[begin])
    if kind < 0x80 or kind >= 0xE0 or kind == _NIL:
        return begin + 1
    if 0xA0 <= kind < 0xC0:
        return begin + 1 + (kind & 0x1F)
    if 0xCC <= kind <= 0xD3:
        return begin + 1 + (1 << (kind & 3))
    size = kind - 0xC4 if kind < 0xC7 else kind - 0xD9
    assert 0 <= size <= 2
    length = np.int64(0)
    for place in range(1 << size):
        length = length << 8 | np.int64(block[begin + 1 + place])
    return begin + 1 + (1 << size) + length


@_kernel
def _same(block: U8, a_begin: Int, b_begin: Int, length: Int) -> bool:
    place = 0
    while place < length and block[a_begin + place] == block[b_begin + place]:
        place += 1
    return bool(place == length)


@_kernel
def _copy(to: U8, offset: Int, block: U8, begin: Int, end: Int) -> Int:
    for place in range(begin, end):
        to[offset] = block[place]
        offset += 1
    return offset


@_kernel
def _put_head(to: U8, offset: Int, length: Int) -> Int:
    """Write the head of an array of `length` packed values."""
    if length < 16:
        to[offset] = 0x90 | length
        return offset + 1
    to[offset], to[offset + 1], to[offset + 2] = 0xDC, length >> 8, length & 0xFF
    return offset + 3


@_kernel
def _put_nothing(to: U8, offset: Int) -> Int:
    """Write the 0 that stands for an empty array; the server would create a table for each array."""
    to[offset] = 0
    return offset + 1


@_kernel
def _compare(block: U8, old: Int, new: Int, fields: Int, changed: I64, gone: I64) -> tuple[Int, Int, Int]:
    """Compare two versions of a row. Returns the number of fields that differ, the number of those that the
    old version lacks, and the number of removed fields.

    Args:
        old, new: the places in `block` where the values begin; -1 without an old version.
        changed: written: each differing field's number, and where its value begins and ends.
        gone: written: the numbers of the removed fields.
    """
    count = added = going = 0
    for field in range(fields):
        kind = block[new]
        if old >= 0 and kind == block[old] and (kind < 0x80 or kind >= 0xE0 or kind == _NIL):
            old, new = old + 1, new + 1  # one byte, as most are
            continue
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
            changed[count, 0], changed[count, 1], changed[count, 2] = field, begin, new
            count += 1
            added += lacked
    return count, added, going


@_kernel
def _put_fields(
    to: U8, offset: Int, stamp: U8, stamped: Int, changed: I64, block: U8, names: U8, places: I64
) -> Int:
    """Write the array of the `stamped` names and values of a stamp, and of those of the changed fields."""
    offset = _put_head(to, offset, stamped + 2 * len(changed))
    offset = _copy(to, offset, stamp, 0, len(stamp))
    for often in (1, 0):
        for field, begin, end in changed:
            if places[field, _OFTEN] == often:
                offset = _copy(to, offset, names, places[field, _BEGIN], places[field + 1, _BEGIN])
                offset = _copy(to, offset, block, begin, end)
    return offset


@_kernel
def _argument(
    block: U8, begins: I64, names: U8, places: I64, stamps: U8, stamp_begins: I64, stamped: I64, kinds: I64,
    first: Int, to: U8,
) -> Int:  # fmt: skip
    """Write to `to` the part of `RowChanges.argument` after the kinds; returns where it ends.

    Args:
        block: versions of rows, packed.
        begins: (rows, 2) the places of the values of the old version (-1 without one) and of the new version.
        names: the packed names of the fields.
        places: (fields + 1, 2) where each name begins, and whether the field stands first in a hash; the last
            place is the end of the names.
        stamps, stamp_begins: the packed stamps by kind, and where each begins. The changes of a row have one
            kind, and the whole row the next kind.
        stamped: the number of names and values in a stamp.
        kinds: for each row the kind of its changes.
        first: the row that others are copied from; -1 without one.
    """
    fields = len(places) - 1
    changed, gone = np.empty((fields, 3), np.int64), np.empty(fields, np.int64)
    if first < 0:
        offset = _put_head(to, 0, 0)
    else:
        count, _, _ = _compare(block, -1, begins[first, 1], fields, changed, gone)
        kind = kinds[first] + 1
        stamp = stamps[stamp_begins[kind] : stamp_begins[kind + 1]]
        offset = _put_fields(to, 0, stamp, stamped[kind], changed[:count], block, names, places)
    offset = _put_head(to, offset, 3 * len(begins))
    for row in range(len(begins)):
        old, new = begins[row]
        kind = kinds[row]
        count = added = going = 0
        if row != first:
            count, added, going = _compare(block, old, new, fields, changed, gone)
        if old >= 0 and added > _MAX_NEW:
            count, _, going = _compare(block, -1, new, fields, changed, gone)
            kind += 1
        to[offset], to[offset + 1], to[offset + 2] = 0xCD, (kind + 1) >> 8, (kind + 1) & 0xFF
        offset += 3
        if stamped[kind] + count == 0:
            offset = _put_nothing(to, offset)
        else:
            stamp = stamps[stamp_begins[kind] : stamp_begins[kind + 1]]
            offset = _put_fields(to, offset, stamp, stamped[kind], changed[:count], block, names, places)
        offset = _put_nothing(to, offset) if going == 0 else _put_head(to, offset, going)
        for field in gone[:going]:
            offset = _copy(to, offset, names, places[field, _BEGIN], places[field + 1, _BEGIN])
    return offset


class RowChanges:
    """Finds the changes of rows of one layout."""

    def __init__(self, layout: FencedHash) -> None:
        names = [_packed(name) for name in layout.fields]
        self._names = np.frombuffer(b"".join(names), np.uint8)
        often = [*(name in layout.often for name in layout.fields), False]
        self._places = np.column_stack([_begins(names), often])
        self._first_value = layout.begin

    def argument(self, rows: Sequence[RowVersion], bases: Mapping[str, RowVersion], now_ms: int) -> bytes:
        """The argument of `connectors.redis.scripts.WRITE` that writes `rows`. A row that the store holds
        according to `bases` is written as changes. The first of the other rows is written whole, and the rest
        as copies of it with differences, which is cheap.
        """
        versions, olds, news = list[bytes](), list[int](), list[int]()
        numbers, kinds = dict[tuple[Any, ...], int](), list[int]()
        first, place, copied_at = None, -1, _NOWHERE
        for row in rows:
            base = bases.get(row.key)
            kind: tuple[Any, ...] = row.generation, row.fence, row.rev, row.ttl_ms
            if base is not None and base.layout == row.layout:
                kind += base.version
                olds.append(len(versions))
                versions.append(base.packed)
            elif first is None:
                first, place, copied_at = row, len(news), len(versions)
                olds.append(_NOWHERE)
            else:
                olds.append(copied_at if row.ttl_ms == first.ttl_ms else _NOWHERE)
            kinds.append(numbers.setdefault(kind, 2 * len(numbers)))
            news.append(len(versions))
            versions.append(row.packed)
        heads, stamps, stamped = list[tuple[Version, int, Base]](), list[bytes](), list[int]()
        built_on: Base
        below: Base
        for generation, fence, rev, ttl_ms, *base_version in numbers:
            version = generation, fence, rev
            if base_version:
                built_on = below = tuple(base_version)
            elif first is not None and ttl_ms == first.ttl_ms:
                built_on, below = "usual", first.version
            else:
                built_on = below = "none"
            for version_below, under in ((built_on, below), ("none", "none")):
                names, stamp = _stamp(version, under, now_ms)
                heads.append((version, ttl_ms or 0, version_below))
                stamps.append(stamp)
                stamped.append(names)
        places = _begins(versions)
        begins = places + self._first_value
        begins[_NOWHERE] = _NOWHERE  # at the place after the last version
        beside = len(self._names) + 2 * max(map(len, stamps)) + 16
        to = np.empty(places[-1] + (len(rows) + 1) * beside, np.uint8)
        end = _argument(
            np.frombuffer(b"".join(versions), np.uint8), np.column_stack([begins[olds], begins[news]]),
            self._names, self._places, np.frombuffer(b"".join(stamps), np.uint8), _begins(stamps),
            np.array(stamped), np.array(kinds), first=place, to=to,
        )  # fmt: skip
        return _THREE + _packed(heads) + to[:end].tobytes()


def _begins(parts: Sequence[bytes]) -> I64:
    """The places at which joined parts begin, and the end of the last part."""
    begins = np.zeros(len(parts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=begins[1:])
    return begins


@lru_cache(maxsize=256)
def _stamp(version: Version, below: Base, now_ms: int) -> tuple[int, bytes]:
    """The version fields (such as `rev`) that differ from the version below: the number of names and values,
    and the packed names and values. The version fields come first, since the server searches a hash from the
    front.
    """
    if version == below:
        return 0, b""
    generation, fence, rev = version
    fields: list[int | str] = ["rev", rev, "updated_ms", now_ms]
    if below[:2] != version[:2]:
        fields = ["generation", generation, "fence", fence, *fields]
    return len(fields), _packed(fields)[1:]
