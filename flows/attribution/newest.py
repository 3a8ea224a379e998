"""The newest touches of each campaign up to a moment that moves on, for who has more touches than any
conversion looks at.

A touch comes once, goes at most once, and steps in where one before it goes: each is a few steps in a tree. A
conversion goes over those alone that caps leave, however many there are beyond these.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from flows.state.kernel import I64, U8, Int, kernel


class Newest(NamedTuple):
    """The touches that are there, by their places in the order of time.

    Attributes:
        older, newer: of each touch the next one of its kind and campaign; -1: there is none.
        last, first, counts: by kind and campaign its newest touch, the oldest one that is among its newest,
            and how many are among these; -1: there is none.
        marks: by kind, a tree over all places, its root at 1, its leaves in the second half. A leaf is marked
            where its touch is among the newest, and a node above it with it.
    """

    older: I64
    newer: I64
    last: I64
    first: I64
    counts: I64
    marks: U8


def newest(touches: int, campaigns: int) -> Newest:
    """Begin without any, for so many."""
    leaves = 1 << touches.bit_length()  # a place behind the last one, too
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
def before(held: Newest, kind: Int, place: Int) -> Int:
    """The last place before a place whose touch is among the newest; -1: there is none."""
    marks = held.marks[kind]
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
def come(held: Newest, place: Int, kind: Int, campaign: Int, cap: Int) -> None:
    """Take in a touch that is newer than all of its kind and campaign; beyond the cap the oldest goes."""
    older = held.last[kind, campaign]
    held.older[place], held.newer[place] = older, -1
    held.last[kind, campaign] = place
    if older >= 0:
        held.newer[older] = place
    if held.counts[kind, campaign] == cap:
        first = held.first[kind, campaign]
        _unmark(held.marks[kind], first)
        held.first[kind, campaign] = held.newer[first]
    else:
        if held.counts[kind, campaign] == 0:
            held.first[kind, campaign] = place
        held.counts[kind, campaign] += 1
    _mark(held.marks[kind], place)


@kernel
def go(held: Newest, place: Int, kind: Int, campaign: Int) -> None:
    """Take a touch out; where it was among the newest, the next older one of its kind and campaign is now."""
    older, newer = held.older[place], held.newer[place]
    first = held.first[kind, campaign]
    if place >= first:
        _unmark(held.marks[kind], place)
        instead = held.older[first]
        if instead >= 0:
            _mark(held.marks[kind], instead)
            held.first[kind, campaign] = instead
        else:
            held.counts[kind, campaign] -= 1
            if place == first:
                held.first[kind, campaign] = newer
    if older >= 0:
        held.newer[older] = newer
    if newer >= 0:
        held.older[newer] = older
    else:
        held.last[kind, campaign] = older


@kernel
def clear(held: Newest, kind: Int, campaign: Int) -> None:
    """Forget the touches of a kind and campaign, which are another's than all that follow."""
    held.last[kind, campaign] = held.first[kind, campaign] = -1
    held.counts[kind, campaign] = 0
