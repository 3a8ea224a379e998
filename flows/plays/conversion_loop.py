"""Conversions: each counts once by its own key and horizon, unless it is too late.

A server's conversion after a public tag's conversion of the same key is no repeat: it confirms the tag's
(`flows.attribution.claims`).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from flows.model.counts import CONSENTED, INVALID_TRAFFIC, PIXELS, REPEATED, TOO_LATE
from flows.model.pixel import CLAIMED as CLAIMED_FLAG
from flows.model.pixel import CONSENTED as CONSENT_FLAG
from flows.model.pixel import INFO, INVALID_SHIFT, KEY, REASON_BITS, TS, WATERMARK
from flows.plays.increments import BACKWARDS, FIRST, LATEST, NEWEST
from flows.plays.slots import (
    ACCEPTED,
    CHANGED,
    CLAIMED,
    CONVERSION_KIND,
    FLAGS,
    INVALID_OUT,
    INVALID_SPACE,
    KIND_SHIFT,
    LATE_OUT,
    MINUTES,
    REPEATED_OUT,
    SLOT_KEY,
    SLOTS_USED,
    TIMES,
    change,
    final,
)
from flows.state.arrays import I32, I64, U8, U32, U64, Int
from flows.state.hash_table import MAX_LOAD, find
from flows.state.kernel import lean, mixed

CONFIRMS: Final = INVALID_OUT + 1
"""A verdict, in addition to those of `flows.plays.slots`: accepted, and confirms a claimed conversion."""


@lean
def convert(
    pixels: U64,
    first: Int,
    combo_of: I32,
    table: U64,
    changes: U32,
    totals: I64,
    times: I64,
    used: I64,
    outcomes: I64,
    verdicts: U8,
    claimed_ms: I64,
    flow_watermark_ms: Int,
    lateness_ms: Int,
    horizon_ms: Int,
) -> Int:
    """Apply conversions to the table, from `first` on, each by its own key and horizon. Returns the number of
    the next conversion: the end, or where the table is full.

    Args:
        combo_of: the number of each conversion's dimensions.
        verdicts: (n,) the verdict on each: `ACCEPTED` (and to be credited), `REPEATED_OUT`, `LATE_OUT`,
            `INVALID_OUT` or `CONFIRMS`.
        claimed_ms: (n,) for `CONFIRMS`, the time of the claimed conversion.
    """
    for i in range(first, len(pixels)):
        if used[SLOTS_USED] + 2 > len(table) * MAX_LOAD:
            return i
        key = pixels[i, KEY] if pixels[i, KEY] != np.uint64(0) else np.uint64(1)
        ts, watermark = np.int64(pixels[i, TS]), np.int64(pixels[i, WATERMARK])
        info = np.int64(pixels[i, INFO])
        invalid, combo = info >> INVALID_SHIFT & REASON_BITS, combo_of[i]
        times[combo, NEWEST] = max(times[combo, NEWEST], ts)
        if invalid:
            key = mixed(key, INVALID_SPACE)
        slot = find(table, key)
        is_taken = table[slot, SLOT_KEY] != np.uint64(0)
        before = np.int64(table[slot, TIMES])
        known_key = is_taken and before + horizon_ms >= watermark
        claims = info & CLAIMED_FLAG != 0 and not invalid
        open_claim = known_key and table[slot, FLAGS] & CLAIMED != np.uint64(0)
        confirms = open_claim and not claims and ts <= before + horizon_ms
        if known_key and not confirms:
            verdicts[i] = REPEATED_OUT
            outcomes[REPEATED_OUT] += 1
            totals[combo, REPEATED] += 1
            continue
        if final(ts // 60_000, max(watermark, flow_watermark_ms), lateness_ms):
            verdicts[i] = LATE_OUT
            outcomes[LATE_OUT] += 1
            totals[combo, TOO_LATE] += 1
            continue
        used[SLOTS_USED] += not is_taken
        table[slot, SLOT_KEY] = key
        change(table, changes, slot)
        table[slot, FLAGS] = (CONVERSION_KIND << KIND_SHIFT) | CHANGED | (CLAIMED if claims else np.uint64(0))
        table[slot, MINUTES] = np.uint64(0)
        table[slot, TIMES] = np.uint64(max(ts, before) if confirms else ts)
        outcomes[ACCEPTED] += 1
        verdicts[i] = ACCEPTED
        if confirms:
            verdicts[i], claimed_ms[i] = CONFIRMS, before
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
