"""Eligible touches of a conversion: those of its listener in their windows, up to its moment, as far as the
caps allow.

For many conversions at once, in one compiled loop over the touches of all their listeners. What it finds
depends on event times alone: not on what a store has dropped or merged by now, nor on the order in which
touches came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from flows.attribution.touches import Caps, Touches
from flows.model.messages import CLICK_TOUCH, IMPRESSION_TOUCH, KIND, KIND_BITS, START_TOUCH
from flows.state.kernel import I64, U8, U32, U64, Int, kernel

ANY: Final = -1
"""Instead of a campaign's number: the conversion names none, so that touches of all may be credited."""
MET_CAMPAIGN, MET_CLICKS, MET_LISTENS = 1, 2, 4
"""A conversion met the cap of a campaign, or that of all its listener's clicks, or listens: there may be more
that it does not see.
"""
_MINUTE: Final = 60_000
NEVER: Final = np.iinfo(np.int64).max


class Asked(NamedTuple):
    """Conversions: time, listener, number of the campaign or `ANY`."""

    ts: I64
    who: U64
    campaigns: I64


class Eligible(NamedTuple):
    """Eligible touches of many conversions: `found[bounds[n]:bounds[n + 1]]` are rows of the touches, in the
    order of time and placement; and which caps they met.
    """

    found: I64
    bounds: I64
    met: U8


def in_order(touches: Touches, rank_of: Callable[[int, bool], tuple[Any, ...]]) -> Touches:
    """Sorted touches, those of one listener and millisecond by `rank_of` their names and whether a click."""
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
    """Of touches that `order` sorts by listener, play and time, the minute of each start's impression."""
    first = 0
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
        m = first
        while m < len(order) and who[order[m]] == who[i] and play[order[m]] == play[i]:
            j = order[m]
            if ts[j] >> KIND_BITS > at + apart_ms:
                break
            if ts[j] & KIND == IMPRESSION_TOUCH:
                until[i] = (ts[j] >> KIND_BITS) // _MINUTE
                break
            m += 1


def standing(touches: Touches, apart_ms: int) -> tuple[Touches, I64]:
    """Without the starts that no conversion can take; and until which minute each of the others stands for
    its play, which is that of the impression.

    Args:
        apart_ms: the most that the two may be apart: halves of hashes, short ones under a household, may be
            alike by chance.
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
    who: U64,
    ts: I64,
    until: I64,
    campaigns: I64,
    a_ts: I64,
    a_who: U64,
    a_campaigns: I64,
    click_ms: Int,
    listen_ms: Int,
    listens: Int,
    clicks: Int,
    listens_in_all: Int,
    clicks_in_all: Int,
    counts: I64,
    found: I64,
    bounds: I64,
    met: U8,
) -> Int:
    """Go back from each conversion over its listener's touches; returns how many were found in all."""
    total = 0
    for n in range(len(a_ts)):
        bounds[n] = total
        low, high = 0, len(who)
        while low < high:  # the first touch behind the conversion
            middle = (low + high) // 2
            if who[middle] < a_who[n] or (who[middle] == a_who[n] and ts[middle] >> KIND_BITS <= a_ts[n]):
                low = middle + 1
            else:
                high = middle
        i, clicked, heard, minute = low - 1, 0, 0, a_ts[n] // _MINUTE
        while i >= 0 and who[i] == a_who[n] and (clicked < clicks_in_all or heard < listens_in_all):
            age, kind = a_ts[n] - (ts[i] >> KIND_BITS), ts[i] & KIND
            if age > max(click_ms, listen_ms):
                break
            if kind == CLICK_TOUCH:
                column, cap = 0, clicks
                inside = age <= click_ms and clicked < clicks_in_all
            else:
                column, cap = 1, listens
                inside = age <= listen_ms and heard < listens_in_all
                inside = inside and (kind != START_TOUCH or minute < until[i])
            campaign = campaigns[i]
            if inside and counts[column, campaign] < cap:
                counts[column, campaign] += 1
                clicked += kind == CLICK_TOUCH
                heard += kind != CLICK_TOUCH
                if a_campaigns[n] == ANY or a_campaigns[n] == campaign:
                    found[total] = i
                    total += 1
                    if counts[column, campaign] == cap:
                        met[n] |= MET_CAMPAIGN
            i -= 1
        if clicked == clicks_in_all:
            met[n] |= MET_CLICKS
        if heard == listens_in_all:
            met[n] |= MET_LISTENS
        for j in range(i + 1, low):
            counts[:, campaigns[j]] = 0
        found[bounds[n] : total] = found[bounds[n] : total][::-1].copy()
    bounds[len(a_ts)] = total
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
    bounds, met = np.zeros(len(asked.ts) + 1, np.int64), np.zeros(len(asked.ts), np.uint8)
    known, numbers = np.unique(campaigns.astype(np.int64), return_inverse=True)
    wanted = np.searchsorted(known, asked.campaigns) if len(known) else np.zeros(len(asked.ts), np.int64)
    there = wanted < len(known)
    there[there] = known[wanted[there]] == asked.campaigns[there]
    wanted = np.where(asked.campaigns == ANY, ANY, np.where(there, wanted, len(known)))
    left = np.searchsorted(touches.who, asked.who, "left")
    most = np.minimum(np.searchsorted(touches.who, asked.who, "right") - left, caps[2] + caps[3])
    found = np.empty(int(most.sum()), np.int64)
    total = _find(
        touches.who,
        touches.ts,
        until,
        numbers,
        asked.ts,
        asked.who,
        wanted,
        *windows_ms,
        *caps,
        np.zeros((2, len(known) + 1), np.int64),
        found,
        bounds,
        met,
    )
    return Eligible(found[:total], bounds, met)
