"""Weeks of a market: every dead feed is named in time, and hardly anything else is."""

from __future__ import annotations

from collections import Counter

import pytest
from feeds_support import DAY_STEPS, HOUR_STEPS, STEP_S, WHOLLY_ENDED, Market, Played, played, rightly

SEED, DAYS = 1, 24
LEARNT = 9
"""Days behind which the same hour a week ago is known, a weekend too."""


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(SEED, DAYS)


@pytest.fixture(scope="module")
def weeks(market: Market) -> Played:
    return played(market)


@pytest.mark.timeout(900)
def test_every_dead_feed_is_named_within_its_bound_and_ten_seconds(market: Market, weeks: Played) -> None:
    named, dead = Counter[str](), 0
    for unit in weeks.heard:
        found = {since: at for since, at, _ in weeks.named.get(unit, ())}
        ends = market.ends(unit)
        for since, at in rightly(market, weeks, unit):
            if any(since - 2 * DAY_STEPS < end <= since for end in ends):
                # The limit is longer for a unit with ended flights.
                assert found.get(since, at) >= at
                continue
            assert since in found, f"{unit} is not named at {at}"
            assert 0 <= (found[since] - at) * STEP_S <= 10, (
                f"{unit} is due at {at}, and named at {found[since]}"
            )
            dead += weeks.lost(unit, since, at) >= 20
            named[unit.partition(":")[0]] += 1
        assert found.keys() <= {since for since, _ in rightly(market, weeks, unit)}
    assert dead > 30
    assert min(named.values()) > 5
    assert len(named) == 3


def test_at_most_one_unit_hour_in_ten_thousand_is_falsely_silent(market: Market, weeks: Played) -> None:
    hours = set()
    for unit, found in weeks.named.items():
        for since, at, until in found:
            if at >= LEARNT * DAY_STEPS and weeks.lost(unit, since, at) < 20:
                hours |= {(unit, hour) for hour in range(at // HOUR_STEPS, -(-until // HOUR_STEPS))}
    of = len(weeks.heard) * 24 * (DAYS - LEARNT)
    assert of > 10_000
    assert len(hours) <= of / 10_000


def test_a_platform_without_a_running_flight_is_not_named(market: Market, weeks: Played) -> None:
    for name in WHOLLY_ENDED:
        ends = market.ends(f"platform:{name}")
        assert len(ends) == 3
        assert not [at for _, at, _ in weeks.named.get(f"platform:{name}", ()) if at >= max(ends)]
