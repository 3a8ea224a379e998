"""Compiled loops over sorted touches: merging two runs, and finding touches that may be dropped."""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.model.messages import CLICK_TOUCH, IMPRESSION_TOUCH, KIND, KIND_BITS, START_TOUCH
from flows.state.arrays import I64, U8, U32, U64, Int
from flows.state.kernel import kernel, lean

NEAR: Final = 16
"""The number of a listener's touches before and after a start among which a merge looks for its impression.
Nearly all impressions are the next touch but one. A start whose impression is missed takes memory, but gets
no credit.
"""
_MINUTE: Final = 60_000


@kernel
def merge(a_owners: U64, a_ts: I64, b_owners: U64, b_ts: I64, oldest: Int, order: I64) -> Int:
    """Places of two sorted runs in their merged order, without touches older than `oldest`; `b` begins at
    len(a).
    """
    i = j = n = 0
    while i < len(a_owners) or j < len(b_owners):
        first = j == len(b_owners) or (
            i < len(a_owners)
            and (a_owners[i] < b_owners[j] or (a_owners[i] == b_owners[j] and a_ts[i] <= b_ts[j]))
        )
        if first:
            keep, place = a_ts[i] >= oldest, i
            i += 1
        else:
            keep, place = b_ts[j] >= oldest, len(a_owners) + j
            j += 1
        if keep:
            order[n] = place
            n += 1
    return n


@lean
def settle(order: I64, owners: U64, ts: I64) -> bool:
    """Refine an order by listeners with a stable sort by time. False if listeners have so many touches that
    this would take too long.
    """
    moves, most = 0, NEAR * len(order)
    for n in range(1, len(order)):
        i, place = order[n], n
        while place > 0 and owners[order[place - 1]] == owners[i]:
            before = order[place - 1]
            if ts[before] < ts[i] or (ts[before] == ts[i] and before < i):
                break
            order[place] = before
            place -= 1
            moves += 1
        order[place] = i
        if moves > most:
            return False
    return True


@lean
def stood_for(owners: U64, ts: I64, play: U32, play_ms: Int, dropped: U8) -> Int:
    """Mark the starts that no conversion can take, since the impression of the same play is near, in the same
    or an earlier minute. Returns their number.
    """
    n = 0
    for i in range(len(owners)):
        if ts[i] & KIND != START_TOUCH:
            continue
        start_ms, is_near = ts[i] >> KIND_BITS, False
        minute = start_ms // _MINUTE
        j = i - 1
        while (
            not is_near
            and j >= max(0, i - NEAR)
            and owners[j] == owners[i]
            and start_ms - (ts[j] >> KIND_BITS) <= play_ms
        ):
            is_near = play[j] == play[i] and ts[j] & KIND == IMPRESSION_TOUCH
            j -= 1
        j = i + 1
        while not is_near and j < min(len(owners), i + NEAR + 1) and owners[j] == owners[i]:
            if (ts[j] >> KIND_BITS) // _MINUTE > minute:
                break
            is_near = play[j] == play[i] and ts[j] & KIND == IMPRESSION_TOUCH
            j += 1
        if is_near:
            dropped[i] = 1
            n += 1
    return n


@lean
def _take(kinds: I64, totals: I64, kind: Int, campaign: Int, cap: Int) -> None:
    """Count a touch if it is within its campaign's cap."""
    if kinds[kind, campaign] < cap:
        kinds[kind, campaign] += 1
        totals[kind] += 1


@kernel
def beyond(
    owners: U64,
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
    """Mark touches beyond a cap that no conversion from `settled_ms` on can take; returns their number.

    Only touches that such a conversion certainly counts as listens fill a cap: an impression, or a start
    whose impression would have arrived by now. They must be newer than the touch by more than the length of a
    play, so that a start stays hidden as long as it is stored. Impressions and starts may belong to the same
    plays, so one of both alone must fill the cap.
    """
    marked, end = 0, len(owners)
    counts, totals = np.zeros((4, len(of_campaign)), np.int64), np.zeros(4, np.int64)
    few = min(min(listens, clicks), min(listens_in_all, clicks_in_all))
    while end > 0:
        begin = end - 1
        while begin > 0 and owners[begin - 1] == owners[begin]:
            begin -= 1
        listened = clicked = end - 1  # the touches after this place are counted
        for i in range(end - 1, begin - 1 if end - begin > few else end - 1, -1):
            touch_ms, campaign = ts[i] >> KIND_BITS, of_campaign[combo[i]]
            if touch_ms >= settled_ms:
                continue
            if ts[i] & KIND == CLICK_TOUCH:
                while clicked > i and ts[clicked] >> KIND_BITS > touch_ms:
                    if ts[clicked] & KIND == CLICK_TOUCH and ts[clicked] >> KIND_BITS < settled_ms:
                        _take(counts, totals, CLICK_TOUCH, of_campaign[combo[clicked]], clicks)
                    clicked -= 1
                over = counts[CLICK_TOUCH, campaign] >= clicks or totals[CLICK_TOUCH] >= clicks_in_all
            else:
                while listened > i and ts[listened] >> KIND_BITS > touch_ms + play_ms:
                    kind, then = ts[listened] & KIND, ts[listened] >> KIND_BITS
                    if (kind == IMPRESSION_TOUCH and then < settled_ms) or (
                        kind == START_TOUCH and then < settled_ms - play_ms
                    ):
                        _take(counts, totals, kind, of_campaign[combo[listened]], listens)
                    listened -= 1
                over = (
                    max(counts[IMPRESSION_TOUCH, campaign], counts[START_TOUCH, campaign]) >= listens
                    or max(totals[IMPRESSION_TOUCH], totals[START_TOUCH]) >= listens_in_all
                )
            if over:
                dropped[i] = 1
                marked += 1
        for i in range(min(listened, clicked) + 1, end):
            counts[:, of_campaign[combo[i]]] = 0
        totals[:] = 0
        end = begin
    return marked
