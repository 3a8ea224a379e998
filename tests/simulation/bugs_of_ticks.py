"""Bugs of ticks, of alignment, and of what reads a partition."""

from __future__ import annotations

from typing import Any

from flows.engine.aligner import Aligner
from flows.engine.source import PixelPartition
from flows.engine.steps import PlaysLogic
from flows.engine.tick_clock import NOTHING, TickClock
from flows.intake.holds import NOBODY_LIVE, WRONG, Holds
from flows.intake.partition import Intake
from flows.intake.watermark import PartitionClock
from flows.model.messages import Receipt, ShardTick
from simulation.mutations import mutation
from simulation.world import TIME

# Ticks and alignment


@mutation(Aligner, "push")
def what_comes_behind_a_tick_is_not_held_back(right: Any) -> Any:
    def push(self: Any, sender: Any, item: Any, mark: Any = None, first: bool = True) -> Any:
        if mark is None:
            yield item, None
        else:
            yield from right(self, sender, item, mark, first)

    return push


@mutation(Aligner, "_release")
def a_message_that_was_held_back_is_dropped(right: Any) -> Any:
    def release(self: Any) -> Any:
        for queue in self.waiting.values():
            if len(queue) > 1 and queue[0][1] is None:
                queue.popleft()
        yield from right(self)

    return release


@mutation(Aligner, "expect")
def an_added_partition_is_not_waited_for(right: Any) -> Any:
    def expect(self: Any, senders: Any) -> None:
        right(self, self.expected or senders)

    return expect


@mutation(PixelPartition, "_messages")
def a_tick_overtakes_the_pixels_that_it_covers(right: Any) -> Any:
    def by_type(self: Any, output: Any) -> Any:
        found = right(self, output)
        return sorted(found, key=lambda one: not isinstance(one[1], (ShardTick, Receipt)))

    return by_type


@mutation(PlaysLogic, "snapshot")
def ticks_of_quiet_partitions_are_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        shard, aligner, _, cut, forgotten = right(self)
        return shard, aligner, [], cut, forgotten

    return snapshot


@mutation(TickClock, "number")
def a2_ticks_are_of_the_wall_clock(_: Any) -> Any:
    return lambda self: int(TIME.time() * 1000) // self.interval_ms


@mutation(TickClock, "at_least_published")
def a_restart_forgets_the_time_that_was_published(_: Any) -> Any:
    return lambda self, cut: cut


@mutation(Intake, "_tick_for_sleep")
def a_partition_that_slept_reads_into_the_cuts_of_then(right: Any) -> Any:
    def asleep(self: Any, number: int) -> Any:
        self.last_tick = number
        return self.step(number + 1, 0)

    return asleep


@mutation(TickClock, "begin")
def a3_ticks_begin_anew_where_the_interval_is_longer(right: Any) -> Any:
    def begin(self: Any, anchor: Any, live: bool = True) -> None:
        right(self, lambda: anchor()._replace(published=NOTHING), live)
        self.raise_to = lambda number: None

    return begin


# Intake


@mutation(Intake, "snapshot")
def a_message_is_skipped_at_a_restart(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, position, *more = right(self)
        return form, position + (position > 0), *more

    return snapshot


@mutation(Intake, "snapshot")
def a_message_is_read_twice_at_a_restart(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, position, *more = right(self)
        return form, max(0, position - 1), *more

    return snapshot


@mutation(Intake, "snapshot")
def the_watermark_is_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, position, last, clock, *more = right(self)
        return form, position, last, (*(0,) * (len(clock) - 1), None), *more

    return snapshot


@mutation(Intake, "_take")
def a1_junk_makes_a_quiet_partition_begin_to_be_quiet_anew(right: Any) -> Any:
    def take(self: Any, *read: Any) -> Any:
        found = right(self, *read)
        self.clock.ahead_ms, self.clock.shown_ms = 0, None
        return found

    return take


@mutation(PartitionClock, "prove")
def a4_a_quiet_partition_jumps_by_all_the_time_that_passed(right: Any) -> Any:
    def prove(self: Any, now_ms: int, *of: Any) -> None:
        before_ms = self.shown_ms
        right(self, now_ms, *of)
        if before_ms is not None and self.watermark_ms:
            jump_ms = max(0, now_ms - before_ms - self.quiet_ms)
            self.floor_ms = max(self.floor_ms, self.watermark_ms + jump_ms)

    return prove


@mutation(Holds, "hold")
def a_wrong_clock_is_waited_for_as_if_it_were_right(right: Any) -> Any:
    def hold(self: Any, pixels: Any, positions: Any, moments: Any, marks: Any, *more: Any) -> Any:
        return right(self, pixels, positions, moments, marks._replace(nows=0 * marks.nows), *more)

    return hold


@mutation(Holds, "restore")
def a_restart_forgets_since_when_a_clock_is_wrong(right: Any) -> Any:
    def restore(self: Any, state: Any) -> Any:
        ids, table, *more = state
        right(self, (ids, [[*row[:WRONG], NOBODY_LIVE] for row in table], *more))

    return restore
