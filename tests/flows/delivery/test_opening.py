"""Opening balances: what is known of a flight that had begun before it was counted, and what is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.delivery.moments import moment_text, nearest, refusal, splits_counts
from flows.delivery.opening import Counting, Opening, Unknown, counted_from, opening
from flows.delivery.pacing import Counted
from flows.model.flight import DAY_MS, HOUR_MS, MINUTE_MS
from flows.model.messages import Delivered
from flows.model.plan import Plan

START_MS = 1_793_577_600_000
END_MS = START_MS + 28 * DAY_MS
SINCE_MS = START_MS + 20 * DAY_MS
NOW_MS = SINCE_MS + 2 * HOUR_MS
PLAN = Plan("p", 28_000, START_MS, END_MS)
COUNTING = Counting(SINCE_MS)
BEFORE = {"delivered_before": 20_000, "delivered_before_until": SINCE_MS}


def row(plan: Plan, impressions: int | None = 83, since: int | None = None) -> Delivered:
    return Delivered(*plan.minutes, impressions, plan.parted_from, since)


def opened(
    counting: Counting = COUNTING, of_row: Delivered | None = None, now_ms: int = NOW_MS, **more: int
) -> Opening:
    plan = replace(PLAN, **more)
    return opening(plan, row(plan) if of_row is None else of_row, counting, now_ms, 0.01)


@pytest.mark.parametrize(
    ("length_ms", "late_ms", "covered"),
    [
        *((28 * DAY_MS, 28 * DAY_MS // 1000 + more, not more) for more in (0, 1)),
        *((DAY_MS, 15 * MINUTE_MS + more, not more) for more in (0, 1)),
        (DAY_MS, -DAY_MS, True),
    ],
)
def test_a_flight_is_counted_whole_to_the_millisecond(length_ms: int, late_ms: int, covered: bool) -> None:
    plan = Plan("p", 1000, START_MS, START_MS + length_ms)
    since_ms = START_MS + late_ms
    assert counted_from(plan, since_ms) == (START_MS if covered else since_ms)
    found = opening(plan, row(plan, 7), Counting(since_ms), since_ms + HOUR_MS, 0.01)
    assert (found.delivered, found.counted) == (7 if covered else None, 7)
    assert found.gap_ms == (0 if covered else None)
    assert found.unknown == (None if covered else "no_balance")


def test_counts_add_to_an_opening_balance() -> None:
    found = opened(**BEFORE)
    assert (found.delivered, found.counted, found.gap_ms, found.unknown) == (20_083, 83, 0, None)
    assert (found.since_ms, found.until_ms) == (SINCE_MS, SINCE_MS)
    assert found.recent == Counted(SINCE_MS, 83)


def test_a_balance_of_zero_needs_no_moment_and_states_no_delivery() -> None:
    found = opened(delivered_before=0)
    assert (found.delivered, found.gap_ms, found.until_ms) == (83, 0, SINCE_MS)
    later = opening(
        replace(PLAN, delivered_before=0), row(PLAN, 0), Counting(START_MS - 1), START_MS - 1, 0.01
    )
    assert (later.delivered, later.unknown, later.until_ms) == (0, None, START_MS)


@pytest.mark.parametrize("gap_ms", [0, HOUR_MS, 289 * MINUTE_MS, 290 * MINUTE_MS, 10 * DAY_MS])
def test_a_gap_after_a_balance_is_judged_up_to_one_hundredth(gap_ms: int) -> None:
    """A hundredth of 20 days and two hours is 289.2 minutes."""
    found = opened(delivered_before=20_000, delivered_before_until=SINCE_MS - gap_ms)
    few = gap_ms <= 289 * MINUTE_MS
    assert (found.gap_ms, found.unknown) == (gap_ms, None if few else "gap")
    assert found.delivered == (20_083 if few else None)
    later = opened(now_ms=END_MS - 1, delivered_before=20_000, delivered_before_until=SINCE_MS - gap_ms)
    assert later.unknown == (None if gap_ms <= 403 * MINUTE_MS else "gap"), "a flight that goes on has more"


def test_a_balance_up_to_the_count_is_known_before_its_watermark() -> None:
    """The watermark stays ten seconds behind the clock."""
    found = opened(now_ms=SINCE_MS - 10_000, **BEFORE)
    assert (found.delivered, found.unknown) == (20_083, None)


def test_a_gap_is_of_unpaused_time() -> None:
    pauses = ((SINCE_MS - 10 * HOUR_MS, SINCE_MS - HOUR_MS),)
    plan = replace(PLAN, pauses=pauses, delivered_before=5, delivered_before_until=SINCE_MS - 10 * HOUR_MS)
    assert opening(plan, row(plan), COUNTING, NOW_MS, 0.01).gap_ms == HOUR_MS


@pytest.mark.parametrize(
    ("of", "until_ms", "since", "delivered", "unknown"),
    [
        ("a minute", SINCE_MS + HOUR_MS, 40, 20_040, None),
        ("no minute", SINCE_MS + HOUR_MS + 1, 40, None, "until"),
        ("counts that do not part", SINCE_MS + HOUR_MS, None, None, "until"),
        ("a moment to come", NOW_MS + MINUTE_MS, 0, None, "until"),
        ("any moment before", SINCE_MS - 12_345, None, 20_083, None),
    ],
)
def test_a_later_balance_adds_only_counts_after_its_moment(
    of: str, until_ms: int, since: int | None, delivered: int | None, unknown: Unknown | None
) -> None:
    plan = replace(PLAN, delivered_before=20_000, delivered_before_until=until_ms)
    found = opening(plan, row(plan, 83, since), COUNTING, NOW_MS, 0.01)
    assert (found.delivered, found.unknown, found.until_ms) == (delivered, unknown, until_ms), of
    if found.delivered is not None and until_ms > SINCE_MS:
        assert found.gap_ms == 0


def test_a_balance_makes_a_late_plans_delivery_known() -> None:
    counting, until_ms = Counting(START_MS - DAY_MS), NOW_MS - 30 * MINUTE_MS
    assert opening(PLAN, row(PLAN, None), counting, NOW_MS, 0.01).unknown == "late_plan"
    plan = replace(PLAN, delivered_before=700, delivered_before_until=until_ms)
    found = opening(plan, row(plan, None, 33), counting, NOW_MS, 0.01)
    assert (found.delivered, found.counted, found.unknown) == (733, None, None)
    assert found.recent == Counted(until_ms, 33)
    assert found.since_ms == START_MS


def test_skipped_messages_are_a_gap_of_any_flight() -> None:
    holes = (NOW_MS - 3 * HOUR_MS, NOW_MS - 2 * HOUR_MS), (NOW_MS - HOUR_MS, NOW_MS - HOUR_MS + 1_000)
    counting = Counting(START_MS - DAY_MS, holes)
    whole = opening(PLAN, row(PLAN), counting, NOW_MS, 0.01)
    assert (whole.gap_ms, whole.delivered) == (HOUR_MS + 1_000, 83)
    day = Plan("p", 1000, NOW_MS - DAY_MS, NOW_MS + DAY_MS)
    short = opening(day, row(day), counting, NOW_MS, 0.01)
    assert (short.gap_ms, short.delivered, short.unknown) == (HOUR_MS + 1_000, None, "gap")
    behind = replace(day, delivered_before=9, delivered_before_until=NOW_MS - HOUR_MS + 60_000)
    assert opening(behind, row(behind, 83, 4), counting, NOW_MS, 0.01).gap_ms == 0
    young = Plan("p", 1000, NOW_MS - MINUTE_MS, NOW_MS + DAY_MS)
    assert opening(young, row(young), counting, NOW_MS, 0.01).gap_ms == 0
    both = Counting(SINCE_MS, ((SINCE_MS - 2 * HOUR_MS, SINCE_MS + HOUR_MS),))
    ahead = opened(both, delivered_before=5, delivered_before_until=SINCE_MS - HOUR_MS)
    assert ahead.gap_ms == 2 * HOUR_MS, "no time is missed twice"


LONDON = ZoneInfo("Europe/London")


def epoch_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


NOON = epoch_ms("2026-11-12T12:00:20+00:00")
MORNING = epoch_ms("2026-11-11T09:00:03.500+00:00")


@pytest.mark.parametrize(
    ("until", "right"),
    [
        ("2026-11-11T09:00:03.500+00:00", True), ("2026-11-01T03:04:05+00:00", True),
        ("2026-11-12T00:00:00+00:00", True), ("2026-11-12T11:01:00+00:00", True),
        ("2026-11-12T12:00:00+00:00", True), ("2026-11-11T09:00:03.501+00:00", False),
        ("2026-11-12T11:00:00+00:00", False), ("2026-11-12T11:30:01+00:00", False),
        ("2026-11-12T12:01:00+00:00", False),
    ],
)  # fmt: skip
def test_a_moment_is_valid_at_a_midnight_or_after_counting_began(until: str, right: bool) -> None:
    assert splits_counts(epoch_ms(until), MORNING, NOON, LONDON) is right


def test_an_invalid_moment_names_the_nearest_valid_ones() -> None:
    until_ms = epoch_ms("2026-11-12T10:17:00+00:00")
    words = refusal(until_ms, MORNING, NOON, LONDON)
    assert words.endswith("moments are 2026-11-12T00:00:00+00:00 and 2026-11-12T11:01:00+00:00")
    assert "2026-11-12T10:17:00+00:00: counts before and after it are not stored separately" in words
    assert "up to 2026-11-11T09:00:03.500000+00:00, when counting began" in words


def test_midnights_are_local_on_clock_change_days() -> None:
    berlin, now_ms = ZoneInfo("Europe/Berlin"), epoch_ms("2026-10-27T12:00:00+01:00")
    for midnight, right in (("2026-10-25T00:00+02:00", True), ("2026-10-26T00:00+01:00", True)):
        assert splits_counts(epoch_ms(midnight), MORNING - 60 * DAY_MS, now_ms, berlin) is right
    assert not splits_counts(epoch_ms("2026-10-26T00:00+02:00"), MORNING - 60 * DAY_MS, now_ms, berlin)


@given(st.integers(-5 * DAY_MS, DAY_MS), st.integers(-3 * DAY_MS, 0))
def test_the_nearest_moments_are_valid(off_ms: int, since_off_ms: int) -> None:
    since_ms, until_ms = NOON + since_off_ms, NOON + off_ms
    found = nearest(until_ms, since_ms, NOON, LONDON)
    assert found == sorted(found)
    assert found
    assert all(splits_counts(ms, since_ms, NOON, LONDON) for ms in found)
    if splits_counts(until_ms, since_ms, NOON, LONDON) and until_ms >= since_ms:
        assert until_ms in found
    assert datetime.fromisoformat(moment_text(until_ms)) == datetime.fromtimestamp(until_ms / 1000, UTC)
