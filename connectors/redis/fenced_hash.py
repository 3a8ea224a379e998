"""Layouts of fenced hashes, and versions of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

_NAME: Final = re.compile(r"[A-Za-z0-9_.:+-]+")
_MAX_FIELDS: Final = 3_000  # Lua's unpack() passes at most 8,000 values
_RESERVED: Final = ("generation", "fence", "rev", "updated_ms")

Value = int | str | None
_packed: Final = msgspec.msgpack.Encoder().encode


class RowVersion(msgspec.Struct, frozen=True, gc=False):
    """A version of a hash.

    `layout` names a `FencedHash` of the store; `packed` comes from its `pack`. (`generation`, `fence`, `rev`)
    are integers from 0 to 2**53, compared in this order. With `ttl_ms` None the key never expires. With an
    `index_key`, `member` is added to that sorted set; its score never falls.
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

    @property
    def version(self) -> tuple[int, int, int]:
        """The numbers that order the versions of one hash."""
        return self.generation, self.fence, self.rev


class FencedHash:
    """The layout of a fenced hash: its field names, in the order of a row's packed values.

    Besides `fields` (at most 3,000), each hash holds `generation`, `fence`, `rev` and `updated_ms`. No other
    field outlives a write.

    Args:
        often: the fields that change in most versions. They stand first in a hash that is written whole,
            since the server searches a hash from the front.

    Attributes:
        begin: where the first value begins in a packed row.

    Raises:
        ValueError: a name is repeated or reserved, or has other characters than letters, digits and
            `_ . : + -`.
    """

    def __init__(self, fields: Sequence[str], often: Collection[str] = ()) -> None:
        bad = [name for name in fields if not _NAME.fullmatch(name) or name in _RESERVED]
        if bad or len(set(fields)) < len(fields) or len(fields) > _MAX_FIELDS:
            raise ValueError(f"not a layout: {len(fields)} fields, {bad or 'some repeated or too many'}")
        self.fields: Final = tuple(fields)
        self.often: Final = frozenset(often)
        assert self.often <= {*fields}, "fields that change often are fields"
        self.begin: Final = len(_packed([None] * len(fields))) - len(fields)

    def pack(self, values: Sequence[Value]) -> bytes:
        """Pack a value for each field, in the layout's order.

        A value is an integer within ±2**53, text, or None for an absent field. Pass decimals as text: a float
        would be written with 17 digits.
        """
        assert len(values) == len(self.fields), "values do not fit the layout"
        return _packed(values)
