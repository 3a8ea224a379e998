"""Touches of households, 20 bytes each, and the households that have too many listeners.

A touch is packed into 160 bits: 52 of the household, 44 of its time and kind, 20 of its names, 24 of its
listener and 20 of its play. Two listeners of one household with the same 24 bits count as one, which happens
once in 16 million.

A crowded moment of a household is the time of a touch at which more than a set number of distinct listeners
have touches within the listen window. For the length of that window the household is noisy. Caps drop no
touch that a later crowded moment needs. An earlier crowded moment is marked before anything is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np

from flows.attribution.eligible import NEVER, standing
from flows.attribution.touch_loops import beyond
from flows.attribution.touches import Touches, TouchStore, joined
from flows.model.messages import KIND_BITS
from flows.state.arrays import I64, U8, U32, U64, Int
from flows.state.home_tags import PLAY_BITS, TAG_BITS
from flows.state.journal import Files
from flows.state.kernel import kernel
from flows.state.runs import Columns

HOME_SHIFT: Final = np.uint64(12)
"""The low bits of a household's hash, which a touch drops. The shard's number gives back log2(shards) of
them.
"""
_LOW_TIME: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFFFFFF)
_REST: Final = np.uint64((1 << 12) - 1)
_TAG: Final = np.uint64((1 << TAG_BITS) - 1)
_TAG_BITS: Final = np.uint64(TAG_BITS)
_MEMBER: Final = np.uint64(PLAY_BITS)
MAX_NAMES: Final = 1 << (64 - TAG_BITS)
"""The greatest number of dimensions in the touches of a shard."""


@kernel
def latest_crowd(
    homes: U64,
    ts: I64,
    tags: U64,
    until: I64,
    a_homes: U64,
    a_ts: I64,
    a_minute: I64,
    window_ms: Int,
    most: Int,
    out: I64,
) -> None:
    """Find the latest crowded moment of each household up to a time; -1 without one.

    The `most + 1` latest listeners of a household decide.

    Args:
        homes, ts, tags, until: touches sorted by household and time, of `standing`.
        a_homes, a_ts: the households, and the times.
        a_minute: starts that stand for their play only up to this minute are ignored.

    The queries of one household and minute are consecutive, in the order of time. Each continues where the
    last one ended, so that many conversions read the touches of a crowd once.
    """
    members, last = np.empty(most + 1, np.uint64), np.empty(most + 1, np.int64)
    member_count, i, latest = 0, 0, -1
    for n in range(len(a_homes)):
        if n == 0 or a_homes[n] != a_homes[n - 1] or a_minute[n] != a_minute[n - 1]:
            low, high = 0, len(homes)
            while low < high:
                middle = (low + high) // 2
                if homes[middle] < a_homes[n]:
                    low = middle + 1
                else:
                    high = middle
            member_count, i, latest = 0, low, -1
        while i < len(homes) and homes[i] == a_homes[n] and ts[i] >> KIND_BITS <= a_ts[n]:
            member, touch_ms = tags[i] >> _MEMBER, ts[i] >> KIND_BITS
            if member != np.uint64(0) and until[i] > a_minute[n]:
                place = 0  # the latest listener comes first
                while place < member_count and members[place] != member:
                    place += 1
                if place == member_count:
                    member_count = min(member_count + 1, most + 1)
                    place = member_count - 1
                for m in range(place, 0, -1):
                    members[m], last[m] = members[m - 1], last[m - 1]
                members[0], last[0] = member, touch_ms
                if member_count == most + 1 and last[most] >= touch_ms - window_ms:
                    latest = touch_ms
            i += 1
        out[n] = latest


@kernel
def _spare(homes: U64, ts: I64, tags: U64, sure_ms: Int, play_ms: Int, most: Int, dropped: U8) -> Int:
    """Unmark the touches that a crowded moment after `sure_ms` may need; returns their number.

    No crowded moment needs a touch after which its listener has another touch before `sure_ms`, nor one after
    which `most + 1` listeners have touches. The later touches must be more than the length of a play apart:
    each then counts, even if its start is dropped.
    """
    members = np.empty(most + 1, np.uint64)
    spared, end = 0, len(homes)
    while end > 0:
        member_count, place_after = 0, end - 1
        i = end - 1
        while i >= 0 and homes[i] == homes[end - 1]:
            touch_ms, member = ts[i] >> KIND_BITS, tags[i] >> _MEMBER
            while (
                place_after > i and member_count <= most and ts[place_after] >> KIND_BITS > touch_ms + play_ms
            ):
                later = tags[place_after] >> _MEMBER
                if later != np.uint64(0) and ts[place_after] >> KIND_BITS < sure_ms:
                    place = 0
                    while place < member_count and members[place] != later:
                        place += 1
                    if place == member_count:
                        members[place] = later
                        member_count += 1
                place_after -= 1
            if dropped[i] and member != np.uint64(0) and member_count <= most:
                place = 0
                while place < member_count and members[place] != member:
                    place += 1
                if place == member_count:
                    dropped[i] = 0
                    spared += 1
            i -= 1
        end = i + 1
    return spared


@dataclass
class HomeStore(TouchStore):
    """All touches of one household shard.

    Args:
        window_ms: the listen window.
        most: the greatest number of distinct listeners within it with which a household joins conversions.

    Attributes:
        marks: for each household the latest crowded moment whose touches were dropped since.
    """

    most_names: int = MAX_NAMES
    window_ms: int = 14 * 86_400_000
    most: int = 20
    marks: dict[int, int] = field(default_factory=dict)
    types: ClassVar[tuple[tuple[type, ...], ...]] = (
        (np.uint64, np.int64, np.uint32, np.uint64),
        (np.uint64, np.uint32, np.uint64),
    )

    def packed(self, touches: Touches) -> Columns:
        """See `TouchStore.packed`."""
        ts = touches.ts.astype(np.uint64)
        return (
            touches.owners << HOME_SHIFT | ts >> _LOW_TIME,
            (ts & _LOW).astype(np.uint32),
            touches.combo.astype(np.uint64) << _TAG_BITS | touches.play,
        )

    def unpacked(self, columns: Columns) -> Touches:
        """See `TouchStore.unpacked`."""
        high, low, rest = columns
        ts = ((high & _REST) << _LOW_TIME | low).astype(np.int64)
        return Touches(high >> HOME_SHIFT, ts, (rest >> _TAG_BITS).astype(np.uint32), rest & _TAG)

    def bounds(self, owners: U64) -> tuple[U64, U64]:
        """See `TouchStore.bounds`."""
        return owners << HOME_SHIFT, owners << HOME_SHIFT | _REST

    def compact(self, oldest_ms: int, settled_ms: int, of_campaign: U32) -> None:
        """See `TouchStore.compact`; `oldest_ms` is at least two listen windows back."""
        super().compact(oldest_ms, settled_ms, of_campaign)
        self.marks = {
            home: crowd_ms for home, crowd_ms in self.marks.items() if crowd_ms >= settled_ms - self.window_ms
        }

    def _capped(self, touches: Touches, settled_ms: int, of_campaign: U32) -> Touches:
        dropped = np.zeros(len(touches), np.uint8)
        names = (touches.combo, of_campaign)
        over = beyond(
            touches.owners, touches.ts, *names, settled_ms, self.play_ms, *self.caps.of_store, dropped
        )
        if over:
            sure_ms = settled_ms - 2 * self.play_ms
            bounds = (sure_ms, self.play_ms, self.most)
            over -= _spare(touches.owners, touches.ts, touches.play.astype(np.uint64), *bounds, dropped)
        if not over:
            return touches
        self._mark(np.unique(touches.owners[dropped != 0]), touches, settled_ms - self.play_ms - 1)
        self.dropped += over
        return touches.select(dropped == 0)

    def _mark(self, homes: U64, besides: Touches, until_ms: int) -> None:
        """Mark the crowded moments of households before some of their touches are dropped, up to a time
        before which the status of starts is settled.
        """
        touches_of_homes = besides.select(np.isin(besides.owners, homes))
        touches, until = standing(joined(self.touches_of(homes), touches_of_homes).sorted(), self.apart_ms)
        moments = self.crowds(
            touches, until, homes, np.full(len(homes), until_ms), np.full(len(homes), NEVER - 1)
        )
        for home, crowded_ms in zip(homes.tolist(), moments.tolist(), strict=True):
            if crowded_ms >= 0:
                self.marks[home] = max(crowded_ms, self.marks.get(home, -1))

    def crowds(self, touches: Touches, until: I64, homes: U64, ts: I64, minutes: I64) -> I64:
        """The latest crowded moment of each of `homes` up to `ts`, among the touches and the marks; -1 for
        none.
        """
        order = np.lexsort((ts, minutes, homes))
        lookups, crowded_ms = (homes[order], ts[order], minutes[order]), np.empty(len(homes), np.int64)
        tags = touches.play.astype(np.uint64)
        latest_crowd(touches.owners, touches.ts, tags, until, *lookups, self.window_ms, self.most, crowded_ms)
        out = np.array([self.marks.get(one, -1) for one in homes.tolist()], np.int64)
        out[order] = np.maximum(out[order], crowded_ms)
        return out

    def erase(self, owners: U64) -> int:
        """See `TouchStore.erase`; also removes the marks."""
        for home in owners.tolist():
            self.marks.pop(home, None)
        return super().erase(owners)

    def member_counts(self, members: U64) -> I64:
        """The number of touches of each of some listeners, given by sorted bits."""
        counts = np.zeros(len(members), np.int64)
        for touches in self.runs():
            touch_members = touches.play.astype(np.uint64) >> _MEMBER
            places = np.searchsorted(members, touch_members[np.isin(touch_members, members)])
            counts += np.bincount(places, minlength=len(members))
        return counts

    def erase_members(self, members: U64) -> int:
        """Remove the touches of listeners, by their bits of `flows.state.home_tags.members_of`; returns
        the number of touches.
        """
        return self.drop(lambda touches: np.isin(touches.play.astype(np.uint64) >> _MEMBER, members))

    def snapshot(self, files: Files) -> tuple[Any, ...]:
        """See `TouchStore.snapshot`."""
        return (*super().snapshot(files), dict(self.marks))

    def restore(self, state: tuple[Any, ...], files: Files) -> None:
        """See `TouchStore.restore`."""
        *store_state, marks = state
        super().restore(tuple(store_state), files)
        self.marks = dict(marks)
