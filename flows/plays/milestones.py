"""Milestones, skips and mutes of a play, which are held until the start comes, and then join it."""

from __future__ import annotations

import numpy as np

from flows.model.counts import HELD_COLUMN, ORPHANS, REPAIRED
from flows.model.events import COMPLETE, FIRST_QUARTILE, LAST_JOINING, START
from flows.plays.increments import add
from flows.plays.slots import (
    CHANGED,
    COMBO_SHIFT,
    FLAGS,
    HELD_BACK,
    JOINED,
    KIND,
    KIND_SHIFT,
    LOW,
    MINUTES,
    SLOT_KEY,
    SLOTS_USED,
    TIMES,
    change,
    counted,
    final,
    kind_of,
    seen_flag,
)
from flows.state.arrays import I64, U32, U64, Int
from flows.state.hash_table import find
from flows.state.kernel import lean, mixed


@lean
def hold(
    table: U64,
    changes: U32,
    used: I64,
    key: Int,
    code: Int,
    combo: Int,
    minute: Int,
    ts: Int,
    cells: U64,
    counts: I64,
) -> None:
    """Hold a milestone, skip or mute for its start. If the slot has an event of an earlier, expired play,
    that event is an orphan.
    """
    held_key = mixed(key, np.uint64(code + 1))
    slot = find(table, held_key)
    if table[slot, SLOT_KEY] == np.uint64(0):
        used[SLOTS_USED] += 1
        table[slot, SLOT_KEY] = held_key
    elif kind_of(table[slot, FLAGS]) == HELD_BACK and code <= COMPLETE:
        add(cells, counts, used, table[slot, FLAGS] >> COMBO_SHIFT, table[slot, MINUTES] & LOW, ORPHANS, 1)
    change(table, changes, slot)
    table[slot, FLAGS] = (
        np.uint64(code) | (HELD_BACK << KIND_SHIFT) | CHANGED | (np.uint64(combo) << COMBO_SHIFT)
    )
    table[slot, MINUTES] = np.uint64(minute)
    table[slot, TIMES] = np.uint64(ts)


@lean
def join(
    table: U64,
    changes: U32,
    used: I64,
    slot: Int,
    combo: Int,
    minute: Int,
    watermark_ms: Int,
    lateness_ms: Int,
    cells: U64,
    counts: I64,
) -> None:
    """Join the held milestones of a started play to its cohort, and repair the milestones that they imply."""
    key = table[slot, SLOT_KEY]
    flags = table[slot, FLAGS]
    joined = np.uint64(0)
    latest = START
    for code in range(FIRST_QUARTILE, LAST_JOINING + 1):
        if not flags & seen_flag(code):
            continue
        held_slot = find(table, mixed(key, np.uint64(code + 1)))
        if table[held_slot, SLOT_KEY] == np.uint64(0) or kind_of(table[held_slot, FLAGS]) != HELD_BACK:
            continue  # an orphan already
        held_combo = table[held_slot, FLAGS] >> COMBO_SHIFT
        held_minute = table[held_slot, MINUTES] & LOW
        change(table, changes, held_slot)
        table[held_slot, FLAGS] = (table[held_slot, FLAGS] & ~KIND) | (JOINED << KIND_SHIFT)
        if final(held_minute, watermark_ms, lateness_ms):
            if code <= COMPLETE:
                add(cells, counts, used, held_combo, held_minute, ORPHANS, 1)
        elif code <= COMPLETE:
            joined |= seen_flag(code)
            latest = code
        else:
            add(cells, counts, used, held_combo, held_minute, code + HELD_COLUMN, -1)
            add(cells, counts, used, combo, minute, code, 1)
    for code in range(FIRST_QUARTILE, latest + 1):
        table[slot, FLAGS] |= counted(code)
        add(cells, counts, used, combo, minute, code, 1)
        if not joined & seen_flag(code):
            add(cells, counts, used, combo, minute, REPAIRED, 1)
