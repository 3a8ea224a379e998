"""The clock of ticks: no wall clock stops it, and no member's ticks wait long for another's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import connect
from connectors.redis.commands import put_fields
from flows.engine import source
from flows.engine.aligner import Aligner
from flows.engine.meeting import Agreed
from flows.engine.tick_clock import NOTHING, Anchor, Published, TickClock, redis_anchor
from flows.model.messages import Output
from flows.model.ticks import ENDED, Cut
from flows.settings.fields import UNWATCHED, Settings

INTERVAL_MS, LOOP_MS = 1_000, 100
NOW_MS = 1_790_000_000_000
HOUR_MS = 3_600_000


@dataclass
class Member:
    """A process with some partitions, and its own idea of how much time has elapsed."""

    name: int
    partitions: int
    elapsed_ms: int
    last: dict[str, int] = field(default_factory=dict)
    inbox: list[int] = field(default_factory=list)
    asleep_ms: int = 0

    def __post_init__(self) -> None:
        self.clock = TickClock(INTERVAL_MS, lambda: self.elapsed_ms)

    def ticks(self) -> Iterator[tuple[str, int]]:
        """The ticks that its partitions send now."""
        for partition in range(self.partitions):
            sender, number = f"{self.name}/{partition}", self.clock.number
            if number > self.last.get(sender, -1):
                self.last[sender] = number
                yield sender, number


MEMBERS = st.lists(
    st.tuples(st.integers(1, 3), st.integers(0, HOUR_MS), st.integers(-HOUR_MS, HOUR_MS), st.integers(0, 5)),
    min_size=1,
    max_size=3,
)
"""(partitions, time since boot, by how much what it takes for Redis's clock is off, saved ticks beyond it)"""
SLEEPS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 2), st.integers(100, 30_000), st.booleans()), max_size=4
)
"""(rounds later, who, for how long the machine is suspended, whether its clock counts that)"""


@given(MEMBERS, SLEEPS)
def test_ticks_never_stop_and_none_waits_two_intervals_for_another_members(
    starts: list[tuple[int, int, int, int]], sleeps: list[tuple[int, int, int, bool]]
) -> None:
    members = [Member(i, partitions, boot_ms) for i, (partitions, boot_ms, _, _) in enumerate(starts)]
    for member, (_, _, off_ms, saved) in zip(members, starts, strict=True):
        member.clock.begin(lambda off_ms=off_ms: Anchor(NOW_MS + off_ms))  # type: ignore[misc]  # a default binds it
        member.clock.raise_to(member.clock.number + saved)
    aligner: Aligner[str, str] = Aligner(
        frozenset(f"{member.name}/{one}" for member in members for one in range(member.partitions))
    )
    planned = {}
    at = 0
    for later, *sleep in sleeps:
        at += later
        planned[at] = sleep
    sent: list[tuple[int, int]] = []
    disturbed_ms = 0
    for turn in range(at + 80):
        now_ms = turn * LOOP_MS
        if turn in planned:
            who, asleep_ms, counted = planned[turn]
            member = members[who % len(members)]
            member.asleep_ms += asleep_ms
            member.elapsed_ms += asleep_ms if counted else 0
        for member in members:
            if member.asleep_ms > 0:
                member.asleep_ms -= LOOP_MS
                disturbed_ms = now_ms
                continue
            member.elapsed_ms += LOOP_MS
            before = dict(member.last)
            for number in member.inbox:
                member.clock.raise_to(number)
            member.inbox.clear()
            for sender, number in member.ticks():
                for other in members:
                    other.inbox.append(number)
                sent.append((now_ms, number))
                list(aligner.push(sender, "", number))
            assert before.keys() <= member.last.keys()
        if now_ms - disturbed_ms > 3 * INTERVAL_MS:
            waiting = [began_ms for began_ms, number in sent if number > aligner.released]
            assert not waiting or now_ms - waiting[0] <= 2 * INTERVAL_MS
            awake = {sender for member in members for sender in member.last}
            recent = [number for began_ms, number in sent if now_ms - began_ms <= INTERVAL_MS]
            assert len(recent) >= len(awake), "each partition ticks once an interval"


def test_the_tick_number_exceeds_published_and_saved_cuts() -> None:
    clock = TickClock(INTERVAL_MS, lambda: 5)
    clock.begin(lambda: Anchor(NOW_MS, Published(NOW_MS // INTERVAL_MS + 100, {}, 0)))
    assert clock.number == NOW_MS // INTERVAL_MS + 101
    clock.begin(lambda: Anchor(2 * NOW_MS))
    clock.raise_to(NOW_MS // INTERVAL_MS + 50)
    clock.raise_to(ENDED)
    assert clock.number == NOW_MS // INTERVAL_MS + 101
    clock.raise_to(2 * NOW_MS)
    assert clock.tick() == (2 * NOW_MS, INTERVAL_MS)


def test_a_partition_busy_at_a_tick_sends_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ms, steps = [NOW_MS + INTERVAL_MS - 1], list[tuple[int, int]]()
    clock = TickClock(INTERVAL_MS, lambda: now_ms[0])
    clock.begin(lambda: Anchor(now_ms[0]))

    def step(number: int, *_: int) -> Output:
        steps.append((now_ms[0] - NOW_MS, number - NOW_MS // INTERVAL_MS))
        now_ms[0] += 3
        return Output([], [], None)

    def sleep(seconds: float) -> None:
        now_ms[0] += max(1, round(1000 * seconds))

    monkeypatch.setattr(source, "awake_ms", lambda: now_ms[0])
    monkeypatch.setattr(source, "time", SimpleNamespace(sleep=sleep))
    partition = partition_of(clock, step, behind=lambda *_: False)
    while len(steps) < 3:
        partition.next_batch()
    assert steps == [(INTERVAL_MS - 1, 0), (INTERVAL_MS + 2, 1), (INTERVAL_MS + 2 + LOOP_MS, 1)]


def partition_of(
    clock: TickClock, step: Callable[..., Output], behind: Callable[[int, int], bool]
) -> source.PixelPartition:
    """A partition that sends each fourth tick while it is behind."""
    intake: Any = SimpleNamespace(
        partition="a", full=False, ended=False, step=step, deny=lambda _: None, is_behind=behind
    )
    plans: Any = SimpleNamespace(changed=lambda _: None, awaited=False)
    no: Any = None
    stop, linger, rest = source.StopSignal(), timedelta(milliseconds=LOOP_MS), source.Rest()
    every = source.Every(behind=UNWATCHED)
    return source.PixelPartition(intake, stop, linger, clock, rest, lambda: no, plans, no, every)


def test_a_late_flow_publishes_each_fourth_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ms, steps = [NOW_MS - NOW_MS % (UNWATCHED * INTERVAL_MS)], list[tuple[int, int]]()
    clock = TickClock(INTERVAL_MS, lambda: now_ms[0])
    clock.begin(lambda: Anchor(now_ms[0]))
    begin = clock.number

    def step(number: int, now: int, flow: int, head: int, every: int) -> Output:
        steps.append((number - begin, every))
        now_ms[0] += INTERVAL_MS
        return Output([], [], None)

    monkeypatch.setattr(source, "awake_ms", lambda: now_ms[0])
    monkeypatch.setattr(source, "time", SimpleNamespace(sleep=lambda _: None))
    partition = partition_of(clock, step, behind=lambda now, head: now < NOW_MS + 9 * INTERVAL_MS)
    while len(steps) < 13:
        partition.next_batch()
    behind = sum(every == UNWATCHED for _, every in steps)
    assert [number for number, _ in steps[:behind]] == [n - n % UNWATCHED for n in range(behind)]
    assert [number for number, _ in steps[behind:]] == [*range(behind, 13)]
    assert 2 * UNWATCHED <= behind < 13


@pytest.mark.parametrize(("before_ms", "after_ms"), [(500, 1000), (500, 60_000), (1000, 500), (1000, 1000)])
def test_a_start_with_an_emptied_redis_ticks_with_the_others(before_ms: int, after_ms: int) -> None:
    """The start is repeated, because after the first one numbers may be ahead of the clock."""
    last, interval_ms, now_ms = TickClock(before_ms, lambda: 5), before_ms, NOW_MS
    last.begin(lambda: Anchor(now_ms))
    for more_ms in (after_ms, 2 * after_ms):
        now_ms += 86_400_000
        published = (now_ms + last.ahead_ms) // interval_ms  # by the anchor's clock, a day later
        others, asked_later = TickClock(more_ms, lambda: 5), TickClock(more_ms, lambda: 5)
        others.begin(lambda: Anchor(now_ms, Published(published, {}, 0)))  # noqa: B023  # it is asked at once
        asked_later.begin(lambda: Anchor(now_ms + 200))  # noqa: B023
        for clock in (others, asked_later):
            clock.continue_from(interval_ms, last.ahead_ms)
        assert 0 <= asked_later.number - others.number <= 1
        assert others.number > published
        before = others.number
        others.continue_from(0, 10**15)  # an older save contained its clock
        assert others.number == before
        last, interval_ms = others, more_ms


def test_a_cut_past_the_published_one_has_no_earlier_watermark() -> None:
    clock = TickClock(INTERVAL_MS, lambda: 5)
    clock.begin(lambda: Anchor(NOW_MS, Published(7, {"t/0": 3, "t/1": 0}, NOW_MS)))
    behind = Cut(8, NOW_MS - 1, False, (("t/0", 2), ("t/1", 0), ("t/2", 9)))
    past = Cut(8, 0, False, (("t/0", 3), ("t/1", 0), ("t/2", 0)))
    assert clock.at_least_published(behind) is behind
    assert clock.at_least_published(past).watermark_ms == NOW_MS
    later = Cut(9, NOW_MS + 1, False, past.positions)
    assert clock.at_least_published(later) is later
    of_a_file = TickClock(INTERVAL_MS, lambda: 5)
    of_a_file.begin(lambda: Anchor(NOW_MS, Published(7, {"t/0": 3}, NOW_MS)), live=False)
    assert of_a_file.at_least_published(past) is past
    assert of_a_file.number == clock.number


AHEAD = NOW_MS // INTERVAL_MS + 100
SHOWN, LATE = Published(AHEAD, {"a": 1}, 5), Published(AHEAD + 1, {"a": 2}, 6)


@pytest.mark.parametrize(
    ("agreed", "found", "right"),
    [
        (NOTHING, SHOWN, SHOWN),
        (SHOWN, NOTHING, SHOWN),  # emptied after the meeting
        (SHOWN, LATE, LATE),
        (SHOWN, Published(AHEAD, {}, 0), SHOWN),  # emptied between the number and the positions
    ],
)
def test_the_clock_begins_after_the_agreed_and_the_published_cut(
    agreed: Published, found: Published, right: Published
) -> None:
    no: Any = SimpleNamespace(live=True, partitions=lambda: ["a"])
    settings = Settings(flush_interval=timedelta(milliseconds=INTERVAL_MS))
    about = no, settings, b"", source.StopSignal()
    pixels = source.PixelSource(*about, anchor=lambda: Anchor(NOW_MS, found))
    pixels.saves._agreed = Agreed(None, 0, agreed)
    pixels.list_parts()
    assert pixels.clock.published == right
    assert pixels.clock.number > right.number


@pytest.mark.parametrize(("before_ms", "after_ms"), [(500, 1000), (1000, 500), (1000, 60_000), (60_000, 10)])
def test_another_interval_goes_on_at_once_behind_the_last_tick(before_ms: int, after_ms: int) -> None:
    before, after = TickClock(before_ms, lambda: 0), TickClock(after_ms, lambda: elapsed_ms)
    before.begin(lambda: Anchor(NOW_MS))
    elapsed_ms = 0
    after.begin(lambda: Anchor(NOW_MS, Published(before.number, {}, 0)))
    assert after.number > before.number
    number = after.number
    elapsed_ms = after_ms
    assert after.number == number + 1


def test_the_anchor_has_rediss_clock_and_metas_cut() -> None:
    with EmbeddedValkey() as redis:
        settings = Settings(redis_url=redis.url)  # type: ignore[arg-type]  # pydantic takes text
        client = connect(redis.url)
        seconds, micros = client.time()
        first = redis_anchor(settings)
        assert 0 <= first.now_ms - (seconds * 1000 + micros // 1000) < 60_000
        assert first.published == NOTHING
        put_fields(client, {f"{settings.namespace}:meta": {"rev": "17"}})
        assert redis_anchor(settings).published.number == 17
        client.close()
