"""Flights that are split into an opening balance and the counts after it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_planned_flights import FIRST, LATENESS, World

from flows.model.day_parts import DAYS_OPEN
from flows.model.messages import Delivered

DAY = 1440
BORDER = FIRST + DAY - FIRST % DAY
"""The first midnight of a log."""


def since(world: World, parted: int, end: int) -> int:
    """The impressions from a minute on, up to the flight's end: what is right."""
    return sum(len(who) for minute, who in world.model.heard.items() if parted <= minute < end)


def shown_delivery(world: World) -> Delivered:
    assert world.shown is not None
    assert world.shown[2] is not None
    return world.shown[2]


heard = st.lists(st.tuples(st.integers(-LATENESS, 3), st.integers(1, 9)), min_size=1, max_size=5)
plans = st.tuples(st.integers(1, 3_000), st.integers(1, 3_000), st.integers(0, 200), st.booleans())
steps = st.lists(
    st.tuples(st.sampled_from((0, 1, 2, 7, 61, 400)), heard, st.none() | plans, st.booleans()),
    min_size=3,
    max_size=25,
)


@settings(suppress_health_check=list(HealthCheck))
@given(steps)
@example(
    [
        (0, [(2, 1)], None, False),
        (61, [(0, 1)], None, False),
        (1, [(0, 1)], (61, 1, 0, True), False),
        (0, [(0, 1)], (62, 3, 62, False), False),
    ]
)
def test_counts_after_a_balance_are_exact_or_unknown(
    steps: Any,
) -> None:
    """The plan comes, moves and goes on over restarts; late impressions come on both sides of the moment."""
    world, parted, end, known = World(), 0, 0, False
    for jump, impressions, plan, restart in steps:
        if restart:
            world.restart()
        if plan is not None:
            back, length, ahead, at_midnight = plan
            minute = world.shard.watermark_ms // 60_000 or FIRST
            start = minute - back
            parted = minute - ahead
            if at_midnight:
                parted -= parted % DAY
            parted = max(parted, start)
            end = parted + length
            border = parted % DAY == 0 and parted // DAY >= minute // DAY - DAYS_OPEN
            # Pixels after a flight's end long ago can no longer be separated from it.
            known = not world.model.heard or parted > minute - 60 or (border and end > minute - 60)
            world.plan(start, end, parted)
        open_from = max(FIRST, world.shard.first_open)
        world.hear([(max(open_from, world.minute + at), who) for at, who in impressions], jump)
        if end and world.shown is not None and world.shown[2] is not None:
            counted = shown_delivery(world)
            assert counted.parted == parted
            assert counted.since in (
                {since(world, parted, end)} if known else {None, since(world, parted, end)}
            )


def test_a_balance_before_the_first_pixel_splits_at_any_minute() -> None:
    """As in a replay: the day of its moment has long been given out when the log comes to it."""
    world, parted = World(), FIRST + 20_017
    world.plan(FIRST - 5, FIRST + 40_000, parted)
    for _ in range(30):
        world.hear([(world.minute, 1), (world.minute - 3, 2)], jump=997)
    counted = shown_delivery(world)
    assert counted.since == since(world, parted, FIRST + 40_000)
    assert 0 < counted.since < (counted.impressions or 0)


@pytest.mark.parametrize(("days", "known"), [(0, True), (DAYS_OPEN, True), (DAYS_OPEN + 1, False)])
def test_a_later_balance_splits_at_a_midnight_of_open_days(days: int, known: bool) -> None:
    world = World()
    while world.minute < BORDER + 6 * DAY + 100:
        world.hear([(world.minute, 1)], jump=77)
    midnight = world.minute - world.minute % DAY - days * DAY
    world.plan(FIRST - 40_000, FIRST + 40_000, midnight)
    world.hear([])
    right = since(world, midnight, FIRST + 40_000)
    assert shown_delivery(world).since == (right if known else None)
    world.restart()
    world.hear([(world.minute, 1), (world.minute, 2)], jump=3)
    assert shown_delivery(world).since == (right + 2 if known else None)
    world.hear([(world.minute, 1)], jump=8 * DAY)
    assert shown_delivery(world).since == (right + 3 if known else None), "once known it stays so"
    world.plan(FIRST - 40_000, FIRST + 40_000, midnight + 1)
    world.hear([])
    assert shown_delivery(world).since is None


def test_a_returned_plan_has_its_former_balance() -> None:
    world = World()
    world.plan(FIRST - 500, FIRST + 5_000, FIRST + 30)
    for _ in range(100):
        world.hear([(world.minute, 1)], jump=1)
    world.withdraw()
    for _ in range(100):
        world.hear([(world.minute, 1)], jump=1)
    world.plan(FIRST - 500, FIRST + 5_000, FIRST + 30)
    world.hear([])
    assert shown_delivery(world).since == since(world, FIRST + 30, FIRST + 5_000)
    world.plan(FIRST - 700, FIRST + 5_000, FIRST + 30)
    world.hear([])
    assert shown_delivery(world).since == since(world, FIRST + 30, FIRST + 5_000), "whatever its start"
