"""Touches: what a listener has heard and clicked, for up to 60 days, packed and sorted, 24 bytes each.

A log-structured store: what came in lately is kept in sorted runs, which become a segment, and runs and
segments of like size are merged. Looking a listener up is a binary search in each of the few. Large segments
are immutable files, so that a snapshot only lists them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np

from flows.model.messages import CLICK_TOUCH, IMPRESSION_TOUCH, KIND, KIND_BITS, REACH_ONLY, START_TOUCH
from flows.state.journal import Files, Journal
from flows.state.kernel import I64, U8, U32, U64, Int, kernel

TOUCH_BYTES: Final = 24
LOW: Final = np.uint64(0xFFFFFFFF)
HALF: Final = np.uint64(32)
SPILL: Final = 1 << 13
"""Touches from which on a segment goes to a file."""
NEAR: Final = 16
"""Touches of a listener before a start, and behind it, among which a merge looks for its impression. Nearly
all are the next but one; a start that is missed takes room and no credit.
"""
_MINUTE: Final = 60_000


class Caps(NamedTuple):
    """Caps on the touches of one listener that a conversion looks at: the newest of each campaign up to the
    conversion, and of those the newest of all campaigns.
    """

    listens: int = 64
    clicks: int = 16
    listens_in_all: int = 1_000
    clicks_in_all: int = 250


DEFAULT_CAPS: Final = Caps()


@dataclass(frozen=True, slots=True)
class Touches:
    """Columns, one row a touch: listener, time in ms above two bits of kind, number of the names, half a hash
    of the play.
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
    """Places of two sorted segments in their merged order, without what is older than `oldest`; `b` begins at
    len(a).
    """
    i = j = n = 0
    while i < len(a_who) or j < len(b_who):
        first = j == len(b_who) or (
            i < len(a_who) and (a_who[i] < b_who[j] or (a_who[i] == b_who[j] and a_ts[i] <= b_ts[j]))
        )
        if first:
            keep, place = a_ts[i] >= oldest, i
            i += 1
        else:
            keep, place = b_ts[j] >= oldest, len(a_who) + j
            j += 1
        if keep:
            order[n] = place
            n += 1
    return n


@kernel
def _stood_for(who: U64, ts: I64, play: U32, play_ms: Int, dropped: U8) -> Int:
    """Mark the starts that no conversion can take: the impression of their play, of their minute or an
    earlier one, is near; returns how many.
    """
    n = 0
    for i in range(len(who)):
        if ts[i] & KIND != START_TOUCH:
            continue
        at, here = ts[i] >> KIND_BITS, False
        minute = at // _MINUTE
        j = i - 1
        while (
            not here and j >= max(0, i - NEAR) and who[j] == who[i] and at - (ts[j] >> KIND_BITS) <= play_ms
        ):
            here = play[j] == play[i] and ts[j] & KIND == IMPRESSION_TOUCH
            j -= 1
        j = i + 1
        while not here and j < min(len(who), i + NEAR + 1) and who[j] == who[i]:
            if (ts[j] >> KIND_BITS) // _MINUTE > minute:
                break
            here = play[j] == play[i] and ts[j] & KIND == IMPRESSION_TOUCH
            j += 1
        if here:
            dropped[i] = 1
            n += 1
    return n


@kernel
def _take(kinds: I64, totals: I64, kind: Int, campaign: Int, cap: Int) -> None:
    """Count a touch where its campaign's cap leaves it."""
    if kinds[kind, campaign] < cap:
        kinds[kind, campaign] += 1
        totals[kind] += 1


@kernel
def _beyond(
    who: U64,
    ts: I64,
    combo: U32,
    of_campaign: U32,
    settled_ms: Int,
    play_ms: Int,
    listens: Int,
    clicks: Int,
    listens_in_all: Int,
    clicks_in_all: Int,
    dropped: U8,
) -> Int:
    """Mark what no conversion of a time from `settled_ms` on can take, being beyond a cap; returns how many.

    What is surely a listen of such a conversion is counted alone: an impression, or a start whose impression
    had to come by now; and only what is newer than the touch by more than a play can last, so that a start
    stays hidden as long as it is kept. Counted impressions and starts may be of the same plays, so that one
    of the two must fill the cap.
    """
    marked, end = 0, len(who)
    counts, totals = np.zeros((4, len(of_campaign)), np.int64), np.zeros(4, np.int64)
    few = min(min(listens, clicks), min(listens_in_all, clicks_in_all))
    while end > 0:
        begin = end - 1
        while begin > 0 and who[begin - 1] == who[begin]:
            begin -= 1
        heard = clicked = end - 1  # what is behind is counted
        for i in range(end - 1, begin - 1 if end - begin > few else end - 1, -1):
            at, campaign = ts[i] >> KIND_BITS, of_campaign[combo[i]]
            if at >= settled_ms:
                continue
            if ts[i] & KIND == CLICK_TOUCH:
                while clicked > i and ts[clicked] >> KIND_BITS > at:
                    if ts[clicked] & KIND == CLICK_TOUCH and ts[clicked] >> KIND_BITS < settled_ms:
                        _take(counts, totals, CLICK_TOUCH, of_campaign[combo[clicked]], clicks)
                    clicked -= 1
                over = counts[CLICK_TOUCH, campaign] >= clicks or totals[CLICK_TOUCH] >= clicks_in_all
            else:
                while heard > i and ts[heard] >> KIND_BITS > at + play_ms:
                    kind, then = ts[heard] & KIND, ts[heard] >> KIND_BITS
                    if (kind == IMPRESSION_TOUCH and then < settled_ms) or (
                        kind == START_TOUCH and then < settled_ms - play_ms
                    ):
                        _take(counts, totals, kind, of_campaign[combo[heard]], listens)
                    heard -= 1
                over = (
                    max(counts[IMPRESSION_TOUCH, campaign], counts[START_TOUCH, campaign]) >= listens
                    or max(totals[IMPRESSION_TOUCH], totals[START_TOUCH]) >= listens_in_all
                )
            if over:
                dropped[i] = 1
                marked += 1
        for i in range(min(heard, clicked) + 1, end):
            counts[:, of_campaign[combo[i]]] = 0
        totals[:] = 0
        end = begin
    return marked


@kernel
def _ranges(held: U64, who: U64, begins: I64, counts: I64) -> Int:
    """Of each of the sorted `who`, where in the sorted `held` it begins, and how often it is there; returns
    how many in all.
    """
    total = low = 0
    for n in range(len(who)):
        high = len(held)
        while low < high:
            middle = (low + high) // 2
            if held[middle] < who[n]:
                low = middle + 1
            else:
                high = middle
        begins[n] = low
        while low < len(held) and held[low] == who[n]:
            low += 1
        counts[n] = low - begins[n]
        total += counts[n]
    return total


def _of(held: Touches, who: U64) -> Touches | None:
    """Select the rows of the sorted listeners `who` from sorted touches."""
    begins, counts = np.empty(len(who), np.int64), np.empty(len(who), np.int64)
    total = _ranges(held.who, who, begins, counts)
    if not total:
        return None
    return held.at(np.repeat(begins - (np.cumsum(counts) - counts), counts) + np.arange(total))


@dataclass
class Segment:
    """Touches sorted by listener and time; `name` where they are a file."""

    touches: Touches
    name: str | None = None

    def __post_init__(self) -> None:
        self.newest_ms = int(self.touches.ts.max()) >> KIND_BITS if len(self.touches) else 0


@dataclass
class TouchStore:
    """All touches of one listener shard.

    Args:
        caps: beyond which touches are dropped, once no conversion can take them.
        play_ms: how far apart, in event time, the impression and the start of one play may be.
    """

    caps: Caps = DEFAULT_CAPS
    play_ms: int = 1_800_000
    segments: list[Segment] = field(default_factory=list)
    dropped: int = 0
    journal: Journal = field(default_factory=lambda: Journal(3))
    _runs: list[Touches] = field(default_factory=list)
    _unsaved: list[Touches] = field(default_factory=list)

    def add(self, who: U64, ts: I64, kinds: U8, combos: U32, plays: U32) -> None:
        """Take touches in, in any order."""
        keep = kinds != REACH_ONLY
        if not keep.any():
            return
        some = Touches(who, (ts << KIND_BITS) | kinds.astype(np.int64), combos, plays).at(keep)
        run = self._without_spare_starts(some.sorted())
        self._unsaved.append(run)
        self._run(run)

    def _run(self, run: Touches) -> None:
        """Merge a little at a time, so that `settle` has little to do."""
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = self._merged(self._runs.pop(), run)
        self._runs.append(run)

    def settle(self, oldest_ms: int, settled_ms: int, of_campaign: U32) -> None:
        """Put what is new into the segments: no less is found without it, but every run costs a look.

        Args:
            oldest_ms: what is older can be credited no more.
            settled_ms: no touch older than this can still come.
            of_campaign: number of the campaign by number of the names, from 0.
        """
        self._unsaved, self.journal.pieces = [], []
        if self._runs:
            new = self._runs.pop()
            while self._runs:
                new = self._merged(self._runs.pop(), new)
            self.segments.append(Segment(self._capped(new, settled_ms, of_campaign)))
        while (
            len(self.segments) > 1
            and len(self.segments[-2].touches) < 2 * len(self.segments[-1].touches) + 256
        ):
            b, a = self.segments.pop(), self.segments.pop()
            # A start goes no later than its impression, or it would be a listen of its own for a while.
            merged = self._merged(a.touches, b.touches, oldest_ms - self.play_ms)
            self.segments.append(Segment(self._capped(merged, settled_ms, of_campaign)))

    def _merged(self, a: Touches, b: Touches, oldest_ms: int = 0) -> Touches:
        order = np.empty(len(a) + len(b), np.int64)
        n = _merge(a.who, a.ts, b.who, b.ts, oldest_ms << KIND_BITS, order)
        return self._without_spare_starts(joined([a, b]).at(order[:n]))

    def _without_spare_starts(self, touches: Touches) -> Touches:
        dropped = np.zeros(len(touches), np.uint8)
        spare = _stood_for(touches.who, touches.ts, touches.play, self.play_ms, dropped)
        return touches.at(dropped == 0) if spare else touches

    def _capped(self, touches: Touches, settled_ms: int, of_campaign: U32) -> Touches:
        dropped = np.zeros(len(touches), np.uint8)
        names = (touches.combo, of_campaign)
        over = _beyond(touches.who, touches.ts, *names, settled_ms, self.play_ms, *self.caps, dropped)
        self.dropped += over
        return touches.at(dropped == 0) if over else touches

    def of(self, who: U64) -> Touches:
        """The touches of each of `who`, which are sorted, by listener and time."""
        places = [*(segment.touches for segment in self.segments), *self._runs]
        found = [some for place in places if (some := _of(place, who)) is not None]
        return joined(found).sorted() if found else NONE

    def impressions(self, begin_ms: int, end_ms: int) -> Touches:
        """Those of a time from `begin_ms` to before `end_ms`, in no order."""
        places = [*(one.touches for one in self.segments if one.newest_ms >= begin_ms), *self._runs]
        found = [NONE]
        for touches in places:
            inside = (touches.ts >= begin_ms << KIND_BITS) & (touches.ts < end_ms << KIND_BITS)
            inside &= touches.ts & KIND == IMPRESSION_TOUCH
            found.append(touches.at(inside))
        return joined(found)

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
        return listed, [tuple(piece) for piece in self.journal.pieces], self.dropped

    def names(self) -> list[str]:
        """The files that the latest snapshot lists."""
        return [*self.journal.names(), *(segment.name for segment in self.segments if segment.name)]

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """Restore the state that `snapshot` gave.

        Raises:
            StateError: a file that it lists is missing or damaged.
        """
        listed, new, self.dropped = state
        files.restored(name for name, _ in listed if name)
        self.segments = [
            Segment(from_bytes(files.read(name) if name else body), name or None) for name, body in listed
        ]
        self._runs = []
        for rows, _ in self.journal.restore(new, files):
            self._run(from_rows(rows).sorted())
