"""The play: a pixel counts once, and in the right minute.

One shard's memory of plays, and the kernel that holds each pixel against it. A pixel is repeated, too late,
or accepted; an accepted one adds to cells, a cell being one combination of names (placement, campaign,
platform, station, podcast, program) in one minute.

- Once: (placement, play, event), for play-less pixels (placement, event id). Invalid traffic has a key space
  of its own, so that a bot never makes a listener's pixel a repeat.
- Start cohort: a milestone, skip or mute counts in the minute of its play's start. One that comes before the
  start is held, as a slot of its own, until the start comes (it joins), or until its own minute is final (an
  orphan, for good).
- Repaired: a milestone implied by a later one is added, and taken back when its own pixel comes.
- Lateness is judged by the watermark of the pixel's own partition, as it was with this very pixel.

A play is remembered as a whole until the horizon behind its last accepted pixel.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.counts import MINUTE_COUNTS
from flows.kernel import I32, I64, U32, U64, Int, kernel, mixed
from flows.table import find

SEEN = np.uint64(0xFFFF)
STARTED: Final = np.uint64(1 << 16)
COHORT: Final = 15
"""The cohort bit of milestone `code` is `1 << (code + COHORT)`."""
REACHED: Final = np.uint64(1 << 21)
KIND_SHIFT: Final = np.uint64(22)
KIND = np.uint64(3 << 22)
PLAY, KEPT_HELD, DEAD, CONVERSION_KIND = range(4)
COMBO_SHIFT: Final = np.uint64(32)
MINUTE_BITS: Final = np.uint64(32)
TIME_BITS: Final = np.uint64(42)
TIME = np.uint64((1 << 42) - 1)
LOW = np.uint64(0xFFFFFFFF)
INVALID_SPACE: Final = 0x5BD1E995
HEARD_IMPRESSION: Final = np.uint64(1 << 24)
HEARD_START: Final = np.uint64(1 << 25)
"""A touch was given for the play's impression, for its start: a play is one listen, at its impression if
there is one.
"""

CELLS_USED, TOUCHES, SLOTS_USED = range(3)
ACCEPTED, REPEATED_OUT, LATE_OUT, INVALID_OUT = range(4)


@kernel
def final(minute: Int, watermark_ms: Int, lateness_ms: Int) -> Int:
    """Whether a minute can no longer change."""
    return (np.int64(minute) + 1) * 60_000 + lateness_ms <= watermark_ms


@kernel
def add(cells: U64, counts: I64, used: I64, combo: Int, minute: Int, column: Int, by: Int) -> None:
    """Add to one cell of the open-addressing map `cells` (key + 1, so that 0 is empty) with its rows
    `counts`.
    """
    key = (np.uint64(combo) << np.uint64(32)) | np.uint64(minute)
    key += np.uint64(1)
    mask = np.uint64(len(cells) - 1)
    slot = mixed(key, np.uint64(7)) & mask
    while cells[slot] != key:
        if cells[slot] == np.uint64(0):
            cells[slot] = key
            used[0] += 1
            break
        slot = (slot + np.uint64(1)) & mask
    counts[slot, column] += by


@kernel
def hold(
    table: U64, used: I64, key: Int, code: Int, combo: Int, minute: Int, ts: Int, cells: U64, counts: I64
) -> None:
    """Keep a milestone, skip or mute for its start. One of an earlier, forgotten play in its place is an
    orphan by now.
    """
    held = mixed(key, np.uint64(code + 1))
    slot = find(table, held)
    if table[slot, 0] == np.uint64(0):
        used[2] += 1
        table[slot, 0] = held
    elif (table[slot, 1] & KIND) >> KIND_SHIFT == np.uint64(1) and code < 6:
        add(cells, counts, used, table[slot, 1] >> COMBO_SHIFT, table[slot, 2] & LOW, 10, 1)
    table[slot, 1] = np.uint64(code) | (np.uint64(1) << KIND_SHIFT) | (np.uint64(combo) << COMBO_SHIFT)
    table[slot, 2] = np.uint64(minute)
    table[slot, 3] = np.uint64(ts)


@kernel
def join(
    table: U64,
    used: I64,
    slot: Int,
    combo: Int,
    minute: Int,
    watermark_ms: Int,
    lateness_ms: Int,
    cells: U64,
    counts: I64,
) -> None:
    """A start has come: its held milestones join the cohort, and what they imply is repaired."""
    key = table[slot, 0]
    flags = table[slot, 1]
    joined = np.uint64(0)
    top = 1
    for code in range(2, 8):
        if not (flags >> np.uint64(code)) & np.uint64(1):
            continue
        other = find(table, mixed(key, np.uint64(code + 1)))
        if table[other, 0] == np.uint64(0) or (table[other, 1] & KIND) >> KIND_SHIFT != np.uint64(1):
            continue  # an orphan already
        held_combo = table[other, 1] >> COMBO_SHIFT
        held_minute = table[other, 2] & LOW
        table[other, 1] = (table[other, 1] & ~KIND) | (np.uint64(2) << KIND_SHIFT)
        if final(held_minute, watermark_ms, lateness_ms):
            if code < 6:
                add(cells, counts, used, held_combo, held_minute, 10, 1)
        elif code < 6:
            joined |= np.uint64(1) << np.uint64(code)
            top = code
        else:
            add(cells, counts, used, held_combo, held_minute, code + 12, -1)
            add(cells, counts, used, combo, minute, code, 1)
    for code in range(2, top + 1):
        table[slot, 1] |= np.uint64(1) << np.uint64(code + 15)
        add(cells, counts, used, combo, minute, code, 1)
        if not (joined >> np.uint64(code)) & np.uint64(1):
            add(cells, counts, used, combo, minute, 11, 1)


@kernel
def reach(
    table: U64, used: I64, slot: Int, code: Int, combo: Int, minute: Int, cells: U64, counts: I64
) -> None:
    """Count a play that has a listener once, in the earlier minute of its impression and start, whichever
    came first; of equals the impression's.
    """
    flags = table[slot, 1]
    before = table[slot, 2] >> MINUTE_BITS
    if flags & REACHED:
        if np.uint64(minute) > before or (np.uint64(minute) == before and code != 0):
            return
        add(cells, counts, used, table[slot, 3] >> TIME_BITS, before, 17, -1)
    table[slot, 1] = flags | REACHED
    table[slot, 2] = (table[slot, 2] & LOW) | (np.uint64(minute) << MINUTE_BITS)
    table[slot, 3] = (table[slot, 3] & TIME) | (np.uint64(combo) << TIME_BITS)
    add(cells, counts, used, combo, minute, 17, 1)


@kernel
def apply(
    pixels: U64,
    first: Int,
    combo_of: I32,
    table: U64,
    cells: U64,
    counts: I64,
    totals: I64,
    latest: I64,
    touch_where: U32,
    touch_who: U64,
    touch_ts: I64,
    used: I64,
    outcomes: I64,
    late: I64,
    flow_watermark_ms: Int,
    lateness_ms: Int,
    horizon_ms: Int,
) -> Int:
    """Hold pixels against the table, from `first` on; returns how far it got: to the end, or to where
    something is full.

    Args:
        pixels: (n, COLUMNS) uint64, judged by `flows.clock`.
        combo_of: this shard's number of each combination of names in the batch.
        table: (slots, 4) uint64.
        cells, counts: map from (combo, minute) to its `BY_MINUTE` increments; a power of two in size.
        totals: (combos, FLIGHT_COUNTS) `BY_FLIGHT` increments.
        latest: (combos,) greatest event time accepted.
        touch_where, touch_who, touch_ts: (room, 3) combo, kind and half a hash of the play; (room,) listener;
            (room,) time: consented impressions, starts and clicks, by their kind in `flows.touches`.
        used: cells, touches and slots in use; changed in place.
        outcomes: accepted, repeated, too late, invalid traffic; added to.
        late: (n,) rows of the pixels that are too late, as many as `outcomes` says.
        flow_watermark_ms: what is final everywhere, for a partition that wakes up behind the others.
    """
    n = len(pixels)
    for i in range(first, n):
        if (
            used[0] + 12 > len(cells) * 3 // 4
            or used[1] + 1 > len(touch_who)
            or (used[2] + 3) * 100 > len(table) * 78
        ):
            return i
        key = pixels[i, 0]
        listener = pixels[i, 1]
        ts = np.int64(pixels[i, 2])
        own_watermark = np.int64(pixels[i, 3])
        watermark = max(own_watermark, flow_watermark_ms)
        info = pixels[i, 5]
        combo = combo_of[pixels[i, 6]]
        code = np.int64(info & np.uint64(0xFF))
        linked = (info >> np.uint64(8)) & np.uint64(1) != np.uint64(0)
        invalid = info >> np.uint64(16) != np.uint64(0)
        if invalid:
            key = mixed(key, np.uint64(0x5BD1E995))
        minute = ts // 60_000
        bit = np.uint64(1) << np.uint64(code)
        slot = find(table, key)
        there = table[slot, 0] != np.uint64(0)
        known = there and np.int64(table[slot, 3] & TIME) + horizon_ms >= own_watermark
        flags = table[slot, 1] if known else np.uint64(0)
        if known and (not linked or flags & bit):
            totals[combo, 2] += 1
            outcomes[1] += 1
            continue
        in_cohort = linked and 2 <= code <= 7
        started = flags & STARTED != np.uint64(0)
        home = minute
        if in_cohort and started:
            home = np.int64(table[slot, 2] & LOW)
        if final(home, watermark, lateness_ms):
            totals[combo, 3] += 1
            late[outcomes[2]] = i
            outcomes[2] += 1
            continue
        if not there:
            used[2] += 1
            table[slot, 0] = key
        if not known:
            table[slot, 2] = np.uint64(0)
            table[slot, 3] = np.uint64(ts)
        elif np.int64(table[slot, 3] & TIME) < ts:
            table[slot, 3] = (table[slot, 3] & ~TIME) | np.uint64(ts)
        flags |= bit
        table[slot, 1] = flags
        latest[combo] = max(latest[combo], ts)
        outcomes[0] += 1
        if invalid:
            if linked and code == 1:
                table[slot, 1] = flags | STARTED
                table[slot, 2] = np.uint64(minute)
            totals[combo, 4] += 1
            outcomes[3] += 1
            continue
        totals[combo, 0] += 1
        totals[combo, 1] += np.int64((info >> np.uint64(9)) & np.uint64(1))
        if code == 0:
            totals[combo, 5] += np.int64((info >> np.uint64(10)) & np.uint64(1))
        if listener != np.uint64(0) and (code <= 1 or code == 8):
            kind = 0
            if code == 8:
                kind = 4
            elif code == 0:
                kind = 3 if linked and flags & HEARD_START != np.uint64(0) else 1
                flags |= HEARD_IMPRESSION
            elif linked and flags & HEARD_IMPRESSION == np.uint64(0):
                kind = 2
                flags |= HEARD_START
            table[slot, 1] = flags
            touch_where[used[1], 0] = combo
            touch_where[used[1], 1] = kind
            touch_where[used[1], 2] = np.uint32(key & LOW)
            touch_who[used[1]] = listener
            touch_ts[used[1]] = ts
            used[1] += 1
            if linked and code <= 1:
                reach(table, used, slot, code, combo, minute, cells, counts)
            elif code == 0:
                add(cells, counts, used, combo, minute, 17, 1)
        if not linked:
            if 1 <= code <= 5:
                add(cells, counts, used, combo, minute, code + 11, 1)
            elif code == 0 or code == 8 or code == 9:
                add(cells, counts, used, combo, minute, code, 1)
        elif code == 1:
            table[slot, 1] = (table[slot, 1] & LOW) | STARTED | (np.uint64(combo) << COMBO_SHIFT)
            table[slot, 2] = (table[slot, 2] & ~LOW) | np.uint64(minute)
            add(cells, counts, used, combo, minute, 1, 1)
            join(table, used, slot, combo, minute, watermark, lateness_ms, cells, counts)
        elif in_cohort:
            if not started:
                hold(table, used, key, code, combo, minute, ts, cells, counts)
                if code >= 6:
                    add(cells, counts, used, combo, minute, code + 12, 1)
            else:
                start_combo = flags >> COMBO_SHIFT
                if code >= 6:
                    add(cells, counts, used, start_combo, home, code, 1)
                elif flags & (np.uint64(1) << np.uint64(code + 15)):
                    add(cells, counts, used, start_combo, home, 11, -1)
                else:
                    add(cells, counts, used, start_combo, home, code, 1)
                    flags |= np.uint64(1) << np.uint64(code + 15)
                    for lower in range(2, code):
                        mark = np.uint64(1) << np.uint64(lower + 15)
                        if not flags & mark:
                            flags |= mark
                            add(cells, counts, used, start_combo, home, lower, 1)
                            add(cells, counts, used, start_combo, home, 11, 1)
                    table[slot, 1] = flags
        elif code == 0 or code == 8 or code == 9:
            add(cells, counts, used, combo, minute, code, 1)
    return n


@kernel
def sweep(
    table: U64,
    cells: U64,
    counts: I64,
    used: I64,
    first: Int,
    watermark_ms: Int,
    lateness_ms: Int,
    horizon_ms: Int,
    conversion_horizon_ms: Int,
) -> Int:
    """Make orphans of what is held in final minutes, and empty the slots of what is forgotten; the table must
    then be rebuilt.

    Returns how far it got, as `apply` does; `used[SLOTS_USED]` then counts the slots that are left.
    """
    for slot in range(first, len(table)):
        if used[0] + 2 > len(cells) * 3 // 4:
            return slot
        if table[slot, 0] == np.uint64(0):
            continue
        flags = table[slot, 1]
        kind = (flags & KIND) >> KIND_SHIFT
        gone = kind == np.uint64(2)
        if kind == np.uint64(1) and final(table[slot, 2] & LOW, watermark_ms, lateness_ms):
            if flags & np.uint64(0xFF) < np.uint64(6):
                add(cells, counts, used, flags >> COMBO_SHIFT, table[slot, 2] & LOW, 10, 1)
            gone = True
        elif kind == np.uint64(0):
            gone = np.int64(table[slot, 3] & TIME) + horizon_ms < watermark_ms
        elif kind == np.uint64(3):
            gone = np.int64(table[slot, 3] & TIME) + conversion_horizon_ms < watermark_ms
        if gone:
            table[slot, 0] = np.uint64(0)
            used[2] -= 1
    return len(table)


def new_cells(capacity: int = 256) -> tuple[U64, I64]:
    """An empty map from (combo, minute) to its counts; `capacity` is a power of two."""
    return np.zeros(capacity, np.uint64), np.zeros((capacity, MINUTE_COUNTS), np.int64)


@kernel
def regrow(old: U64, old_counts: I64, cells: U64, counts: I64) -> None:
    """Move every cell of one map to another, larger one."""
    mask = np.uint64(len(cells) - 1)
    for i in range(len(old)):
        if old[i] == np.uint64(0):
            continue
        slot = mixed(old[i], np.uint64(7)) & mask
        while cells[slot] != np.uint64(0):
            slot = (slot + np.uint64(1)) & mask
        cells[slot] = old[i]
        for column in range(counts.shape[1]):
            counts[slot, column] = old_counts[i, column]
