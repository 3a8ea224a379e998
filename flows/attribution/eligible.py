"""Eligible touches of a conversion: the touches of its listener within windows and caps, up to the time of
the conversion.

One compiled loop handles many conversions. For each conversion it goes back over the touches of its listener.
A listener may have more touches than the caps of all campaigns. A second loop then takes the conversions of
that listener in the order of time, and goes over only the touches within the caps. The result depends on
event times alone. It depends neither on dropped or merged touches in a store, nor on the order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from flows.attribution.newest import Newest, before, clear, come, go, newest
from flows.attribution.touches import Caps, Touches
from flows.model.messages import CLICK_TOUCH, IMPRESSION_TOUCH, KIND, KIND_BITS, START_TOUCH
from flows.state.arrays import I64, U8, U32, U64, Int
from flows.state.kernel import kernel

ANY: Final = -1
"""The campaign number of a conversion that names no campaign: touches of all campaigns may be credited."""
MET_CAMPAIGN, MET_CLICKS, MET_LISTENS = 1, 2, 4
"""Caps that excluded a touch. MET_CAMPAIGN: the cap of a campaign that could get credit. MET_CLICKS,
MET_LISTENS: the cap of all clicks, or listens, of the listener in the window, of any campaign.
"""
Limits: TypeAlias = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Greatest ages, caps of a campaign, and caps in all; each for clicks and for listens."""
_MINUTE: Final = 60_000
NEVER: Final = np.iinfo(np.int64).max


class Lookups(NamedTuple):
    """Conversions as columns: time, listener, number of the campaign or `ANY`."""

    ts: I64
    owners: U64
    campaigns: I64


class Eligible(NamedTuple):
    """Eligible touches of many conversions.

    Attributes:
        touch_rows: `touch_rows[begins[n]:ends[n]]` are the row numbers of the touches of conversion `n`, in
            the order of time and placement.
        met: the caps that they met.
    """

    touch_rows: I64
    begins: I64
    ends: I64
    met: U8


def in_order(touches: Touches, rank_of: Callable[[int, bool], tuple[Any, ...]]) -> Touches:
    """Sorted touches. Touches of one listener and millisecond are ordered by `rank_of` their names, and
    listens before clicks.
    """
    ts, clicks = touches.ts >> KIND_BITS, touches.ts & KIND == CLICK_TOUCH
    tied = (touches.owners[1:] == touches.owners[:-1]) & (ts[1:] == ts[:-1])
    if not tied.any():
        return touches
    tied_rows = np.flatnonzero(np.append(tied, False) | np.append(False, tied))
    kinds, kind_places = np.unique(
        touches.combo[tied_rows].astype(np.int64) << 1 | clicks[tied_rows], return_inverse=True
    )
    kind_codes = kinds.tolist()
    ranks = np.empty(len(kind_codes), np.int64)
    ranks[
        sorted(range(len(kind_codes)), key=lambda n: rank_of(kind_codes[n] >> 1, bool(kind_codes[n] & 1)))
    ] = np.arange(len(kind_codes))
    order = np.arange(len(touches))
    order[tied_rows] = tied_rows[np.lexsort((ranks[kind_places], ts[tied_rows], touches.owners[tied_rows]))]
    return touches.select(order)


@kernel
def _stands_until(order: I64, owners: U64, ts: I64, play: U32, apart_ms: Int, until: I64) -> None:
    """Fill in the minute of each start's impression, for touches that `order` sorts by listener, play and
    time.

    `first` is the earliest touch that may be an impression near enough, and `later` the next impression. Both
    only move forward.
    """
    first = later = 0
    for n in range(len(order)):
        i = order[n]
        if n and (owners[order[n - 1]] != owners[i] or play[order[n - 1]] != play[i]):
            first = n
        if ts[i] & KIND != START_TOUCH:
            continue
        start_ms = ts[i] >> KIND_BITS
        while first < n and (
            ts[order[first]] & KIND != IMPRESSION_TOUCH or ts[order[first]] >> KIND_BITS < start_ms - apart_ms
        ):
            first += 1
        if first == n:
            later = max(later, n)
            while later < len(order) and ts[order[later]] & KIND != IMPRESSION_TOUCH:
                later += 1
        m = later if first == n else first
        if m < len(order) and owners[order[m]] == owners[i] and play[order[m]] == play[i]:
            touch_heard_ms = ts[order[m]] >> KIND_BITS
            if touch_heard_ms <= start_ms + apart_ms:
                until[i] = touch_heard_ms // _MINUTE


def standing(touches: Touches, apart_ms: int) -> tuple[Touches, I64]:
    """The touches without the starts that no conversion can take; and for each other start the minute until
    which it stands for its play: the minute of the impression.

    Args:
        apart_ms: the greatest distance of the two. It is bounded, since half hashes (short ones under a
            household) may be equal by chance.
    """
    until = np.full(len(touches), NEVER)
    starts = touches.ts & KIND == START_TOUCH
    if not starts.any():
        return touches, until
    order = np.lexsort((touches.ts, touches.play, touches.owners))
    _stands_until(order, touches.owners, touches.ts, touches.play, apart_ms, until)
    remaining = ~starts | (until > (touches.ts >> KIND_BITS) // _MINUTE)
    return touches.select(remaining), until[remaining]


@kernel
def _find(
    lookups: tuple[I64, I64],
    places: tuple[I64, I64],
    ts: I64,
    until: I64,
    campaigns: I64,
    limits: Limits,
    counts: I64,
    out: tuple[I64, I64, I64, U8],
) -> Int:
    """Go back from each conversion over the touches of its listener, unless these exceed the caps in all.

    Args:
        lookups: each conversion's time, and the number of its campaign or `ANY`.
        places: the begin and end of the touches of its listener.
        counts: zeros, by kind and campaign.
        out: see `Eligible`.

    Returns:
        The number of touches; -1 minus that number if a conversion was skipped.
    """
    (a_ts, a_campaigns), (left, right), (windows_ms, caps, in_all) = lookups, places, limits
    touch_rows, begins, ends, met = out
    total, all_done, taken_counts = 0, True, np.zeros(2, np.int64)
    for n in range(len(a_ts)):
        begins[n] = ends[n] = total
        low, high = left[n], right[n]
        if high - low > in_all[0] + in_all[1]:
            all_done = False
            continue
        while low < high:  # the first touch after the conversion
            middle = (low + high) // 2
            if ts[middle] >> KIND_BITS <= a_ts[n]:
                low = middle + 1
            else:
                high = middle
        i, minute = low - 1, a_ts[n] // _MINUTE
        taken_counts[:] = 0
        while i >= left[n]:
            age, kind, campaign = a_ts[n] - (ts[i] >> KIND_BITS), ts[i] & KIND, campaigns[i]
            if age > max(windows_ms[0], windows_ms[1]):
                break
            column = 0 if kind == CLICK_TOUCH else 1
            wanted = a_campaigns[n] == ANY or a_campaigns[n] == campaign
            if age > windows_ms[column] or (kind == START_TOUCH and minute >= until[i]):
                pass
            elif counts[column, campaign] == caps[column]:
                if wanted:
                    met[n] |= MET_CAMPAIGN
            elif taken_counts[column] == in_all[column]:  # of any campaign: a store drops what is far beyond
                met[n] |= MET_CLICKS << column
            else:
                counts[column, campaign] += 1
                taken_counts[column] += 1
                if wanted:
                    touch_rows[total] = i
                    total += 1
            i -= 1
        for j in range(i + 1, low):
            counts[:, campaigns[j]] = 0
        touch_rows[begins[n] : total] = touch_rows[begins[n] : total][::-1].copy()
        ends[n] = total
    return total if all_done else -1 - total


@kernel
def _find_of_many(
    lookups: Lookups,
    order: I64,
    places: tuple[I64, I64],
    ts: I64,
    until: I64,
    dying: I64,
    campaigns: I64,
    limits: Limits,
    newest_set: Newest,
    out: Eligible,
) -> Int:
    """Go back from each conversion over the newest touches only. `order` sorts the conversions by listener
    and time; the touches of each listener are added in order. Returns the number of touches in all.

    Args:
        places: for each conversion, the begin and end of the touches of its listener.
        dying: the starts that stand for their play only until a minute, sorted by listener and that minute.
    """
    (left, right), (windows_ms, caps, in_all) = places, limits
    begin = end = expired = 0
    total = out.ends.max()
    cursor, taken_counts = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for n in order:
        if left[n] != begin:
            for i in range(begin, end):
                clear(newest_set, 0, campaigns[i])
                clear(newest_set, 1, campaigns[i])
            begin = end = left[n]
            while expired < len(dying) and dying[expired] < begin:
                expired += 1
        while end < right[n] and ts[end] >> KIND_BITS <= lookups.ts[n]:
            kind = 0 if ts[end] & KIND == CLICK_TOUCH else 1
            come(newest_set, end, kind, campaigns[end], caps[kind])
            end += 1
        while (
            expired < len(dying)
            and dying[expired] < end
            and until[dying[expired]] <= lookups.ts[n] // _MINUTE
        ):
            go(newest_set, dying[expired], 1, campaigns[dying[expired]])
            expired += 1
        out.begins[n] = total
        taken_counts[:] = 0
        cursor[0], cursor[1] = before(newest_set, 0, end), before(newest_set, 1, end)
        while max(cursor[0], cursor[1]) >= begin:  # the touches before it belong to another listener
            kind = 0 if cursor[0] > cursor[1] else 1
            i = cursor[kind]
            outside = lookups.ts[n] - (ts[i] >> KIND_BITS) > windows_ms[kind]
            if outside or taken_counts[kind] == in_all[kind]:
                if not outside:
                    out.met[n] |= MET_CLICKS << kind
                cursor[kind] = -1
                continue
            taken_counts[kind] += 1
            if lookups.campaigns[n] == ANY or lookups.campaigns[n] == campaigns[i]:
                out.touch_rows[total] = i
                total += 1
                if (
                    newest_set.first[kind, campaigns[i]] == i
                    and newest_set.counts[kind, campaigns[i]] == caps[kind]
                ):
                    older = newest_set.older[i]
                    if older >= 0 and lookups.ts[n] - (ts[older] >> KIND_BITS) <= windows_ms[kind]:
                        out.met[n] |= MET_CAMPAIGN
            cursor[kind] = before(newest_set, kind, i)
        out.touch_rows[out.begins[n] : total] = out.touch_rows[out.begins[n] : total][::-1].copy()
        out.ends[n] = total
    return total


def eligible(
    touches: Touches, until: I64, campaigns: U32, lookups: Lookups, windows_ms: tuple[int, int], caps: Caps
) -> Eligible:
    """Find the eligible touches of each conversion.

    Args:
        touches, until: from `standing`, in the order of `in_order`.
        campaigns: number of each touch's campaign.
        windows_ms: the greatest ages of a click and of a listen, both ends inclusive.
    """
    begins, ends = np.empty(len(lookups.ts), np.int64), np.empty(len(lookups.ts), np.int64)
    met = np.zeros(len(lookups.ts), np.uint8)
    campaign_numbers, numbers = np.unique(campaigns.astype(np.int64), return_inverse=True)
    wanted = campaign_numbers.searchsorted(lookups.campaigns)
    is_known = wanted < len(campaign_numbers)
    is_known[is_known] = campaign_numbers[wanted[is_known]] == lookups.campaigns[is_known]
    wanted = np.where(lookups.campaigns == ANY, ANY, np.where(is_known, wanted, len(campaign_numbers)))
    places = touches.owners.searchsorted(lookups.owners), touches.owners.searchsorted(lookups.owners, "right")
    sizes, in_all = places[1] - places[0], (caps.clicks_in_all, caps.listens_in_all)
    touch_rows = np.empty(int(np.minimum(sizes, sum(in_all)).sum()), np.int64)
    limits = windows_ms, (caps.clicks, caps.listens), in_all
    counts, out = np.zeros((2, len(campaign_numbers) + 1), np.int64), (touch_rows, begins, ends, met)
    total = _find((lookups.ts, wanted), places, touches.ts, until, numbers, limits, counts, out)
    if total < 0:
        many, dying = np.flatnonzero(sizes > sum(in_all)), np.flatnonzero(until < NEVER)
        total = _find_of_many(
            lookups._replace(campaigns=wanted),
            many[np.lexsort((lookups.ts[many], lookups.owners[many]))],
            places,
            touches.ts,
            until,
            dying[np.lexsort((until[dying], touches.owners[dying]))],
            numbers,
            limits,
            newest(len(touches), len(campaign_numbers)),
            Eligible(*out),
        )
    return Eligible(touch_rows[:total], begins, ends, met)
