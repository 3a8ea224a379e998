"""Pacing: the indicator, its nulls, the order of the states, and the alert about a change."""

from __future__ import annotations

import itertools
from datetime import timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.delivery.pacing import (
    STATES,
    Counted,
    Delivery,
    State,
    Thresholds,
    pace,
    pace_campaign,
    state_change,
)
from flows.model.flight import DAY_MS, HOUR_MS
from flows.model.plan import Plan

MINUTE_MS = 60_000
START_MS = 1_793_577_600_000
DAYS = 10
END_MS = START_MS + DAYS * DAY_MS
USUAL = Thresholds()

booked = st.integers(1, 10**9)
moments = st.integers(-DAY_MS, (DAYS + 1) * DAY_MS).map(lambda ms: START_MS + ms)
pauses = st.lists(
    st.tuples(st.integers(0, DAYS * 20), st.integers(1, 30)).map(
        lambda hours: (START_MS + hours[0] * HOUR_MS, START_MS + sum(hours) * HOUR_MS)
    ),
    max_size=3,
).map(tuple)


def plan(of: int = 1000, **more: Any) -> Plan:
    return Plan("p", of, START_MS, END_MS, **more)


def at_share(share: float) -> int:
    return START_MS + round(share * DAYS * DAY_MS)


def test_half_delivered_at_three_quarters_has_an_indicator_of_two_thirds() -> None:
    now = pace(plan(3_000), 1_500, 1_000_000, at_share(0.75), USUAL)
    assert now.expected == 2250
    assert now.indicator == 2 / 3
    assert f"{now.indicator:.3f}" == "0.667"
    assert now.state == "under"


def test_half_the_booked_at_three_quarters_of_a_frontloaded_flight_is_less() -> None:
    now = pace(plan(3_000, curve="frontloaded"), 1_500, 0, at_share(0.75), USUAL)
    assert now.expected == 3_000 * 0.8125
    assert now.indicator == 1_500 / (3_000 * 0.8125)


def test_hours_of_zero_weight_expect_nothing() -> None:
    noon_only = plan(1000, curve=tuple(int(hour == 12) for hour in range(24)), timezone="UTC")
    start = START_MS // DAY_MS * DAY_MS
    morning = pace(noon_only, 0, 0, start + DAY_MS + 11 * HOUR_MS, USUAL)
    after = pace(noon_only, 90, 0, start + DAY_MS + 13 * HOUR_MS, USUAL)
    assert (morning.expected, after.expected) == (100, 200)
    first = pace(noon_only, 0, 0, start + 11 * HOUR_MS, USUAL)
    assert (first.expected, first.indicator, first.projected, first.state) == (0, None, None, "warming_up")


def test_a_flight_has_a_shortfall_and_a_remaining_time() -> None:
    paused = plan(3_000, pauses=((at_share(0.8), at_share(0.9)),))
    now = pace(paused, 1_500, 0, at_share(0.75), USUAL)
    assert (now.start_ms, now.end_ms, now.remaining_ms) == (START_MS, END_MS, 15 * DAY_MS // 10)
    assert now.expected is not None
    assert now.short_by == now.expected - 1_500 == 1_000
    assert pace(paused, 2_600, 0, at_share(0.75), USUAL).short_by == 0
    assert pace(paused, 1_500, 0, at_share(0.85), USUAL).short_by is None  # paused
    over = pace(paused, 1_500, 0, END_MS + 1, USUAL)
    assert (over.short_by, over.remaining_ms) == (1_500, 0)


def test_a_campaign_ends_with_its_last_placement_and_sums_shortfalls() -> None:
    early = Plan("q", 100, START_MS - DAY_MS, END_MS - DAY_MS)
    parts = [pace(plan(1_000), 200, 0, at_share(0.5), USUAL), pace(early, 100, 0, at_share(0.5), USUAL)]
    whole = pace_campaign(parts, USUAL)
    assert (whole.start_ms, whole.end_ms, whole.remaining_ms) == (
        START_MS - DAY_MS,
        END_MS,
        DAYS * DAY_MS // 2,
    )
    assert whole.expected is not None
    assert whole.expected - 300 < 300, "netted, as money never was"
    assert whole.short_by == 300, "what one is ahead makes up for no other"
    paused = pace(plan(1_000, pauses=((at_share(0.4), at_share(0.6)),)), 1, 0, at_share(0.5), USUAL)
    assert pace_campaign([*parts, paused], USUAL).short_by == 300, "of those that have one"
    assert pace_campaign([paused], USUAL).short_by is None


@given(booked, st.integers(0, 10**9), st.integers(0, 10**7), st.integers(1, DAY_MS))
def test_before_the_flight_all_is_null(of: int, delivered: int, last_hour: int, before_ms: int) -> None:
    now, times = (
        pace(plan(of), delivered, last_hour, START_MS - before_ms, USUAL),
        (START_MS, END_MS, DAYS * DAY_MS, 0, START_MS),
    )
    assert now.short_by is None
    assert now == Delivery(of, delivered, None, None, None, None, "not_started", *times)


@pytest.mark.parametrize(
    ("after_ms", "is_null"), [(0, True), (15 * MINUTE_MS - 1, True), (15 * MINUTE_MS, False)]
)
def test_a_flight_is_not_judged_in_its_first_quarter_of_an_hour(after_ms: int, is_null: bool) -> None:
    now = pace(plan(10**6), 0, 0, START_MS + after_ms, USUAL)
    assert ((now.indicator is None), (now.projected is None)) == (is_null, is_null)
    assert now.state == ("warming_up" if is_null else "under")
    assert now.expected == 10**6 * after_ms / (DAYS * DAY_MS)


def test_the_first_minutes_are_a_setting_and_of_unpaused_time() -> None:
    paused = plan(1000, pauses=((START_MS, START_MS + HOUR_MS),))
    hour = Thresholds(grace=timedelta(hours=1))
    assert pace(plan(), 0, 0, START_MS + HOUR_MS - 1, hour).indicator is None
    assert pace(plan(), 0, 0, START_MS + HOUR_MS, hour).indicator == 0
    assert pace(paused, 0, 0, START_MS + HOUR_MS + 14 * MINUTE_MS, USUAL).indicator is None
    assert pace(paused, 0, 0, START_MS + HOUR_MS + 15 * MINUTE_MS, USUAL).indicator == 0


def test_a_paused_flight_is_not_judged_but_keeps_its_needs() -> None:
    pause = (at_share(0.5), at_share(0.6))
    before = pace(plan(1000, pauses=(pause,)), 100, 5, pause[0] - 1, USUAL)
    during = [pace(plan(1000, pauses=(pause,)), 100, 5, now, USUAL) for now in (pause[0], pause[1] - 1)]
    after = pace(plan(1000, pauses=(pause,)), 100, 5, pause[1], USUAL)
    assert before.state == after.state == "under"
    for now in during:
        assert (now.indicator, now.projected, now.state) == (None, None, "paused")
        assert now.expected == after.expected == 1000 * 0.5 / 0.9
        assert now.required_rate == after.required_rate == 900 / (4 * 24)


@pytest.mark.parametrize("before_ms", [1, MINUTE_MS, HOUR_MS, DAY_MS - 1])
def test_the_last_day_is_paced_to_its_last_moment(before_ms: int) -> None:
    now = pace(plan(1000), 500, 1, END_MS - before_ms, USUAL)
    assert now.indicator == pytest.approx(0.5, rel=0.12)
    assert now.projected is not None
    assert now.required_rate == 500 * HOUR_MS / before_ms
    assert now.state == "under"


@given(booked, st.integers(0, 10**9), st.integers(0, 10**7), st.integers(0, DAY_MS))
def test_the_whole_booking_is_expected_after_the_flight(
    of: int, delivered: int, last_hour: int, after_ms: int
) -> None:
    now = pace(plan(of), delivered, last_hour, END_MS + after_ms, USUAL)
    assert (now.expected, now.indicator) == (of, delivered / of)
    assert (now.projected, now.required_rate) == (delivered, None)
    assert now.state == ("complete" if delivered >= of else "ended_short")


def test_a_flight_shorter_than_the_first_minutes_is_judged_at_its_end() -> None:
    short = Plan("p", 100, START_MS, START_MS + 10 * MINUTE_MS)
    assert pace(short, 10, 10, START_MS + 9 * MINUTE_MS, USUAL).indicator is None
    assert pace(short, 10, 10, START_MS + 10 * MINUTE_MS, USUAL).indicator == 0.1


@given(booked, st.integers(0, 10**9), st.integers(0, 10**6), moments, pauses)
def test_the_required_rate_over_the_remaining_time_reaches_the_booking(
    of: int, delivered: int, last_hour: int, now_ms: int, paused: tuple[tuple[int, int], ...]
) -> None:
    this = plan(of, pauses=paused)
    now = pace(this, delivered, last_hour, now_ms, USUAL)
    left_ms = this.flight.total_ms - this.flight.elapsed_ms(now_ms)
    if now.required_rate is None:
        assert now_ms < START_MS or delivered >= of or left_ms == 0
    else:
        assert delivered + now.required_rate * left_ms / HOUR_MS == pytest.approx(of)
        assert now.required_rate > 0


@given(
    booked,
    st.integers(0, 10**9),
    st.integers(0, 10**7),
    moments,
    pauses,
    st.sampled_from(["even", "frontloaded", tuple(range(24))]),
)
def test_the_first_matching_state_applies(
    of: int, delivered: int, last_hour: int, now_ms: int, paused: tuple[tuple[int, int], ...], curve: Any
) -> None:
    this = plan(of, pauses=paused, curve=curve, timezone="Europe/London")
    now = pace(this, delivered, last_hour, now_ms, USUAL)
    due = Fraction(*this.flight.reached(now_ms))
    in_grace = this.flight.elapsed_ms(now_ms) < 15 * MINUTE_MS
    judged = now_ms >= END_MS or not (in_grace or this.flight.paused(now_ms))
    indicator = Fraction(delivered) / (of * due) if judged and due else None
    since_ms = now_ms // MINUTE_MS * MINUTE_MS - 59 * MINUTE_MS
    young = since_ms < START_MS
    before = Fraction(0) if young else Fraction(*this.flight.reached(since_ms))
    recent, of_late = (delivered, due) if young or due == before else (last_hour, due - before)
    projected = None
    if indicator is not None:
        projected = delivered + of * (1 - due) * recent / (of * of_late)
        needed = (of - delivered) * of_late / (1 - due) if due < 1 else Fraction(0)
        if projected < of and due < 1 and (needed - recent) ** 2 <= 9 * needed:
            projected = None
    assert (now.projected is None) == (projected is None)
    if projected is not None:
        assert now.projected == pytest.approx(float(projected))
    holds: dict[State, bool] = {
        "not_started": now_ms < START_MS,
        "complete": delivered >= of,
        "ended_unknown": False,
        "ended_short": now_ms >= END_MS,
        "paused": any(start <= now_ms < end for start, end in paused),
        "unknown_before": False,
        "under": indicator is not None and indicator < Fraction(9, 10),
        "warming_up": indicator is None or (projected is None and young),
        "at_risk": projected is not None
        and projected < of
        and indicator is not None
        and indicator <= Fraction(11, 10),
        "over": indicator is not None and indicator > Fraction(11, 10),
        "on_track": True,
    }
    assert now.state == next(state for state in STATES if holds[state])


@pytest.mark.parametrize(
    ("delivered", "last_hour", "state"),
    [
        (0, 10**6, "under"), (449_999, 10**6, "under"), (450_000, 10**6, "on_track"), (450_000, 4, "at_risk"),
        (500_000, 4_167, "on_track"), (500_000, 3_900, "at_risk"), (549_999, 4, "at_risk"),
        (550_001, 10**6, "over"), (550_001, 4, "over"),
        (999_999, 10**6, "over"), (1_000_000, 0, "complete"),
    ],
)  # fmt: skip
def test_thresholds_are_met_exactly(delivered: int, last_hour: int, state: State) -> None:
    assert pace(plan(1_000_000), delivered, last_hour, at_share(0.5) - 1, USUAL).state == state


def test_thresholds_are_parameters() -> None:
    strict = Thresholds(under=0.99, over=1.01)
    assert pace(plan(1000), 494, 10**6, at_share(0.5), strict).state == "under"
    assert pace(plan(1000), 506, 10**6, at_share(0.5), strict).state == "over"


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=20))
def test_exactly_nine_tenths_of_the_expected_is_not_under(tens: list[int]) -> None:
    """A third of a booking is no finite binary fraction, and must not tip the scales."""
    third_ms = START_MS + HOUR_MS
    plans = [Plan("p", 10 * ten, START_MS, START_MS + 3 * HOUR_MS) for ten in tens]
    placements = [pace(this, 3 * this.booked // 10, 10**9, third_ms, USUAL) for this in plans]
    for now in (*placements, pace_campaign(placements, USUAL)):
        assert (now.indicator, now.state) == (0.9, "on_track")


def paced(state: State, share: float = 0.5, delivered: int = 500, last_hour: int = 10**6) -> Delivery:
    """A placement of 1000 in a state."""
    more = {"pauses": ((at_share(share), at_share(share) + HOUR_MS),)} if state == "paused" else {}
    now = pace(plan(1000, **more), delivered, last_hour, at_share(share), USUAL)
    assert now.state == state
    return now


def shown(delivery: Delivery) -> list[float | None]:
    """Its numbers, to six places."""
    numbers = [*(value for value in delivery if not isinstance(value, str)), delivery.short_by]
    return [number if number is None else round(number, 6) for number in numbers]


def test_a_campaign_of_one_placement_is_paced_like_it() -> None:
    starved = pace(plan(100_000), 50_000, 4, at_share(0.5), USUAL)
    assert starved.state == "at_risk"
    for one in (
        paced("on_track"),
        paced("under", delivered=100),
        paced("over", delivered=900),
        starved,
        paced("complete", delivered=1000),
        paced("ended_short", share=1),
        paced("not_started", share=-1),
        paced("paused"),
    ):
        campaign = pace_campaign([one], USUAL)
        assert campaign.state == one.state
        assert shown(campaign) == shown(one)


def test_a_campaign_is_paced_by_its_sums() -> None:
    campaign = pace_campaign([paced("under", delivered=300), paced("over", delivered=620)], USUAL)
    assert (campaign.booked, campaign.delivered, campaign.expected) == (2000, 920, 1000)
    assert (campaign.indicator, campaign.state) == (0.92, "on_track")
    assert campaign.required_rate == pytest.approx((700 + 380) / 120)


def test_a_campaign_with_its_booking_delivered_needs_no_more() -> None:
    campaign = pace_campaign([paced("complete", delivered=1700), paced("under", delivered=300)], USUAL)
    assert (campaign.state, campaign.required_rate) == ("complete", None)


def test_a_placement_before_its_start_expects_nothing_of_its_campaign() -> None:
    later, starved = (
        paced("not_started", share=-1, delivered=0),
        pace(plan(100_000), 50_000, 4, at_share(0.5), USUAL),
    )
    campaign = pace_campaign([later, paced("on_track")], USUAL)
    assert (campaign.booked, campaign.expected, campaign.indicator) == (2000, 500, 1)
    assert campaign.projected == pytest.approx(paced("on_track").projected + 1000)  # type: ignore[operator]  # not None: it is judged
    assert campaign.state == "on_track"
    assert pace_campaign([later, later], USUAL).state == "not_started"
    assert pace_campaign([later, starved], USUAL).state == "at_risk"


def test_a_campaign_is_paused_if_all_unfinished_placements_are() -> None:
    paused, ended = paced("paused"), paced("ended_short", share=1)
    for still in (
        paused,
        ended,
        paced("complete", delivered=1000),
        paced("not_started", share=-1, delivered=0),
    ):
        campaign = pace_campaign([paused, still], USUAL)
        assert (campaign.state, campaign.indicator, campaign.projected) == ("paused", None, None)
    running = pace_campaign([paused, paced("under", delivered=100)], USUAL)
    assert paused.expected is not None
    assert running.state == "under"
    assert running.indicator == pytest.approx(600 / (500 + paused.expected))


def test_a_campaign_ends_with_all_placements_ended_or_delivered() -> None:
    ended, complete = paced("ended_short", share=1), paced("complete", delivered=1000)
    assert pace_campaign([ended, complete], USUAL).state == "ended_short"
    assert pace_campaign([ended, paced("complete", delivered=1500)], USUAL).state == "complete"
    assert pace_campaign([ended, paced("on_track")], USUAL).state != "ended_short"


def test_a_campaign_is_not_judged_in_its_first_minutes() -> None:
    fresh = pace(plan(1000), 0, 0, START_MS + MINUTE_MS, USUAL)
    campaign = pace_campaign([fresh, paced("not_started", share=-1, delivered=0)], USUAL)
    assert (campaign.indicator, campaign.projected, campaign.state) == (None, None, "warming_up")
    assert campaign.expected == fresh.expected


def test_a_campaign_warms_up_while_all_delivering_placements_do() -> None:
    warming = pace(plan(10**5), 205, 205, START_MS + 30 * MINUTE_MS, USUAL)
    assert (warming.projected, warming.state) == (None, "warming_up")
    later = paced("not_started", share=-1, delivered=0)
    assert pace_campaign([warming, later], USUAL).state == "warming_up"
    assert pace_campaign([warming, paced("on_track")], USUAL).state != "warming_up"


@given(
    st.lists(
        st.tuples(booked, st.integers(0, 10**9), st.integers(0, 10**7), pauses, st.integers(-DAYS, DAYS)),
        min_size=1,
    ),
    moments,
)
def test_a_campaign_has_the_sums_of_its_placements_and_one_state(
    placements: list[tuple[int, int, int, tuple[tuple[int, int], ...], int]], now_ms: int
) -> None:
    each = [
        pace(plan(of, pauses=paused), delivered, last_hour, now_ms + shift * DAY_MS, USUAL)
        for of, delivered, last_hour, paused, shift in placements
    ]
    campaign = pace_campaign(each, USUAL)
    assert campaign.booked == sum(one.booked for one in each)
    assert campaign.delivered == sum(one.delivered for one in each)
    assert campaign.state in STATES
    if campaign.state in ("under", "over", "at_risk"):
        assert campaign.indicator is not None
    if campaign.state == "at_risk":
        assert campaign.projected is not None
    if campaign.indicator is not None:
        assert campaign.indicator == pytest.approx(campaign.delivered / campaign.expected)  # type: ignore[operator]  # not None


def arrivals(rng: np.random.Generator, this: Plan, minutes: int, rate: float) -> npt.NDArray[np.int64]:
    """Impressions of each minute from the start on: by chance, `rate` times what the plan has due in it."""
    due = [Fraction(*this.flight.reached(START_MS + minute * MINUTE_MS)) for minute in range(minutes + 1)]
    means = [float(this.booked * (after - before)) for before, after in itertools.pairwise(due)]
    return rng.poisson(np.array(means) * rate)


def watched(this: Plan, counts: npt.NDArray[np.int64]) -> list[Delivery]:
    """A flight at the end of each of its minutes, as its row counts it."""
    total = np.concatenate([[0], np.cumsum(counts)]).tolist()
    return [
        pace(
            this,
            total[minute],
            total[minute] - total[max(0, minute - 60)],
            START_MS + minute * MINUTE_MS - 1,
            USUAL,
        )
        for minute in range(1, len(total))
    ]


NIGHT: tuple[int, ...] = (0, 0, 0, 0, 0, 1, 4, 8, 8, 4, 2, 2, 2, 2, 2, 3, 6, 8, 6, 3, 2, 1, 0, 0)


@pytest.mark.parametrize("curve", ["even", "frontloaded", NIGHT], ids=["even", "frontloaded", "night"])
@pytest.mark.parametrize("an_hour", [20, 1_000, 50_000])
@pytest.mark.parametrize("rate", [1.05, 1.4])
def test_a_healthy_flight_is_never_at_risk(curve: Any, an_hour: int, rate: float) -> None:
    this = plan(an_hour * DAYS * 24, curve=curve, timezone="UTC", pauses=((at_share(0.05), at_share(0.06)),))
    for seed in range(3):
        seen = watched(this, arrivals(np.random.default_rng(seed), this, 2 * 1440, rate))
        assert "at_risk" not in {now.state for now in seen}
        assert {now.state for now in seen[:14]} == {"warming_up"}
        judged = [now for now in seen[60:] if now.indicator is not None and now.state != "under"]
        assert {now.state for now in judged} <= {"on_track", "over"}
        assert len(judged) > 1440


@pytest.mark.parametrize("curve", ["even", "frontloaded", NIGHT], ids=["even", "frontloaded", "night"])
@pytest.mark.parametrize("ahead", [1.0, 1.08])
def test_a_starving_flight_is_at_risk_and_then_under(curve: Any, ahead: float) -> None:
    this = plan(1_000 * DAYS * 24, curve=curve, timezone="UTC")
    counts = arrivals(np.random.default_rng(1), this, 4 * 1440, ahead)
    # At seven in the morning of the second day, whatever the clock of the flight's start.
    starved = 1440 + (31 * 60 - START_MS // MINUTE_MS % 1440) % 1440
    counts[starved:] = 0
    seen = watched(this, counts)
    assert seen[starved - 1].state in ("on_track", "over")
    first = next(i for i, now in enumerate(seen[starved:]) if now.state in ("at_risk", "under"))
    assert first < 60
    assert seen[-1].state == "under"


def test_a_flight_with_unknown_delivery_is_not_judged() -> None:
    """Its plan came too late, or it had begun before anything was counted (specification 11.1)."""
    for share, state in (
        *((-0.1, "not_started"), (0.3, "unknown_before"), (0.55, "paused"), (1.1, "ended_unknown")),
    ):
        now = pace(plan(pauses=((at_share(0.5), at_share(0.6)),)), None, 10**6, at_share(share), USUAL)
        assert (now.delivered, now.indicator, now.projected, now.required_rate) == (None, None, None, None)
        assert now.state == state
        assert (now.expected is None) == (share < 0)
        campaign = pace_campaign([now, paced("complete", delivered=1000)], USUAL)
        assert (campaign.delivered, campaign.indicator, campaign.required_rate) == (None, None, None)
        assert campaign.state != "complete"
        told = state_change("p", "c", "on_track", now, 5)
        assert (told is None) == (state in ("unknown_before", "ended_unknown")), "nobody is told of it"
        assert told is None or "delivered" not in told


def begun(delivered: int | None, counted: int, share: float, since: float = 0.4, **more: Any) -> Delivery:
    """A flight of 1000 that is counted since a share of it."""
    return pace(plan(**more), delivered, 10, at_share(share), USUAL, Counted(at_share(since), counted))


def test_a_flight_begun_before_its_count_passes_its_states_in_order() -> None:
    pause = ((at_share(0.5), at_share(0.6)),)
    for now, state in (
        (begun(None, 1000, 0.55, pauses=pause), "complete"),
        (begun(None, 999, 1.1), "ended_unknown"),
        (begun(999, 500, 1.1), "ended_short"),
        (begun(None, 999, 0.55, pauses=pause), "paused"),
        (begun(None, 999, 0.5), "unknown_before"),
        (begun(100, 50, 0.5), "under"),
    ):
        assert now.state == state
        known = (now.delivered, now.indicator, now.short_by, now.projected, now.required_rate)
        assert (known == (None,) * 5) == (now.delivered is None), "all that follows from it"
        assert now.expected is not None
        campaign = pace_campaign([now], USUAL)
        assert (campaign.state, campaign.since_ms) == (state, at_share(0.4))


def test_a_campaign_with_one_unknown_placement_is_unknown() -> None:
    unknown, fine = begun(None, 300, 0.5), paced("on_track")
    campaign = pace_campaign([fine, unknown], USUAL)
    assert (campaign.state, campaign.delivered, campaign.indicator) == ("unknown_before", None, None)
    assert campaign.booked == 2000
    assert campaign.expected == 1000
    ended = begun(None, 300, 1.1)
    assert pace_campaign([ended, paced("ended_short", share=1)], USUAL).state == "ended_unknown"
    assert pace_campaign([ended, fine], USUAL).state == "unknown_before"
    much = begun(None, 2000, 0.5)
    assert pace_campaign([much, paced("complete", delivered=1000)], USUAL).state == "complete"
    assert pace_campaign([much, fine], USUAL).state == "complete"


def test_the_recent_rate_of_an_opened_flight_starts_at_its_count() -> None:
    """Twenty minutes after the first message, on plan by the balance and in what was counted."""
    since_ms = at_share(0.4)
    this = plan(10**6)
    on_plan = round(10**6 * 20 * MINUTE_MS / (DAYS * DAY_MS)) + 1

    def after(minutes: float, delivered: int, counted: int) -> Delivery:
        return pace(
            this,
            delivered,
            counted,
            since_ms + round(minutes * MINUTE_MS),
            USUAL,
            Counted(since_ms, counted),
        )

    now = after(20, 400_000 + on_plan, on_plan)
    assert now.state == "on_track"
    assert now.projected == pytest.approx(10**6, rel=0.01)
    assert after(20, 400_000 + on_plan, 2 * on_plan).projected == pytest.approx(1_600_000, rel=0.01)
    starved = after(50, 400_000 + on_plan, on_plan)
    assert (starved.state, round(starved.projected or 0, -4)) == ("at_risk", 640_000)
    for minutes in (0, 14.9):  # whatever the balance says
        assert after(minutes, 100, 100).state == "warming_up"
        assert after(minutes, 100, 100).indicator is None
    assert after(15, 100, 100).state == "under"


def test_no_change_tells_nothing() -> None:
    assert state_change("p", "c", "under", paced("under", delivered=100), 5) is None
    assert state_change("p", "c", None, paced("not_started", share=-1), 5) is None


def test_a_change_tells_the_numbers_in_texts() -> None:
    now = pace(plan(10_000), 5_000, 2, at_share(0.75), USUAL)
    assert state_change("p", "c", "on_track", now, 1_793_577_600_000) == {
        "id": "p|under|1793577600000",
        "placement": "p",
        "campaign": "c",
        "from": "on_track",
        "to": "under",
        "booked": "10000",
        "delivered": "5000",
        "expected": "7500.000000",
        "short_by": "2500.000000",
        "indicator": "0.666667",
        "projected": "5122.033898",
        "required_rate": "83.333333",
        "as_of_ms": "1793577600000",
    }


def test_a_new_plan_changes_from_not_started_and_nulls_are_absent() -> None:
    told = state_change("p", None, None, paced("paused"), 5)
    assert told is not None
    assert (told["from"], told["to"]) == ("not_started", "paused")
    assert not told.keys() & {"campaign", "indicator", "projected"}


def test_the_same_change_has_the_same_id_and_another_has_another() -> None:
    under, over = paced("under", delivered=100), paced("over", delivered=900)
    changes: list[tuple[State, Delivery, int]] = [
        ("on_track", under, 5), ("over", under, 5), ("on_track", over, 5), ("on_track", under, 6),
    ]  # fmt: skip
    told = [state_change("p", "c", before, now, as_of_ms) for before, now, as_of_ms in changes]
    ids = [record["id"] for record in told if record]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
