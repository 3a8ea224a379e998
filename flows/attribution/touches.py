"""Touches: listens and clicks of a listener or household, for up to 60 days, packed and sorted.

A touch of a listener takes 24 bytes, in sorted runs (`flows.state.runs`). New touches are in separate runs,
into which each cut merges its touches. Once a minute these runs are merged into the old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from flows.attribution.touch_loops import beyond, merge, settle, stood_for
from flows.model.messages import IMPRESSION_TOUCH, KIND, KIND_BITS, REACH_ONLY
from flows.model.ticks import DAY_MS
from flows.state.arrays import I64, U8, U32, U64
from flows.state.journal import Files
from flows.state.runs import Columns, Runs, appended, columns_at, rows_of_both


class Caps(NamedTuple):
    """Caps on the touches of one listener that a conversion considers: the newest of each campaign up to the
    conversion, and of these the newest of all campaigns.
    """

    listens: int = 64
    clicks: int = 16
    listens_in_all: int = 1_000
    clicks_in_all: int = 250

    @property
    def of_store(self) -> Caps:
        """The caps of a store.

        It stores some more touches, so that a decision can report whether a cap excluded a touch: one more
        for each campaign, and in all as many more as campaigns may have one among the newest.
        """
        listens, clicks, *in_all = self
        more = [1 + total + (total + 1) // cap for total, cap in zip(in_all, (listens, clicks), strict=True)]
        return Caps(listens + 1, clicks + 1, *more)


DEFAULT_CAPS: Final = Caps()


@dataclass(frozen=True, slots=True)
class Touches:
    """Touches as columns: listener or household; time in ms above two bits of kind; number of the names; half
    a hash of the play (its tag for a household's touch).
    """

    owners: U64
    ts: I64
    combo: U32
    play: Any

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def columns(self) -> Columns:
        """The columns in their order."""
        return self.owners, self.ts, self.combo, self.play

    def select(self, rows: Any) -> Touches:
        """The touches at `rows`."""
        return Touches(*columns_at(self.columns, rows))

    def sorted(self) -> Touches:
        """The touches by listener and time; the sort is stable."""
        order = np.argsort(self.owners)  # and the order by time comes next: a third of the time of two sorts
        if not settle(order, self.owners, self.ts):
            order = np.lexsort((self.ts, self.owners))
        return self.select(order)


def joined(*parts: Touches) -> Touches:
    """All touches, part by part."""
    return Touches(*appended(part.columns for part in parts))


@dataclass
class TouchStore:
    """All touches of one listener shard.

    A subclass for another form of touch overrides `types`, `packed`, `unpacked` and `bounds`.

    Args:
        caps: touches beyond them are dropped, once no conversion can take them.
        play_ms: the greatest distance in event time of a play's impression and start, if no other pixel
            extends the play; caps allow for it.
        most_names: the greatest number of dimensions in the touches.

    Attributes:
        types: the types of the columns of touches, and of old runs.
        old_runs: packed touches. The mark of a run is its latest time, in ms.
        new_runs: the touches since the latest `compact`.
    """

    caps: Caps = DEFAULT_CAPS
    play_ms: int = 1_800_000
    most_names: int = (1 << 32) - 1
    dropped: int = 0
    types: ClassVar[tuple[tuple[type, ...], ...]] = ((np.uint64, np.int64, np.uint32, np.uint32),) * 2

    def __post_init__(self) -> None:
        new, old = self.types
        self.new_runs = Runs(*new)
        self.old_runs = Runs(*old, mark=self._latest_ms)

    def packed(self, touches: Touches) -> Columns:
        """The columns of touches in the form of old runs."""
        return touches.columns

    def unpacked(self, columns: Columns) -> Touches:
        """The touches of `packed`."""
        return Touches(*columns)

    def bounds(self, owners: U64) -> tuple[U64, U64]:
        """The least and the greatest key of each of `owners` in old runs."""
        return owners, owners

    def _latest_ms(self, columns: Columns) -> int:
        return int(self.unpacked(columns).ts.max()) >> KIND_BITS

    @property
    def apart_ms(self) -> int:
        """The greatest distance of a play's impression and start at which the start is hidden."""
        return max(DAY_MS, self.play_ms)

    def add(self, owners: U64, ts: I64, kinds: U8, combos: U32, plays: U32 | U64) -> None:
        """Add touches, in any order."""
        keep = kinds != REACH_ONLY
        if not keep.any():
            return
        arrived = Touches(owners, (ts << KIND_BITS) | kinds.astype(np.int64), combos, plays)
        touches = (arrived if keep.all() else arrived.select(keep)).sorted()
        self.new_runs.add(self._without_spare_starts(touches).columns, self._merged_new)

    def compact(self, oldest_ms: int, settled_ms: int, of_campaign: U32) -> None:
        """Merge the new touches into the old runs, and drop the runs that are too old. Look-ups also find new
        touches; without this, a cut would have to merge ever more new touches.

        Args:
            oldest_ms: older touches are no longer needed.
            settled_ms: no earlier touch can still arrive.
            of_campaign: number of the campaign by number of the names, from 0.
        """

        def merged(older: Columns, newer: Columns) -> Columns:
            touches = self._merged(self.unpacked(older), self.unpacked(newer), oldest_ms)
            return self.packed(self._capped(touches, settled_ms, of_campaign))

        new = Touches(*self.new_runs.take_all(self._merged_new))
        new = self._capped(new, settled_ms, of_campaign)
        self.old_runs.drop_before(oldest_ms)
        self.old_runs.add(self.packed(new), merged)

    def _merged_new(self, older: Columns, newer: Columns) -> Columns:
        return self._merged(Touches(*older), Touches(*newer)).columns

    def _merged(self, older: Touches, newer: Touches, oldest_ms: int = 0) -> Touches:
        order = np.empty(len(older) + len(newer), np.int64)
        n = merge(older.owners, older.ts, newer.owners, newer.ts, oldest_ms << KIND_BITS, order)
        both = rows_of_both(older.columns, newer.columns, order[:n])
        return self._without_spare_starts(Touches(*both))

    def _without_spare_starts(self, touches: Touches) -> Touches:
        dropped = np.zeros(len(touches), np.uint8)
        spare = stood_for(touches.owners, touches.ts, touches.play, self.play_ms, dropped)
        return touches.select(dropped == 0) if spare else touches

    def _capped(self, touches: Touches, settled_ms: int, of_campaign: U32) -> Touches:
        dropped = np.zeros(len(touches), np.uint8)
        names = (touches.combo, of_campaign)
        over = beyond(
            touches.owners, touches.ts, *names, settled_ms, self.play_ms, *self.caps.of_store, dropped
        )
        self.dropped += over
        return touches.select(dropped == 0) if over else touches

    def touches_of(self, owners: U64) -> Touches:
        """The touches of the sorted `owners`, by listener and time."""
        old = self.unpacked(self.old_runs.rows(*self.bounds(owners)))
        return joined(old, Touches(*self.new_runs.rows(owners, owners))).sorted()

    def counts(self, owners: U64) -> I64:
        """The number of touches of each of the sorted `owners`."""
        return np.bincount(
            np.searchsorted(owners, self.touches_of(owners).owners), minlength=len(owners)
        ).astype(np.int64)

    def runs(self, begin_ms: int = 0) -> Iterator[Touches]:
        """The touches of each run, without old runs that end before `begin_ms`."""
        for run in self.old_runs:
            if run.mark >= begin_ms:
                yield self.unpacked(run.columns)
        for run in self.new_runs:
            yield Touches(*run.columns)

    def impressions(self, begin_ms: int, end_ms: int) -> Touches:
        """Impressions from `begin_ms` to before `end_ms`, in any order."""
        parts = [Touches(*self.new_runs.no_rows)]
        for touches in self.runs(begin_ms):
            inside = (touches.ts >= begin_ms << KIND_BITS) & (touches.ts < end_ms << KIND_BITS)
            inside &= touches.ts & KIND == IMPRESSION_TOUCH
            parts.append(touches.select(inside))
        return joined(*parts)

    def erase(self, owners: U64) -> int:
        """Remove all touches of these listeners; some snapshots later, the files with these touches are
        removed. Returns the number of touches.
        """
        return self.drop(lambda touches: np.isin(touches.owners, owners))

    def drop(self, is_removed: Callable[[Touches], npt.NDArray[np.bool_]]) -> int:
        """Remove the touches that `is_removed` marks; returns their number."""
        before = len(self)
        self.old_runs.drop(lambda columns: is_removed(self.unpacked(columns)))
        self.new_runs.drop(lambda columns: is_removed(Touches(*columns)))
        return before - len(self)

    def __len__(self) -> int:
        return len(self.old_runs) + len(self.new_runs)

    def used_names(self, names: int) -> I64:
        """The numbers, below `names`, of names that a touch refers to, sorted."""
        used = np.zeros(names, bool)
        for touches in self.runs():
            used[touches.combo] = True
        return np.flatnonzero(used)

    def renumber(self, renumbered: I64) -> None:
        """Renumber the names; `renumbered` has the new number for each former one."""

        def numbered(touches: Touches) -> Touches:
            return replace(touches, combo=renumbered[touches.combo].astype(np.uint32))

        self.old_runs.change(lambda columns: self.packed(numbered(self.unpacked(columns))))
        self.new_runs.change(lambda columns: numbered(Touches(*columns)).columns)

    def gather(self, files: Files) -> None:
        """Write large old runs to `files`, so that the next snapshot need not. New runs soon change."""
        self.old_runs.gather(files)

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """The state as plain values; large runs are in `files`. The caller calls `files.keep` with
        `file_names`.
        """
        return self.old_runs.snapshot(files), self.new_runs.snapshot(files), self.dropped

    def file_names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return self.old_runs.file_names() + self.new_runs.file_names()

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """Restore the state of `snapshot`.

        Raises:
            StateError: a file that it lists is missing or damaged.
        """
        old, new, self.dropped = state
        self.old_runs.restore(old, files)
        self.new_runs.restore(new, files)
