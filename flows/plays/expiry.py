"""Expiry of plays: compiled loops that drop slots past their horizon."""

from __future__ import annotations

import numpy as np

from flows.model.counts import ORPHANS
from flows.model.events import COMPLETE
from flows.plays.increments import add
from flows.plays.slots import (
    CELLS_USED,
    CHANGED,
    COMBO_SHIFT,
    FLAGS,
    HELD_BACK,
    JOINED,
    LOW,
    MINUTES,
    PLAY,
    SLOT_KEY,
    SLOTS_USED,
    TIME,
    TIMES,
    kind_of,
)
from flows.state.arrays import I64, U64, Int
from flows.state.kernel import kernel, lean


@lean
def may_be_freed(
    table: U64, slot: Int, watermark_ms: Int, first_open: Int, horizon_ms: Int, conversion_horizon_ms: Int
) -> Int:
    """True if a slot may be freed at a watermark; minutes before `first_open` are final.

    A joined slot may be freed only after a snapshot has stored it as `JOINED`. If it were freed earlier, a
    restart would restore it as `HELD_BACK` and count it again.
    """
    flags, last_ms = table[slot, FLAGS], np.int64(table[slot, TIMES] & TIME)
    kind = kind_of(flags)
    if kind == JOINED:
        return flags & CHANGED == np.uint64(0)
    if kind == HELD_BACK:
        return np.int64(table[slot, MINUTES] & LOW) < first_open
    return last_ms + (horizon_ms if kind == PLAY else conversion_horizon_ms) < watermark_ms


@lean
def sweep(
    table: U64,
    cells: U64,
    counts: I64,
    used: I64,
    first: Int,
    watermark_ms: Int,
    first_open: Int,
    horizon_ms: Int,
    conversion_horizon_ms: Int,
) -> Int:
    """Make orphans of held events whose minutes are final, and empty the slots of expired plays; the caller
    then rebuilds the table.

    Returns the number of the next slot, as `apply` does. `used[SLOTS_USED]` is then the number of remaining
    slots.
    """
    for slot in range(first, len(table)):
        if used[CELLS_USED] + 2 > len(cells) * 3 // 4:
            return slot
        if table[slot, SLOT_KEY] == np.uint64(0):
            continue
        if may_be_freed(table, slot, watermark_ms, first_open, horizon_ms, conversion_horizon_ms):
            flags = table[slot, FLAGS]
            if kind_of(flags) == HELD_BACK and flags & np.uint64(0xFF) <= np.uint64(COMPLETE):
                add(cells, counts, used, flags >> COMBO_SHIFT, table[slot, MINUTES] & LOW, ORPHANS, 1)
            table[slot, SLOT_KEY] = np.uint64(0)
            used[SLOTS_USED] -= 1
    return len(table)


@kernel
def expire(
    table: U64, watermark_ms: Int, first_open: Int, horizon_ms: Int, conversion_horizon_ms: Int
) -> Int:
    """Empty the slots that a sweep at a watermark would empty; returns the number of remaining slots."""
    left = 0
    for slot in range(len(table)):
        if table[slot, SLOT_KEY] != np.uint64(0):
            if may_be_freed(table, slot, watermark_ms, first_open, horizon_ms, conversion_horizon_ms):
                table[slot, SLOT_KEY] = np.uint64(0)
            else:
                left += 1
    return left
