"""The last published values of each row are those that the shard would publish now, after any change by time
alone, and those that it would publish without a restart.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from rows_support import windows_of

from flows.model.basis import CLIENTS_AT, CONFIRMED_PLAYS, DELIVERIES
from flows.model.client_counts import PROVISIONAL, SideIncrements
from flows.model.conversion_columns import COLUMNS
from flows.model.counts import CONSENTED, CONSENTED_PLAYS, FLIGHT_COUNTS, HELD_COLUMN, MINUTE_COUNTS, REPAIRED
from flows.model.delays import DELAYS
from flows.model.events import CLICK, CODES, COMPLETE, IMPRESSION, START
from flows.model.fields import TIMES
from flows.model.messages import ConversionAccount, CreditBatch, RowBatch
from flows.model.ticks import Cut
from flows.rows.cells import Cells
from flows.rows.published import pack_rows
from flows.rows.row_index import Limits
from flows.rows.row_shard import RowShard
from flows.rows.side_cells import UNKEYED_COLUMNS
from flows.rows.values import Windows
from flows.state import journal
from flows.state.saves import decode, encode

MINUTE, DAY = 60_000, 1440
MIDNIGHT = 1_790_000_000_000 // (DAY * MINUTE) * DAY
Row = tuple[str, str]
PLANNED: Row = ("placement", "planned")
CAMPAIGN: Row = ("campaign", "c")
PLATFORM: Row = ("platform", "p")
ROWS: list[Row] = [
    PLANNED,
    CAMPAIGN,
    PLATFORM,
    *(("placement", name) for name in "abcdefghij"),
]
PART = 2
SWEEPS = 2 * -(-len(ROWS) // PART)
"""Cuts in which all rows are given out twice."""
SIDES = (DELIVERIES, DELIVERIES, CONFIRMED_PLAYS, *UNKEYED_COLUMNS)
SKIP = CODES["skip"]
COUNTED = (IMPRESSION, START, COMPLETE, SKIP, SKIP + HELD_COLUMN, REPAIRED, CLICK)
AHEAD = (0, 0, 0, -1, -7, -40, 1, 3, 5, 50, 130, 900)
JUMPS = (0, 0, 1, 1, 1, 2, 5, 59, 61, 180, 300, 26 * 60, 75 * 60)


class Pixel(NamedTuple):
    """`column` of a minute's counts, or where it is negative of a side; maybe a listener, a household and a
    campaign.
    """

    row: int
    minute: int
    column: int
    who: int = 0
    home: int = 0
    campaign: str | None = None


def batch(cut: Cut, pixels: list[Pixel]) -> RowBatch:
    """As a placement shard sends them: whoever was heard has a cell, and what has a side may have none."""
    counted, beside = ([one for one in pixels if (one.column < 0) == side] for side in (False, True))
    heard = [one for one in counted if one.column in (IMPRESSION, START)]
    rows = sorted({one.row for one in pixels})
    counts = np.zeros((len(counted), MINUTE_COUNTS), np.int64)
    for cell, one in zip(counts, counted, strict=True):
        cell[one.column] += 1
        cell[CONSENTED_PLAYS] += one.who > 0 and one in heard
    times = [[one.minute * MINUTE for one in pixels if one.row == row] for row in rows]
    totals = np.zeros((len(rows), FLIGHT_COUNTS), np.int64)
    totals[:, CONSENTED] = 1

    def row_numbers(some: list[Pixel]) -> np.ndarray:
        return np.array([rows.index(one.row) for one in some], np.uint32)

    def minutes(some: list[Pixel]) -> np.ndarray:
        return np.array([one.minute for one in some], np.uint32)

    labels = [
        (rows.index(one.row), one.minute * MINUTE, (ROWS[one.row][1], one.campaign, *[None] * 6))
        for one in pixels
        if ROWS[one.row][0] == "placement"
    ]
    latest = np.array([max(some) for some in times], np.int64)
    return RowBatch(
        0, 0, cut, [ROWS[row] for row in rows], latest,
        row_numbers(counted), minutes(counted), counts, np.arange(len(rows), dtype=np.uint32), totals,
        row_numbers(heard), minutes(heard), np.array([one.who for one in heard], np.uint64), labels,
        np.array([min(some) for some in times], np.int64), latest, row_numbers(beside),
        np.array([(one.minute, -one.column - 1, 1) for one in beside], np.int64).reshape(-1, 3),
        homes=np.array([one.home for one in heard], np.uint64),
        delays=[("p", [0, 1, *[0] * (DELAYS - 2)]) for row in rows if ROWS[row] == PLATFORM],
    )  # fmt: skip


def credited(cut: Cut, rng: random.Random, minutes: list[int]) -> CreditBatch:
    """Conversions of some rows, and a client's counts, of which some are an estimate."""
    rows, one = [rng.choice(ROWS) for _ in minutes], np.arange(len(minutes), dtype=np.uint32)
    some = np.array(minutes, np.uint32)
    conversions = np.full(len(minutes), COLUMNS.index("conversions"), np.uint8)
    sides = np.array([CLIENTS_AT + rng.choice((0, PROVISIONAL)) for _ in minutes], np.uint8)
    amounts = np.ones(len(minutes), np.int64)
    beside = SideIncrements(rows, one, some, sides, amounts)
    return CreditBatch(
        0, cut, rows, one, some, conversions, 500_000 * amounts,
        [(CAMPAIGN, 1, 3, 500_000)] if rows else [], [(row, rng.choice(("EUR", "USD"))) for row in rows],
        [(CAMPAIGN, ConversionAccount(4, 2, 1, 1))] if rows else [], beside,
    )  # fmt: skip


def shown(shard: RowShard, windows: Windows) -> dict[Row, bytes]:
    """The rows without their `TIMES`, which are three numbers of nine bytes after the head."""
    packed = pack_rows(windows, shard.watermark_ms, shard.final_through_ms)
    return {(row.scope, row.name): row.packed[3 + 9 * len(TIMES) :] for row in packed}


def whole(shard: RowShard) -> dict[Row, bytes]:
    """All rows, as they would be given out now."""
    return shown(shard, shard.numbers_of(np.flatnonzero(shard.columns.alive)))


def held(shard: RowShard) -> dict[Row, Any]:
    """All that is saved of each row by itself."""
    days = {day: counts for day, (counts, *_) in shard.days._of.items() if day >= shard.days.today}
    sparse = [cells_of(of.cells) for of in (shard.conversions.credits, shard.sides)]
    return {
        row: (
            unnumbered(shard.columns.snapshot(np.array([number])), number),
            {day: of[number].tolist() for day, of in days.items() if number < len(of) and of[number].any()},
            *(of.get(number) for of in sparse),
        )
        for row, number in shard.row_index.numbers.items()
    }


def cells_of(cells: Cells) -> dict[int, dict[int, list[int]]]:
    """By row and time the counts of cells."""
    found = dict[int, dict[int, list[int]]]()
    slots = np.flatnonzero(cells.keys)
    rows, times = cells.rows_and_minutes(slots)
    for row, time, slot in zip(rows.tolist(), times.tolist(), slots.tolist(), strict=True):
        found.setdefault(row, {})[time] = cells.counts[slot].tolist()
    return found


def unnumbered(state: Any, number: int) -> Any:
    """A row's state, whatever its number."""
    if isinstance(state, dict):
        return {"its" if key == number else key: unnumbered(of, number) for key, of in state.items()}
    return tuple(unnumbered(one, number) for one in state) if isinstance(state, tuple) else state


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("in_files", [False, True])
@pytest.mark.parametrize("seed", range(16))
def test_every_change_by_time_alone_is_published(
    seed: int, in_files: bool, in_parts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts it is for some cuts, and the shard says since when."""
    monkeypatch.setattr(journal, "SPILL_BYTES", 3_000)
    monkeypatch.setattr(journal, "COMPACTION_SLACK", 4)
    rng = random.Random(seed)
    lateness, mature = rng.choice((0, 0.5, 2, 10, 90)), rng.choice((0, 2, 30))
    limits = Limits(stays=180, remembered=90 * DAY, turned=PART if in_parts else len(ROWS))

    def new(recovery: Path | None = None) -> RowShard:
        lateness_ms, mature_ms = int(lateness * MINUTE), mature * MINUTE
        return RowShard(0, 1, lateness_ms, mature_ms, lambda one: one // DAY, 0, recovery, limits)

    recovery = tmp_path if in_files else None
    shard, now, readers, undisturbed = new(recovery), MIDNIGHT - 30, dict[Row, bytes](), new()
    fresh, by_time_alone, states = set[Row](), set[Row](), list[tuple[int, dict[Row, bytes]]]()
    waited = 0
    for number in range(1, 100):
        if rng.random() < 0.5:
            shard.gather()
        if rng.random() < 0.3:
            state, restored = decode(encode(shard.snapshot())), new(recovery)
            restored.restore(state)
            restored.row_index.planned = undisturbed.row_index.planned
            assert held(restored) == held(shard) == held(undisturbed)
            if rng.random() < 0.4:
                shard, readers, fresh, states = restored, {}, {*ROWS}, []
        if rng.random() < 0.1:
            planned = frozenset([PLANNED] if rng.random() < 0.7 else [])
            start = now + rng.choice((-200, -30, 0, 5))
            end = start + rng.choice((0, 2, 500))
            for one in (shard, undisturbed):
                one.row_index.planned = planned
                one.plan(PLANNED[1], start, end)
        at_ms, publish = (now + rng.choice(JUMPS)) * MINUTE, rng.random() < 0.7
        here = Cut(number, at_ms, False, (), publish=publish)
        pixels = [
            Pixel(
                rng.randrange(len(ROWS)),
                max(now + rng.choice(AHEAD), shard.first_open),
                rng.choice((*COUNTED, *(-1 - side for side in SIDES))),
                rng.randrange(6),
                rng.randrange(3),
                rng.choice((None, "c", "d")),
            )
            for _ in range(rng.choice((0, 0, 1, 1, 4)))
        ]
        ended = [max(now - 1, shard.first_open) for _ in range(rng.choice((0, 0, 1)))]
        given = [batch(here, pixels)], credited(here, rng, ended)
        windows, _ = shard.apply(here, *given)
        undisturbed.apply(here, *given)
        now = here.watermark_ms // MINUTE
        fresh |= {ROWS[one.row] for one in pixels} | {*given[1].rows}
        if windows is not None:
            readers |= shown(shard, windows)
            turned = {row for row, by_time in zip(windows.rows, windows.turned, strict=True) if by_time}
            assert not turned & fresh, "what a pixel or a credit has changed"
            by_time_alone |= turned
        for row in shard.ended_rows:
            readers.pop(row, None)
        now_shown = whole(shard)
        assert now_shown == whole(undisturbed)
        assert publish or windows is None
        if publish:
            states.append((at_ms, now_shown))
            since_ms = shard.turning.whole_ms
            recent = [state for of_ms, state in states if of_ms >= since_ms]
            assert all(any(of.get(row) == given for of in recent) for row, given in readers.items())
            of_all = {*now_shown} if recent == [now_shown] else fresh | shard.row_index.planned
            assert all(readers.get(row) == now_shown[row] for row in of_all & now_shown.keys())
            waited += readers != now_shown
            assert since_ms >= states[-SWEEPS:][0][0], "all are given out in the end"
            fresh = set[Row]()
        assert sorted(shard.ended_rows) == sorted(undisturbed.ended_rows)
    assert by_time_alone
    assert in_parts or not waited


def test_a_delivery_ahead_of_time_is_in_the_day_that_begins() -> None:
    """The delivery has no cell of its own, and its client may have counted elsewhere."""
    shard, given = RowShard(0, 1, 10 * MINUTE, 90_000, lambda one: one // DAY), list[object]()
    for number, minute in enumerate(range(MIDNIGHT - 2, MIDNIGHT + 3)):
        here = Cut(number, minute * MINUTE, False, ())
        pixels = [Pixel(1, MIDNIGHT + 1, -1 - DELIVERIES)] if not number else []
        windows, _ = shard.apply(here, [batch(here, pixels)])
        if windows is not None:
            of_row = windows_of(windows.sides, 0)
            given.append((minute - MIDNIGHT, 0 if of_row[2] is None else int(of_row[2][DELIVERIES])))
    assert given == [(-2, 0), (0, 1)]
