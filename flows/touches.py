"""Touches: what a listener has heard and clicked, for up to 60 days, packed and sorted, 24 bytes each.

A log-structured store: what came in since the last minute is sorted into a small segment, and segments of
like size are merged. Looking a listener up is a binary search in each of the few segments. Large segments are
immutable files named by their content, so that a snapshot only lists them.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from flows.errors import StateError
from flows.kernel import I64, U8, U32, U64, Int, kernel

REACH_ONLY, IMPRESSION, START, REPLACING, CLICK, FOLLOWING, EARLY_START, GONE = range(8)
"""Kinds of a touch as plays gives them. A play-less start is none. An impression replaces a start of its
minute or a later one, and follows a start of an earlier minute, which it makes an early start: that one
stands for the play in conversions of the minutes before the impression's. In the store both are impressions,
and what is replaced or forgotten is gone.
"""
TURNING: Final = (REPLACING, FOLLOWING)
TURNED: Final = {REPLACING: GONE, FOLLOWING: EARLY_START}
"""What an impression makes of the start that came before it."""
KIND_BITS: Final = 3
TOUCH_BYTES: Final = 24
SPILL: Final = 1 << 16
"""Touches from which on a segment goes to a file."""
KEEP_SNAPSHOTS: Final = 2
"""For how many snapshots a file is kept that they list no more: the engine may resume from the one before the
latest.
"""


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


def _turn_starts(new: Touches, turning: Touches) -> Touches:
    """Turn the starts in `new`, in place, of the plays whose impressions are `turning`: gone, or early;
    returns the impressions whose start is not among them.
    """

    def play(touches: Touches) -> U64:
        return touches.who * np.uint64(0x9E3779B97F4A7C15) + touches.play

    plays, wanted, found = play(new), play(turning), np.zeros(len(turning), bool)
    for kind in (REPLACING, FOLLOWING):
        some = turning.ts & GONE == kind
        starts = (new.ts & GONE == START) & np.isin(plays, wanted[some])
        new.ts[starts] = (new.ts[starts] & ~GONE) | TURNED[kind]
        found |= some & np.isin(wanted, plays[starts])
    return turning.at(~found)


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
    _new: list[Touches] = field(default_factory=list)
    _turning: list[Touches] = field(default_factory=list)
    _retired: list[tuple[str, int]] = field(default_factory=list)

    def add(self, who: U64, ts: I64, kinds: U8, combos: U32, plays: U32) -> None:
        """Take touches in, in any order; they are found from the next `settle` on."""
        keep = kinds != REACH_ONLY
        if not keep.any():
            return
        kind = np.where(np.isin(kinds, TURNING), IMPRESSION, kinds).astype(np.int64)
        some = Touches(who, (ts << KIND_BITS) | kind, combos, plays).at(keep)
        self._new.append(some)
        turning = np.isin(kinds[keep], TURNING)
        if turning.any():
            marked = some.at(turning)
            self._turning.append(replace(marked, ts=(marked.ts & ~GONE) | kinds[keep][turning]))

    def settle(self, oldest_ms: int, settled_ms: int) -> None:
        """Sort what is new into the segments.

        Args:
            oldest_ms: what is older can be credited no more.
            settled_ms: no touch older than this can still come.
        """
        turning = joined(self._turning) if self._turning else NONE
        self._turning = []
        if self._new:
            new = joined([*self._new, NONE])  # a copy, to be changed
            self._new = []
            if len(turning):
                turning = _turn_starts(new, turning)
                new = new.at(new.ts & GONE != GONE)
            self.segments.append(Segment(new.at(np.lexsort((new.ts, new.who)))))
        if len(turning):
            self._turn(turning)
        while (
            len(self.segments) > 1
            and len(self.segments[-2].touches) < 2 * len(self.segments[-1].touches) + 256
        ):
            b, a = self.segments.pop(), self.segments.pop()
            self.segments.append(self._merged(a, b, oldest_ms, settled_ms))

    def _merged(self, a: Segment, b: Segment, oldest_ms: int, settled_ms: int) -> Segment:
        self._retire(a)
        self._retire(b)
        order = np.empty(len(a.touches) + len(b.touches), np.int64)
        n = _merge(a.touches.who, a.touches.ts, b.touches.who, b.touches.ts, oldest_ms << KIND_BITS, order)
        merged = joined([a.touches, b.touches]).at(order[:n])
        dropped = np.zeros(n, np.uint8)
        over = _beyond(merged.who, merged.ts, settled_ms << KIND_BITS, self.listens, self.clicks, dropped)
        self.dropped += over
        return Segment(merged.at(dropped == 0) if over else merged)

    def _retire(self, segment: Segment) -> None:
        if segment.name is not None:
            self._retired.append((segment.name, KEEP_SNAPSHOTS))
            segment.name = None

    def _turn(self, turning: Touches) -> None:
        """A play's listen is at its impression: the start that was taken for it before goes, or is early."""
        for segment in self.segments:
            left, right = self._found(segment, turning.who)
            for at in np.nonzero(left < right)[0].tolist():
                there = slice(left[at], right[at])
                ts = segment.touches.ts[there]
                starts = (segment.touches.play[there] == turning.play[at]) & (ts & GONE == START)
                if starts.any():
                    self._retire(segment)  # a file is never changed
                    segment.touches = replace(segment.touches, ts=segment.touches.ts.copy())
                    ts = segment.touches.ts[there]
                    ts[starts] = (ts[starts] & ~GONE) | TURNED[int(turning.ts[at]) & GONE]

    @staticmethod
    def _found(segment: Segment, who: U64) -> tuple[I64, I64]:
        column = segment.touches.who
        return np.searchsorted(column, who, "left"), np.searchsorted(column, who, "right")

    def of(self, who: U64) -> list[Touches]:
        """The touches of each of `who`, in no order, some of them perhaps `GONE`."""
        found: list[list[Touches]] = [[] for _ in who]
        for segment in self.segments:
            left, right = self._found(segment, who)
            for at in np.nonzero(left < right)[0].tolist():
                found[at].append(segment.touches.at(slice(left[at], right[at])))
        return [joined(some) if some else NONE for some in found]

    def forget(self, who: U64) -> int:
        """Remove every touch of these listeners, and the files that held them some snapshots later; returns
        how many touches.
        """
        before = len(self)
        for segment in self.segments:
            theirs = np.isin(segment.touches.who, who)
            if theirs.any():
                self._retire(segment)
                segment.touches = segment.touches.at(~theirs)
        self._new = [some.at(~np.isin(some.who, who)) for some in self._new]
        self._turning = [some.at(~np.isin(some.who, who)) for some in self._turning]
        return before - len(self)

    def __len__(self) -> int:
        return sum(len(segment.touches) for segment in self.segments) + sum(map(len, self._new))

    def renumbered(self) -> U32:
        """Number the names anew that a touch refers to, in new segments; returns the old numbers in the new
        order. Call it behind `settle`.
        """
        kept = np.unique(
            np.concatenate([np.zeros(0, np.uint32), *(segment.touches.combo for segment in self.segments)])
        )
        for segment in self.segments:
            self._retire(segment)
            segment.touches = replace(
                segment.touches, combo=np.searchsorted(kept, segment.touches.combo).astype(np.uint32)
            )
        return kept

    def snapshot(self, directory: Path | None) -> tuple[Any, ...]:
        """Plain state: small segments whole, large ones by the names of their files in `directory`, which are
        written first; None: all whole.

        Of the files there, those are removed that nothing can resume from any more; the directory is this
        store's alone.
        """
        listed: list[tuple[str | None, bytes]] = []
        for segment in self.segments:
            if segment.name is None and directory is not None and len(segment.touches) >= SPILL:
                segment.name = _write(directory, segment.touches)
            listed.append((segment.name, b"" if segment.name else segment.touches.tobytes()))
        names = {name for name, _ in listed}
        self._retired = [(name, left - 1) for name, left in self._retired if left > 0 and name not in names]
        if directory is not None and directory.exists():
            # Those of an execution that died before its snapshot was whole, too.
            for path in directory.iterdir():
                if path.name not in names and all(path.name != name for name, _ in self._retired):
                    path.unlink()
        new, turning = ([some.tobytes() for some in parts] for parts in (self._new, self._turning))
        return listed, new, turning, list(self._retired), self.dropped

    def restore(self, state: tuple[Any, ...], directory: Path | None) -> None:
        """Take `snapshot`'s state up again.

        Raises:
            StateError: a file that it lists is missing or damaged.
        """
        listed, new, turning, retired, self.dropped = state
        self.segments = [
            Segment(from_bytes(_read(directory, name) if name else body), name) for name, body in listed
        ]
        self._new, self._turning = (
            [from_bytes(body) for body in new],
            [from_bytes(body) for body in turning],
        )
        self._retired = list(retired)


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def _write(directory: Path, touches: Touches) -> str:
    body = touches.tobytes()
    name = f"{_digest(body)}.touches"
    path = directory / name
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    return name


def _read(directory: Path | None, name: str) -> bytes:
    if directory is None:
        raise StateError(
            f"the recovery store lists {name}, and there is no recovery directory to read it from"
        )
    try:
        body = (directory / name).read_bytes()
    except OSError as error:
        raise StateError(
            f"the recovery store lists {name}, which cannot be read from {directory} ({error.strerror}): "
            "restore the whole recovery directory, or recompute from the log"
        ) from None
    if _digest(body) != name.removesuffix(".touches"):
        raise StateError(f"{directory / name} is damaged: restore it, or recompute from the log")
    return body
