"""Opening balances of plans from a report: which of its rows are in them, and which reports have none."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.errors import UsageError
from flows.model.flight import DAY_MS, HOUR_MS
from flows.model.plan import Plan
from flows.waterfall import Balance, balances, read_claims
from flows.waterfall.publisher_counts import Claim

UTC_ZONE, NEW_YORK = ZoneInfo("UTC"), ZoneInfo("America/New_York")
FIRST = date(2026, 11, 2)
START_MS = round(datetime(2026, 11, 2, tzinfo=UTC).timestamp()) * 1000
PLANS = {
    name: Plan(name, 28_000, START_MS + late_days * DAY_MS, START_MS + 28 * DAY_MS)
    for name, late_days in (("a", 0), ("b", 1), ("later", 20))
}


def claim(number: int, day: int | None, name: str = "a", **more: str) -> Claim:
    """A row of the day so many days after the first; None for the whole flight."""
    of = None if day is None else FIRST + timedelta(days=day)
    return Claim("placement", name, of, number, **more)  # type: ignore[arg-type]


def at_day(days: float) -> int:
    return START_MS + round(days * DAY_MS)


def balances_of(claims: list[Claim], until_ms: int, zone: ZoneInfo = UTC_ZONE) -> dict[str, Balance]:
    return dict(balances(claims, PLANS, until_ms, zone).balances)


def test_a_balance_is_the_sum_of_a_placements_days() -> None:
    claims = [claim(10, 0), claim(20, 1), claim(5, 1, "b"), claim(30, 2)]
    assert balances_of(claims, at_day(3)) == {
        "a": Balance("a", 60, at_day(3), 3),
        "b": Balance("b", 5, at_day(3), 1, (FIRST + timedelta(days=2),)),
    }


def test_the_row_of_the_moments_day_is_of_its_part() -> None:
    assert balances_of([claim(10, 0), claim(7, 1)], at_day(1.375)) == {
        "a": Balance("a", 17, at_day(1.375), 2)
    }


def test_a_reports_whole_day_beyond_the_moment_is_refused() -> None:
    claims = [claim(10, 0), claim(20, 1), claim(30, 2)]
    with pytest.raises(UsageError, match="its row of 2026-11-03 counts beyond the moment"):
        balances_of(claims, at_day(1.375))
    assert balances_of(claims, at_day(1)) == {"a": Balance("a", 10, at_day(1), 1)}
    assert balances_of(claims, at_day(2)) == {"a": Balance("a", 30, at_day(2), 2)}


def test_a_row_of_the_flight_is_all_of_it() -> None:
    assert balances_of([claim(412_350, None)], at_day(9.3)) == {"a": Balance("a", 412_350, at_day(9.3), 1)}


def test_days_are_those_of_the_zone() -> None:
    """The flight begins at 19:00 of the day before, in New York."""
    claims = [claim(1, -1), claim(2, 0)]
    assert balances_of(claims, at_day(1)) == {
        "a": Balance("a", 2, at_day(1), 1),
    }
    assert balances_of(claims, at_day(1) + 5 * HOUR_MS, NEW_YORK) == {
        "a": Balance("a", 3, at_day(1) + 5 * HOUR_MS, 2)
    }


def test_a_balance_ends_with_the_flight() -> None:
    claims = [claim(10, day) for day in range(30)]
    assert balances_of(claims, at_day(30))["a"] == Balance("a", 280, at_day(28), 28)


def test_claims_outside_every_balance_are_counted() -> None:
    found = balances(
        [
            claim(1, 0),
            claim(2, 0, basis="audible_2s"),
            claim(3, 0, counted="downloads"),
            claim(4, 0, "later"),
            claim(4, None, "later"),
            claim(5, -9),
            claim(6, 0, "nobody's"),
            Claim("campaign", "c", FIRST, 7),
        ],
        PLANS,
        at_day(2),
        UTC_ZONE,
    )
    assert found.balances == {"a": Balance("a", 1, at_day(2), 1, (FIRST + timedelta(days=1),))}
    assert found.without == ["b"]
    assert found.unplanned == ["nobody's"]
    assert found.left_out == {
        "of one basis: a balance is of impressions of every basis": 1,
        "of downloads: a balance is of impressions": 1,
        "of a flight that begins later": 1,
        "of a day outside of the flight, or after the moment": 2,
        "of a campaign: a balance is of a placement": 1,
    }


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ([claim(1, None), claim(2, 0)], "a: the report counts both the flight and days"),
        ([claim(1, 0), claim(2, 0, excludes=frozenset({"repeated"}))], "a: the report counts a day twice"),
        ([claim(1, 0, "nobody's")], "no row counts impressions of a placement whose plan had begun"),
        ([claim(1, 0, "later")], "no row counts impressions of a placement whose plan had begun"),
    ],
)
def test_a_report_without_a_balance_is_refused(claims: list[Claim], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        balances_of(claims, at_day(2))


@given(st.lists(st.integers(0, 10**6), min_size=28, max_size=28), st.integers(1, 28))
def test_at_midnight_a_balance_is_the_days_before_it(counts: list[int], days: int) -> None:
    claims = [claim(count, day) for day, count in enumerate(counts)]
    assert balances_of(claims, at_day(days)) == {"a": Balance("a", sum(counts[:days]), at_day(days), days)}


def test_days_of_other_centuries_are_outside_of_every_flight(tmp_path: Path) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text("placement_id,day,impressions\na,0001-01-01,5\na,9999-12-31,6\na,2026-11-02,7\n")
    assert balances_of(read_claims(path), at_day(1) + 5 * HOUR_MS, NEW_YORK)["a"].delivered == 7
