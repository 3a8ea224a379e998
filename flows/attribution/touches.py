"""Touches: listens and clicks of a listener or household, for up to 60 days, packed and sorted.

A touch takes 24 bytes under a listener. The store is log-structured: new touches are in sorted runs, which
become a segment, and runs and segments of similar size are merged. Looking a listener up is a binary search
in each of the few. Large segments are immutable files, so that a snapshot only lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from flows.attribution.touch_loops import beyond, merge, ranges, settle, stood_for
from flows.model.messages import IMPRESSION_TOUCH, KIND, KIND_BITS, REACH_ONLY
from flows.model.ticks import DAY_MS
from flows.state.arrays import I64, U8, U32, U64
from flows.state.journal import Files, Journal, body_of

TOUCH_BYTES: Final = 24
LOW: Final = np.uint64(0xFFFFFFFF)
HALF: Final = np.uint64(32)
SPILL: Final = 1 << 13
"""The number of touches from which on a segment becomes a file."""


class Caps(NamedTuple):
    """Caps on the touches of one listener that a conversion looks at: the newest of each campaign up to the
    conversion, and among those the newest of all campaigns.
    """

    listens: int = 64
    clicks: int = 16
    listens_in_all: int = 1_000
    clicks_in_all: int = 250

    @property
    def kept(self) -> Caps:
        """The caps of a store, which stores some more touches, by which a decision shows whether a cap left
        any out.

        Each campaign has one more. As many campaigns may have one among the newest of all campaigns.
        """
        listens, clicks, *in_all = self
        more = [1 + total + (total + 1) // cap for total, cap in zip(in_all, (listens, clicks), strict=True)]
        return Caps(listens + 1, clicks + 1, *more)


DEFAULT_CAPS: Final = Caps()


@dataclass(frozen=True, slots=True)
class Touches:
    """Columns, one row a touch: listener or household, time in ms above two bits of kind, number of the
    names, half a hash of the play (for a household's touch its tag).
    """

    who: U64
    ts: I64
    combo: U32
    play: Any

    def __len__(self) -> int:
        return len(self.who)

    @property
    def columns(self) -> tuple[U64, I64, U32, Any]:
        """The columns in their order."""
        return self.who, self.ts, self.combo, self.play

    def at(self, rows: Any) -> Touches:
        """The touches at some places."""
        return Touches(*(column[rows] for column in self.columns))

    def rows(self) -> U64:
        """(n, 3): a row a touch, as journals have it."""
        rows: U64 = np.column_stack(
            [self.who, self.ts.astype(np.uint64), self.combo | self.play.astype(np.uint64) << HALF]
        )
        return rows

    def sorted(self) -> Touches:
        """The touches by listener and time; the sort is stable."""
        order = np.argsort(self.who)  # and the order by time comes next: a third of the time of two sorts
        if not settle(order, self.who, self.ts):
            order = np.lexsort((self.ts, self.who))
        return self.at(order)


def from_bytes(body: bytes) -> Touches:
    """Read-only touches from their columns' bytes in order."""
    n = len(body) // TOUCH_BYTES
    return Touches(
        np.frombuffer(body, np.uint64, n),
        np.frombuffer(body, np.int64, n, 8 * n),
        np.frombuffer(body, np.uint32, n, 16 * n),
        np.frombuffer(body, np.uint32, n, 20 * n),
    )


def from_rows(rows: U64) -> Touches:
    """The touches of `rows`."""
    who, ts, names = rows.T
    return Touches(
        who.copy(), ts.astype(np.int64), (names & LOW).astype(np.uint32), (names >> HALF).astype(np.uint32)
    )


def joined(parts: list[Touches]) -> Touches:
    """All touches, part after part."""
    if len(parts) == 1:
        return parts[0]
    return Touches(
        *(np.concatenate(columns) for columns in zip(*(part.columns for part in parts), strict=True))
    )


NONE: Final = from_bytes(b"")


def _of(held: Touches, who: U64) -> Touches | None:
    """Select the rows of the sorted listeners `who` from sorted touches."""
    begins, counts = np.empty(len(who), np.int64), np.empty(len(who), np.int64)
    total = ranges(held.who, who, begins, counts)
    if not total:
        return None
    return held.at(np.repeat(begins - (np.cumsum(counts) - counts), counts) + np.arange(total))


class Segment:
    """Touches sorted by listener or household and time; `name` if they are a file."""

    def __init__(self, touches: Touches, name: str | None = None) -> None:
        self.touches, self.name = touches, name
        self.newest_ms = int(touches.ts.max()) >> KIND_BITS if len(touches) else 0

    def __len__(self) -> int:
        return len(self.touches)

    def of(self, who: U64) -> Touches | None:
        """The touches of the sorted `who`; None if there are none."""
        return _of(self.touches, who)

    @property
    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """Its arrays, in their order, which never change."""
        return self.touches.columns

    def tobytes(self) -> bytes:
        """Column after column."""
        return b"".join(column.tobytes() for column in self.columns)

    @classmethod
    def from_bytes(cls, body: bytes, name: str | None) -> Segment:
        """The segment of `tobytes`."""
        return cls(from_bytes(body), name)

    @staticmethod
    def rows(touches: Touches) -> U64:
        """(n, 3): a row a touch, as journals have it."""
        return touches.rows()

    @staticmethod
    def from_rows(rows: U64) -> Touches:
        """The segment of `rows`."""
        return from_rows(rows)


@dataclass
class TouchStore:
    """All touches of one listener shard.

    Args:
        caps: beyond them touches are dropped, once no conversion can take them.
        play_ms: the most that a play's impression and start are apart, in event time, if no other
            pixel keeps the play; caps allow for it.
        form: of the segments.
        most_names: the greatest number of dimensions in its touches.
    """

    caps: Caps = DEFAULT_CAPS
    play_ms: int = 1_800_000
    form: type[Segment] = Segment
    most_names: int = (1 << 32) - 1
    segments: list[Segment] = field(default_factory=list)
    dropped: int = 0
    journal: Journal = field(default_factory=lambda: Journal(3))
    _runs: list[Touches] = field(default_factory=list)
    _unsaved: list[Touches] = field(default_factory=list)

    @property
    def apart_ms(self) -> int:
        """The most that the impression and the start of a play may be apart for the start to be hidden."""
        return max(DAY_MS, self.play_ms)

    def add(self, who: U64, ts: I64, kinds: U8, combos: U32, plays: U32 | U64) -> None:
        """Add touches, in any order."""
        keep = kinds != REACH_ONLY
        if not keep.any():
            return
        some = Touches(who, (ts << KIND_BITS) | kinds.astype(np.int64), combos, plays)
        run = self._without_spare_starts((some if keep.all() else some.at(keep)).sorted())
        self._unsaved.append(run)
        self._run(run)

    def _run(self, run: Touches) -> None:
        """Merge a little at a time, so that `compact` has little to do."""
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = self._merged(self._runs.pop(), run)
        self._runs.append(run)

    def compact(self, oldest_ms: int, settled_ms: int, of_campaign: U32) -> None:
        """Put new touches into the segments. Look-ups find them without it, but every run costs one more
        search. Segments that are too old are dropped whole.

        Args:
            oldest_ms: older touches are no longer needed.
            settled_ms: no touch older than this can still arrive.
            of_campaign: number of the campaign by number of the names, from 0.
        """
        self._unsaved, self.journal.pieces = [], []
        if self._runs:
            new = self._runs.pop()
            while self._runs:
                new = self._merged(self._runs.pop(), new)
            self.segments.append(self.form(self._capped(new, settled_ms, of_campaign)))
        self.segments = [one for one in self.segments if one.newest_ms >= oldest_ms]
        while len(self.segments) > 1 and len(self.segments[-2]) < 2 * len(self.segments[-1]) + 256:
            b, a = self.segments.pop(), self.segments.pop()
            merged = self._merged(a.touches, b.touches, oldest_ms)
            self.segments.append(self.form(self._capped(merged, settled_ms, of_campaign)))

    def _merged(self, a: Touches, b: Touches, oldest_ms: int = 0) -> Touches:
        order = np.empty(len(a) + len(b), np.int64)
        n = merge(a.who, a.ts, b.who, b.ts, oldest_ms << KIND_BITS, order)
        return self._without_spare_starts(joined([a, b]).at(order[:n]))

    def _without_spare_starts(self, touches: Touches) -> Touches:
        dropped = np.zeros(len(touches), np.uint8)
        spare = stood_for(touches.who, touches.ts, touches.play, self.play_ms, dropped)
        return touches.at(dropped == 0) if spare else touches

    def _capped(self, touches: Touches, settled_ms: int, of_campaign: U32) -> Touches:
        dropped = np.zeros(len(touches), np.uint8)
        names = (touches.combo, of_campaign)
        over = beyond(touches.who, touches.ts, *names, settled_ms, self.play_ms, *self.caps.kept, dropped)
        self.dropped += over
        return touches.at(dropped == 0) if over else touches

    def of(self, who: U64) -> Touches:
        """The touches of each of `who`, which are sorted, by listener and time."""
        places = [segment.of(who) for segment in self.segments]
        places += [_of(run, who) for run in self._runs]
        found = [some for some in places if some is not None]
        return joined(found).sorted() if found else NONE

    def counts(self, who: U64) -> I64:
        """The number of touches of each of `who`, which are sorted."""
        return np.bincount(np.searchsorted(who, self.of(who).who), minlength=len(who)).astype(np.int64)

    def impressions(self, begin_ms: int, end_ms: int) -> Touches:
        """Impressions from `begin_ms` to before `end_ms`, in any order."""
        places = [*(one.touches for one in self.segments if one.newest_ms >= begin_ms), *self._runs]
        found = [NONE]
        for touches in places:
            inside = (touches.ts >= begin_ms << KIND_BITS) & (touches.ts < end_ms << KIND_BITS)
            inside &= touches.ts & KIND == IMPRESSION_TOUCH
            found.append(touches.at(inside))
        return joined(found)

    def erase(self, who: U64) -> int:
        """Remove every touch of these listeners, and the files that held them some snapshots later; returns
        the number of touches.
        """
        before = len(self)
        self.drop(lambda touches: np.isin(touches.who, who))
        return before - len(self)

    def drop(self, gone: Callable[[Touches], npt.NDArray[np.bool_]]) -> None:
        """Remove the touches that `gone` marks."""
        for number, segment in enumerate(self.segments):
            touches = segment.touches
            theirs = gone(touches)
            if theirs.any():
                self.segments[number] = self.form(touches.at(~theirs))
        self._runs = [run.at(~gone(run)) for run in self._runs]
        self._unsaved, self.journal.pieces = list(self._runs), []

    def __len__(self) -> int:
        return sum(map(len, self.segments)) + sum(map(len, self._runs))

    def needed(self, names: int) -> U32:
        """The numbers, below `names`, of names that a touch refers to, sorted. Call it after `compact`."""
        needed = np.zeros(names, bool)
        for segment in self.segments:
            needed[segment.touches.combo] = True
        return np.flatnonzero(needed).astype(np.uint32)

    def renumber(self, kept: U32) -> None:
        """Renumber the names, in new segments, by their places in the result of `needed`."""
        for place, segment in enumerate(self.segments):
            touches = segment.touches
            numbers = np.searchsorted(kept, touches.combo).astype(np.uint32)
            self.segments[place] = self.form(replace(touches, combo=numbers))

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """Plain state: small parts in full, large ones by the names of its `files`, which are written first.
        The caller calls `files.keep` with `names`.
        """
        self.gather(files)
        listed = [(one.name or "", b"" if one.name else one.tobytes()) for one in self.segments]
        return listed, self.journal.spilled(files), self.dropped

    def gather(self, files: Files) -> None:
        """Copy the changes since the last call, so that the next snapshot need not."""
        for segment in self.segments:
            if segment.name is None and files.directory is not None and len(segment) >= SPILL:
                segment.name = files.write(*map(body_of, segment.columns))
        if self._unsaved:
            self.journal.append(self.form.rows(joined(self._unsaved)))
            self._unsaved = []

    def names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return [*self.journal.names(), *(segment.name for segment in self.segments if segment.name)]

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """Restore the state of `snapshot`.

        Raises:
            StateError: a file that it lists is missing or damaged.
        """
        listed, new, self.dropped = state
        self.segments = [
            self.form.from_bytes(files.read(name) if name else body, name or None) for name, body in listed
        ]
        self._runs = []
        for rows, _ in self.journal.restore(new, files):
            self._run(self.form.from_rows(rows).sorted())
