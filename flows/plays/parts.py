"""Parts of a day: orphans, and events of a play that others may count and audiopixel does not."""

from __future__ import annotations

import numpy as np

from flows.model.day_parts import ORPHANS as ORPHANS_PART
from flows.model.day_parts import PART_SHIFT
from flows.model.events import IMPRESSION
from flows.plays.increments import Increments, add
from flows.plays.slots import (
    CHANGED,
    COMBO_SHIFT,
    FLAGS,
    LOW,
    MINUTES,
    ODD,
    SLOT_KEY,
    SLOTS_USED,
    STARTED,
    TIME,
    TIMES,
    change,
    seen_flag,
)
from flows.state.arrays import I64, U32, U64, Int
from flows.state.hash_table import find
from flows.state.kernel import lean


@lean
def part(increments: Increments, combo: Int, minute: Int, day_part: Int, by: Int, oldest: Int) -> None:
    """Add to a part of a day, unless its minute is before `oldest`."""
    if minute >= oldest:
        used = increments.parts_used
        add(increments.parts, increments.part_counts, used, combo, minute | day_part << PART_SHIFT, 0, by)


@lean
def note_play(
    table: U64,
    changes: U32,
    used: I64,
    increments: Increments,
    play: Int,
    ts: Int,
    watermark_ms: Int,
    horizon_ms: Int,
) -> None:
    """Record that a play (by the key of its valid pixels) has had an impression that does not count: the play
    is no orphan, whenever it starts.
    """
    slot = find(table, play)
    is_taken = table[slot, SLOT_KEY] != np.uint64(0)
    if not is_taken:
        used[SLOTS_USED] += 1
        table[slot, SLOT_KEY] = play
    if not is_taken or np.int64(table[slot, TIMES] & TIME) + horizon_ms < watermark_ms:
        table[slot, FLAGS] &= CHANGED
        table[slot, MINUTES], table[slot, TIMES] = np.uint64(0), np.uint64(ts)
    if table[slot, FLAGS] & seen_flag(IMPRESSION) != np.uint64(0):
        return
    if table[slot, FLAGS] & STARTED != np.uint64(0):
        no_orphan(table, changes, increments, slot)
    else:
        change(table, changes, slot)
        table[slot, FLAGS] |= ODD


@lean
def no_orphan(table: U64, changes: U32, increments: Increments, slot: Int) -> None:
    """Clear the orphan mark of a play whose impression has come."""
    flags = table[slot, FLAGS]
    if flags & STARTED != np.uint64(0) and flags & ODD != np.uint64(0):
        change(table, changes, slot)
        table[slot, FLAGS] &= ~ODD
        part(increments, flags >> COMBO_SHIFT, np.int64(table[slot, MINUTES] & LOW), ORPHANS_PART, -1, 0)
