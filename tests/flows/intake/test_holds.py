"""Low marks hold a partition's time: against a model, and what ends a hold."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from holds_support import BOUND, HOLD, HOUR, KEY, LOGS, MINUTE, QUIET, SECOND, T0, Message, log_of
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.stream import Messages
from flows.intake.decoder import Decoder
from flows.intake.holds import BYE, MAX_COLLECTORS, CollectorMarks, Holds
from flows.intake.watermark import PartitionClock
from flows.model.pixel import COLUMNS, POSITION, WATERMARK
from flows.state.saves import decode, encode


@dataclass
class Model:
    """The rule as it is written, over the whole log again for every message."""

    hold: int
    most: int = 1 << 60
    log: list[tuple[int, Message]] = field(default_factory=list)
    now: int = 0
    proved: int = 0
    steps: list[tuple[int, int]] = field(default_factory=list)
    watermark: int = 0
    came: int = 0
    releases: int = 0
    out: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, message: Message) -> int:
        newest = self.steps[-1][1] if self.steps else 0
        if message.stamp > newest:
            if newest:
                # The time proved since any step, beyond the log's own progress since that step.
                ahead = max(self.proved - proved - (newest - stamp) for proved, stamp in self.steps)
                self.now += max(min(message.stamp - newest, 10 * SECOND) - ahead, 0)
            newest = message.stamp
            self.steps.append((self.proved, newest))
        if message.collector and not any(map(self._life, self._everybody())):
            newest, self.came = message.stamp, 0
            self.steps = [(self.proved, newest)]
        self.log.append((self.now, message))
        lows = self._lows()
        if message.ts is not None:
            held = bool(lows) and newest - min(lows.values()) > QUIET
            self.came = self.came + 1 if held else 0
            if self.came > self.most:
                oldest = [who for who in lows if lows[who] == min(lows.values())]
                self.out |= {who: (self._life(who)[0][0], lows[who]) for who in oldest}
                self.came, self.releases = 0, self.releases + len(oldest)
                lows = self._lows()
        return self._moved(lows)

    def prove(self, by: int) -> int:
        """Prove that so much time elapsed while the log was read to its end."""
        self.now += by
        self.proved += by
        return self._moved(self._lows())

    def _moved(self, lows: dict[str, int]) -> int:
        natural = 0
        for _, one in self.log:
            if one.ts is not None:
                ts = max(min(one.ts, one.stamp + MINUTE), one.stamp - 24 * HOUR)
                natural = max(natural, ts - BOUND)
        if lows:
            least = min(lows.values())
            natural = min(max(natural, least - QUIET), least - BOUND)
        self.watermark = max(self.watermark, natural)
        return self.watermark

    def _everybody(self) -> list[str]:
        return sorted({one.collector for _, one in self.log if one.collector})

    def _lows(self) -> dict[str, int]:
        """The low marks of those that are waited for."""
        lows = {who: low for who in self._everybody() if (low := self._low(who)) and not self._off(who)}
        for who, (began, low) in [*self.out.items()]:
            if who not in lows or lows[who] > low or self._life(who)[0][0] != began:
                del self.out[who]
        return {who: low for who, low in lows.items() if who not in self.out}

    def _life(self, who: str) -> list[tuple[int, int, int]]:
        """A collector's words since it was last unknown, with their numbers and times; none where it is."""
        life: list[tuple[int, int, int]] = []
        for number, (at, one) in enumerate(self.log):
            if life and at - life[-1][1] >= self.hold:
                life = []
            if one.collector == who and one.low is not None:
                word = number, at, min(one.low, one.stamp)
                life = [] if one.bye and one.ts is None else [*life, word]
        return life if life and self.now - life[-1][1] < self.hold else []

    def _off(self, who: str) -> bool:
        """Whether a collector's clock has been off for five minutes, by every mark since then."""
        begins = self._life(who)[0][0]
        since = None
        for at, one in self.log[begins:]:
            if one.collector == who and one.ts is None and one.now is not None:
                off = abs(one.now - one.stamp) > MINUTE
                since = (at if since is None else since) if off else None
        return since is not None and self.now - since >= 5 * MINUTE

    def _low(self, who: str) -> int | None:
        """A collector's greatest low mark; None where it is not waited for."""
        if not (life := self._life(who)):
            return None
        low = max(low for _, _, low in life)
        rose = next(at for _, at, reached in life if reached == low)
        return None if self.now - rose >= self.hold else low


def clock(hold_ms: int = HOLD, most: int = 1 << 60) -> PartitionClock:
    return PartitionClock(BOUND, QUIET, max_hold_ms=hold_ms, max_state=most)


def judged(
    clock: PartitionClock, log: list[Message], first: int = 0, scanning: bool = True
) -> dict[int, int]:
    """The watermark of every pixel, by its position."""
    decoder = Decoder(KEY, scanning=scanning)
    raws = [one.raw(first + number) for number, one in enumerate(log)]
    stamps = [one.stamp for one in log]
    messages = Messages(raws, range(first, first + len(log)), first + len(log), stamps)
    batch = decoder.decode(messages)
    clock.follow(batch.pixels, messages, batch.collector_marks)
    return dict(zip(batch.pixels[:, POSITION].tolist(), batch.pixels[:, WATERMARK].tolist(), strict=True))


def restarted(before: PartitionClock) -> PartitionClock:
    state = decode(encode(before.holds.snapshot()))
    after = PartitionClock(
        BOUND, QUIET, before.greatest_ms, before.candidate_ms, before.natural_ms, before.start_ms,
        before.watermark_ms, before.max_hold_ms, before.max_state,
    )  # fmt: skip
    after.holds.restore(state)
    return after


HOLDS = st.sampled_from([15 * SECOND, HOLD, HOUR])


@settings(max_examples=200)
@given(LOGS, st.integers(1, 40), st.booleans(), st.sampled_from([1, 2, 5, 1 << 60]), HOLDS)
def test_every_pixel_follows_the_rule_for_any_batches_and_restarts(
    log: list[Message], size: int, scanning: bool, most: int, hold: int
) -> None:
    model, partition = Model(hold, most), clock(hold, most)
    whole = judged(clock(hold, most), log, scanning=scanning)
    for first in range(0, len(log), size):
        some = log[first : first + size]
        wanted = [model.take(one) for one in some]
        found = judged(partition, some, first, scanning)
        assert found == {first + n: whole[first + n] for n, one in enumerate(some) if one.ts is not None}
        assert found == {first + n: wanted[n] for n, one in enumerate(some) if one.ts is not None}
        assert partition.watermark_ms == model.watermark
        assert partition.holds.released == model.releases
        partition = restarted(partition)


LASTING = st.lists(
    st.tuples(
        st.sampled_from([1, 0, 2, 5]),
        st.integers(-5, 5),
        st.sampled_from("ab"),
        st.sampled_from([60, 0]),
        st.sampled_from(["plain", "plain", "plain", "plain", "standing", "mark"]),
        st.sampled_from([None, 0, 900]),
    ),
    min_size=10,
    max_size=40,
).map(lambda drawn: log_of([(0, 0, "c", 60, "mark", None), *drawn]))
"""Logs in which a collector stands still from the beginning."""


@given(
    st.one_of(LASTING, LOGS), st.integers(2, 10), st.lists(st.integers(0, 40), min_size=1, max_size=8), HOLDS
)
def test_every_pixel_follows_the_rule_with_proofs_between_batches(
    log: list[Message], size: int, quarters: list[int], hold: int
) -> None:
    model, partition = Model(hold), clock(hold)
    for number, first in enumerate(range(0, len(log), size)):
        some = log[first : first + size]
        wanted = [model.take(one) for one in some]
        found = judged(partition, some, first)
        assert found == {first + n: wanted[n] for n, one in enumerate(some) if one.ts is not None}
        for quarter in range(1 + quarters[number % len(quarters)]):
            if partition.holds.has_collectors:
                partition.prove(quarter * 250)
                model.prove(250 * (quarter > 0))
        assert partition.watermark_ms == model.watermark
        partition = restarted(partition)


def test_a_hold_lasts_equally_long_live_and_in_a_replay() -> None:
    live, replayed = clock(), clock()
    log = [Message(T0, T0, "a", T0), *(Message(T0 + n * 200, T0 + n * 200) for n in range(1, 600))]
    judged(replayed, log)
    judged(live, log[:1])
    for second in range(1, HOLD // SECOND):
        for quarter in range(4):
            live.prove(second * SECOND + quarter * 250)
        judged(live, log[5 * second - 4 : 5 * second + 1], 5 * second - 4)
        assert live.holds.least_ms == T0
    assert replayed.holds.least_ms == T0


def test_a_log_clock_set_back_ends_its_hold() -> None:
    partition = clock(HOUR)
    judged(partition, [Message(T0, None, "a", T0)])
    for second in range(100):
        partition.prove(second * SECOND)
    assert restarted(partition).holds.hold_of[0] == partition.holds.hold_of[0] == "a"
    judged(partition, [Message(T0 + 1, None, "a", T0 + 1)], 1)
    assert partition.holds.hold_of[0] == ""


def spooled(low: bool) -> list[Message]:
    """A fresh collector, and one whose events of an hour ago follow it for half a minute."""
    log = [Message(T0 - HOUR, None, "late", T0 - HOUR), Message(T0, None, "fresh", T0)]
    for n in range(1, 300):
        stamp, resting = T0 + n * 100, T0 - HOUR + n * 12 * SECOND
        log.append(Message(stamp, stamp, "fresh", stamp))
        log.append(Message(stamp, resting, "late", resting))
    if not low:
        log = [Message(one.stamp, one.ts) for one in log]
    return log


def test_pixels_spooled_for_an_hour_are_not_late() -> None:
    log, partition = spooled(low=True), clock(6 * HOUR)
    partition.greatest_ms = T0 - HOUR  # as far as the log had got when Kafka went away
    watermarks = judged(partition, log)
    assert all(watermarks[n] <= log[n].ts for n in watermarks)  # type: ignore[operator]  # pixels have one
    without = judged(clock(), spooled(low=False))
    assert sum(mark > (log[n].ts or 0) + 10 * MINUTE for n, mark in without.items()) > 200


def test_marks_alone_move_time() -> None:
    partition = clock()
    judged(partition, [Message(T0 + n * SECOND, None, "a", T0 + n * SECOND) for n in range(100)])
    assert partition.watermark_ms == T0 + 99 * SECOND - QUIET


def test_a_held_partition_is_not_moved_by_proofs() -> None:
    partition = clock()
    judged(partition, [Message(T0, T0, "a", T0 - HOUR), Message(T0, None, "b", T0)])
    assert partition.watermark_ms == T0 - HOUR - BOUND
    now_ms = 0
    while now_ms < HOLD:
        partition.prove(now_ms)
        assert partition.watermark_ms == T0 - HOUR - BOUND
        now_ms += 250
    partition.prove(now_ms)
    assert partition.holds.least_ms is None
    assert partition.watermark_ms == T0 - BOUND


def test_time_elapsed_within_a_step_counts_once() -> None:
    partition = clock()
    judged(partition, [Message(T0, T0, "a", T0 - HOUR)])
    for second in range(1, HOLD // SECOND):
        for quarter in range(4):
            partition.prove(second * SECOND + quarter * 250)
        judged(partition, [Message(T0 + second * SECOND)], second)
        assert partition.holds.least_ms == T0 - HOUR


def test_collectors_beyond_the_cap_end_the_longest_hold() -> None:
    partition = clock()
    judged(partition, [Message(T0 + n, None, f"c{n}", T0 - HOUR + n) for n in range(MAX_COLLECTORS + 1)])
    assert partition.holds.evicted == 1
    assert partition.holds.least_ms == T0 - HOUR + 1


def test_holds_of_many_collectors_match_a_plain_list() -> None:
    rng = np.random.default_rng(5)
    ids = rng.integers(1, 2**64 - 1, 1_500, dtype=np.uint64)
    held, hold_ms = Holds(BOUND, QUIET, HOUR), HOUR
    plain: dict[int, tuple[int, int, int]] = {}  # low mark, when it was heard, when it rose
    evicted, log_ms = 0, -SECOND  # the first message is no step
    for part in range(40):
        most = (3, 1_500, 1_500)[part % 3]
        who = ids[rng.integers(0, most, 400)]
        lows = T0 + 10 * part + rng.integers(0, 40, 400)
        lows[rng.random(400) < 0.1] = BYE
        moments = T0 + SECOND * (1 + np.arange(400) + 400 * part)
        for one, low in zip(who.tolist(), lows.tolist(), strict=True):
            log_ms += SECOND
            plain = {name: life for name, life in plain.items() if log_ms - life[1] < hold_ms}
            if low == BYE:
                plain.pop(one, None)
                continue
            if one not in plain and len(plain) == MAX_COLLECTORS:
                del plain[min(plain, key=lambda name: plain[name][2])]
                evicted += 1
            before, _, rose = plain.get(one, (-1, 0, 0))
            plain[one] = (max(before, low), log_ms, log_ms if low > before else rose)
        positions = np.arange(400)
        marks = CollectorMarks(who, lows, np.zeros(400, np.int64), np.zeros(400, np.int64))
        held.hold(np.zeros((0, COLUMNS), np.uint64), positions, moments, marks, 0, 0)
        again = Holds(BOUND, QUIET, HOUR)
        again.restore(held.snapshot())
        live = [low for low, _, rose in plain.values() if log_ms - rose < hold_ms]
        for one in (held, again):
            assert sorted(one.snapshot()[0]) == sorted(plain)
            assert one.least_ms == min(live, default=None)
            assert one.evicted == evicted
        held = again if part % 2 else held
    assert evicted > 100


def test_a_log_without_collectors_asks_nothing_of_holds() -> None:
    partition = clock()
    judged(partition, [Message(T0 + n, T0 + n) for n in range(10)])
    assert not partition.holds.has_collectors
    assert partition.watermark_ms == T0 + 9 - BOUND


def test_a_hold_names_its_collector_after_a_restart() -> None:
    log = [Message(T0, None, "late", T0 - HOUR), Message(T0, None, "fresh", T0)]
    partition = clock(6 * HOUR)
    judged(partition, log)
    assert (partition.holds.hold_of[0], partition.holds.least_ms) == ("late", T0 - HOUR)
    partition = restarted(partition)
    assert partition.holds.hold_of[0] == "late"
    judged(partition, [Message(T0 + SECOND, None, "late", T0 + SECOND)], 2)
    assert partition.holds.hold_of[0] == ""


def test_a_collector_level_with_the_log_holds_nothing() -> None:
    partition = clock()
    judged(partition, [Message(T0, T0, "a", T0 - 30 * SECOND)])
    assert partition.holds.hold_of[0] == ""


def test_the_oldest_hold_is_released_beyond_max_state() -> None:
    log = [Message(T0, None, "later", T0 - 2 * HOUR), Message(T0, None, "late", T0 - HOUR)]
    log += [Message(T0 + n, T0 + n) for n in range(7)]
    partition = clock(6 * HOUR, most=3)
    marks = judged(partition, log)
    held = [marks[n] for n in range(2, 9)]
    assert held[:3] == [T0 - 2 * HOUR - BOUND] * 3
    assert held[3:] == [T0 - HOUR - BOUND] * 4  # "later" is released; "late" holds yet
    assert (partition.holds.released, partition.holds.hold_of[0]) == (1, "late")
    judged(partition, [Message(T0 + 9, T0 + 9)], 9)
    assert (partition.holds.released, partition.holds.hold_of[0]) == (2, "")
    assert partition.watermark_ms == T0 + 9 - BOUND


SLOW = 15 * MINUTE


def slow(minutes: int, first: int = 0) -> list[Message]:
    """Marks of a collector that is right, and of one whose clock is 15 minutes slow; six a minute."""
    log = []
    for n in range(first, first + 6 * minutes):
        stamp = T0 + n * 10 * SECOND
        log.append(Message(stamp, None, "right", stamp, now=stamp))
        log.append(Message(stamp, None, "slow", stamp - SLOW, now=stamp - SLOW))
    return log


def test_a_wrong_clock_holds_time_for_five_minutes_with_a_reason() -> None:
    partition = clock(6 * HOUR)
    judged(partition, slow(5))
    assert partition.watermark_ms == T0 - QUIET  # as far as it was when the slow one came
    assert partition.holds.hold_of == ("slow", "clock")
    assert partition.holds.wrong_clocks == 1
    judged(partition, slow(1, 30)[:2], 60)
    assert partition.watermark_ms == T0 + 300 * SECOND - QUIET
    assert partition.holds.hold_of == ("", None)
    judged(partition, slow(60, 31), 62)  # its low mark rises all the time
    assert partition.holds.hold_of == ("", None)


def test_a_corrected_clock_holds_time_again() -> None:
    partition = clock(6 * HOUR)
    judged(partition, slow(10))
    assert partition.holds.hold_of[0] == ""
    at = T0 + 600 * SECOND
    mended = [Message(at, None, "slow", at - HOUR, now=at), Message(at, None, "right", at, now=at)]
    judged(partition, mended, 200)
    assert partition.holds.hold_of == ("slow", "drain")
    assert partition.holds.wrong_clocks == 0


def test_a_draining_collector_holds_longer_than_a_wrong_clock() -> None:
    partition = clock(6 * HOUR)
    log = [
        Message(T0 + n * 10 * SECOND, None, "late", T0 - HOUR + n, now=T0 + n * 10 * SECOND)
        for n in range(360)
    ]
    judged(partition, log)
    assert partition.holds.hold_of == ("late", "drain")
    assert partition.watermark_ms == T0 - HOUR + 359 - QUIET


def test_a_clock_corrected_within_five_minutes_ends_its_hold() -> None:
    partition = clock(6 * HOUR)
    judged(partition, slow(2))
    at = T0 + 120 * SECOND
    judged(partition, [Message(at, at, "slow", at), Message(at, at, "right", at)], 100)
    assert partition.watermark_ms == at - BOUND
    assert partition.holds.hold_of[0] == ""


def test_two_processes_of_a_copied_spool_directory_are_both_waited_for() -> None:
    """The second process cannot reach Kafka for an hour."""
    partition = clock(6 * HOUR)
    judged(partition, [Message(T0, None, "d~1", T0), Message(T0, None, "d~2", T0)])
    assert partition.holds.cloned == "d"
    fresh = [
        Message(T0 + n * 10 * SECOND, T0 + n * 10 * SECOND, "d~2", T0 + n * 10 * SECOND) for n in range(360)
    ]
    judged(partition, fresh, 2)
    assert partition.holds.hold_of == ("d~1", "drain")
    spooled = [Message(T0 + HOUR, T0 + n * 10 * SECOND, "d~1", T0 + n * 10 * SECOND) for n in range(360)]
    marks = judged(partition, spooled, 400)
    assert all(mark <= (spooled[n - 400].ts or 0) for n, mark in marks.items())
    judged(partition, [Message(T0 + HOUR, None, "d~1", T0, bye=True)], 1_000)
    assert partition.holds.cloned == ""


def test_successive_processes_and_plain_ids_are_not_copies() -> None:
    partition = clock(6 * HOUR)
    log = [Message(T0, None, "d~1", T0), Message(T0, None, "e", T0), Message(T0, None, "e.1", T0)]
    log += [Message(T0, None, "d~2", T0), Message(T0, None, "d~1", 0, bye=True)]
    judged(partition, log)
    assert partition.holds.cloned == ""


def test_a_wrong_clock_holds_time_for_five_minutes_across_a_restart() -> None:
    partition = clock(6 * HOUR)
    judged(partition, slow(4))
    partition = restarted(partition)
    assert partition.holds.hold_of == ("slow", "clock")
    judged(partition, slow(1, 24), 48)
    judged(partition, slow(1, 30)[:2], 60)
    assert partition.holds.hold_of == ("", None)
