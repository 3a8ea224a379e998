"""Planned flights of a shard of rows: what they count, deliver and reach, while plans come and move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows_support import ROW, Impressions, batch

from flows.model.day_parts import COUNTED, OUTSIDE
from flows.model.events import IMPRESSION
from flows.model.messages import Delivered
from flows.model.ticks import Cut
from flows.rows.row_shard import RowShard
from flows.rows.values import Windows
from flows.state.hyperloglog import REGISTERS, estimate, histogram, pack_registers
from flows.state.saves import decode, encode

MINUTE = 60_000
FIRST = 29_000_000
"""A minute since the epoch, the first of every log here."""
LATENESS = 10


@dataclass
class Model:
    """Who was heard in each minute: what is right, however late a plan has come."""

    plan: tuple[int, int] | None = None
    heard: dict[int, list[int]] = field(default_factory=dict)

    def numbers(self) -> tuple[int, int, Delivered | None]:
        """Impressions and reach of the flight, and what of it was delivered."""
        start, end = self.plan or (0, 1 << 40)
        flown = {minute: who for minute, who in self.heard.items() if minute >= start}
        delivered = sum(len(who) for minute, who in flown.items() if minute < end)
        reach = len({one for who in flown.values() for one in who})
        impressions = sum(map(len, flown.values()))
        return impressions, reach, self.plan and Delivered(*self.plan, delivered)


@dataclass
class World:
    """A shard and its model."""

    lateness: int = LATENESS
    shard: RowShard = field(init=False)
    model: Model = field(default_factory=Model)
    minute: int = FIRST
    number: int = 0
    shown: tuple[int, int, Delivered | None] | None = None
    moves: int = 0
    withdrawn: bool = False
    latest: tuple[int, int] | None = None
    moved_at: int = 0

    def __post_init__(self) -> None:
        self.shard = self.new()

    def new(self) -> RowShard:
        return RowShard(0, 1, self.lateness * MINUTE, 90_000, lambda minute: minute // 1440)

    def restart(self) -> None:
        state = decode(encode(self.shard.snapshot()))
        self.shard = self.new()
        self.shard.restore(state)

    def hear(self, impressions: Impressions, jump: int = 0) -> None:
        """The watermark moves on, with impressions of open minutes; all numbers are compared."""
        self.minute, self.number = self.minute + jump, self.number + 1
        cut = Cut(self.number, self.minute * MINUTE, False, ())
        windows, _ = self.shard.apply(cut, [batch(cut, impressions)])
        for minute, listener in impressions:
            self.model.heard.setdefault(minute, []).append(listener)
        if windows is not None:
            self.shown = numbers(windows)

    def plan(self, start: int, end: int, parted: int = 0) -> None:
        self.shard.plan(ROW[1], start, end, parted)
        self.model.plan = self.latest = (start, end)
        self.moves, self.moved_at = self.moves + 1, self.shard.watermark_ms // MINUTE

    def withdraw(self) -> None:
        self.shard.have_plans(())
        self.model.plan, self.withdrawn = None, True

    def sketch(self) -> str | None:
        """The numbers that readers get at the next minute, if one is due."""
        self.hear([], jump=1)
        return next((pack_registers(registers) for _, registers in self.shard.sketches(False)), None)


def numbers(windows: Windows) -> tuple[int, int, Delivered | None]:
    assert windows.rows == [ROW]
    return int(windows.sums[3][0, IMPRESSION]), int(windows.reach[3][0]), windows.delivered[0]


offsets = st.integers(-LATENESS, 6)
heard = st.lists(st.tuples(offsets, st.integers(1, 12)), max_size=6)
moved = st.tuples(st.integers(-80, 30), st.integers(1, 90)) | st.just("gone") | st.just("back")
steps = st.lists(
    st.tuples(st.sampled_from((0, 0, 1, 1, 2, 7, 61)), heard, st.none() | moved, st.booleans()),
    min_size=3,
    max_size=25,
)


def run(world: World, steps: Any) -> Iterator[None]:
    """After each step, with all that must have been given out."""
    for jump, heard, plan, restart in steps:
        if restart:
            world.restart()
        if plan == "gone":
            world.withdraw()
        elif plan == "back" and world.latest is not None:
            world.plan(*world.latest)
        elif isinstance(plan, tuple):
            world.plan(world.minute + plan[0], world.minute + plan[0] + plan[1])
        open_from = max(FIRST, world.shard.first_open)
        world.hear([(max(open_from, world.minute + at), who) for at, who in heard], jump)
        if world.shown is not None:
            yield


@settings(suppress_health_check=list(HealthCheck))
@given(steps)
def test_delivery_is_right_for_any_move_of_the_plan(
    steps: Any,
) -> None:
    """Delivery is known for flights that began in the last hour or before the first pixel, and for some
    others.
    """
    world = World()
    for _ in run(world, steps):
        assert world.shown is not None
        delivered, right = world.shown[2], world.model.numbers()
        if world.model.plan is None:
            assert delivered is None
            assert world.withdrawn or world.shown == right
        elif delivered is None or delivered.impressions is not None:
            assert world.shown == right
        elif not world.withdrawn:
            assert delivered[:2] == world.model.plan
            start, end = world.model.plan
            assert min(start, end) < world.moved_at - 59, "it was known all the time"
            assert min(world.model.heard) < start or end < world.moved_at or world.moves > 1


def test_a_plan_within_the_hour_counts_only_its_own_final_minutes() -> None:
    world = World()
    for _ in range(20):
        world.hear([(world.minute, listener) for listener in range(1, 51)], jump=1)
    world.hear([], jump=40)
    world.plan(FIRST + 30, FIRST + 1_440)
    world.hear([])
    assert world.shown == (0, 0, Delivered(FIRST + 30, FIRST + 1_440, 0))
    world.plan(FIRST + 15, FIRST + 1_440)
    world.hear([])
    assert world.shown == (250, 50, Delivered(FIRST + 15, FIRST + 1_440, 250))


def test_delivery_is_unknown_for_a_late_plan_of_a_running_row() -> None:
    world = World()
    world.hear([(FIRST, 1), (FIRST + 5, 2)])
    world.hear([], jump=120)
    world.plan(FIRST + 5, FIRST + 1_440)
    world.hear([(world.minute, 3)])
    assert world.shown is not None
    assert world.shown[2] == Delivered(FIRST + 5, FIRST + 1_440, None)
    world.restart()
    world.hear([(world.minute, 4)])
    assert world.shown[2] == Delivered(FIRST + 5, FIRST + 1_440, None)
    world.plan(world.minute - 30, FIRST + 1_440)
    world.hear([])
    assert world.shown == (2, 2, Delivered(world.minute - 30, FIRST + 1_440, 2))


def test_a_late_plan_of_a_new_row_is_counted_in_full() -> None:
    world = World()
    world.hear([(FIRST + 5, 1), (FIRST + 5, 2)])
    world.hear([], jump=300)
    world.plan(FIRST + 5, FIRST + 1_440)
    world.hear([])
    assert world.shown == (2, 2, Delivered(FIRST + 5, FIRST + 1_440, 2))


def test_a_prolonged_flight_is_known_if_nothing_ran_in_between() -> None:
    for between, delivered in ((0, 3), (1, None)):
        world = World()
        world.plan(FIRST, FIRST + 10)
        world.hear([(FIRST, 1), (FIRST, 2)])
        world.hear([(FIRST + 11, 9)] * between, jump=11)
        world.hear([], jump=300)
        world.plan(FIRST, FIRST + 1_440)
        world.hear([(world.minute, 3)])
        assert world.shown is not None
        assert world.shown[2] == Delivered(FIRST, FIRST + 1_440, delivered)


def many(number: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(1, (1 << 64) - 1, number, np.uint64).tolist()


def test_reach_is_recut_from_registers_and_sketches() -> None:
    crowd = many(3_500)
    world = World()
    world.hear([])
    world.hear([(FIRST, who) for who in crowd[:2_000]])
    world.hear([(FIRST + 1, who) for who in crowd[1_990:3_000]], jump=1)
    world.hear([(FIRST + 2, who) for who in crowd[3_000:3_008]], jump=1)
    assert world.shard.rolling.crowds.dense_of[0] >= 0
    assert world.shard.reached.dense_of[0] >= 0
    for start, reach in ((FIRST + 2, 8), (FIRST + 1, 1_018), (FIRST, 3_008), (FIRST + 30, 0)):
        world.plan(start, start + 60)
        world.restart()
        world.hear([])
        assert world.shown is not None
        assert world.shown[1] == pytest.approx(reach, rel=0.03), start
    world.plan(FIRST + 1, FIRST + 60)
    world.hear([(FIRST + 2, who) for who in crowd[3_008:]])
    assert world.shown is not None
    assert world.shown[1] == pytest.approx(1_510, rel=0.03)


def test_other_rows_keep_their_reach_when_one_is_recut() -> None:
    shard = RowShard(0, 1, LATENESS * MINUTE, 90_000, lambda minute: minute // 1440)
    rows = [("placement", "a"), ("placement", "b"), ("campaign", "c")]
    crowds = [many(2_000, 1), many(1_500, 2), many(700, 3)]
    cut = Cut(1, FIRST * MINUTE, False, ())
    for row, crowd in zip(rows, crowds, strict=True):
        shard.apply(cut, [batch(cut, [(FIRST, who) for who in crowd])._replace(rows=[row])])
    before = shard.reached.reach(np.arange(3)).tolist()
    shard.plan("a", FIRST + 1, FIRST + 2)
    after = shard.reached.reach(np.arange(3)).tolist()
    assert after == [0, *before[1:]]
    restored = RowShard(0, 1, LATENESS * MINUTE, 90_000, lambda minute: minute // 1440)
    restored.restore(decode(encode(shard.snapshot())))
    assert restored.reached.reach(np.arange(3)).tolist() == after


def test_frequency_is_at_least_one_under_a_late_plan() -> None:
    world = World()
    world.hear([(FIRST, who) for who in range(1, 6)])
    world.hear([(FIRST + 3, who) for who in (1, 2, 9)], jump=3)
    world.plan(FIRST + 3, FIRST + 60)
    world.hear([])
    assert world.shown is not None
    impressions, reach, _ = world.shown
    assert (impressions, reach) == (3, 3)


def test_reach_includes_listeners_of_minutes_open_for_hours() -> None:
    world = World(lateness=180)
    world.hear([(FIRST, 1)])
    world.hear([(FIRST + 90, 2), (FIRST + 120, 3)], jump=120)
    world.plan(FIRST + 10, FIRST + 500)
    world.hear([])
    assert world.shown == (2, 3, Delivered(FIRST + 10, FIRST + 500, 2))
    world.plan(FIRST + 100, FIRST + 500)
    world.hear([])
    assert world.shown == (1, 1, Delivered(FIRST + 100, FIRST + 500, 1))


def test_a_new_flight_republishes_its_sketch_even_if_empty() -> None:
    world = World()
    world.hear([(FIRST, who) for who in many(150)])
    assert world.sketch() is not None
    assert world.sketch() is None
    world.plan(world.minute + 5, world.minute + 60)
    assert world.sketch() == pack_registers(np.zeros(REGISTERS, np.uint8))
    assert world.sketch() is None
    world.shard.row_index.planned = frozenset({ROW})  # as its step tells it
    world.hear([(world.minute + 5, 7)], jump=5)
    given = [registers for _, registers in world.shard.sketches(False)]
    assert [round(estimate(histogram(one))) for one in given] == [1]


def test_pixels_after_the_end_are_in_the_flight_but_not_delivered() -> None:
    world = World()
    world.plan(FIRST + 1, FIRST + 3)
    world.hear([(FIRST + minute, minute + 1) for minute in range(6)])
    assert world.shown == (5, 5, Delivered(FIRST + 1, FIRST + 3, 2))
    world.hear([], jump=30)
    world.hear([(world.minute, 8)])
    assert world.shown == (6, 6, Delivered(FIRST + 1, FIRST + 3, 2))


def test_a_moved_end_recounts_the_final_last_hour() -> None:
    world = World()
    world.plan(FIRST, FIRST + 5)
    world.hear([(FIRST + minute, 1) for minute in range(20)])
    world.hear([], jump=LATENESS + 8)  # the minutes before FIRST + 8 are final
    assert world.shown == (20, 1, Delivered(FIRST, FIRST + 5, 5))
    for end, delivered in ((FIRST + 10, 10), (FIRST + 20, 20), (FIRST + 6, 6), (FIRST + 9, 9)):
        world.plan(FIRST, end)
        world.hear([])
        assert world.shown == (20, 1, Delivered(FIRST, end, delivered)), end


def test_a_changed_plan_publishes_its_row_without_a_pixel() -> None:
    world = World()
    world.plan(FIRST, FIRST + 5)
    world.hear([])
    assert world.shown == (0, 0, Delivered(FIRST, FIRST + 5, 0))
    world.shown = None
    world.plan(FIRST, FIRST + 5)
    world.hear([])
    assert world.shown is None
    world.plan(FIRST, FIRST + 6)
    world.hear([])
    assert world.shown == (0, 0, Delivered(FIRST, FIRST + 6, 0))


def since(world: World) -> int:
    return int(world.shard.numbers_of(np.array([world.shard.number(ROW)])).since[0]) // MINUTE


def test_a_plan_withdrawn_before_its_flight_leaves_the_rows_own() -> None:
    for restarts in (False, True):
        world = World()
        world.plan(FIRST + 600_000, FIRST + 601_440)  # a wrong year
        world.hear([(FIRST, 1), (FIRST + 1, 2)])
        assert world.shown == (0, 0, Delivered(FIRST + 600_000, FIRST + 601_440, 0))
        if restarts:
            world.restart()
        world.withdraw()
        world.hear([(FIRST + 2, 3)], jump=2)
        assert (world.shown, since(world)) == ((3, 3, None), FIRST)


def test_a_late_withdrawal_before_the_flight_leaves_the_kept_minutes() -> None:
    world = World()
    world.plan(FIRST + 600_000, FIRST + 601_440)
    world.hear([(FIRST, 1)])
    world.hear([(FIRST + 120, 2)], jump=120)
    world.withdraw()
    world.hear([(FIRST + 121, 3)], jump=1)
    assert world.shown is not None
    assert world.shown[0] == 2
    assert FIRST < since(world) <= FIRST + 120


def test_a_plan_corrected_after_hours_has_its_former_flight() -> None:
    for end in (FIRST + 30, FIRST + 1_440):
        world, plan = World(), (FIRST + 5, end)
        world.plan(*plan)
        world.hear([(FIRST, 1), (FIRST + 5, 2)])
        world.hear([(FIRST + 20, 3)], jump=20)
        world.withdraw()
        world.hear([(FIRST + 29, 4)], jump=9)
        assert (world.shown, since(world)) == ((3, 3, None), FIRST + 5)
        world.hear([(FIRST + 300, 5)], jump=271)
        world.restart()
        world.plan(*plan)
        world.hear([])
        assert world.shown == (4, 4, Delivered(*plan, 3 if end == FIRST + 30 else 4))


def test_a_withdrawn_plan_restores_the_flight_from_the_first_pixel() -> None:
    world = World()
    world.plan(FIRST, FIRST + 60)
    world.hear([(FIRST + 3, 1)])
    assert since(world) == FIRST
    world.withdraw()
    assert since(world) == FIRST + 3
    world.withdraw()
    world.hear([(FIRST + 5, 1)], jump=5)
    assert world.shown == (2, 1, None)


def test_nothing_is_outside_an_unplanned_flight() -> None:
    world = World()
    world.plan(FIRST + 2, FIRST + 4)
    world.hear([(FIRST + minute, 1) for minute in range(6)])
    counts = world.shard.day_counts.cells.counts.sum(axis=0)
    assert (counts[COUNTED], counts[OUTSIDE]) == (6, 4)
    world.withdraw()
    world.hear([(FIRST + minute, 1) for minute in range(6)])
    counts = world.shard.day_counts.cells.counts.sum(axis=0)
    assert (counts[COUNTED], counts[OUTSIDE]) == (12, 4)


def test_a_placement_ends_only_after_a_known_withdrawal() -> None:
    world = World()
    world.plan(FIRST, FIRST + 60)
    world.hear([(FIRST, 1)])
    world.restart()
    world.hear([], jump=5 * 1_440)
    assert ROW in world.shard.row_index.numbers
    world.withdraw()
    world.hear([], jump=60)
    assert ROW not in world.shard.row_index.numbers
