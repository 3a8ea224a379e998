"""Event time and watermarks: one pixel makes no other late, and the log alone decides."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.intake.watermark import PartitionClock
from flows.model.pixel import COLUMNS, TS, WATERMARK
from flows.model.ticks import DAY_MS, ENDED, STEP_MS, Cut, Tick, cut_at

SECOND, MINUTE = 1_000, 60_000
BOUND_MS, QUIET_MS = 10_000, 60_000
NOW_MS = 1_750_000_000_000
TEN_YEARS_MS = 3653 * DAY_MS

Pixel = tuple[int, int]
"""(the caller's clock, time of receipt or 0)"""

NEAR = st.integers(-30 * MINUTE, 30 * MINUTE)
FAR = st.sampled_from(
    (-TEN_YEARS_MS, -DAY_MS, -DAY_MS - 6 * MINUTE, DAY_MS - 1, DAY_MS, DAY_MS + 1, 3 * DAY_MS, TEN_YEARS_MS)
)
TIMES = st.builds(lambda by: NOW_MS + by, st.one_of(NEAR, NEAR, FAR))
RECEIPTS = NEAR.map(lambda by: NOW_MS + by)
PIXELS = st.lists(st.tuples(TIMES, st.one_of(st.just(0), RECEIPTS)), max_size=30)
RECEIVED = st.lists(st.tuples(TIMES, RECEIPTS), max_size=30)


def clock(**state: int) -> PartitionClock:
    return PartitionClock(BOUND_MS, QUIET_MS, **state)


def judged(
    clock: PartitionClock, pixels: list[Pixel], bounded: bool = True
) -> tuple[npt.NDArray[np.int64], int]:
    """((n, 2) event times and watermarks, how many were skewed)."""
    packed = np.zeros((len(pixels), COLUMNS), np.uint64)
    if pixels:
        packed[:, [TS, WATERMARK]] = np.array(pixels, np.uint64)
    skewed = clock.judge(packed, bounded)
    return packed[:, [TS, WATERMARK]].astype(np.int64), skewed


@settings(deadline=None)  # the first example may compile
@given(PIXELS, st.booleans())
def test_event_time_is_the_callers_clock_within_bounds_of_receipt(pixels: list[Pixel], bounded: bool) -> None:
    times, skewed = judged(clock(), pixels, bounded)
    told = np.array(pixels, np.int64).reshape(-1, 2)
    expected = [min(max(ts, got - DAY_MS), got + MINUTE) if got else ts for ts, got in pixels]
    assert times[:, 0].tolist() == expected
    assert skewed == sum(abs(ts - time) > 5 * MINUTE for ts, time in zip(told[:, 0], expected, strict=True))


@pytest.mark.parametrize(
    ("by_ms", "skewed"), [(6 * MINUTE, 0), (6 * MINUTE + 1, 1), (-DAY_MS - 5 * MINUTE, 0)]
)
def test_a_clamp_of_more_than_five_minutes_is_counted(by_ms: int, skewed: int) -> None:
    assert judged(clock(), [(NOW_MS + by_ms, NOW_MS)])[1] == skewed


@settings(deadline=None)  # the first example may compile
@given(RECEIVED)
def test_a_brokers_watermark_is_the_greatest_event_time_less_the_bound(pixels: list[Pixel]) -> None:
    times, _ = judged(clock(), pixels)
    assert times[:, 1].tolist() == [max(times[: i + 1, 0]) - BOUND_MS for i in range(len(pixels))]


@settings(deadline=None)  # the first example may compile
@given(PIXELS, st.lists(st.integers(0, 30), max_size=5), st.booleans())
def test_pixels_are_judged_the_same_however_batches_are_cut(
    pixels: list[Pixel], places: list[int], bounded: bool
) -> None:
    whole = clock()
    expected, skewed = judged(whole, pixels, bounded)
    pieces, rows, total = clock(), [], 0
    bounds = [0, *sorted(min(place, len(pixels)) for place in places), len(pixels)]
    for start, end in pairwise(bounds):
        some, skewed_here = judged(pieces, pixels[start:end], bounded)
        rows += some.tolist()
        total += skewed_here
        pieces = clock(  # as after a restart
            greatest_ms=pieces.greatest_ms,
            candidate_ms=pieces.candidate_ms,
            floor_ms=pieces.floor_ms,
        )
    assert rows == expected.tolist()
    assert total == skewed
    assert pieces == clock(greatest_ms=whole.greatest_ms, candidate_ms=whole.candidate_ms)


STEPS = st.lists(st.one_of(PIXELS, st.tuples(st.integers(0, 10 * MINUTE), TIMES)), max_size=15)


@settings(deadline=None)
@given(STEPS, st.booleans())
def test_the_watermark_never_goes_back(steps: list[Any], bounded: bool) -> None:
    partition, at, now_ms = clock(), 0, 0
    for step in steps:
        if isinstance(step, list):
            for watermark in judged(partition, step, bounded)[0][:, 1].tolist():
                assert watermark >= at
                at = watermark
        else:
            now_ms += step[0]
            partition.prove(now_ms, step[1])
        assert partition.watermark_ms >= at
        at = partition.watermark_ms


def ordinary(received: bool, ahead: list[Pixel], bounded: bool = False) -> npt.NDArray[np.int64]:
    """Watermarks of a minute's pixels in order, one a second, with `ahead` in their middle."""
    usual = [(NOW_MS + i * SECOND, NOW_MS + i * SECOND if received else 0) for i in range(60)]
    times, _ = judged(clock(), [*usual[:30], *ahead, *usual[30:]], bounded)
    return np.delete(times, range(30, 30 + len(ahead)), axis=0)


@pytest.mark.parametrize("received", [False, True])  # the others
@pytest.mark.parametrize("receipt", [False, True])  # its own, which nothing bounds either
@pytest.mark.parametrize("by_ms", [TEN_YEARS_MS, 25 * 60 * MINUTE])
def test_an_unbounded_pixel_far_ahead_does_not_move_time(by_ms: int, receipt: bool, received: bool) -> None:
    ahead = (NOW_MS + by_ms, NOW_MS + by_ms if receipt else 0)
    assert (ordinary(received, [ahead]) == ordinary(received, [])).all()


def test_a_pixel_ten_years_ahead_is_clamped_to_its_receipt() -> None:
    times = ordinary(True, [(NOW_MS + TEN_YEARS_MS, NOW_MS + 30 * SECOND)], bounded=True)
    assert (times[:, 1] - times[:, 0]).max() <= MINUTE  # by far less than the allowed lateness


def test_a_jump_bounded_by_a_broker_moves_time_at_once() -> None:
    pixels = [(NOW_MS + by, NOW_MS + by) for by in (0, 30 * DAY_MS, SECOND)]
    expected = [NOW_MS - BOUND_MS, *[NOW_MS + 30 * DAY_MS - BOUND_MS] * 2]
    assert judged(clock(), pixels)[0][:, 1].tolist() == expected


@pytest.mark.parametrize("receipt", [False, True])
def test_an_unbounded_first_pixel_far_ahead_does_not_move_time(receipt: bool) -> None:
    ahead = (NOW_MS + TEN_YEARS_MS, NOW_MS + TEN_YEARS_MS if receipt else 0)
    times, _ = judged(clock(), [ahead, *((NOW_MS + i * SECOND, 0) for i in range(5))], bounded=False)
    assert times[:, 1].tolist() == [0, 0, *(NOW_MS + i * SECOND - BOUND_MS for i in range(1, 5))]


@pytest.mark.parametrize("next_ms", [-DAY_MS, 0, TEN_YEARS_MS])
def test_a_jump_counts_if_the_next_pixel_confirms_it(next_ms: int) -> None:
    jump = NOW_MS + 30 * DAY_MS
    partition = clock(greatest_ms=NOW_MS)
    times, _ = judged(partition, [(jump, 0), (jump + next_ms, 0)], bounded=False)
    assert times[:, 1].tolist() == [NOW_MS - BOUND_MS, jump - BOUND_MS]


def test_a_jump_is_dropped_if_the_next_pixel_is_far_earlier() -> None:
    partition = clock(greatest_ms=NOW_MS)
    jump = (NOW_MS + 30 * DAY_MS, 0)
    judged(partition, [jump, (NOW_MS + 29 * DAY_MS - 1, 0), (NOW_MS + SECOND, 0)], bounded=False)
    assert partition.watermark_ms == NOW_MS + SECOND - BOUND_MS


# Quiet partitions


def quiet_for(partition: PartitionClock, began_ms: int, elapsed_ms: int, every_ms: int = 500) -> None:
    """Prove it read to its end at once, and then once in `every_ms` while time elapses."""
    for now_ms in range(began_ms, began_ms + elapsed_ms + 1, every_ms):
        partition.prove(now_ms)


@settings(deadline=None)  # the first example may compile
@given(st.lists(st.integers(0, STEP_MS), min_size=1, max_size=200))
def test_a_quiet_partition_advances_one_minute_behind_elapsed_time(waits: list[int]) -> None:
    partition = clock(greatest_ms=NOW_MS)
    began_ms = now_ms = 5_000_000  # any clock: it need not be the wall's
    partition.prove(now_ms)
    for wait in waits:
        now_ms += wait
        partition.prove(now_ms)
        assert partition.watermark_ms == NOW_MS - BOUND_MS + max(0, now_ms - began_ms - QUIET_MS)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7_200_000), st.sampled_from((0, 300, 60_000))), min_size=1, max_size=30)
)
def test_a_proof_moves_a_partition_by_at_most_one_step(
    moments: list[tuple[int, int]],
) -> None:
    partition, now_ms = clock(greatest_ms=NOW_MS), 0
    quiet_for(partition, 0, QUIET_MS)
    for wait, quiet_ms in moments:  # a machine that was suspended, an outage, a partition that lagged
        now_ms += QUIET_MS + wait
        before = partition.watermark_ms
        partition.prove(now_ms)
        assert partition.watermark_ms - before <= STEP_MS
        quiet_for(partition, now_ms, quiet_ms)
        now_ms += quiet_ms


def test_an_unproved_partition_does_not_advance() -> None:
    partition = clock(greatest_ms=NOW_MS)
    quiet_for(partition, 0, QUIET_MS - SECOND)
    quiet_for(partition, 60 * MINUTE, 0)
    assert partition.watermark_ms == NOW_MS - BOUND_MS
    quiet_for(partition, 60 * MINUTE, MINUTE)
    assert partition.watermark_ms == NOW_MS - BOUND_MS + MINUTE


JUNK = st.tuples(st.integers(1, 100), st.one_of(st.just(None), st.integers(-2 * DAY_MS, 400)))
"""A message after so many seconds: no pixel, or one that is so far from the watermark."""


@given(st.lists(JUNK, min_size=1, max_size=40))
def test_slow_junk_does_not_hold_the_watermark(
    junk: list[tuple[int, int | None]],
) -> None:
    partition, alone = clock(greatest_ms=NOW_MS), clock(greatest_ms=NOW_MS)
    now_ms = 0
    for after_s, by_ms in junk:
        for some in (partition, alone):
            quiet_for(some, now_ms, after_s * SECOND)
        now_ms += after_s * SECOND
        if by_ms is not None:
            at_ms = partition.watermark_ms + BOUND_MS + by_ms
            judged(partition, [(at_ms, now_ms + NOW_MS)])
        assert alone.watermark_ms <= partition.watermark_ms <= alone.watermark_ms + QUIET_MS


def restarted(partition: PartitionClock) -> PartitionClock:
    """As after a crash, with what its snapshot held."""
    return clock(
        greatest_ms=partition.greatest_ms,
        floor_ms=partition.floor_ms,
        ahead_ms=partition.ahead_ms,
        missed_ms=partition.missed_ms,
        shown_ms=partition.shown_ms,
    )


def test_frequent_restarts_do_not_stop_a_quiet_partition() -> None:
    partition, elapsed_ms = clock(greatest_ms=NOW_MS), 60 * MINUTE
    for now_ms in range(0, elapsed_ms, 500):
        if now_ms % (8 * SECOND) == 0:
            partition = restarted(partition)
        if now_ms % (8 * SECOND) > 3 * SECOND:  # until then it starts
            partition.prove(now_ms, head_ms=NOW_MS + now_ms)
    assert partition.watermark_ms >= NOW_MS + elapsed_ms - QUIET_MS - BOUND_MS - 8 * SECOND


def test_time_of_an_outage_is_made_up_in_proved_steps() -> None:
    partition = clock(greatest_ms=NOW_MS)
    quiet_for(partition, 0, QUIET_MS)
    partition = restarted(partition)
    behind = []
    for now_ms in range(61 * MINUTE, 100 * MINUTE, 250):
        head_ms, before_ms = NOW_MS - BOUND_MS + now_ms, partition.watermark_ms
        partition.prove(now_ms, head_ms=head_ms)
        assert 0 <= partition.watermark_ms - before_ms <= STEP_MS
        behind.append(head_ms - partition.watermark_ms)
    assert behind[0] > 59 * MINUTE
    assert behind[25 * 60 * 4 :] == [QUIET_MS] * (39 - 25) * 60 * 4


@pytest.mark.parametrize(("outage_ms", "head_ms"), [(0, 60 * MINUTE), (60 * MINUTE, 0)])
def test_time_is_not_made_up_beyond_elapsed_time(outage_ms: int, head_ms: int) -> None:
    partition = clock(greatest_ms=NOW_MS)
    quiet_for(partition, 0, QUIET_MS)
    for now_ms in range(QUIET_MS + outage_ms + 250, QUIET_MS + outage_ms + MINUTE + 1, 250):
        partition.prove(now_ms, head_ms=NOW_MS - BOUND_MS + now_ms - outage_ms + head_ms)
    assert partition.watermark_ms <= NOW_MS - BOUND_MS + MINUTE + SECOND


def test_a_pixel_moving_time_clears_the_backlog_of_elapsed_time() -> None:
    partition = clock(greatest_ms=NOW_MS)
    quiet_for(partition, 0, QUIET_MS)
    partition.prove(60 * MINUTE)
    judged(partition, [(NOW_MS + 60 * MINUTE, NOW_MS + 60 * MINUTE)])
    assert partition.missed_ms == 0


def test_a_waking_partition_judges_by_its_advanced_watermark() -> None:
    partition = clock(greatest_ms=NOW_MS)
    quiet_for(partition, 0, 11 * MINUTE)
    times, _ = judged(partition, [(NOW_MS + MINUTE, 0), (NOW_MS + 30 * MINUTE, 0)])
    assert times[:, 1].tolist() == [NOW_MS - BOUND_MS + 10 * MINUTE, NOW_MS - BOUND_MS + 30 * MINUTE]


def test_a_partition_without_a_pixel_stays_unknown() -> None:
    partition = clock()
    quiet_for(partition, 0, 60 * MINUTE)
    assert partition.watermark_ms == 0


def test_an_old_first_pixel_starts_at_the_flows_watermark() -> None:
    old = (NOW_MS - 2 * DAY_MS, NOW_MS)
    back_filled, used = clock(), clock()
    used.prove(0, NOW_MS - MINUTE)
    used.prove(500, NOW_MS)
    assert judged(back_filled, [old])[0][:, 1].tolist() == [NOW_MS - DAY_MS - BOUND_MS]
    assert judged(clock(start_ms=used.start_ms), [old])[0][:, 1].tolist() == [NOW_MS]
    assert judged(used, [old])[0][:, 1].tolist() == [NOW_MS]
    used.prove(1000, NOW_MS + DAY_MS)  # of a partition that has begun it changes nothing
    assert judged(used, [(NOW_MS + SECOND, NOW_MS)])[0][:, 1].tolist() == [NOW_MS]


# Cuts


def tick(
    sender: str,
    watermark_ms: int,
    *,
    holding: bool = True,
    ended: bool = False,
    position: int = 7,
    candidate_ms: int = 0,
) -> Tick:
    greatest_ms, number = watermark_ms + BOUND_MS if watermark_ms else 0, ENDED if ended else 5
    at = (number, watermark_ms, holding, ended, position, greatest_ms)
    return Tick(sender, ("a", "b"), *at, candidate_ms=candidate_ms)


def cut_of(*ticks: Tick) -> Cut:
    return cut_at({one.sender: one for one in ticks}, 5)


def test_the_flows_watermark_is_the_least_over_partitions() -> None:
    here = cut_of(tick("a", NOW_MS + 1, position=3), tick("b", NOW_MS, position=4))
    assert here == Cut(5, NOW_MS, False, (("a", 3), ("b", 4)), denied=0)


def test_empty_and_ended_partitions_do_not_hold_time() -> None:
    assert cut_of(tick("a", NOW_MS), tick("b", 0, holding=False)).watermark_ms == NOW_MS
    assert cut_of(tick("a", NOW_MS), tick("b", NOW_MS - DAY_MS, ended=True)).watermark_ms == NOW_MS


def test_a_partition_with_unread_messages_holds_time() -> None:
    assert cut_of(tick("a", NOW_MS), tick("b", 0, holding=True)).watermark_ms == 0


def test_a_partitions_first_tick_belongs_to_no_earlier_cut() -> None:
    slept = replace(tick("a", 0, holding=False), number=2)  # and has read nothing of the hours until 5
    late = replace(tick("b", NOW_MS), first=True)
    ticks = {one.sender: one for one in (slept, late)}
    assert cut_at(ticks, 2).watermark_ms == 0
    assert cut_at(ticks, 5).watermark_ms == NOW_MS


def test_the_end_of_all_partitions_finalises_the_greatest_event_time() -> None:
    here = cut_of(tick("a", NOW_MS, ended=True), tick("b", NOW_MS - DAY_MS, ended=True))
    assert (here.ended, here.watermark_ms) == (True, NOW_MS + BOUND_MS)


def test_an_unconfirmed_jump_counts_only_at_the_end_of_all() -> None:
    lone = tick("a", 0, ended=True, candidate_ms=NOW_MS)
    assert cut_of(lone, tick("b", 0, ended=True)).watermark_ms == NOW_MS
    assert cut_of(lone, tick("b", NOW_MS - DAY_MS, ended=True)).watermark_ms == NOW_MS - DAY_MS + BOUND_MS
    assert cut_of(lone, tick("b", 0, holding=False)).watermark_ms == 0


def test_time_stays_at_ended_partitions_beside_empty_ones() -> None:
    here = cut_of(tick("a", NOW_MS, ended=True), tick("b", 0, holding=False))
    assert (here.ended, here.watermark_ms) == (False, NOW_MS)


def test_empty_partitions_have_only_wall_clock_time() -> None:
    empty = tick("a", 0, holding=False)
    assert cut_of(empty, tick("b", 0, holding=False)).empty
    assert cut_of(empty, tick("b", 0, ended=True)).empty
    assert not cut_of(empty, tick("b", 0)).empty
    assert not cut_of(empty, tick("b", 0, holding=False, candidate_ms=NOW_MS)).empty
    assert not cut_of(empty, tick("b", 0, ended=True, candidate_ms=NOW_MS)).empty
    assert not cut_of(empty, tick("b", NOW_MS, ended=True)).empty
