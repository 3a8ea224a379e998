"""The rows of one execution, and everything that waits for Redis: rows, decisions, times of arrival. Its size
stays bounded while Redis does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Final

from msgspec.structs import replace

from connectors.redis import RowVersion, SharedField
from flows.model.fields import same_numbers
from flows.model.ticks import Cut

NEW_ROWS_A_FLUSH: Final = 4_000
"""The greatest number of new rows in one flush: a flood of new names then delays no other numbers. The other
new rows wait for the next flushes; no row is lost.
"""
TURNED_A_FLUSH: Final = 4_000
"""The greatest number of turned rows in one flush. Turned rows are those that time alone has changed,
as at the end of a minute. If there are more, all of them are written after the flush, and delay no pixel's
numbers.
"""
TURNED_AT_ONCE: Final = 1_000
MAX_ARRIVALS: Final = 4096
"""The greatest number of arrivals stored while Redis does not answer; a partition adds about ten a second."""
MAX_DECISIONS: Final = 100_000
"""The greatest number of decisions stored while Redis does not answer. Older ones are in the topic alone."""

Arrivals = list[tuple[float, int]]
"""Mean times of receipt (epoch ms), each with its number of pixels."""


def bounded(arrivals: Arrivals) -> Arrivals:
    """Merge neighbouring arrivals into their mean time until at most `MAX_ARRIVALS` remain. The mean delay of
    the pixels does not change.
    """
    while len(arrivals) > MAX_ARRIVALS:
        arrivals.sort()
        pairs = zip_longest(arrivals[::2], arrivals[1::2], fillvalue=(0.0, 0))
        arrivals = [((earlier * n + later * m) / (n + m), n + m) for (earlier, n), (later, m) in pairs]
    return arrivals


@dataclass
class Backlog:
    """The rows of one execution, by key.

    Attributes:
        images: the last version of each row, for a Redis that has lost its data.
        pending: versions to write with the next flush.
        waiting: new rows; each flush writes a part of them.
        turned: versions that differ from the readers' version by the passing of time alone.
        leaving: rows that ended, to be deleted.
        decisions: for each, the keys of the hashes that get it, the field's name, and its JSON.
        erased: accounts of erasures, as `flows.publish.erased.accounts_of` returns them.
        rows_as_of_ms: every row was queued at this watermark or a later one.
        losses: the number of times that Redis has lost its data.
        written: whether a flush was written.
    """

    images: dict[str, RowVersion] = field(default_factory=dict)
    pending: dict[str, RowVersion] = field(default_factory=dict)
    waiting: dict[str, RowVersion] = field(default_factory=dict)
    turned: dict[str, RowVersion] = field(default_factory=dict)
    leaving: dict[str, RowVersion] = field(default_factory=dict)
    decisions: list[SharedField] = field(default_factory=list)
    erased: dict[str, str] = field(default_factory=dict)
    arrivals: Arrivals = field(default_factory=list)
    rows_as_of_ms: int = 0
    written: bool = False
    losses: int = 0

    def __len__(self) -> int:
        """The number of rows that wait."""
        return len(self.pending) + len(self.waiting) + len(self.turned)

    @property
    def waits(self) -> bool:
        """True if Redis lacks a row, a deletion or a decision."""
        return bool(len(self) or self.leaving or self.decisions or self.erased)

    def take(self, row: RowVersion, turned: bool = False) -> None:
        """Queue a version of a row."""
        key = row.key
        new = key not in self.images or key in self.waiting
        self.images[key] = row
        if self.leaving:
            self.leaving.pop(key, None)
        if new and row.layout in ("row", "sketch") and row.ttl_ms is not None:
            self.waiting[key] = row
        elif turned and key not in self.pending:
            self.turned[key] = row
        else:
            self.waiting.pop(key, None)
            self.turned.pop(key, None)
            self.pending[key] = row

    def show(self, row: RowVersion, ended: bool, turned: bool = False) -> None:
        """Queue a row, unless readers have its numbers already: the end of a minute changes few rows of the
        last hour. At the end of a log every row is queued, to show that it is final.
        """
        image = self.images.get(row.key)
        if ended or image is None or image.ttl_ms is None or not same_numbers(image.packed, row.packed):
            self.take(row, turned)

    def last_as(self, row: RowVersion, key: str) -> None:
        """Set the time to live of the hash at `key` to that of `row`; does nothing without a hash."""
        image = self.images.get(key)
        if image is not None and image.ttl_ms != row.ttl_ms:
            self.take(replace(image, rev=row.rev, ttl_ms=row.ttl_ms))

    def end(self, rows: Sequence[RowVersion]) -> None:
        """Queue the deletion of rows."""
        for row in rows:
            for versions in (self.images, self.pending, self.waiting, self.turned):
                versions.pop(row.key, None)
            self.leaving[row.key] = row

    def arrive(self, arrivals: Sequence[tuple[float, int]]) -> None:
        """Add the times of receipt of pixels that the next flush shows."""
        self.arrivals = bounded(self.arrivals + list(arrivals))

    def drop_decisions(self) -> int:
        """Drop the oldest decisions beyond `MAX_DECISIONS`; returns their number."""
        over = max(0, len(self.decisions) - MAX_DECISIONS)
        del self.decisions[:over]
        return over

    def due(self, cut: Cut) -> list[RowVersion]:
        """The rows to write now: all that readers have already, all planned ones, and a part of the new ones.
        Turned rows are among them unless they are more than `TURNED_A_FLUSH`.
        """
        most = len(self.waiting) if cut.ended or not self.written else NEW_ROWS_A_FLUSH
        turned = () if self.many_turned(cut) else self.turned.values()
        return [*self.pending.values(), *islice(self.waiting.values(), most), *turned]

    def many_turned(self, cut: Cut) -> bool:
        """True if the turned rows must be written after a cut's flush."""
        many = len(self.turned) > TURNED_A_FLUSH or self.rows_as_of_ms < cut.watermark_ms
        return many and self.written and not (cut.ended or cut.last)

    def some_turned(self) -> list[RowVersion]:
        """The next part of the turned rows."""
        return [*islice(self.turned.values(), TURNED_AT_ONCE)]

    def landed(self, rows: Sequence[RowVersion]) -> None:
        """Note that Redis has `rows`, which `due` returned, and everything else that was queued."""
        self.leaving, self.decisions, self.pending, self.written = {}, [], {}, True
        self.erased = {}
        self.landed_some(rows)

    def landed_some(self, rows: Sequence[RowVersion]) -> None:
        """Note that Redis has `rows`."""
        for versions in filter(None, (self.waiting, self.turned)):
            for row in rows:
                versions.pop(row.key, None)

    def move(self, rename: Callable[[str], str], generation: int, fence: int) -> None:
        """Rename every key, and queue every row as a version of another generation and fence."""
        self.images = {
            rename(key): replace(
                row,
                key=rename(key),
                generation=generation,
                fence=fence,
                index_key=None if row.index_key is None else rename(row.index_key),
            )
            for key, row in self.images.items()
        }
        self.pending, self.waiting, self.turned, self.leaving = dict(self.images), {}, {}, {}
        self.written = False

    def lost(self) -> None:
        """Queue every row again after a loss of data in Redis."""
        self.losses += 1
        self.pending, self.waiting, self.turned = dict(self.images), {}, {}
