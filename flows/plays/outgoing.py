"""Messages of one shard of plays at a cut: increments to each row shard, touches to each listener shard."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from flows.model.counts import FLIGHT_COUNTS, MINUTE_COUNTS
from flows.model.day_parts import NO_PARTS, PART_SHIFT, REJECTED, Parts
from flows.model.decisions import PendingConversion
from flows.model.dimensions import Dimensions
from flows.model.home_touches import NO_HOMES, HomeTouches
from flows.model.messages import CLICK_TOUCH, IMPRESSION_TOUCH, REACH_ONLY, START_TOUCH, RowBatch, TouchBatch
from flows.model.ticks import Cut
from flows.plays.dimension_index import DimensionIndex
from flows.plays.increments import BACKWARDS, COMBO_OF, FIRST, KIND_OF, LATEST, NEWEST, PLAY_HALF, Increments
from flows.state.arrays import I64, U8, U32, U64, Int
from flows.state.hash_table import find_pair
from flows.state.home_tags import tags_of
from flows.state.kernel import kernel, mixed

_NO_TIMES: Final[I64] = np.zeros(0, np.int64)
_NO_ROWS: Final[U32] = np.zeros(0, np.uint32)


class Entries(NamedTuple):
    """Entries of rows, by row shard: the row, the place of its source, and the begin of each shard's
    entries.
    """

    rows: I64
    source: I64
    bounds: I64


class Touched(NamedTuple):
    """Touches in an `order` by listener shard, with each shard's dimensions numbered from 0 as they come:
    their `dims`, and the begins of each shard's touches and dimensions.
    """

    order: I64
    kinds: U8
    combos: U32
    plays: U32
    dims: I64
    bounds: I64
    dim_bounds: I64


@kernel
def _spread(combos: I64, rows_of: I64, shard_of: I64, shards: Int) -> tuple[I64, I64, I64]:
    """An entry for each row in which each of `combos` counts."""
    bounds = np.zeros(shards + 1, np.int64)
    for i in range(len(combos)):
        for scope in range(rows_of.shape[1]):
            row = rows_of[combos[i], scope]
            if row >= 0:
                bounds[shard_of[row] + 1] += 1
    for shard in range(shards):
        bounds[shard + 1] += bounds[shard]
    rows, source = np.empty(bounds[shards], np.int64), np.empty(bounds[shards], np.int64)
    fill = bounds.copy()
    for i in range(len(combos)):
        for scope in range(rows_of.shape[1]):
            row = rows_of[combos[i], scope]
            if row >= 0:
                to = fill[shard_of[row]]
                fill[shard_of[row]] += 1
                rows[to], source[to] = row, i
    return rows, source, bounds


@kernel
def _first_in_minute(where: U32, ts: I64, listeners: U64, homes: U64, used: Int) -> tuple[I64, U32]:
    """The touches, without clicks, that are the first of a listener in a minute of dimensions; and these
    minutes.

    The impression or the start of a play is such a touch, since both go to all rows of the play. If both are
    present, the start becomes `REACH_ONLY`: no conversion is credited to it.
    """
    slots = np.zeros((2 * used + 1, 2), np.uint64)
    order, minutes, n = np.empty(used, np.int64), np.empty(used, np.uint32), 0
    for i in range(used):
        if where[i, KIND_OF] == CLICK_TOUCH:
            continue
        minute, combo = np.uint32(ts[i] // 60_000), where[i, COMBO_OF]
        # A hash of listener, household and minute. A sender cannot choose the first two, which are keyed
        # hashes.
        key = mixed(mixed(listeners[i], homes[i]), minute)
        slot = find_pair(slots, key, combo, 0)
        if slots[slot, 0] == np.uint64(0):
            slots[slot, 0], slots[slot, 1] = key, np.uint64(n) << np.uint64(32) | np.uint64(combo)
            order[n], minutes[n] = i, minute
            n += 1
            continue
        other = order[np.int64(slots[slot, 1] >> np.uint64(32))]
        if where[other, PLAY_HALF] == where[i, PLAY_HALF]:
            if where[i, KIND_OF] == START_TOUCH and where[other, KIND_OF] == IMPRESSION_TOUCH:
                where[i, KIND_OF] = REACH_ONLY
            elif where[i, KIND_OF] == IMPRESSION_TOUCH and where[other, KIND_OF] == START_TOUCH:
                where[other, KIND_OF] = REACH_ONLY
    return order[:n], minutes[:n]


@kernel
def _number(
    cells: I64, totals: I64, touches: I64, sides: I64, timed: I64, timed_combos: I64, times: I64,
    shard_of: I64, shards: Int,
) -> tuple[I64, U32, I64, I64]:  # fmt: skip
    """Number the rows that any entry names.

    Returns:
        The rows by shard, the number of each row in its shard, the begin of each shard's rows, and the
        `Increments.times` of every row.
    """
    named = np.zeros(len(shard_of), np.uint8)
    for rows in (cells, totals, touches, sides, timed):
        for i in range(len(rows)):
            named[rows[i]] = 1
    of_row = np.zeros((len(shard_of), times.shape[1]), np.int64)
    for i in range(len(timed)):
        for n in range(times.shape[1]):
            of_row[timed[i], n] = max(of_row[timed[i], n], times[timed_combos[i], n])
    bounds, place = np.zeros(shards + 1, np.int64), np.zeros(len(shard_of), np.uint32)
    for row in range(len(shard_of)):
        if named[row]:
            place[row] = bounds[shard_of[row] + 1]
            bounds[shard_of[row] + 1] += 1
    for shard in range(shards):
        bounds[shard + 1] += bounds[shard]
    order = np.empty(bounds[shards], np.int64)
    for row in range(len(shard_of)):
        if named[row]:
            order[bounds[shard_of[row]] + np.int64(place[row])] = row
    return order, place, bounds, of_row


@kernel
def _summed(sides: I64) -> I64:
    """The sum of each combination of dimensions, minute and column, in the order of first appearance."""
    slots = np.zeros((2 * len(sides) + 1, 2), np.uint64)
    sums, n = np.empty_like(sides), 0
    for i in range(len(sides)):
        combo, minute, column, by = sides[i, 0], sides[i, 1], sides[i, 2], sides[i, 3]
        key = np.uint64((minute << 8 | column) + 1)
        slot = find_pair(slots, key, combo, 0)
        if slots[slot, 0] == np.uint64(0):
            slots[slot, 0], slots[slot, 1] = key, np.uint64(n) << np.uint64(32) | np.uint64(combo)
            sums[n, 0], sums[n, 1], sums[n, 2], sums[n, 3] = combo, minute, column, 0
            n += 1
        sums[np.int64(slots[slot, 1] >> np.uint64(32)), 3] += by
    return sums[:n]


def first_in_minute(increments: Increments, touches: int) -> tuple[I64, U32]:
    """See `_first_in_minute`; `touches` is the number of touches in `increments`."""
    return _first_in_minute(increments.where, increments.ts, increments.listeners, increments.homes, touches)


def row_batches(
    sender: int,
    cut: Cut,
    shards: int,
    names: DimensionIndex,
    increments: Increments,
    first: tuple[I64, U32],
    sides: int,
    delays: Sequence[tuple[str, list[int]]] = (),
) -> list[RowBatch]:
    """A message to every row shard, empty or not.

    Args:
        first: of `first_in_minute`.
        sides: the number of sides in `increments`.
        delays: of platforms that have a row, by class.
    """
    rows_of, shard_of, row_names = names.rows_of, names.shards_of_rows, names.row_names

    def spread(combos: I64) -> Entries:
        return Entries(*_spread(combos, rows_of, shard_of, shards))

    filled = np.flatnonzero(increments.cells)
    keys = increments.cells[filled] - np.uint64(1)
    day_parts, part_homes, refused = _parts(names, increments, shards)
    changed = np.flatnonzero(increments.totals[: len(names)].any(axis=1))
    labelled = np.flatnonzero(increments.times[: len(names), LATEST])
    dated = np.flatnonzero(increments.times[: len(names), NEWEST])
    some = filled, changed, labelled, dated, part_homes, first[0], delays, refused
    if not sides and not any(map(len, some)):
        return [_empty_batch(sender, shard, cut) for shard in range(shards)]
    cells, totals = spread((keys >> np.uint64(32)).astype(np.int64)), spread(changed)
    first_touches, reach_minutes = first
    reached = spread(increments.where[first_touches, COMBO_OF].astype(np.int64))
    touch_places = first_touches[reached.source]
    listeners, homes = increments.listeners[touch_places], increments.homes
    households = homes[touch_places] if homes[first_touches].any() else homes[:0]
    aside, timed = _summed(increments.sides[:sides]), spread(dated)
    beside = spread(aside[:, 0].copy())
    touched = np.concatenate([reached.rows, day_parts.rows.astype(np.int64)])
    rows = cells.rows, totals.rows, touched, beside.rows, timed.rows
    order, place, bounds, times = _number(*rows, dated[timed.source], increments.times, shard_of, shards)
    earliest = np.where(times[:, FIRST], BACKWARDS - times[:, FIRST], 0)
    row_numbers = order.tolist()
    labels = _labels(names, labelled, increments.times[labelled, LATEST], place)
    minutes = (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)[cells.source]
    counts, flights = increments.counts[filled[cells.source]], increments.totals[changed[totals.source]]
    delayed: dict[int, list[tuple[str, list[int]]]] = {}
    for platform, classes in delays:
        delayed.setdefault(names.home("platform", platform), []).append((platform, classes))
    every = (bounds, cells.bounds, totals.bounds, reached.bounds, beside.bounds)
    parts = [[slice(a, b) for a, b in pairwise(of.tolist())] for of in every]
    return [
        RowBatch(
            sender=sender,
            to=shard,
            cut=cut,
            rows=[row_names[row] for row in row_numbers[own]],
            latest=times[order[own], LATEST],
            cell_rows=place[cells.rows[cell]],
            cell_minutes=minutes[cell],
            cell_counts=counts[cell],
            total_rows=place[totals.rows[total]],
            total_counts=flights[total],
            touch_rows=place[reached.rows[reach]],
            touch_minutes=reach_minutes[reached.source[reach]],
            touch_listeners=listeners[reach],
            labels=labels.get(shard, []),
            first=earliest[order[own]],
            side_rows=place[beside.rows[side]],
            sides=aside[beside.source[side], 1:],
            parts=_of_shard(day_parts, part_homes == shard, place),
            refused=refused.get(shard, ()),
            delays=delayed.get(shard, ()),
            homes=households[reach],
            newest=times[order[own], NEWEST],
        )
        for shard, (own, cell, total, reach, side) in enumerate(zip(*parts, strict=True))
    ]


def _empty_batch(sender: int, to: int, cut: Cut) -> RowBatch:
    """A message without increments, as most cuts of a quiet topic have."""
    return RowBatch(
        sender=sender,
        to=to,
        cut=cut,
        rows=[],
        latest=_NO_TIMES,
        cell_rows=_NO_ROWS,
        cell_minutes=_NO_ROWS,
        cell_counts=np.zeros((0, MINUTE_COUNTS), np.int64),
        total_rows=_NO_ROWS,
        total_counts=np.zeros((0, FLIGHT_COUNTS), np.int64),
        touch_rows=_NO_ROWS,
        touch_minutes=_NO_ROWS,
        touch_listeners=np.zeros(0, np.uint64),
        labels=[],
        first=_NO_TIMES,
        newest=_NO_TIMES,
    )


def _labels(
    names: DimensionIndex, combos: I64, latest: I64, place: U32
) -> dict[int, list[tuple[int, int, Dimensions]]]:
    """The names of placements with pixels, by row shard: the row, its latest time, dimensions. Dimensions
    whose names later dimensions of the placement repeat change no label, and are left out.
    """
    labels: dict[int, list[tuple[int, int, Dimensions]]] = {}
    order = np.lexsort((-latest, names.rows_of[combos, 0]))
    combos, latest, rows_of = combos[order], latest[order], names.rows_of[combos[order]]
    begins = np.flatnonzero(np.diff(rows_of[:, 0], prepend=-2))
    newest = np.repeat(begins, np.diff(begins, append=len(combos)))
    needed = (latest == latest[newest]) | ((rows_of >= 0) & (rows_of[newest] < 0)).any(axis=1)
    labelled = np.flatnonzero(needed & (rows_of[:, 0] >= 0))
    rows = rows_of[labelled, 0]
    homes, places = names.shards_of_rows[rows].tolist(), place[rows].tolist()
    dimensions = [names.combos.names[number] for number in combos[labelled].tolist()]
    for home, *label in zip(homes, places, latest[labelled].tolist(), dimensions, strict=True):
        labels.setdefault(home, []).append(tuple(label))
    return labels


def _parts(
    names: DimensionIndex, increments: Increments, shards: int
) -> tuple[Parts, I64, dict[int, list[tuple[str, int, int]]]]:
    """The parts of days by the rows of placements, and the row shard of each. Also, by row shard, the
    rejections, which name no row.
    """
    filled = np.flatnonzero(increments.parts)
    if not len(filled):
        return NO_PARTS, np.zeros(0, np.int64), {}
    keys, counts = increments.parts[filled] - np.uint64(1), increments.part_counts[filled, 0]
    rows = names.rows_of[(keys >> np.uint64(32)).astype(np.int64), 0]
    day_parts = (keys >> np.uint64(PART_SHIFT)).astype(np.uint8) & np.uint8((1 << 32 - PART_SHIFT) - 1)
    minutes = (keys & np.uint64((1 << PART_SHIFT) - 1)).astype(np.uint32)
    homes = names.shards_of_rows[rows]
    refused: dict[int, list[tuple[str, int, int]]] = {}
    for place in np.flatnonzero(day_parts == REJECTED).tolist():
        rejection = names.row_names[int(rows[place])][1], int(minutes[place]), int(counts[place])
        refused.setdefault(int(homes[place]), []).append(rejection)
    counted = (day_parts != REJECTED) & (counts != 0)
    parts = Parts(rows[counted].astype(np.uint32), minutes[counted], day_parts[counted], counts[counted])
    return parts, homes[counted], refused


def _of_shard(parts: Parts, in_shard: npt.NDArray[np.bool_], place: U32) -> Parts:
    """The parts of a row shard, with its own row numbers."""
    if not in_shard.any():
        return NO_PARTS
    return Parts(
        place[parts.rows[in_shard]], parts.minutes[in_shard], parts.parts[in_shard], parts.counts[in_shard]
    )


@kernel
def _by_owner(where: U32, owners: U64, used: Int, combos: Int, shards: Int) -> Touched:
    bounds, dim_bounds = np.zeros(shards + 1, np.int64), np.zeros(shards + 1, np.int64)
    for i in range(used):
        if where[i, KIND_OF] != REACH_ONLY and owners[i] != np.uint64(0):
            bounds[np.int64(owners[i] % np.uint64(shards)) + 1] += 1
    for shard in range(shards):
        bounds[shard + 1] += bounds[shard]
    n = bounds[shards]
    order, fill = np.empty(n, np.int64), bounds.copy()
    for i in range(used):
        if where[i, KIND_OF] != REACH_ONLY and owners[i] != np.uint64(0):
            home = np.int64(owners[i] % np.uint64(shards))
            order[fill[home]] = i
            fill[home] += 1
    kinds, local, plays = np.empty(n, np.uint8), np.empty(n, np.uint32), np.empty(n, np.uint32)
    dims, number = np.empty(n, np.int64), np.full(combos, -1, np.int64)
    dim_count: Int = 0
    for shard in range(shards):
        begin = dim_count
        for m in range(bounds[shard], bounds[shard + 1]):
            touch = order[m]
            combo = where[touch, COMBO_OF]
            if number[combo] < begin:  # the dimensions have no touch of this shard yet
                number[combo] = dim_count
                dims[dim_count] = combo
                dim_count += 1
            kinds[m], plays[m] = where[touch, KIND_OF], where[touch, PLAY_HALF]
            local[m] = number[combo] - begin
        dim_bounds[shard + 1] = dim_count
    return Touched(order, kinds, local, plays, dims[:dim_count], bounds, dim_bounds)


def _home_touches(
    shards: int, names: DimensionIndex, increments: Increments, touches: int
) -> list[HomeTouches]:
    """The touches under their households, by household shard."""
    if not increments.homes[:touches].any():
        return [NO_HOMES] * shards
    touched = _by_owner(increments.where, increments.homes, touches, len(names), shards)
    household_hashes, ts = increments.homes[touched.order], increments.ts[touched.order]
    tags = tags_of(increments.listeners[touched.order], touched.plays)
    combos = [*map(names.combos.names.__getitem__, touched.dims.tolist())]
    bounds, dim_bounds = touched.bounds.tolist(), touched.dim_bounds.tolist()
    batches = []
    for shard in range(shards):
        own = slice(bounds[shard], bounds[shard + 1])
        own_combos = combos[dim_bounds[shard] : dim_bounds[shard + 1]]
        batches.append(
            HomeTouches(
                own_combos, household_hashes[own], ts[own], touched.kinds[own], touched.combos[own], tags[own]
            )
        )
    return batches


def touch_batches(
    sender: int,
    cut: Cut,
    shards: int,
    names: DimensionIndex,
    increments: Increments,
    touches: int,
    conversions: Sequence[PendingConversion],
    forgotten: Collection[int],
) -> list[TouchBatch]:
    """A message to every listener shard, empty or not; called after `first_in_minute`.

    It has the touches and conversions of the shard, the listeners and households to erase after them, and the
    touches of the household shard with the same number.
    """
    touched = _by_owner(increments.where, increments.listeners, touches, len(names), shards)
    listener_hashes, ts = increments.listeners[touched.order], increments.ts[touched.order]
    homes = _home_touches(shards, names, increments, touches)
    due: list[list[PendingConversion]] = [[] for _ in range(shards)]
    for conversion in conversions:
        due[(conversion.listener or conversion.key) % shards].append(conversion)
    erased = np.array(sorted(forgotten), np.uint64)
    combos = [*map(names.combos.names.__getitem__, touched.dims.tolist())]
    bounds, dim_bounds = touched.bounds.tolist(), touched.dim_bounds.tolist()
    batches = []
    for shard in range(shards):
        own = slice(bounds[shard], bounds[shard + 1])
        batches.append(
            TouchBatch(
                sender=sender,
                to=shard,
                cut=cut,
                names=combos[dim_bounds[shard] : dim_bounds[shard + 1]],
                listener_hashes=listener_hashes[own],
                ts=ts[own],
                kinds=touched.kinds[own],
                combos=touched.combos[own],
                plays=touched.plays[own],
                conversions=due[shard],
                forgotten=erased,  # a waiting conversion of a household is in its listener's shard
                homes=homes[shard],
            )
        )
    return batches
