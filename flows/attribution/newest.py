"""The newest touches of each campaign up to an advancing time, for listeners with more touches than any
conversion needs.

A touch is added once, removed at most once, and added again when another one is removed. Each of these is a
few steps in a tree. A conversion therefore goes over the touches within the caps alone, however many there
are beyond the caps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flows.state.arrays import I64, U8, Int
from flows.state.kernel import kernel


class Newest(NamedTuple):
    """The present touches, by their places in the order of time.

    Attributes:
        older, newer: by touch, the next older and newer touch of the same kind and campaign; -1 without one.
        last, first, counts: by kind and campaign, the newest touch, the oldest of the newest touches (-1
            without one), and their number.
        marks: by kind, a tree over all places, its root at 1, its leaves in the second half. A leaf
            is marked if its touch is among the newest, and each node above it is marked, too.
    """

    older: I64
    newer: I64
    last: I64
    first: I64
    counts: I64
    marks: U8


def newest(touches: int, campaigns: int) -> Newest:
    """An empty set with room for these numbers of touches and campaigns."""
    leaves = 1 << touches.bit_length()  # also a place after the last touch
    return Newest(
        np.full(touches, -1),
        np.full(touches, -1),
        np.full((2, campaigns), -1),
        np.full((2, campaigns), -1),
        np.zeros((2, campaigns), np.int64),
        np.zeros((2, 2 * leaves), np.uint8),
    )


@kernel
def _mark(marks: U8, place: Int) -> None:
    node = len(marks) // 2 + place
    while node > 0 and not marks[node]:
        marks[node] = 1
        node //= 2


@kernel
def _unmark(marks: U8, place: Int) -> None:
    node = len(marks) // 2 + place
    marks[node] = 0
    while node > 1 and not marks[node ^ 1]:
        node //= 2
        marks[node] = 0


@kernel
def before(newest_set: Newest, kind: Int, place: Int) -> Int:
    """The last place before `place` whose touch is among the newest; -1 without one."""
    marks = newest_set.marks[kind]
    leaves = len(marks) // 2
    node = leaves + place
    while node > 1 and not (node % 2 == 1 and marks[node - 1]):
        node //= 2
    if node <= 1:
        return -1
    node -= 1
    while node < leaves:
        node = 2 * node + 1 if marks[2 * node + 1] else 2 * node
    return node - leaves


@kernel
def come(newest_set: Newest, place: Int, kind: Int, campaign: Int, cap: Int) -> None:
    """Add a touch that is newer than all others of its kind and campaign; beyond the cap the oldest is
    removed.
    """
    older = newest_set.last[kind, campaign]
    newest_set.older[place], newest_set.newer[place] = older, -1
    newest_set.last[kind, campaign] = place
    if older >= 0:
        newest_set.newer[older] = place
    if newest_set.counts[kind, campaign] == cap:
        first = newest_set.first[kind, campaign]
        _unmark(newest_set.marks[kind], first)
        newest_set.first[kind, campaign] = newest_set.newer[first]
    else:
        if newest_set.counts[kind, campaign] == 0:
            newest_set.first[kind, campaign] = place
        newest_set.counts[kind, campaign] += 1
    _mark(newest_set.marks[kind], place)


@kernel
def go(newest_set: Newest, place: Int, kind: Int, campaign: Int) -> None:
    """Remove a touch. If it was among the newest, the next older one of its kind and campaign takes its
    place.
    """
    older, newer = newest_set.older[place], newest_set.newer[place]
    first = newest_set.first[kind, campaign]
    if place >= first:
        _unmark(newest_set.marks[kind], place)
        instead = newest_set.older[first]
        if instead >= 0:
            _mark(newest_set.marks[kind], instead)
            newest_set.first[kind, campaign] = instead
        else:
            newest_set.counts[kind, campaign] -= 1
            if place == first:
                newest_set.first[kind, campaign] = newer
    if older >= 0:
        newest_set.newer[older] = newer
    if newer >= 0:
        newest_set.older[newer] = older
    else:
        newest_set.last[kind, campaign] = older


@kernel
def clear(newest_set: Newest, kind: Int, campaign: Int) -> None:
    """Drop the touches of a kind and campaign: all following touches belong to another listener."""
    newest_set.last[kind, campaign] = newest_set.first[kind, campaign] = -1
    newest_set.counts[kind, campaign] = 0
