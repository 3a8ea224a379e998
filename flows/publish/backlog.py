"""The rows of one execution, and everything that waits for Redis: rows, decisions, times of arrival. The
backlog stays bounded while Redis is away.
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
"""The greatest number of new rows in one flush, so that a flood of new names delays no other numbers. The
rest wait for the next flushes, and none of them is lost.
"""
TURNED_A_FLUSH: Final = 4_000
"""If more rows wait that time alone has changed, as when a minute turns, here or in their shards, they are
written after the flush, and delay no pixel's numbers.
"""
TURNED_AT_ONCE: Final = 1_000
MAX_ARRIVALS: Final = 4096
"""Arrivals that are stored while Redis is away, of which a partition brings some ten a second."""
MAX_DECISIONS: Final = 100_000
"""Decisions that are stored for Redis while it is away; older ones are in the topic alone."""

Arrivals = list[tuple[float, int]]
"""Mean times of receipt in epoch ms, with their pixels."""


def bounded(arrivals: Arrivals) -> Arrivals:
    """Merge neighbours at their mean time if the arrivals are too many: the mean delay of the pixels stays
    the same.
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
        images: the last version of each row, to refill a Redis that was emptied.
        pending: versions to write with the next flush.
        waiting: new rows, of which each flush takes a part.
        turned: versions of rows that only time has changed since the version that readers have.
        leaving: rows that ended, to be deleted.
        decisions: of each the hashes that get it, and the field's name and JSON.
        erased: accounts of erasures, as `flows.publish.erased` has them.
        rows_as_of_ms: the watermark that all rows were queued as of, or later.
        losses: how often Redis has lost its data.
        written: whether there was a flush.
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
        """Queue a row, unless readers have its numbers already: a minute that turns changes few rows of the
        last hour. At a log's end every row is queued, since each shows that it is final.
        """
        image = self.images.get(row.key)
        if ended or image is None or image.ttl_ms is None or not same_numbers(image.packed, row.packed):
            self.take(row, turned)

    def last_as(self, row: RowVersion, key: str) -> None:
        """Give the hash at `key`, if there is one, the time to live of `row`."""
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
        """Note the times of receipt of pixels that the next flush will show."""
        self.arrivals = bounded(self.arrivals + list(arrivals))

    def drop_decisions(self) -> int:
        """Drop the oldest decisions beyond `MAX_DECISIONS`; returns their number."""
        over = max(0, len(self.decisions) - MAX_DECISIONS)
        del self.decisions[:over]
        return over

    def due(self, cut: Cut) -> list[RowVersion]:
        """The rows to write now: all that readers have or wait for by a plan, and a part of the new ones.
        Rows that only time has changed are among them unless they are many.
        """
        most = len(self.waiting) if cut.ended or not self.written else NEW_ROWS_A_FLUSH
        turned = () if self.many_turned(cut) else self.turned.values()
        return [*self.pending.values(), *islice(self.waiting.values(), most), *turned]

    def many_turned(self, cut: Cut) -> bool:
        """True if the rows that only time has changed must be written after a cut's flush."""
        many = len(self.turned) > TURNED_A_FLUSH or self.rows_as_of_ms < cut.watermark_ms
        return many and self.written and not (cut.ended or cut.last)

    def some_turned(self) -> list[RowVersion]:
        """The next part of the rows that only time has changed."""
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
        """Queue every row under another key, as a version of another generation and fence."""
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
        """Queue every row again, after Redis has lost its data."""
        self.losses += 1
        self.pending, self.waiting, self.turned = dict(self.images), {}, {}
