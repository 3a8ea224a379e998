"""Touches: what a listener has heard and clicked, for up to 60 days, packed and sorted, 24 bytes each.

A log-structured store: what came in lately is kept in sorted runs, which become a segment, and runs and
segments of like size are merged. Looking a listener up is a binary search in each of the few. Large segments
are immutable files, so that a snapshot only lists them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from flows.journal import Files, Journal
from flows.kernel import I64, U8, U32, U64, Int, kernel

REACH_ONLY, IMPRESSION, START, REPLACING, CLICK, FOLLOWING, EARLY_START, GONE = range(8)
"""Kinds of a touch as plays gives them. A play-less start is none. An impression replaces a start of its
minute or a later one, and follows a start of an earlier minute, which it makes an early start: that one
stands for the play in conversions of the minutes before the impression's. In the store both are impressions,
and what is replaced or forgotten is gone.
"""
TURNING: Final = (REPLACING, FOLLOWING)
KIND_BITS: Final = 3
TOUCH_BYTES: Final = 24
LOW: Final = np.uint64(0xFFFFFFFF)
HALF: Final = np.uint64(32)
SPILL: Final = 1 << 13
"""Touches from which on a segment goes to a file."""


@dataclass(frozen=True, slots=True)
class Touches:
    """Columns, one row a touch: listener, time in ms above three bits of kind, number of the names, half a
    hash of the play.
    """

    who: U64
    ts: I64
    combo: U32
    play: U32

    def __len__(self) -> int:
        return len(self.who)

    @property
    def columns(self) -> tuple[U64, I64, U32, U32]:
        """In their order."""
        return self.who, self.ts, self.combo, self.play

    def at(self, rows: Any) -> Touches:
        """Some of the rows."""
        return Touches(*(column[rows] for column in self.columns))

    def rows(self) -> U64:
        """(n, 3): a touch a row, as journals have it."""
        rows: U64 = np.column_stack(
            [self.who, self.ts.astype(np.uint64), self.combo | self.play.astype(np.uint64) << HALF]
        )
        return rows

    def sorted(self) -> Touches:
        """By listener and time; of equals, as they were."""
        return self.at(np.lexsort((self.ts, self.who)))

    def tobytes(self) -> bytes:
        """Column after column."""
        return b"".join(column.tobytes() for column in self.columns)


def from_bytes(body: bytes) -> Touches:
    """`Touches.tobytes`' counterpart, read-only."""
    n = len(body) // TOUCH_BYTES
    return Touches(
        np.frombuffer(body, np.uint64, n),
        np.frombuffer(body, np.int64, n, 8 * n),
        np.frombuffer(body, np.uint32, n, 16 * n),
        np.frombuffer(body, np.uint32, n, 20 * n),
    )


def from_rows(rows: U64) -> Touches:
    """`Touches.rows`' counterpart."""
    who, ts, names = rows.T
    return Touches(
        who.copy(), ts.astype(np.int64), (names & LOW).astype(np.uint32), (names >> HALF).astype(np.uint32)
    )


def joined(parts: list[Touches]) -> Touches:
    """All rows, part after part."""
    if len(parts) == 1:
        return parts[0]
    return Touches(
        *(np.concatenate(columns) for columns in zip(*(part.columns for part in parts), strict=True))
    )


NONE: Final = from_bytes(b"")


@kernel
def _merge(a_who: U64, a_ts: I64, b_who: U64, b_ts: I64, oldest: Int, order: I64) -> Int:
    """Places of two sorted segments in their merged order, without what is older than `oldest` or gone; `b`
    begins at len(a).
    """
    i = j = n = 0
    while i < len(a_who) or j < len(b_who):
        first = j == len(b_who) or (
            i < len(a_who) and (a_who[i] < b_who[j] or (a_who[i] == b_who[j] and a_ts[i] <= b_ts[j]))
        )
        if first:
            keep, place = a_ts[i] >= oldest and a_ts[i] & GONE != GONE, i
            i += 1
        else:
            keep, place = b_ts[j] >= oldest and b_ts[j] & GONE != GONE, len(a_who) + j
            j += 1
        if keep:
            order[n] = place
            n += 1
    return n


@kernel
def _beyond(who: U64, ts: I64, settled: Int, listens: Int, clicks: Int, dropped: U8) -> Int:
    """Of what is older than `settled`, mark what a listener has beyond the newest `listens` listens and
    `clicks` clicks. A play with an early start is one listen.
    """
    n = 0
    heard = clicked = 0
    for i in range(len(who) - 1, -1, -1):
        if i == len(who) - 1 or who[i] != who[i + 1]:
            heard = clicked = 0
        if ts[i] >= settled:
            continue
        if ts[i] & GONE == CLICK:
            clicked += 1
            over = clicked > clicks
        elif ts[i] & GONE == EARLY_START:
            over = heard >= listens
        else:
            heard += 1
            over = heard > listens
        if over:
            dropped[i] = 1
            n += 1
    return n


@kernel
def _turn(
    who: U64, ts: I64, play: U32, t_who: U64, t_ts: I64, t_play: U32, follows: Int, found: U8, out: I64
) -> None:
    """Mark in `found` which impressions have the start of their play among sorted touches; if `out` is a copy
    of `ts`, turn these starts there.
    """
    for t in range(len(t_who)):
        i = np.searchsorted(who, t_who[t])
        while i < len(who) and who[i] == t_who[t]:
            if play[i] == t_play[t] and ts[i] & GONE == START:
                found[t] = 1
                if len(out):
                    out[i] = (ts[i] | GONE) ^ (GONE ^ EARLY_START if t_ts[t] & GONE == follows else 0)
            i += 1


def _turned(touches: Touches, turning: Touches) -> tuple[Touches, U8]:
    """Sorted touches in which the starts of the plays whose impressions are `turning` are gone, or early; the
    same ones where there are none; and of which impressions there were.
    """
    found = np.zeros(len(turning), np.uint8)
    sought = (turning.who, turning.ts, turning.play, FOLLOWING, found)
    _turn(touches.who, touches.ts, touches.play, *sought, np.zeros(0, np.int64))
    if found.any():
        ts = touches.ts.copy()
        _turn(touches.who, touches.ts, touches.play, *sought, ts)
        touches = replace(touches, ts=ts)
    return touches, found


def _of(places: list[Touches], who: U64) -> list[list[Touches]]:
    """Of each of `who`, what there is in each of some sorted touches."""
    found: list[list[Touches]] = [[] for _ in who]
    for touches in places:
        left, right = np.searchsorted(touches.who, who, "left"), np.searchsorted(touches.who, who, "right")
        for at in np.nonzero(left < right)[0].tolist():
            found[at].append(touches.at(slice(left[at], right[at])))
    return found


@dataclass
class Segment:
    """Touches sorted by listener and time; `name` where they are a file."""

    touches: Touches
    name: str | None = None


@dataclass
class TouchStore:
    """All touches of one listener shard.

    Args:
        listens, clicks: how many of a listener's newest are kept; older ones are dropped only when they are
            settled.
    """

    listens: int = 64
    clicks: int = 16
    segments: list[Segment] = field(default_factory=list)
    dropped: int = 0
    journal: Journal = field(default_factory=lambda: Journal(3))
    _runs: list[Touches] = field(default_factory=list)
    _unsaved: list[Touches] = field(default_factory=list)
    _turning: list[Touches] = field(default_factory=list)

    def add(self, who: U64, ts: I64, kinds: U8, combos: U32, plays: U32) -> None:
        """Take touches in, in any order."""
        keep = kinds != REACH_ONLY
        if not keep.any():
            return
        kind = np.where(np.isin(kinds, TURNING), IMPRESSION, kinds).astype(np.int64)
        some = Touches(who, (ts << KIND_BITS) | kind, combos, plays).at(keep)
        self._unsaved.append(some)
        self._run(some)
        turning = np.isin(kinds[keep], TURNING)
        if turning.any():
            marked = some.at(turning)
            self._turning.append(replace(marked, ts=(marked.ts & ~GONE) | kinds[keep][turning]))

    def _run(self, some: Touches) -> None:
        """Sort a little at a time, so that `settle` has little to do."""
        run = some.sorted()
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = _merged_runs(self._runs.pop(), run)
        self._runs.append(run)

    def settle(self, oldest_ms: int, settled_ms: int) -> None:
        """Put what is new into the segments: no less is found without it, but every run costs a look.

        Args:
            oldest_ms: what is older can be credited no more.
            settled_ms: no touch older than this can still come.
        """
        turning = joined(self._turning) if self._turning else NONE
        self._turning, self._unsaved, self.journal.pieces = [], [], []
        if self._runs:
            new = self._runs.pop()
            while self._runs:
                new = _merged_runs(self._runs.pop(), new)
            new, found = _turned(new, turning)
            turning = turning.at(found == 0)
            self.segments.append(Segment(new.at(new.ts & GONE != GONE) if found.any() else new))
        for segment in self.segments if len(turning) else ():
            touches, _ = _turned(segment.touches, turning)
            if touches is not segment.touches:  # a file is never changed
                segment.touches, segment.name = touches, None
        while (
            len(self.segments) > 1
            and len(self.segments[-2].touches) < 2 * len(self.segments[-1].touches) + 256
        ):
            b, a = self.segments.pop(), self.segments.pop()
            self.segments.append(self._merged(a, b, oldest_ms, settled_ms))

    def _merged(self, a: Segment, b: Segment, oldest_ms: int, settled_ms: int) -> Segment:
        order = np.empty(len(a.touches) + len(b.touches), np.int64)
        n = _merge(a.touches.who, a.touches.ts, b.touches.who, b.touches.ts, oldest_ms << KIND_BITS, order)
        merged = joined([a.touches, b.touches]).at(order[:n])
        dropped = np.zeros(n, np.uint8)
        over = _beyond(merged.who, merged.ts, settled_ms << KIND_BITS, self.listens, self.clicks, dropped)
        self.dropped += over
        return Segment(merged.at(dropped == 0) if over else merged)

    def of(self, who: U64) -> list[Touches]:
        """The touches of each of `who`, in no order, some of them perhaps `GONE`."""
        places = [*(segment.touches for segment in self.segments), *self._runs]
        touches = [joined(some) if some else NONE for some in _of(places, who)]
        if self._turning:
            turning = _of([joined(self._turning).sorted()], who)
            for at, some in enumerate(turning):
                if some:
                    touches[at], _ = _turned(touches[at], some[0])
        return touches

    def forget(self, who: U64) -> int:
        """Remove every touch of these listeners, and the files that held them some snapshots later; returns
        how many touches.
        """
        before = len(self)
        for segment in self.segments:
            theirs = np.isin(segment.touches.who, who)
            if theirs.any():
                segment.touches, segment.name = segment.touches.at(~theirs), None
        self._runs = [run.at(~np.isin(run.who, who)) for run in self._runs]
        self._turning = [some.at(~np.isin(some.who, who)) for some in self._turning]
        self._unsaved, self.journal.pieces = list(self._runs), []
        return before - len(self)

    def __len__(self) -> int:
        return sum(len(segment.touches) for segment in self.segments) + sum(map(len, self._runs))

    def renumbered(self) -> U32:
        """Number the names anew that a touch refers to, in new segments; returns the old numbers in the new
        order. Call it behind `settle`.
        """
        kept = np.unique(
            np.concatenate([np.zeros(0, np.uint32), *(segment.touches.combo for segment in self.segments)])
        )
        for segment in self.segments:
            numbers = np.searchsorted(kept, segment.touches.combo).astype(np.uint32)
            segment.touches, segment.name = replace(segment.touches, combo=numbers), None
        return kept

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """Plain state: what is small whole, what is large by the names of its `files`, which are written
        first. `files.keep` is the caller's, of `names`.
        """
        listed: list[tuple[str, bytes]] = []
        for segment in self.segments:
            if segment.name is None and files.directory is not None and len(segment.touches) >= SPILL:
                segment.name = files.write(segment.touches.tobytes())
            listed.append((segment.name or "", b"" if segment.name else segment.touches.tobytes()))
        if self._unsaved:
            self.journal.append(joined(self._unsaved).rows())
            self._unsaved = []
        self.journal.spill(files)
        turning = [some.tobytes() for some in self._turning]
        return listed, [tuple(piece) for piece in self.journal.pieces], turning, self.dropped

    def names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return [*self.journal.names(), *(segment.name for segment in self.segments if segment.name)]

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """Take `snapshot`'s state up again.

        Raises:
            StateError: a file that it lists is missing or damaged.
        """
        listed, new, turning, self.dropped = state
        files.restored(name for name, _ in listed if name)
        self.segments = [
            Segment(from_bytes(files.read(name) if name else body), name or None) for name, body in listed
        ]
        self._runs = []
        for rows, _ in self.journal.restore(new, files):
            self._run(from_rows(rows))
        self._turning = [from_bytes(body) for body in turning]


def _merged_runs(a: Touches, b: Touches) -> Touches:
    order = np.empty(len(a) + len(b), np.int64)
    _merge(a.who, a.ts, b.who, b.ts, 0, order)
    return joined([a, b]).at(order)
