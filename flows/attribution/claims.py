"""Claims: conversions that public tags have sent, until a server sends the same order.

Any visitor of a page can send an order number and a value through its public tag, so a server with a token
takes precedence. The rule, which `flows.reconcile` implements independently:

1. A conversion that a public tag has sent is claimed (`conversion.claimed`); any other is the server's.
2. When a claimed conversion is read, `conversions_from` is taken from the plans of its campaign: `server` if
   any plan has that value, else the setting.
3. `server`: a claimed conversion has an identity of its own. It takes no order's place, and its credits count
   in `conversions_claimed` alone.
4. `browser`: the first conversion of an order in its partition counts. A later claimed one is a repeat, and
   so is a server's after a server's.
5. The first server's conversion after a claimed one, at most the conversion horizon later in event time, may
   confirm it. It counts at the later of both times.
6. It confirms the claimed one if the claimed one has credits. The same credits then count in
   `conversions_confirmed`, `conversion_value_claimed` loses the claimed value, and `conversion_value` gains
   the server's: all in the minute of the confirmation. No other minute changes, and no count of a flight
   falls.
7. If the claimed one has no credit, the server's is decided as if its order had no claim.

The rule depends only on the order within a partition and on event times, if all conversions of an order come
through one partition. A collector ensures this.

A claimed conversion is decided in one shard and its confirmation in another. The credit book therefore stores
the credits of claimed conversions, 32 bytes each, for as long as rule 5 may apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from flows.model.conversion_columns import WAYS
from flows.model.dimensions import SCOPES, Dimensions
from flows.model.ticks import DAY_MS
from flows.state.hash_table import HashTable, find
from flows.state.interner import Interner
from flows.state.journal import Files
from flows.state.kernel import mixed

KEY, TERMS, VALUE, CREDIT = WORDS = range(4)
"""The words of a row. KEY: the key. TERMS: the conversion's time and currency, and flags. VALUE: the absolute
part of the conversion's value. CREDIT: names, millionths, the rows that count the value, and the way of the
touch.
"""
_TIME_BITS: Final = 42
_TIME: Final = (1 << _TIME_BITS) - 1
_CURRENCY_SHIFT, _LETTER_BITS, _LETTERS = _TIME_BITS, 5, 3
_CURRENCY: Final = (1 << _LETTER_BITS * _LETTERS) - 1
_VALUED, _ODD, _NEGATIVE, _MORE = (1 << bit for bit in range(57, 61))
"""Flags: the conversion has a value; its value does not count; the part of the value is negative; a further
row has the next credit.
"""
CHANGED: Final = np.uint64(1 << 63)
"""The row has changed since the last snapshot, and is listed (`flows.state.changes`)."""
_NAMES_BITS, _MILLIONTHS_BITS, _SCOPES_BITS = 32, 20, len(SCOPES)
_MILLIONTHS_AT: Final = _NAMES_BITS
_SCOPES_AT: Final = _MILLIONTHS_AT + _MILLIONTHS_BITS
_WAY_AT: Final = _SCOPES_AT + _SCOPES_BITS
assert _WAY_AT + (len(WAYS) - 1).bit_length() <= 64


class Part(NamedTuple):
    """A credit of a claimed conversion.

    Attributes:
        value: the part of the conversion's value; 0 without one.
        own: the rows of `combo` that count the value, one bit for each of `SCOPES`.
    """

    combo: Dimensions
    way: str
    millionths: int
    value: int
    own: int


class Claim(NamedTuple):
    """A claimed conversion that was credited.

    Attributes:
        currency: of its value; None without one.
        valued: whether it has a value.
        odd: whether its value does not count.
    """

    currency: str | None
    valued: bool
    odd: bool
    parts: Sequence[Part]

    @property
    def micros(self) -> int | None:
        """The conversion's value in millionths; None without a value that counts."""
        return sum(part.value for part in self.parts) if self.valued else None


class Claims:
    """The claimed conversions that were credited.

    Args:
        kept_ms: the time by the watermark for which a claimed conversion is stored.
    """

    def __init__(self, kept_ms: int) -> None:
        self.kept_ms, self.swept_ms = kept_ms, 0
        self.table, self.names = HashTable(len(WORDS), CHANGED), Interner[Dimensions]()

    def __len__(self) -> int:
        return len(self.table)

    def add(self, key: int, ts_ms: int, claim: Claim) -> None:
        """Store the claimed conversion of a key and time, which has at least one part."""
        self.table.put(np.array([*self._rows(key, ts_ms, claim)], np.uint64))

    def claim_of(self, key: int, ts_ms: int) -> Claim | None:
        """The claimed conversion of a key and time; None if it has no credit."""
        parts, terms, slots = list[Part](), _MORE, self.table.slots
        while terms & _MORE:
            _, terms, value, credit = map(int, slots[find(slots, _key(key, len(parts)))])
            if not terms or terms & _TIME != ts_ms:
                return None
            parts.append(
                Part(
                    self.names[credit & ((1 << _NAMES_BITS) - 1)],
                    WAYS[credit >> _WAY_AT],
                    credit >> _MILLIONTHS_AT & ((1 << _MILLIONTHS_BITS) - 1),
                    -value if terms & _NEGATIVE else value,
                    credit >> _SCOPES_AT & ((1 << _SCOPES_BITS) - 1),
                )
            )
        return Claim(_currency(terms), bool(terms & _VALUED), bool(terms & _ODD), parts)

    def _rows(self, key: int, ts_ms: int, claim: Claim) -> Iterable[tuple[int, int, int, int]]:
        flags = _code(claim.currency) << _CURRENCY_SHIFT | _VALUED * claim.valued | _ODD * claim.odd
        last = len(claim.parts) - 1
        for number, part in enumerate(claim.parts):
            more = _MORE * (number < last) | _NEGATIVE * (part.value < 0)
            credit = self.names.number(part.combo)
            credit |= part.millionths << _MILLIONTHS_AT | part.own << _SCOPES_AT
            credit |= WAYS.index(part.way) << _WAY_AT
            yield int(_key(key, number)), ts_ms | flags | more, abs(part.value), credit

    def sweep(self, watermark_ms: int) -> None:
        """Drop, once a day, the rows that no confirmation can need any more."""
        if watermark_ms // DAY_MS <= self.swept_ms // DAY_MS:
            return
        self.swept_ms = watermark_ms
        # Behind a restart the rows, as counters do, may take twice their memory until this has dropped some.
        self._expire()
        if self.names.is_due(turned=True):
            self._drop_names()

    def _expire(self) -> None:
        """Drop the rows that are too old at the last sweep."""
        times = (self.table.slots[:, TERMS] & np.uint64(_TIME)).astype(np.int64)
        self.table.keep(times + self.kept_ms >= self.swept_ms)

    def _drop_names(self) -> None:
        """Drop the names that no row refers to, once they are as many as the others."""
        slots = self.table.slots
        occupied = slots[:, KEY] != 0
        former = (slots[occupied, CREDIT] & np.uint64((1 << _NAMES_BITS) - 1)).astype(np.int64)
        renumbered = self.names.collect(np.unique(former))
        if renumbered is not None:
            slots[occupied, CREDIT] += (renumbered[former] - former).astype(np.uint64)
            self.table.begin_anew()

    # State

    def gather(self, files: Files) -> None:
        """Copy the changes since the last cut, so that the next snapshot need not."""
        self.table.gather(files)

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """The state as plain values: the changes, and the files of earlier snapshots. The caller calls
        `files.keep` with `file_names`.
        """
        return self.swept_ms, self.names.snapshot(files), self.table.snapshot(files)

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return [*self.table.file_names(), *self.names.file_names()]

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """Restore the state of `snapshot`.

        Raises:
            StateError: a file is missing or damaged.
        """
        self.swept_ms, names, rows = state
        self.names.restore(names, files)
        self.table.restore(rows, files)
        self._expire()


def _key(key: int, number: int) -> np.uint64:
    """The key of the `number`th row of a conversion."""
    return np.uint64(mixed(np.uint64(key), np.uint64(number)) if number else key)


def _code(currency: str | None) -> int:
    """A currency's three capital letters as a number; 0 without a currency."""
    code = 0
    for letter in currency or "":
        code = code << _LETTER_BITS | ord(letter) - ord("A") + 1
    return code


def _currency(terms: int) -> str | None:
    code = terms >> _CURRENCY_SHIFT & _CURRENCY
    shifts = range(_LETTER_BITS * (_LETTERS - 1), -1, -_LETTER_BITS)
    letters = [(code >> shift & ((1 << _LETTER_BITS) - 1)) + ord("A") - 1 for shift in shifts]
    return "".join(map(chr, letters)) if code else None
