"""Unpaused time and curves, against counting minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.model.flight import DAY_MS, HOUR_MS, Curve, Flight

MINUTE_MS = 60_000
START_MS = int(datetime(2026, 3, 20, tzinfo=UTC).timestamp()) * 1000
ZONES = ("UTC", "Europe/London", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu")

pauses = st.lists(
    st.tuples(st.integers(-600, 3000), st.integers(1, 900)).map(
        lambda span: (START_MS + span[0] * MINUTE_MS, START_MS + (span[0] + span[1]) * MINUTE_MS)
    ),
    max_size=4,
)
weights = st.lists(st.integers(0, 9), min_size=24, max_size=24).map(tuple)
curves = st.one_of(st.sampled_from(["even", "frontloaded"]), weights)
lengths = st.integers(1, 3000)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def f(flight: Flight, now_ms: int) -> Fraction:
    due, of = flight.reached(now_ms)
    return Fraction(due, of)


@given(lengths, pauses, curves, st.sampled_from(ZONES), st.lists(st.integers(-100, 3100), min_size=2))
def test_the_expected_share_rises_from_0_to_1(
    minutes: int, paused: list[tuple[int, int]], curve: Curve, zone: str, moments: list[int]
) -> None:
    end_ms = START_MS + minutes * MINUTE_MS
    flight = Flight(START_MS, end_ms, paused, curve, zone)
    if not flight.total_ms or (not isinstance(curve, str) and not flight.total_weight):
        return
    shares = [f(flight, START_MS + moment * MINUTE_MS + 1) for moment in sorted(moments)]
    assert shares == sorted(shares)
    assert f(flight, START_MS) == f(flight, START_MS - DAY_MS) == 0
    assert f(flight, end_ms) == f(flight, end_ms + DAY_MS) == 1
    assert all(0 <= share <= 1 for share in shares)


@given(lengths, pauses, weights, st.sampled_from(ZONES), st.integers(0, 3000), st.integers(0, 700))
def test_time_and_weights_equal_a_count_by_minutes(
    minutes: int,
    paused: list[tuple[int, int]],
    curve: tuple[int, ...],
    zone: str,
    moment: int,
    days: int,
) -> None:
    shift = days * DAY_MS
    paused = [(start + shift, end + shift) for start, end in paused]
    start_ms = START_MS + shift
    end_ms, now_ms = start_ms + minutes * MINUTE_MS, start_ms + moment * MINUTE_MS
    flight = Flight(start_ms, end_ms, paused, curve, zone)
    counted = [
        (at, curve[datetime.fromtimestamp(at // 1000, ZoneInfo(zone)).hour])
        for at in range(start_ms, end_ms, MINUTE_MS)
        if not any(start <= at < end for start, end in paused)
    ]
    before = [weight for at, weight in counted if at < now_ms]
    assert flight.elapsed_ms(now_ms) == len(before) * MINUTE_MS
    assert flight.total_ms == len(counted) * MINUTE_MS
    assert flight.reached(now_ms) == (sum(before) * MINUTE_MS, sum(w for _, w in counted) * MINUTE_MS)
    assert flight.paused(now_ms) == any(start <= now_ms < end for start, end in paused if now_ms < end_ms)


@given(st.integers(1, 1439), st.integers(1, 600), st.sampled_from(["even", "frontloaded"]))
def test_a_pause_shifts_what_is_due_by_its_length(at: int, length: int, curve: Curve) -> None:
    pause = (START_MS + at * MINUTE_MS, START_MS + (at + length) * MINUTE_MS)
    plain = Flight(START_MS, START_MS + DAY_MS, (), curve)
    paused = Flight(START_MS, START_MS + DAY_MS + length * MINUTE_MS, [pause], curve)
    for minute in range(0, 1440, 97):
        later = minute + length * (minute >= at)
        assert f(plain, START_MS + minute * MINUTE_MS) == f(paused, START_MS + later * MINUTE_MS)
    assert f(paused, pause[0]) == f(paused, pause[1]) == f(plain, pause[0])


@pytest.mark.parametrize(
    ("tenths", "due"), [(0, 0), (2, 0.25), (4, 0.5), (5, 0.625), (6, 0.7), (8, 0.85), (10, 1)]
)
def test_a_frontloaded_flight_is_a_quarter_ahead_up_to_its_half(tenths: int, due: float) -> None:
    even = Flight(START_MS, START_MS + DAY_MS)
    frontloaded = Flight(START_MS, START_MS + DAY_MS, (), "frontloaded")
    now_ms = START_MS + tenths * DAY_MS // 10
    assert f(even, now_ms) == Fraction(tenths, 10)
    assert f(frontloaded, now_ms) == Fraction(str(due))


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-03-28", 24), ("2026-10-25", 25), ("2026-10-26", 24)]
)
def test_a_london_day_has_23_to_25_hours(day: str, hours: int) -> None:
    london = ZoneInfo("Europe/London")
    start = datetime.fromisoformat(day).replace(tzinfo=london)
    end = start.replace(day=start.day + 1)
    start_ms, end_ms = (int(at.timestamp()) * 1000 for at in (start, end))
    flight = Flight(start_ms, end_ms, (), (1,) * 24, "Europe/London")
    assert flight.total_ms == flight.total_weight == hours * HOUR_MS
    assert f(flight, start_ms + 6 * HOUR_MS) == Fraction(6, hours)


def test_a_skipped_hour_weighs_nothing_and_a_repeated_one_twice() -> None:
    only_one_o_clock = tuple(int(hour == 1) for hour in range(24))
    spring = Flight(
        ms("2026-03-29T00:00+00:00"), ms("2026-03-30T00:00+01:00"), (), only_one_o_clock, "Europe/London"
    )
    autumn = Flight(
        ms("2026-10-25T00:00+01:00"), ms("2026-10-26T00:00+00:00"), (), only_one_o_clock, "Europe/London"
    )
    assert spring.total_weight == 0
    assert autumn.total_weight == 2 * HOUR_MS
    assert f(autumn, ms("2026-10-25T02:00+01:00")) == Fraction(1, 2)
    assert f(autumn, ms("2026-10-25T01:30+00:00")) == Fraction(3, 4)


def test_hours_weigh_by_local_name_around_a_clock_change() -> None:
    morning = tuple(int(hour == 8) for hour in range(24))
    flight = Flight(ms("2026-03-28T00:00+00:00"), ms("2026-03-30T00:00+01:00"), (), morning, "Europe/London")
    assert (
        f(flight, ms("2026-03-28T09:00+00:00")) == f(flight, ms("2026-03-29T07:00+00:00")) == Fraction(1, 2)
    )
    assert f(flight, ms("2026-03-29T07:30+00:00")) == Fraction(3, 4)
    assert f(flight, ms("2026-03-29T08:00+00:00")) == 1


def test_a_flight_of_years_meets_every_change_of_clocks() -> None:
    morning = tuple(int(hour == 8) for hour in range(24))
    start_ms, end_ms = ms("2024-01-01T00:00+00:00"), ms("2028-07-01T00:00+01:00")
    flight = Flight(start_ms, end_ms, (), morning, "Europe/London")
    days = 366 + 3 * 365 + 182
    assert flight.total_ms == days * DAY_MS - HOUR_MS
    assert flight.total_weight == days * HOUR_MS
    assert f(flight, ms("2028-06-30T08:00+01:00")) == Fraction(days - 1, days)
    assert f(flight, ms("2028-06-30T09:00+01:00")) == 1
    assert f(flight, ms("2026-01-01T08:30+00:00")) == Fraction(2 * (366 + 365) + 1, 2 * days)
