"""The play: a pixel counts once, and in the right minute.

One shard's memory of plays, and the kernel that holds each pixel against it. A pixel is repeated, too late,
or accepted; an accepted one adds to cells, a cell being one tuple of dimensions (placement, campaign,
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

from flows.model.counts import (
    BLOCKED_IMPRESSIONS,
    CONSENTED,
    CONSENTED_PLAYS,
    HELD,
    INVALID_TRAFFIC,
    MINUTE_COUNTS,
    ORPHANS,
    PIXELS,
    REPAIRED,
    REPEATED,
    TOO_LATE,
    UNLINKED,
)
from flows.model.events import CLICK, COMPLETE, ERROR, FIRST_QUARTILE, IMPRESSION, MUTE, SKIP, START
from flows.model.messages import CLICK_TOUCH, IMPRESSION_TOUCH, REACH_ONLY, START_TOUCH
from flows.model.pixel import BLOCKED as BLOCKED_FLAG
from flows.model.pixel import COMBO, INFO, INVALID_SHIFT, KEY, LINKED, LISTENER, TS, WATERMARK
from flows.model.pixel import CONSENTED as CONSENT_FLAG
from flows.plays.slots import (
    ACCEPTED,
    CELLS_USED,
    CHANGED,
    COMBO_SHIFT,
    CONVERSION_KIND,
    FLAGS,
    HELD_BACK,
    INVALID_OUT,
    INVALID_SPACE,
    JOINED,
    KIND,
    KIND_SHIFT,
    LATE_OUT,
    LOW,
    MINUTE_BITS,
    MINUTES,
    MOST_CELLS,
    REACHED,
    REPEATED_OUT,
    SECRET,
    SLOT_KEY,
    SLOTS_USED,
    STARTED,
    TIME,
    TIME_BITS,
    TIMES,
    TOUCHES,
    counted,
    final,
    kind_of,
    seen,
)
from flows.state.hash_table import MAX_LOAD, find
from flows.state.kernel import I32, I64, U8, U32, U64, Int, kernel, mixed

MINUTE: Final = np.uint64((1 << 27) - 1)
"""Minutes before the year 2100 have 27 bits."""
REST_BITS: Final = np.uint64(59)
LOWEST_BITS: Final = np.uint64(22)
MOST_COMBOS: Final = 1 << 27
"""The number of tuples of dimensions that a slot can tell apart."""


LATEST, FIRST = range(2)
BACKWARDS: Final = 1 << 42
"""The constant from which a time is subtracted, so that the greatest is the first."""


@kernel
def add(cells: U64, counts: I64, used: I64, combo: Int, minute: Int, column: Int, by: Int) -> None:
    """Add to one cell of the open-addressing map `cells` (key + 1, so that 0 is empty) with its rows
    `counts`.
    """
    key = (np.uint64(combo) << np.uint64(32)) | np.uint64(minute)
    key += np.uint64(1)
    mask = np.uint64(len(cells) - 1)
    slot = mixed(key, np.uint64(used[SECRET])) & mask
    while cells[slot] != key:
        if cells[slot] == np.uint64(0):
            cells[slot] = key
            used[CELLS_USED] += 1
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
    if table[slot, SLOT_KEY] == np.uint64(0):
        used[SLOTS_USED] += 1
        table[slot, SLOT_KEY] = held
    elif kind_of(table[slot, FLAGS]) == HELD_BACK and code <= COMPLETE:
        add(cells, counts, used, table[slot, FLAGS] >> COMBO_SHIFT, table[slot, MINUTES] & LOW, ORPHANS, 1)
    table[slot, FLAGS] = (
        np.uint64(code) | (HELD_BACK << KIND_SHIFT) | CHANGED | (np.uint64(combo) << COMBO_SHIFT)
    )
    table[slot, MINUTES] = np.uint64(minute)
    table[slot, TIMES] = np.uint64(ts)


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
    key = table[slot, SLOT_KEY]
    flags = table[slot, FLAGS]
    joined = np.uint64(0)
    latest = START
    for code in range(FIRST_QUARTILE, MUTE + 1):
        if not flags & seen(code):
            continue
        other = find(table, mixed(key, np.uint64(code + 1)))
        if table[other, SLOT_KEY] == np.uint64(0) or kind_of(table[other, FLAGS]) != HELD_BACK:
            continue  # an orphan already
        held_combo = table[other, FLAGS] >> COMBO_SHIFT
        held_minute = table[other, MINUTES] & LOW
        table[other, FLAGS] = (table[other, FLAGS] & ~KIND) | (JOINED << KIND_SHIFT) | CHANGED
        if final(held_minute, watermark_ms, lateness_ms):
            if code <= COMPLETE:
                add(cells, counts, used, held_combo, held_minute, ORPHANS, 1)
        elif code <= COMPLETE:
            joined |= seen(code)
            latest = code
        else:
            add(cells, counts, used, held_combo, held_minute, code + HELD, -1)
            add(cells, counts, used, combo, minute, code, 1)
    for code in range(FIRST_QUARTILE, latest + 1):
        table[slot, FLAGS] |= counted(code)
        add(cells, counts, used, combo, minute, code, 1)
        if not joined & seen(code):
            add(cells, counts, used, combo, minute, REPAIRED, 1)


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


@kernel
def reach(
    table: U64, used: I64, slot: Int, code: Int, combo: Int, minute: Int, cells: U64, counts: I64
) -> None:
    """Count a play that has a listener once, in the earlier minute of its impression and start, whichever
    came first; of equals the impression's.
    """
    flags = table[slot, FLAGS]
    before = reached_minute(table[slot, MINUTES])
    if flags & REACHED:
        if np.uint64(minute) > before or (np.uint64(minute) == before and code != IMPRESSION):
            return
        earlier = reached_combo(table[slot, MINUTES], table[slot, TIMES])
        add(cells, counts, used, earlier, before, CONSENTED_PLAYS, -1)
    table[slot, FLAGS] = flags | REACHED
    minutes = (table[slot, MINUTES] & LOW) | (np.uint64(minute) << MINUTE_BITS)
    table[slot, MINUTES], table[slot, TIMES] = with_combo(minutes, table[slot, TIMES], np.uint64(combo))
    add(cells, counts, used, combo, minute, CONSENTED_PLAYS, 1)


@kernel
def apply(
    pixels: U64,
    first: Int,
    combo_of: I32,
    table: U64,
    cells: U64,
    counts: I64,
    totals: I64,
    times: I64,
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
        pixels: (n, COLUMNS) uint64, judged by `flows.model.ticks`.
        combo_of: this shard's number of each of the batch's dimensions.
        table: (slots, 4) uint64.
        cells, counts: map from (combo, minute) to its `BY_MINUTE` increments; a power of two in size.
        totals: (combos, FLIGHT_COUNTS) `BY_FLIGHT` increments.
        times: (combos, 2) of the accepted, valid pixels the greatest event time, and the greatest of
            `BACKWARDS` less event time; 0 for none.
        touch_where, touch_who, touch_ts: (room, 3) combo, kind and half a hash of the play; (room,) listener;
            (room,) time: consented impressions, starts and clicks, by their kind in
            `flows.attribution.touches`.
        used: cells, touches and slots in use; changed in place.
        outcomes: accepted, repeated, too late, and invalid traffic by reason; added to.
        late: (n,) rows of the pixels that are too late, as many as `outcomes` says.
        flow_watermark_ms: by which what is final is so, for a partition that wakes up behind the others.
    """
    n = len(pixels)
    for i in range(first, n):
        if (
            used[CELLS_USED] + MOST_CELLS > len(cells) * 3 // 4
            or used[TOUCHES] + 1 > len(touch_who)
            or used[SLOTS_USED] + 3 > len(table) * MAX_LOAD
        ):
            return i
        key = pixels[i, KEY] if pixels[i, KEY] != np.uint64(0) else np.uint64(1)  # 0: an empty slot
        listener = pixels[i, LISTENER]
        ts = np.int64(pixels[i, TS])
        own_watermark = np.int64(pixels[i, WATERMARK])
        watermark = max(own_watermark, flow_watermark_ms)
        info = np.int64(pixels[i, INFO])
        combo = combo_of[pixels[i, COMBO]]
        code = info & 0xFF
        linked = info & LINKED != 0
        invalid = info >> INVALID_SHIFT != 0
        if invalid:
            key = mixed(key, INVALID_SPACE)
        minute = ts // 60_000

        slot = find(table, key)
        there = table[slot, SLOT_KEY] != np.uint64(0)
        known = there and np.int64(table[slot, TIMES] & TIME) + horizon_ms >= own_watermark
        flags = table[slot, FLAGS] if known else np.uint64(0)
        if known and (not linked or flags & seen(code)):
            totals[combo, REPEATED] += 1
            outcomes[REPEATED_OUT] += 1
            continue
        in_cohort = linked and FIRST_QUARTILE <= code <= MUTE
        started = flags & STARTED != np.uint64(0)
        home = np.int64(table[slot, MINUTES] & LOW) if in_cohort and started else minute
        if final(home, watermark, lateness_ms):
            totals[combo, TOO_LATE] += 1
            late[outcomes[LATE_OUT]] = i
            outcomes[LATE_OUT] += 1
            continue

        if not there:
            used[SLOTS_USED] += 1
            table[slot, SLOT_KEY] = key
        if not known:
            table[slot, MINUTES] = np.uint64(0)
            table[slot, TIMES] = np.uint64(ts)
        elif np.int64(table[slot, TIMES] & TIME) < ts:
            table[slot, TIMES] = (table[slot, TIMES] & ~TIME) | np.uint64(ts)
        flags |= seen(code) | CHANGED
        table[slot, FLAGS] = flags
        outcomes[ACCEPTED] += 1
        if invalid:
            if linked and code == START:
                table[slot, FLAGS] = flags | STARTED
                table[slot, MINUTES] = np.uint64(minute)
            totals[combo, INVALID_TRAFFIC] += 1
            outcomes[INVALID_OUT + (info >> INVALID_SHIFT) - 1] += 1
            continue
        times[combo, LATEST] = max(times[combo, LATEST], ts)
        times[combo, FIRST] = max(times[combo, FIRST], BACKWARDS - ts)
        totals[combo, PIXELS] += 1
        totals[combo, CONSENTED] += info & CONSENT_FLAG != 0
        if code == IMPRESSION:
            totals[combo, BLOCKED_IMPRESSIONS] += info & BLOCKED_FLAG != 0

        if listener != np.uint64(0) and (code <= START or code == CLICK):
            kind = REACH_ONLY
            if code == CLICK:
                kind = CLICK_TOUCH
            elif code == IMPRESSION:
                kind = IMPRESSION_TOUCH
            elif linked:
                kind = START_TOUCH
            touch_where[used[TOUCHES], 0] = combo
            touch_where[used[TOUCHES], 1] = kind
            touch_where[used[TOUCHES], 2] = np.uint32(key & LOW)
            touch_who[used[TOUCHES]] = listener
            touch_ts[used[TOUCHES]] = ts
            used[TOUCHES] += 1
            if linked and code <= START:
                reach(table, used, slot, code, combo, minute, cells, counts)
            elif code == IMPRESSION:
                add(cells, counts, used, combo, minute, CONSENTED_PLAYS, 1)

        if code in (IMPRESSION, CLICK, ERROR):
            add(cells, counts, used, combo, minute, code, 1)
        elif not linked:
            if START <= code <= COMPLETE:
                add(cells, counts, used, combo, minute, code + UNLINKED, 1)
        elif code == START:
            table[slot, FLAGS] = (table[slot, FLAGS] & LOW) | STARTED | (np.uint64(combo) << COMBO_SHIFT)
            table[slot, MINUTES] = (table[slot, MINUTES] & ~LOW) | np.uint64(minute)
            add(cells, counts, used, combo, minute, START, 1)
            join(table, used, slot, combo, minute, watermark, lateness_ms, cells, counts)
        elif in_cohort and not started:
            hold(table, used, key, code, combo, minute, ts, cells, counts)
            if code >= SKIP:
                add(cells, counts, used, combo, minute, code + HELD, 1)
        elif in_cohort:
            start_combo = flags >> COMBO_SHIFT
            if code >= SKIP:
                add(cells, counts, used, start_combo, home, code, 1)
            elif flags & counted(code):
                add(cells, counts, used, start_combo, home, REPAIRED, -1)
            else:
                add(cells, counts, used, start_combo, home, code, 1)
                flags |= counted(code)
                for lower in range(FIRST_QUARTILE, code):
                    if not flags & counted(lower):
                        flags |= counted(lower)
                        add(cells, counts, used, start_combo, home, lower, 1)
                        add(cells, counts, used, start_combo, home, REPAIRED, 1)
                table[slot, FLAGS] = flags
    return n


@kernel
def convert(
    pixels: U64,
    first: Int,
    combo_of: I32,
    table: U64,
    totals: I64,
    times: I64,
    used: I64,
    outcomes: I64,
    verdicts: U8,
    flow_watermark_ms: Int,
    lateness_ms: Int,
    horizon_ms: Int,
) -> Int:
    """Hold conversions against the table, from `first` on, each by its own key and horizon; returns how far
    it got: to the end, or to where the table is full.

    Args:
        combo_of: number of each conversion's dimensions.
        verdicts: (n,) what each is: `ACCEPTED` (and to be credited), `REPEATED_OUT`, `LATE_OUT` or
            `INVALID_OUT`.
    """
    for i in range(first, len(pixels)):
        if used[SLOTS_USED] + 2 > len(table) * MAX_LOAD:
            return i
        key = pixels[i, KEY] if pixels[i, KEY] != np.uint64(0) else np.uint64(1)
        ts, watermark = np.int64(pixels[i, TS]), np.int64(pixels[i, WATERMARK])
        info = np.int64(pixels[i, INFO])
        invalid, combo = info >> INVALID_SHIFT, combo_of[i]
        if invalid:
            key = mixed(key, INVALID_SPACE)
        slot = find(table, key)
        there = table[slot, SLOT_KEY] != np.uint64(0)
        if there and np.int64(table[slot, TIMES]) + horizon_ms >= watermark:
            verdicts[i] = REPEATED_OUT
            outcomes[REPEATED_OUT] += 1
            totals[combo, REPEATED] += 1
            continue
        if final(ts // 60_000, max(watermark, flow_watermark_ms), lateness_ms):
            verdicts[i] = LATE_OUT
            outcomes[LATE_OUT] += 1
            totals[combo, TOO_LATE] += 1
            continue
        used[SLOTS_USED] += not there
        table[slot, SLOT_KEY] = key
        table[slot, FLAGS] = (CONVERSION_KIND << KIND_SHIFT) | CHANGED
        table[slot, MINUTES] = np.uint64(0)
        table[slot, TIMES] = np.uint64(ts)
        outcomes[ACCEPTED] += 1
        verdicts[i] = ACCEPTED
        if invalid:
            verdicts[i] = INVALID_OUT
            outcomes[INVALID_OUT + invalid - 1] += 1
            totals[combo, INVALID_TRAFFIC] += 1
            continue
        times[combo, LATEST] = max(times[combo, LATEST], ts)
        times[combo, FIRST] = max(times[combo, FIRST], BACKWARDS - ts)
        totals[combo, PIXELS] += 1
        totals[combo, CONSENTED] += info & CONSENT_FLAG != 0
    return len(pixels)


def new_cells(capacity: int = 256) -> tuple[U64, I64]:
    """An empty map from (combo, minute) to its counts; `capacity` is a power of two."""
    return np.zeros(capacity, np.uint64), np.zeros((capacity, MINUTE_COUNTS), np.int64)


@kernel
def regrow(old: U64, old_counts: I64, cells: U64, counts: I64, used: I64) -> None:
    """Move every cell of one map to another, larger one."""
    mask = np.uint64(len(cells) - 1)
    for i in range(len(old)):
        if old[i] == np.uint64(0):
            continue
        slot = mixed(old[i], np.uint64(used[SECRET])) & mask
        while cells[slot] != np.uint64(0):
            slot = (slot + np.uint64(1)) & mask
        cells[slot] = old[i]
        for column in range(counts.shape[1]):
            counts[slot, column] = old_counts[i, column]
