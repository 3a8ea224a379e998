"""The rules of a play: a pixel counts once, and in the right minute.

The kernel compares each pixel with the stored plays of one shard. A pixel is repeated, too late, or accepted.
An accepted pixel adds to cells; a cell is one tuple of dimensions (a name in each scope) in one minute.

- Once: (placement, play, event), for play-less pixels (placement, event id). Invalid traffic has separate
  keys, so a bot never makes a listener's pixel a repeat. An impression that is invalid traffic was still an
  impression: its play's start is no orphan.
- Start cohort: a milestone, skip or mute counts in the minute of its play's start. If it comes before the
  start, it is held in a separate slot, until the start comes (it joins), or until its own minute is final (it
  stays an orphan).
- Repaired: a milestone implied by a later one is added as repaired, and subtracted again when its own pixel
  comes.
- Basis: an impression counts by the strongest basis of all its pixels, including repeated ones, until its
  minute is final (`flows.plays.bases`).
- Lateness is judged by the watermark of the pixel's partition at this pixel, or by the flow's watermark if
  that is later.

A play is stored whole until the horizon after its last accepted pixel.
"""

from __future__ import annotations

import numpy as np

from flows.model.basis import CONFIRMED_PLAYS, DELIVERIES
from flows.model.client_counts import DELIVERIES as DELIVERIES_KIND
from flows.model.client_counts import DOWNLOADS
from flows.model.counts import (
    BLOCKED_IMPRESSIONS,
    CONSENTED,
    CONSENTED_PLAYS,
    HELD_COLUMN,
    INVALID_TRAFFIC,
    PIXELS,
    REPAIRED,
    REPEATED,
    TOO_LATE,
    UNLINKED,
)
from flows.model.day_parts import CLOCK_MOVED as MOVED_PART
from flows.model.day_parts import (
    FAR_MINUTES,
    OLD_MINUTES,
    SENT,
    SENT_COUNTED,
    SENT_INVALID,
    SENT_PARTS,
    SENT_REPEATED,
    SENT_TOO_LATE,
)
from flows.model.day_parts import INVALID as INVALID_PART
from flows.model.day_parts import ORPHANS as ORPHANS_PART
from flows.model.day_parts import REJECTED as REJECTED_PART
from flows.model.day_parts import REPEATED as REPEATED_PART
from flows.model.day_parts import TOO_LATE as TOO_LATE_PART
from flows.model.events import (
    CLICK,
    COMPLETE,
    DELIVERED,
    ERROR,
    FIRST_QUARTILE,
    IMPRESSION,
    LAST_JOINING,
    START,
)
from flows.model.messages import CLICK_TOUCH, IMPRESSION_TOUCH, REACH_ONLY, START_TOUCH
from flows.model.pixel import (
    BASIS,
    BASIS_SHIFT,
    CALLER_MINUTE,
    CALLER_MINUTE_SHIFT,
    COMBO,
    DELAY_SHIFT,
    HOUSEHOLD,
    INFO,
    INVALID_SHIFT,
    KEY,
    LINKED,
    LISTENER,
    REASON_BITS,
    REFUSED,
    TS,
    WATERMARK,
)
from flows.model.pixel import BLOCKED as BLOCKED_FLAG
from flows.model.pixel import CONFIRMED as CONFIRMED_FLAG
from flows.model.pixel import CONSENTED as CONSENT_FLAG
from flows.plays.bases import CONFIRMED, begun, claim, confirm, impressed, note, strengthen
from flows.plays.increments import (
    BACKWARDS,
    COMBO_OF,
    FIRST,
    KIND_OF,
    LATEST,
    NEWEST,
    PLAY_HALF,
    Increments,
    add,
)
from flows.plays.milestones import hold, join
from flows.plays.parts import no_orphan, note_play, part
from flows.plays.sent import keep_sent
from flows.plays.slots import (
    ACCEPTED,
    CELLS_USED,
    CHANGED,
    COMBO_SHIFT,
    FLAGS,
    INVALID_OUT,
    INVALID_SPACE,
    LATE_OUT,
    LOW,
    MAX_CELLS,
    MAX_SIDES,
    MINUTE_BITS,
    MINUTES,
    ODD,
    REACHED,
    REPEATED_OUT,
    SEEN,
    SENT_USED,
    SIDES_USED,
    SLOT_KEY,
    SLOTS_USED,
    STARTED,
    TIME,
    TIMES,
    TOUCHES,
    change,
    counted,
    final,
    play_half,
    reached_combo,
    reached_minute,
    seen_flag,
    with_combo,
)
from flows.state.arrays import I32, I64, U8, U16, U32, U64, Int
from flows.state.hash_table import MAX_LOAD, find
from flows.state.kernel import lean, mixed


@lean
def reach(
    table: U64, used: I64, slot: Int, code: Int, combo: Int, minute: Int, cells: U64, counts: I64
) -> None:
    """Count a play with a listener once, in the minute of its impression or start, whichever is earlier; the
    impression if both are equal.
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


@lean
def apply(
    pixels: U64,
    first: Int,
    combo_of: I32,
    by: U16,
    sources: I64,
    table: U64,
    changes: U32,
    increments: Increments,
    bases: U8,
    lanes: I64,
    delays: I64,
    used: I64,
    outcomes: I64,
    late: I64,
    flow_watermark_ms: Int,
    lateness_ms: Int,
    horizon_ms: Int,
) -> Int:
    """Apply pixels to the table, from `first` on. Returns the number of the next pixel: the end, or where an
    array is full.

    Args:
        pixels: (n, COLUMNS) uint64, judged by `flows.model.ticks`.
        combo_of: this shard's number for each of the batch's dimensions.
        by: (n,) the place in `sources` of each pixel's source; empty if all pixels have the first source.
        sources: this shard's numbers of the batch's sources.
        table: (slots, 4) uint64.
        changes: the changes of the table; extended.
        increments: extended.
        bases: by dimensions, the bases that were sent to rows, one bit each.
        lanes, delays: of `flows.plays.delay_counts`; `delays` is increased.
        used: the numbers of cells, touches and slots in use; changed in place.
        outcomes: accepted, repeated, too late, and invalid traffic by reason; increased.
        late: (n,) rows of the pixels that are too late, as many as `outcomes` counts.
        flow_watermark_ms: finality for a partition that resumes later than the others.
    """
    n = len(pixels)
    cells, counts, totals, times = increments.cells, increments.counts, increments.totals, increments.times
    where, listeners, homes = increments.where, increments.listeners, increments.homes
    touched_ts, sides = increments.ts, increments.sides
    for i in range(first, n):
        if (
            used[CELLS_USED] + MAX_CELLS > len(cells) * 3 // 4
            or used[TOUCHES] + 1 > len(listeners)
            or used[SIDES_USED] + MAX_SIDES > len(sides)
            or used[SENT_USED] + 1 > len(increments.sent)
            or used[SLOTS_USED] + 3 > len(table) * MAX_LOAD
            or increments.parts_used[CELLS_USED] + MAX_CELLS > len(increments.parts) * 3 // 4
            or increments.shown_used[CELLS_USED] + 1 > len(increments.shown) * 3 // 4
        ):
            return i
        # a key of 0 would be an empty slot
        key = pixels[i, KEY] if pixels[i, KEY] != np.uint64(0) else np.uint64(1)
        listener, household = pixels[i, LISTENER], pixels[i, HOUSEHOLD]
        ts = np.int64(pixels[i, TS])
        own_watermark = np.int64(pixels[i, WATERMARK])
        watermark = max(own_watermark, flow_watermark_ms)
        info = np.int64(pixels[i, INFO])
        combo = combo_of[pixels[i, COMBO]]
        code = info & 0xFF
        linked = info & LINKED != 0
        reason = info >> INVALID_SHIFT & REASON_BITS
        invalid = reason != 0
        play = key
        if invalid:
            key = mixed(key, INVALID_SPACE)
        minute = ts // 60_000
        impression, caller_minute = code == IMPRESSION, minute
        sent = (
            0
            if code < DELIVERED
            else SENT + (DELIVERIES_KIND if code == DELIVERED else DOWNLOADS) * SENT_PARTS
        )
        oldest = own_watermark // 60_000 - OLD_MINUTES
        if impression and info >> CALLER_MINUTE_SHIFT & CALLER_MINUTE != 0:
            caller_minute = info >> CALLER_MINUTE_SHIFT & CALLER_MINUTE
            if abs(caller_minute - minute) > FAR_MINUTES:
                caller_minute = np.int64(-1)

        slot = find(table, key)
        is_taken = table[slot, SLOT_KEY] != np.uint64(0)
        known_key = is_taken and np.int64(table[slot, TIMES] & TIME) + horizon_ms >= own_watermark
        flags = table[slot, FLAGS] if known_key else np.uint64(0)
        if info & REFUSED:
            part(increments, combo, caller_minute, REJECTED_PART, 1, oldest)
            if linked:
                note_play(table, changes, used, increments, play, ts, own_watermark, horizon_ms)
            continue
        times[combo, NEWEST] = max(times[combo, NEWEST], ts)
        if known_key and (not linked or flags & seen_flag(code)):
            totals[combo, REPEATED] += 1
            outcomes[REPEATED_OUT] += 1
            if code == IMPRESSION and not invalid:
                basis = info >> BASIS_SHIFT & BASIS
                claim(bases, sides, used, combo, basis)
                if flags & seen_flag(code):
                    strengthen(table, changes, sides, used, slot, basis, watermark, lateness_ms)
            elif code == START and info & CONFIRMED_FLAG and flags & seen_flag(code) and not invalid:
                confirm(table, changes, sides, used, slot, watermark, lateness_ms)
            if impression:
                part(increments, combo, caller_minute, REPEATED_PART, 1, oldest)
            elif sent:
                part(increments, combo, minute, sent + SENT_REPEATED, 1, oldest)
            continue
        in_cohort = linked and FIRST_QUARTILE <= code <= LAST_JOINING
        started = flags & STARTED != np.uint64(0)
        home = np.int64(table[slot, MINUTES] & LOW) if in_cohort and started else minute
        if final(home, watermark, lateness_ms):
            totals[combo, TOO_LATE] += 1
            late[outcomes[LATE_OUT]] = i
            outcomes[LATE_OUT] += 1
            if impression:
                part(increments, combo, caller_minute, TOO_LATE_PART, 1, oldest)
                if linked:
                    note_play(table, changes, used, increments, play, ts, own_watermark, horizon_ms)
            elif sent:
                part(increments, combo, minute, sent + SENT_TOO_LATE, 1, oldest)
            continue

        if not is_taken:
            used[SLOTS_USED] += 1
            table[slot, SLOT_KEY] = key
        if not known_key:
            table[slot, MINUTES] = np.uint64(0)
            table[slot, TIMES] = np.uint64(ts)
        elif flags & SEEN == np.uint64(0) or np.int64(table[slot, TIMES] & TIME) < ts:
            table[slot, TIMES] = (table[slot, TIMES] & ~TIME) | np.uint64(ts)
        change(table, changes, slot)
        flags |= seen_flag(code) | CHANGED
        table[slot, FLAGS] = flags
        outcomes[ACCEPTED] += 1
        if invalid:
            if linked and code == START:
                table[slot, FLAGS] = flags | STARTED
                table[slot, MINUTES] = np.uint64(minute)
            totals[combo, INVALID_TRAFFIC] += 1
            outcomes[INVALID_OUT + reason - 1] += 1
            if impression:
                part(increments, combo, caller_minute, INVALID_PART + reason - 1, 1, oldest)
                if linked:
                    note_play(table, changes, used, increments, play, ts, own_watermark, horizon_ms)
            elif sent:
                part(increments, combo, minute, sent + SENT_INVALID, 1, oldest)
            continue
        times[combo, LATEST] = max(times[combo, LATEST], ts)
        times[combo, FIRST] = max(times[combo, FIRST], BACKWARDS - ts)
        source = sources[by[i]] if len(by) else sources[0]
        increments.by_source[source] += 1
        totals[combo, PIXELS] += 1
        totals[combo, CONSENTED] += info & CONSENT_FLAG != 0
        if code < DELIVERED:
            delays[lanes[combo], info >> DELAY_SHIFT] += 1
        if impression:
            totals[combo, BLOCKED_IMPRESSIONS] += info & BLOCKED_FLAG != 0
            no_orphan(table, changes, increments, slot)
            if caller_minute != minute:
                part(increments, combo, caller_minute, MOVED_PART, 1, oldest)
                part(increments, combo, minute, MOVED_PART, -1, 0)

        if listener | household != np.uint64(0) and (code <= START or code == CLICK):
            kind = REACH_ONLY
            if code == CLICK:
                kind = CLICK_TOUCH
            elif code == IMPRESSION:
                kind = IMPRESSION_TOUCH
            elif linked:
                kind = START_TOUCH
            where[used[TOUCHES], COMBO_OF] = combo
            where[used[TOUCHES], KIND_OF] = kind
            where[used[TOUCHES], PLAY_HALF] = play_half(key, flags, table[slot, MINUTES], code, minute)
            listeners[used[TOUCHES]], homes[used[TOUCHES]] = listener, household
            touched_ts[used[TOUCHES]] = ts
            used[TOUCHES] += 1
            if listener == np.uint64(0):
                pass
            elif linked and code <= START:
                reach(table, used, slot, code, combo, minute, cells, counts)
            elif code == IMPRESSION:
                add(cells, counts, used, combo, minute, CONSENTED_PLAYS, 1)

        if code in (IMPRESSION, CLICK, ERROR):
            add(cells, counts, used, combo, minute, code, 1)
            if code == IMPRESSION:
                shown, shown_counts = increments.shown, increments.shown_counts
                add(shown, shown_counts, increments.shown_used, combo, source, 0, 1)
                basis = info >> BASIS_SHIFT & BASIS
                claim(bases, sides, used, combo, basis)
                if basis:
                    note(sides, used, combo, minute, basis - 1, 1)
                impressed(table, changes, used, slot, started, combo, minute, ts, basis)
        elif code >= DELIVERED:
            if code == DELIVERED:
                note(sides, used, combo, minute, DELIVERIES, 1)
            part(increments, combo, minute, sent + SENT_COUNTED, 1, 0)
            keep_sent(increments, used, listener, combo, ts, info)
        elif code == START and not linked:
            table[slot, FLAGS] = (table[slot, FLAGS] & LOW) | (np.uint64(combo) << COMBO_SHIFT)
            table[slot, MINUTES] = np.uint64(minute)
            add(cells, counts, used, combo, minute, code + UNLINKED, 1)
        elif not linked:
            if START < code <= COMPLETE:
                add(cells, counts, used, combo, minute, code + UNLINKED, 1)
        elif code == START:
            if flags & seen_flag(IMPRESSION):
                begun(table, changes, used, slot, combo, minute, ts)
            table[slot, FLAGS] = (table[slot, FLAGS] & LOW) | STARTED | (np.uint64(combo) << COMBO_SHIFT)
            table[slot, MINUTES] = (table[slot, MINUTES] & ~LOW) | np.uint64(minute)
            add(cells, counts, used, combo, minute, START, 1)
            table[slot, FLAGS] &= ~ODD
            if flags & (seen_flag(IMPRESSION) | ODD) == np.uint64(0):
                table[slot, FLAGS] |= ODD
                part(increments, combo, minute, ORPHANS_PART, 1, 0)
            join(table, changes, used, slot, combo, minute, watermark, lateness_ms, cells, counts)
        elif in_cohort and not started:
            hold(table, changes, used, key, code, combo, minute, ts, cells, counts)
            if code > COMPLETE:
                add(cells, counts, used, combo, minute, code + HELD_COLUMN, 1)
        elif in_cohort:
            start_combo = flags >> COMBO_SHIFT
            if code > COMPLETE:
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
        if code == START and info & CONFIRMED_FLAG:
            note(sides, used, combo, minute, CONFIRMED_PLAYS, 1)
            table[slot, FLAGS] |= CONFIRMED
    return n
