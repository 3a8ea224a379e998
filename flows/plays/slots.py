"""The layout of a play's slot: the meaning of each bit of its words."""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.model.events import IMPRESSION
from flows.state.arrays import U32, U64, Int
from flows.state.changes import note_change
from flows.state.kernel import kernel, lean, mixed

SLOT_KEY, FLAGS, MINUTES, TIMES = WORDS = range(4)
"""The words of a slot, as (high bits | low bits). SLOT_KEY: the key. FLAGS: dimensions of the start | flags.
MINUTES: minute in which the play is reached, below the dimensions of the reach beyond 22 bits | minute of the
start, or of a held event. TIMES: the lowest 22 bits of the dimensions of the reach | time of the last pixel.
"""

STARTED: Final = np.uint64(1 << 17)
COHORT: Final = 16
"""The lowest 17 flags are the events that came, by code. Milestone `code` is counted in its cohort if the
flag `code + COHORT` is set.
"""
REACHED: Final = np.uint64(1 << 22)
ODD: Final = np.uint64(1 << 14)
"""Before the start: the play's impression came, but does not count (too late, rejected or invalid traffic).
After the start: no impression came, and the day's parts count an orphan. The bit is the code of a conversion,
which is no event of a play.
"""
SEEN: Final = np.uint64((1 << 17) - 1) & ~ODD
"""The events that came. A slot without any stores only that an impression came."""
CLAIMED: Final = np.uint64(1)
"""A flag of a conversion: a public tag has sent it, and no server has confirmed it."""
KIND_SHIFT: Final = np.uint64(23)
KIND: Final = np.uint64(3 << 23)
PLAY, HELD_BACK, JOINED, CONVERSION_KIND = (np.uint64(kind) for kind in range(4))
"""Kinds of slots: a play or an event; a held milestone, skip or mute; a joined one; a conversion."""
CHANGED: Final = np.uint64(1 << 31)
"""The slot has changed since the last snapshot, and is in the list of changes (`flows.state.changes`)."""
COMBO_SHIFT: Final = np.uint64(32)
MINUTE_BITS: Final = np.uint64(32)


TIME_BITS: Final = np.uint64(42)
TIME: Final = np.uint64((1 << 42) - 1)
LOW: Final = np.uint64(0xFFFFFFFF)
MINUTE: Final = np.uint64((1 << 27) - 1)
"""Minutes before the year 2100 have 27 bits."""
REST_BITS: Final = np.uint64(59)
LOWEST_BITS: Final = np.uint64(22)
MAX_COMBOS: Final = 1 << 27
"""The greatest number of tuples of dimensions in a table."""
INVALID_SPACE: Final = np.uint64(0x5BD1E995)

CELLS_USED, TOUCHES, SLOTS_USED, SECRET, SIDES_USED, SENT_USED = range(6)
"""Numbers of rows in use, and the secret of the hash of cells."""


ACCEPTED, REPEATED_OUT, LATE_OUT, INVALID_OUT = range(4)
MAX_CELLS: Final = 12
"""The greatest number of cells that one pixel adds to."""
MAX_SIDES: Final = 4
"""The greatest number of entries of rare counts for one pixel."""


@lean
def final(minute: Int, watermark_ms: Int, lateness_ms: Int) -> Int:
    """True if a minute can no longer change."""
    return (np.int64(minute) + 1) * 60_000 + lateness_ms <= watermark_ms


@lean
def seen_flag(code: Int) -> Int:
    """The flag of an event that came."""
    return np.uint64(1) << np.uint64(code)


@lean
def counted(code: Int) -> Int:
    """The flag of a milestone that is counted in its start's cohort, by its own pixel or repaired."""
    return np.uint64(1) << np.uint64(code + COHORT)


@lean
def change(table: U64, changes: U32, slot: Int) -> None:
    """Mark and list a slot before it changes. Code that overwrites the flags must preserve the mark."""
    if table[slot, FLAGS] & CHANGED == np.uint64(0):
        table[slot, FLAGS] |= CHANGED
        note_change(changes, slot)


@lean
def play_half(key: Int, flags: Int, minutes: Int, code: Int, minute: Int) -> Int:
    """Half a hash of a play, the same for its impression and its start: of the key, and of the minute of
    whichever came first. A later play of the key, after the horizon, begins in a later minute. All minutes of
    the earlier play are then final, if all pixels of a key come from one partition.

    Args:
        flags, minutes: words of the slot, which have the other event if it came.
    """
    first = np.uint64(minute)
    if flags & (STARTED if code == IMPRESSION else seen_flag(IMPRESSION)):
        first = minutes & LOW
    return np.uint32(mixed(key, first) & LOW)


@kernel
def kind_of(flags: Int) -> Int:
    """The kind of a slot."""
    return (flags & KIND) >> KIND_SHIFT


@kernel
def reached_minute(minutes: Int) -> Int:
    """The minute in which a play reaches its listener, from a slot's word of minutes."""
    return (minutes >> MINUTE_BITS) & MINUTE


@kernel
def reached_combo(minutes: Int, times: Int) -> Int:
    """The dimensions by which a play reaches its listener, from a slot's words of minutes and times."""
    return (times >> TIME_BITS) | ((minutes >> REST_BITS) << LOWEST_BITS)


@kernel
def with_combo(minutes: Int, times: Int, combo: Int) -> tuple[Int, Int]:
    """The words of minutes and times with other dimensions of the reach."""
    minute_bits = (LOW | (MINUTE << MINUTE_BITS)) & minutes
    return minute_bits | ((combo >> LOWEST_BITS) << REST_BITS), (times & TIME) | (combo << TIME_BITS)
