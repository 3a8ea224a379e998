"""The layout of a play's slot: which bits of its words mean what."""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.model.events import IMPRESSION
from flows.state.changes import note_change
from flows.state.kernel import U32, U64, Int, kernel, lean, mixed

SLOT_KEY, FLAGS, MINUTES, TIMES = range(4)
"""The words of a slot, (high bits | low bits): its key; dimensions of the start | flags; minute in which the
play is reached, below the dimensions of the reach beyond 22 bits | minute of the start, or of what is held;
the lowest 22 bits of the dimensions of the reach | time of the last pixel.
"""

STARTED: Final = np.uint64(1 << 17)
COHORT: Final = 16
"""The lowest 17 flags are the events seen, by their code; milestone `code` is in its cohort when flag
`code + COHORT` is set.
"""
REACHED: Final = np.uint64(1 << 22)
ODD: Final = np.uint64(1 << 14)
"""Before the start: the play's impression came and does not count, being too late, rejected or invalid
traffic. Behind the start: nothing was heard of the impression, and the day's parts count an orphan. It is
the bit of a conversion, which is no play's event.
"""
SEEN: Final = np.uint64((1 << 17) - 1) & ~ODD
"""The events seen: a slot that has none of them remembers that an impression came, and nothing else."""
CLAIMED: Final = np.uint64(1)
"""Of a conversion: a public tag has sent it, and no server has confirmed it."""
KIND_SHIFT: Final = np.uint64(23)
KIND: Final = np.uint64(3 << 23)
PLAY, HELD_BACK, JOINED, CONVERSION_KIND = (np.uint64(kind) for kind in range(4))
"""Kinds of slots: a play or an event; a held milestone, skip or mute; a joined one; a conversion."""
CHANGED: Final = np.uint64(1 << 31)
"""The slot is not as it was at the last snapshot, and is listed (`flows.state.changes`)."""
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
"""The number of tuples of dimensions that a slot can tell apart."""
INVALID_SPACE: Final = np.uint64(0x5BD1E995)

CELLS_USED, TOUCHES, SLOTS_USED, SECRET, SIDES_USED, SENT_USED = range(6)
"""Counts of rows in use, and the secret by which cells find their slots."""


ACCEPTED, REPEATED_OUT, LATE_OUT, INVALID_OUT = range(4)
MAX_CELLS: Final = 12
"""One pixel adds to no more cells than that."""
MAX_SIDES: Final = 4
"""One pixel adds no more to the list of what few have."""


@lean
def final(minute: Int, watermark_ms: Int, lateness_ms: Int) -> Int:
    """True if a minute can no longer change."""
    return (np.int64(minute) + 1) * 60_000 + lateness_ms <= watermark_ms


@lean
def seen(code: Int) -> Int:
    """The flag of an event that has been seen."""
    return np.uint64(1) << np.uint64(code)


@lean
def counted(code: Int) -> Int:
    """The flag of a milestone that is in its start's cohort, by its own pixel or repaired."""
    return np.uint64(1) << np.uint64(code + COHORT)


@lean
def change(table: U64, changes: U32, slot: Int) -> None:
    """Mark and list a slot that is about to change; whoever writes its flags anew keeps the mark."""
    if table[slot, FLAGS] & CHANGED == np.uint64(0):
        table[slot, FLAGS] |= CHANGED
        note_change(changes, slot)


@lean
def play_half(key: Int, flags: Int, minutes: Int, code: Int, minute: Int) -> Int:
    """Half a hash of the play that an impression or start in `minute` is of, which is the same for both: by
    the key, and by the minute of whichever came first. A later play of the key, behind the horizon, begins in
    a later minute: every minute of the earlier one is final by then, where all pixels of a key come by one
    partition.

    Args:
        flags, minutes: words of the slot, which have the other of the two where that was seen.
    """
    first = np.uint64(minute)
    if flags & (STARTED if code == IMPRESSION else seen(IMPRESSION)):
        first = minutes & LOW
    return np.uint32(mixed(key, first) & LOW)


@kernel
def kind_of(flags: Int) -> Int:
    """The kind of a slot."""
    return (flags & KIND) >> KIND_SHIFT


@kernel
def reached_minute(minutes: Int) -> Int:
    """The minute in which a play is reached, of a slot's word of minutes."""
    return (minutes >> MINUTE_BITS) & MINUTE


@kernel
def reached_combo(minutes: Int, times: Int) -> Int:
    """The dimensions by which a play reaches its listener, of a slot's words of minutes and of times."""
    return (times >> TIME_BITS) | ((minutes >> REST_BITS) << LOWEST_BITS)


@kernel
def with_combo(minutes: Int, times: Int, combo: Int) -> tuple[Int, Int]:
    """The words of minutes and of times with other dimensions of the reach."""
    kept = (LOW | (MINUTE << MINUTE_BITS)) & minutes
    return kept | ((combo >> LOWEST_BITS) << REST_BITS), (times & TIME) | (combo << TIME_BITS)
