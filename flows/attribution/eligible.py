"""Eligible touches of a conversion: those of its listener in their windows, up to its moment, within the
caps.

One compiled loop takes many conversions at once over the touches of all their listeners. Each conversion goes
back over its own listener's touches. If these are more than the caps of all campaigns, a second loop takes
the conversions of one listener in the order of time, so that each goes over only the touches within the caps.
The result depends on event times alone: neither on the touches that a store has dropped or merged, nor on the
order in which touches came.
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
"""Stands for a campaign's number if the conversion names none, so that touches of all may be credited."""
MET_CAMPAIGN, MET_CLICKS, MET_LISTENS = 1, 2, 4
"""Caps that left out a touch. MET_CAMPAIGN: the cap of a campaign that the conversion could be credited to.
MET_CLICKS, MET_LISTENS: the cap of all its listener's clicks, or listens, within its window, of any campaign.
"""
Limits: TypeAlias = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Greatest ages, caps of a campaign and caps in all: of clicks, of listens."""
_MINUTE: Final = 60_000
NEVER: Final = np.iinfo(np.int64).max


class Asked(NamedTuple):
    """Conversions: time, listener, number of the campaign or `ANY`."""

    ts: I64
    who: U64
    campaigns: I64


class Eligible(NamedTuple):
    """Eligible touches of many conversions.

    Attributes:
        found: `found[begins[n]:ends[n]]` are rows of the touches, in the order of time and placement.
        met: the caps that they met.
    """

    found: I64
    begins: I64
    ends: I64
    met: U8


def in_order(touches: Touches, rank_of: Callable[[int, bool], tuple[Any, ...]]) -> Touches:
    """Sorted touches; those of one listener and millisecond are ordered by `rank_of` their names and by
    whether they are clicks.
    """
    ts, clicks = touches.ts >> KIND_BITS, touches.ts & KIND == CLICK_TOUCH
    tied = (touches.who[1:] == touches.who[:-1]) & (ts[1:] == ts[:-1])
    if not tied.any():
        return touches
    at = np.flatnonzero(np.append(tied, False) | np.append(False, tied))
    kinds, of = np.unique(touches.combo[at].astype(np.int64) << 1 | clicks[at], return_inverse=True)
    told = kinds.tolist()
    ranks = np.empty(len(told), np.int64)
    ranks[sorted(range(len(told)), key=lambda n: rank_of(told[n] >> 1, bool(told[n] & 1)))] = np.arange(
        len(told)
    )
    order = np.arange(len(touches))
    order[at] = at[np.lexsort((ranks[of], ts[at], touches.who[at]))]
    return touches.at(order)


@kernel
def _stands_until(order: I64, who: U64, ts: I64, play: U32, apart_ms: Int, until: I64) -> None:
    """Fill in the minute of each start's impression, for touches that `order` sorts by listener, play and
    time.

    `first` is the earliest touch that may be an impression near enough, and `later` the next impression: both
    only move on.
    """
    first = later = 0
    for n in range(len(order)):
        i = order[n]
        if n and (who[order[n - 1]] != who[i] or play[order[n - 1]] != play[i]):
            first = n
        if ts[i] & KIND != START_TOUCH:
            continue
        at = ts[i] >> KIND_BITS
        while first < n and (
            ts[order[first]] & KIND != IMPRESSION_TOUCH or ts[order[first]] >> KIND_BITS < at - apart_ms
        ):
            first += 1
        if first == n:
            later = max(later, n)
            while later < len(order) and ts[order[later]] & KIND != IMPRESSION_TOUCH:
                later += 1
        m = later if first == n else first
        if m < len(order) and who[order[m]] == who[i] and play[order[m]] == play[i]:
            heard = ts[order[m]] >> KIND_BITS
            if heard <= at + apart_ms:
                until[i] = heard // _MINUTE


def standing(touches: Touches, apart_ms: int) -> tuple[Touches, I64]:
    """The touches without the starts that no conversion can take; and the minute until which each of the
    others stands for its play: the minute of its impression.

    Args:
        apart_ms: the most that the two may be apart: halves of hashes, short ones under a household,
            may be alike by chance.
    """
    until = np.full(len(touches), NEVER)
    starts = touches.ts & KIND == START_TOUCH
    if not starts.any():
        return touches, until
    order = np.lexsort((touches.ts, touches.play, touches.who))
    _stands_until(order, touches.who, touches.ts, touches.play, apart_ms, until)
    kept = ~starts | (until > (touches.ts >> KIND_BITS) // _MINUTE)
    return touches.at(kept), until[kept]


@kernel
def _find(
    asked: tuple[I64, I64],
    places: tuple[I64, I64],
    ts: I64,
    until: I64,
    campaigns: I64,
    limits: Limits,
    counts: I64,
    out: tuple[I64, I64, I64, U8],
) -> Int:
    """Go back from each conversion over its listener's touches, unless these are more than the caps in all.

    Args:
        asked: each conversion's time, and the number of its campaign or `ANY`.
        places: the begin and end of its listener's touches.
        counts: by kind and campaign, zeros.
        out: see `Eligible`.

    Returns:
        The number of touches; -1 minus that number if a conversion was left out.
    """
    (a_ts, a_campaigns), (left, right), (windows_ms, caps, in_all) = asked, places, limits
    found, begins, ends, met = out
    total, all_done, taken = 0, True, np.zeros(2, np.int64)
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
        taken[:] = 0
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
            elif taken[column] == in_all[column]:  # of any campaign: a store drops what is far beyond
                met[n] |= MET_CLICKS << column
            else:
                counts[column, campaign] += 1
                taken[column] += 1
                if wanted:
                    found[total] = i
                    total += 1
            i -= 1
        for j in range(i + 1, low):
            counts[:, campaigns[j]] = 0
        found[begins[n] : total] = found[begins[n] : total][::-1].copy()
        ends[n] = total
    return total if all_done else -1 - total


@kernel
def _find_of_many(
    asked: Asked,
    order: I64,
    places: tuple[I64, I64],
    ts: I64,
    until: I64,
    dying: I64,
    campaigns: I64,
    limits: Limits,
    held: Newest,
    out: Eligible,
) -> Int:
    """Take the touches of each listener in order, and its conversions as `order` sorts them by listener and
    time, and go back from each conversion over the newest touches. Returns the number of touches in all.

    Args:
        places: the begin and end of each conversion's listener's touches.
        dying: the starts that do not stand for ever, by listener and the minute until which they do.
    """
    (left, right), (windows_ms, caps, in_all) = places, limits
    begin = end = gone = 0
    total = out.ends.max()
    cursor, taken = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for n in order:
        if left[n] != begin:
            for i in range(begin, end):
                clear(held, 0, campaigns[i])
                clear(held, 1, campaigns[i])
            begin = end = left[n]
            while gone < len(dying) and dying[gone] < begin:
                gone += 1
        while end < right[n] and ts[end] >> KIND_BITS <= asked.ts[n]:
            kind = 0 if ts[end] & KIND == CLICK_TOUCH else 1
            come(held, end, kind, campaigns[end], caps[kind])
            end += 1
        while gone < len(dying) and dying[gone] < end and until[dying[gone]] <= asked.ts[n] // _MINUTE:
            go(held, dying[gone], 1, campaigns[dying[gone]])
            gone += 1
        out.begins[n] = total
        taken[:] = 0
        cursor[0], cursor[1] = before(held, 0, end), before(held, 1, end)
        while max(cursor[0], cursor[1]) >= begin:  # the touches before it are another listener's
            kind = 0 if cursor[0] > cursor[1] else 1
            i = cursor[kind]
            outside = asked.ts[n] - (ts[i] >> KIND_BITS) > windows_ms[kind]
            if outside or taken[kind] == in_all[kind]:
                if not outside:
                    out.met[n] |= MET_CLICKS << kind
                cursor[kind] = -1
                continue
            taken[kind] += 1
            if asked.campaigns[n] == ANY or asked.campaigns[n] == campaigns[i]:
                out.found[total] = i
                total += 1
                if held.first[kind, campaigns[i]] == i and held.counts[kind, campaigns[i]] == caps[kind]:
                    older = held.older[i]
                    if older >= 0 and asked.ts[n] - (ts[older] >> KIND_BITS) <= windows_ms[kind]:
                        out.met[n] |= MET_CAMPAIGN
            cursor[kind] = before(held, kind, i)
        out.found[out.begins[n] : total] = out.found[out.begins[n] : total][::-1].copy()
        out.ends[n] = total
    return total


def eligible(
    touches: Touches, until: I64, campaigns: U32, asked: Asked, windows_ms: tuple[int, int], caps: Caps
) -> Eligible:
    """Find the eligible touches of each conversion.

    Args:
        touches, until: from `standing`, in the order of `in_order`.
        campaigns: number of each touch's campaign.
        windows_ms: how old a click, a listen may be, both ends inclusive.
    """
    begins, ends = np.empty(len(asked.ts), np.int64), np.empty(len(asked.ts), np.int64)
    met = np.zeros(len(asked.ts), np.uint8)
    known, numbers = np.unique(campaigns.astype(np.int64), return_inverse=True)
    wanted = known.searchsorted(asked.campaigns)
    there = wanted < len(known)
    there[there] = known[wanted[there]] == asked.campaigns[there]
    wanted = np.where(asked.campaigns == ANY, ANY, np.where(there, wanted, len(known)))
    places = touches.who.searchsorted(asked.who), touches.who.searchsorted(asked.who, "right")
    sizes, in_all = places[1] - places[0], (caps.clicks_in_all, caps.listens_in_all)
    found = np.empty(int(np.minimum(sizes, sum(in_all)).sum()), np.int64)
    limits = windows_ms, (caps.clicks, caps.listens), in_all
    counts, out = np.zeros((2, len(known) + 1), np.int64), (found, begins, ends, met)
    total = _find((asked.ts, wanted), places, touches.ts, until, numbers, limits, counts, out)
    if total < 0:
        many, dying = np.flatnonzero(sizes > sum(in_all)), np.flatnonzero(until < NEVER)
        total = _find_of_many(
            asked._replace(campaigns=wanted),
            many[np.lexsort((asked.ts[many], asked.who[many]))],
            places,
            touches.ts,
            until,
            dying[np.lexsort((until[dying], touches.who[dying]))],
            numbers,
            limits,
            newest(len(touches), len(known)),
            Eligible(*out),
        )
    return Eligible(found[:total], begins, ends, met)
