"""The basis of a play's impression: the strongest basis that its pixels claim until its minute is final.

An impression counts at a place: its dimensions and minute. When the start comes, the slot replaces these by
the dimensions and minute of the start. A few bits of the slot then record how many minutes before the start
the impression was. If the bits cannot, a separate slot stores the place until its minute is final.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.model.basis import CONFIRMED_PLAYS, RANKS, SEEN
from flows.plays.slots import (
    CHANGED,
    COMBO_SHIFT,
    FLAGS,
    HELD_BACK,
    KIND_SHIFT,
    LOW,
    MINUTES,
    SIDES_USED,
    SLOT_KEY,
    SLOTS_USED,
    TIMES,
    change,
    final,
    kind_of,
)
from flows.state.arrays import I64, U8, U32, U64, Int
from flows.state.hash_table import find
from flows.state.kernel import lean, mixed

BASIS_SHIFT: Final = np.uint64(25)
BASIS: Final = np.uint64(7 << 25)
PLACE_SHIFT: Final = np.uint64(28)
PLACE: Final = np.uint64(3 << 28)
"""Flags of a slot: the basis of its impression, and the place where the impression counts. Place 0: in a
separate slot. Place n: in the slot's dimensions, n - 1 minutes before the slot's minute.
"""
FURTHEST: Final = 2
"""The greatest number of minutes before the start that the flags can record."""
CONFIRMED: Final = np.uint64(1 << 30)
"""Flag of a slot: the device itself has sent its start."""
ASIDE: Final = 31
"""The code of a separate slot for the place of an impression, greater than the codes of held events."""
_ASIDE_KEY: Final = np.uint64(97)


@lean
def stronger(code: Int, than: Int) -> Int:
    """True if a basis is stronger than another."""
    return RANKS[code] < RANKS[than]


@lean
def note(sides: I64, used: I64, combo: Int, minute: Int, column: Int, by: Int) -> None:
    """Append to the list of rare counts, which must have room for one more."""
    place = used[SIDES_USED]
    sides[place, 0], sides[place, 1], sides[place, 2], sides[place, 3] = combo, minute, column, by
    used[SIDES_USED] += 1


@lean
def claim(bases: U8, sides: I64, used: I64, combo: Int, basis: Int) -> None:
    """Append, once a minute, that these dimensions have a valid impression of a basis."""
    bit = np.uint8(1 << basis)
    if bases[combo] & bit == np.uint8(0):
        bases[combo] |= bit
        note(sides, used, combo, 0, SEEN + basis, 1)


@lean
def _set_aside(table: U64, changes: U32, used: I64, key: Int, combo: Int, minute: Int, ts: Int) -> None:
    aside_key = mixed(key, _ASIDE_KEY)
    slot = find(table, aside_key)
    if table[slot, SLOT_KEY] == np.uint64(0):
        used[SLOTS_USED] += 1
        table[slot, SLOT_KEY] = aside_key
    change(table, changes, slot)
    flags = np.uint64(ASIDE) | (HELD_BACK << KIND_SHIFT) | CHANGED
    table[slot, FLAGS] = flags | (np.uint64(combo) << COMBO_SHIFT)
    table[slot, MINUTES] = np.uint64(minute)
    table[slot, TIMES] = np.uint64(ts)


@lean
def _steps(combo: Int, minute: Int, start_combo: Int, start_minute: Int) -> Int:
    """The flag `PLACE` of an impression, relative to its start."""
    before = np.int64(start_minute) - np.int64(minute)
    if np.uint64(combo) != np.uint64(start_combo) or not 0 <= before <= FURTHEST:
        return np.uint64(0)
    return np.uint64(before + 1)


@lean
def impressed(
    table: U64, changes: U32, used: I64, slot: Int, started: Int, combo: Int, minute: Int, ts: Int, basis: Int
) -> None:
    """Store the basis of an accepted impression, and the place where it counts."""
    flags, minutes = table[slot, FLAGS], table[slot, MINUTES]
    place = np.uint64(1)
    if started:
        place = _steps(combo, minute, flags >> COMBO_SHIFT, minutes & LOW)
        if place == np.uint64(0):
            _set_aside(table, changes, used, table[slot, SLOT_KEY], combo, minute, ts)
    else:
        flags = (flags & LOW) | (np.uint64(combo) << COMBO_SHIFT)
        table[slot, MINUTES] = (minutes & ~LOW) | np.uint64(minute)
    flags &= ~(BASIS | PLACE)
    table[slot, FLAGS] = flags | (np.uint64(basis) << BASIS_SHIFT) | (place << PLACE_SHIFT)


@lean
def begun(table: U64, changes: U32, used: I64, slot: Int, combo: Int, minute: Int, ts: Int) -> None:
    """Store the place of an impression whose start is about to take the slot's dimensions and minute."""
    flags, minutes = table[slot, FLAGS], table[slot, MINUTES] & LOW
    place = _steps(flags >> COMBO_SHIFT, minutes, combo, minute)
    if place == np.uint64(0):
        _set_aside(table, changes, used, table[slot, SLOT_KEY], flags >> COMBO_SHIFT, minutes, ts)
    table[slot, FLAGS] = (flags & ~PLACE) | (place << PLACE_SHIFT)


@lean
def strengthen(
    table: U64,
    changes: U32,
    sides: I64,
    used: I64,
    slot: Int,
    basis: Int,
    watermark_ms: Int,
    lateness_ms: Int,
) -> None:
    """Move an impression to the basis of a repeated pixel, if that basis is stronger and the minute is not
    final.
    """
    flags = table[slot, FLAGS]
    had = np.int64((flags & BASIS) >> BASIS_SHIFT)
    if not stronger(basis, had):
        return
    place = np.int64((flags & PLACE) >> PLACE_SHIFT)
    combo, minute = np.int64(flags >> COMBO_SHIFT), np.int64(table[slot, MINUTES] & LOW) - place + 1
    if place == 0:
        aside_slot = find(table, mixed(table[slot, SLOT_KEY], _ASIDE_KEY))
        if table[aside_slot, SLOT_KEY] == np.uint64(0) or kind_of(table[aside_slot, FLAGS]) != HELD_BACK:
            return  # its minute is final
        combo = np.int64(table[aside_slot, FLAGS] >> COMBO_SHIFT)
        minute = np.int64(table[aside_slot, MINUTES] & LOW)
    if final(minute, watermark_ms, lateness_ms):
        return
    if had:
        note(sides, used, combo, minute, had - 1, -1)
    if basis:
        note(sides, used, combo, minute, basis - 1, 1)
    change(table, changes, slot)
    table[slot, FLAGS] = (table[slot, FLAGS] & ~BASIS) | (np.uint64(basis) << BASIS_SHIFT)


@lean
def confirm(
    table: U64, changes: U32, sides: I64, used: I64, slot: Int, watermark_ms: Int, lateness_ms: Int
) -> None:
    """Count a start as confirmed by its device, once, while its minute is not final."""
    flags, minute = table[slot, FLAGS], np.int64(table[slot, MINUTES] & LOW)
    if flags & CONFIRMED == np.uint64(0) and not final(minute, watermark_ms, lateness_ms):
        note(sides, used, np.int64(flags >> COMBO_SHIFT), minute, CONFIRMED_PLAYS, 1)
        change(table, changes, slot)
        table[slot, FLAGS] |= CONFIRMED
