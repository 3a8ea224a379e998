"""Claims: the conversions that public tags have sent, until a server sends the same order.

Any reader of a page can send an order number and a value by its public tag. A server with a token takes
precedence. The rule, which `flows.reconcile` decides again by other means:

1. A conversion that a public tag has sent is claimed (`conversion.claimed`); any other is the server's.
2. `conversions_from` comes from the plans of its campaign when a claimed conversion is read: `server` if any
   plan has that, else the setting.
3. `server`: a claimed conversion has an identity of its own. It takes no order's place, and its credits count
   in `conversions_claimed` alone.
4. `browser`: the first conversion of an order in its partition counts. A later claimed one is a repeat, and
   so is a server's after a server's.
5. The first server's conversion after a claimed one, up to the conversion horizon later by event time,
   may confirm it. It counts at its own time or at that of the claimed one, whichever is later.
6. It confirms the claimed one if that has credits. The same credits then count in `conversions_confirmed`,
   `conversion_value_claimed` loses the claimed value, and `conversion_value` gains the server's: all in the
   minute of the confirmation. No other minute changes, and no count of a flight falls.
7. If the claimed one has no credit, it is decided as if its order had no claim.

The rule depends on the order within a partition and on event times alone, as long as all conversions of an
order come by one partition. Those of a collector do.

A claimed conversion is decided in one shard and its confirmation in another. The credit book therefore keeps
the credits of claimed conversions, one row of 32 bytes a credit, for as long as rule 5 may ask.
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
"""The words of a row. KEY: its key. TERMS: the conversion's time and currency, and flags. VALUE: the part of
its value, without the sign. CREDIT: names, millionths, the rows that have the part of its value, and the way.
"""
_TIME_BITS: Final = 42
_TIME: Final = (1 << _TIME_BITS) - 1
_CURRENCY_SHIFT, _LETTER_BITS, _LETTERS = _TIME_BITS, 5, 3
_CURRENCY: Final = (1 << _LETTER_BITS * _LETTERS) - 1
_VALUED, _ODD, _NEGATIVE, _MORE = (1 << bit for bit in range(57, 61))
"""Flags: the conversion has a value; it has one that does not count; its part of the value is negative; a
further row has the next credit.
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
        own: the rows of `combo` whose value has it, a bit for each of `SCOPES`.
    """

    combo: Dimensions
    way: str
    millionths: int
    value: int
    own: int


class Claim(NamedTuple):
    """A claimed conversion that was credited.

    Attributes:
        currency: of its value, if it names one.
        valued: whether it has a value.
        odd: whether it has one that does not count.
    """

    currency: str | None
    valued: bool
    odd: bool
    parts: Sequence[Part]

    @property
    def micros(self) -> int | None:
        """The conversion's value in micros; None without a value that counts."""
        return sum(part.value for part in self.parts) if self.valued else None


class Claims:
    """The claimed conversions that were credited.

    Args:
        kept_ms: the time for which one is kept after its own, by the watermark.
    """

    def __init__(self, kept_ms: int) -> None:
        self.kept_ms, self.swept_ms = kept_ms, 0
        self.table, self.names = HashTable(len(WORDS), CHANGED), Interner[Dimensions]()

    def __len__(self) -> int:
        return len(self.table)

    def add(self, key: int, ts_ms: int, claim: Claim) -> None:
        """Store a claimed conversion of a time; it has at least one part."""
        self.table.put(np.array([*self._rows(key, ts_ms, claim)], np.uint64))

    def claim_of(self, key: int, ts_ms: int) -> Claim | None:
        """The claimed conversion of a time; None if it has no credit."""
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
        """Drop, once a day, the rows that no confirmation can ask for any more."""
        if watermark_ms // DAY_MS <= self.swept_ms // DAY_MS:
            return
        self.swept_ms = watermark_ms
        self._expire()
        if self.names.is_due(turned=True):
            self._drop_names()

    def _expire(self) -> None:
        """Drop the rows that are older than the last sweep allows."""
        times = (self.table.slots[:, TERMS] & np.uint64(_TIME)).astype(np.int64)
        self.table.keep(times + self.kept_ms >= self.swept_ms)

    def _drop_names(self) -> None:
        """Drop the names of no row, once they are as many as the others."""
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
    """The key of a conversion's row by its number."""
    return np.uint64(mixed(np.uint64(key), np.uint64(number)) if number else key)


def _code(currency: str | None) -> int:
    """Three capital letters as a number; 0 without a currency."""
    code = 0
    for letter in currency or "":
        code = code << _LETTER_BITS | ord(letter) - ord("A") + 1
    return code


def _currency(terms: int) -> str | None:
    code = terms >> _CURRENCY_SHIFT & _CURRENCY
    shifts = range(_LETTER_BITS * (_LETTERS - 1), -1, -_LETTER_BITS)
    letters = [(code >> shift & ((1 << _LETTER_BITS) - 1)) + ord("A") - 1 for shift in shifts]
    return "".join(map(chr, letters)) if code else None
