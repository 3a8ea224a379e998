"""Bugs to put into the flow, one by one: the simulation has to find each of them.

Each is a patch of one function, as small as a slip of the pen. Those with a letter are the defects of the first
outside review, put back. `MUTATIONS.md` says which seed found which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from connectors.redis.client import checked, failures, replies
from connectors.redis.marks import Marks
from connectors.redis.rows import FencedHash, RowStore, WriteOutcome
from flows.attribution import CreditBook, ListenerShard
from flows.engine import source, steps
from flows.engine.aligner import Aligner
from flows.engine.cut_step import CutStep
from flows.engine.sinks import LinesPartition, RedisPartition
from flows.engine.source import PixelPartition, StopSignal
from flows.engine.steps import PlaysLogic
from flows.engine.tick_clock import Anchor, TickClock
from flows.intake.partition import Intake
from flows.intake.watermark import PartitionClock
from flows.model.messages import Receipt, ShardTick
from flows.plays import PlayShard
from flows.publish import Covered, Ledger, redis_writer
from flows.publish.backlog import Backlog
from flows.publish.fence import Kept
from flows.publish.publisher import Publisher
from flows.publish.redis_writer import RedisWriter
from flows.rows import RowShard
from flows.state.journal import Journal
from simulation.world import TIME

Make = Callable[[Any], Any]
"""Makes the wrong function of the right one."""

MUTATIONS: Final[dict[str, tuple[Any, str, Make]]] = {}


def mutation(of: Any, name: str) -> Callable[[Make], Make]:
    """Name a way to spoil a function."""

    def take(make: Make) -> Make:
        MUTATIONS[make.__name__.replace("_", " ").strip()] = (of, name, make)
        return make

    return take


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Let the flow have that bug."""
    of, attribute, make = MUTATIONS[name]
    kept = of.__dict__[attribute]
    right = kept.fget if isinstance(kept, property) else getattr(kept, "__func__", kept)
    wrong = make(right)
    setattr(of, attribute, property(wrong) if isinstance(kept, property) else wrong)
    try:
        yield
    finally:
        setattr(of, attribute, kept)


# The writer of rows


@mutation(RowStore, "take_fence")
def the_fence_is_not_raised(_: Any) -> Any:
    return lambda self, key, above=0: 1


@mutation(redis_writer, "kept")
def the_fence_is_not_read_from_the_disk(_: Any) -> Any:
    return lambda directory: Kept()


@mutation(redis_writer, "keep")
def the_fence_is_not_kept_on_the_disk(_: Any) -> Any:
    return lambda *_: None


@mutation(Publisher, "_behind")
def rows_are_shown_before_the_replay_is_past_the_last_flush(_: Any) -> Any:
    return lambda self, cut: False


@mutation(Publisher, "_behind")
def one_partition_past_the_last_flush_is_enough(_: Any) -> Any:
    def behind(self: Any, cut: Any) -> bool:
        at = dict(cut.positions)
        return bool(self._covered) and all(at.get(of, 0) < there for of, there in self._covered.items())

    return behind


@mutation(RowStore, "write")
def positions_are_written_behind_the_rows(right: Any) -> Any:
    def write(self: Any, rows: Any, *, first: Any = None, **more: Any) -> Any:
        outcomes = right(self, rows, **{**more, "publish": None})
        if first is not None:
            right(self, [], first=first, publish=more.get("publish"))
        return outcomes

    return write


@mutation(RowStore, "claim")
def positions_are_read_and_not_claimed(_: Any) -> Any:
    def claim(self: Any, key: str, generation: int, fence: int) -> Any:
        with failures(self._client):
            (held,) = checked(replies(self._client, [(key, ("HGETALL", key))]))
        return held

    return claim


@mutation(Marks, "settle")
def a_loss_of_data_is_not_noticed(_: Any) -> Any:
    return lambda self, steps, answers: True


@mutation(RowStore, "write")
def d1_the_mark_is_set_anew_at_the_end_of_a_flush(right: Any) -> Any:
    def write(self: Any, *rows: Any, **more: Any) -> Any:
        self._whole, marks = True, self._marks
        self._marks = None
        try:
            return right(self, *rows, **more)
        finally:
            self._marks = marks
            if marks is not None:
                marks.begin()

    return write


@mutation(Backlog, "lost")
def rows_that_redis_has_lost_are_not_written_again(_: Any) -> Any:
    return lambda self: None


@mutation(Backlog, "due")
def what_a_failed_flush_had_is_not_written_again(right: Any) -> Any:
    def due(self: Any, ended: bool) -> Any:
        rows = right(self, ended)
        self.pending = {}
        return rows

    return due


@mutation(RowStore, "_land")
def a_change_of_a_row_that_is_not_there_is_dropped(_: Any) -> Any:
    def land(self: Any, rows: Any) -> Any:
        outcomes = [WriteOutcome.SAME if one == "unbased" else one for one in self._call(rows, self._landed)]
        self._landed.update({row.key: row for row in rows})
        return list(map(WriteOutcome, outcomes))

    return land


@mutation(FencedHash, "changes")
def fields_that_go_stay(right: Any) -> Any:
    def changes(self: Any, *of: Any, **more: Any) -> Any:
        found = right(self, *of, **more)
        return None if found is None else (found[0], [])

    return changes


@mutation(RedisWriter, "_taken")
def d3_every_restart_with_recompute_begins_a_generation(_: Any) -> Any:
    def taken(self: Any, last: Any, there: int) -> Any:
        return Kept(0, max(there, last.generation) + (1 if self.recompute or not there else 0), begun=True)

    return taken


@mutation(RowStore, "_add_to_index")
def rows_are_in_no_index(_: Any) -> Any:
    return lambda self, rows, outcomes: None


@mutation(RedisPartition, "write_batch")
def a_flush_does_not_wait_for_all_that_send_to_it(_: Any) -> Any:
    def write_batch(self: Any, values: Any) -> None:
        for value in values:
            self._publisher.flush(value.cut, [value])

    return write_batch


# Ticks and alignment


@mutation(Aligner, "push")
def what_comes_behind_a_tick_is_not_held_back(right: Any) -> Any:
    def push(self: Any, sender: Any, item: Any, mark: Any = None, first: bool = True) -> Any:
        if mark is None:
            yield item, None
        else:
            yield from right(self, sender, item, mark, first)

    return push


@mutation(Aligner, "snapshot")
def what_is_held_back_is_not_saved(right: Any) -> Any:
    def snapshot(self: Any, plain: Any) -> Any:
        at, released, _, inside = right(self, plain)
        return at, released, {}, inside

    return snapshot


@mutation(Aligner, "_release")
def a_message_that_was_held_back_is_dropped(right: Any) -> Any:
    def release(self: Any) -> Any:
        for queue in self.held.values():
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


@mutation(CutStep, "snapshot")
def what_a_step_has_gathered_is_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        core, (at, released, held, _) = right(self)
        return core, (at, released, held, [])

    return snapshot


@mutation(TickClock, "number")
def a2_ticks_are_of_the_wall_clock(_: Any) -> Any:
    return lambda self: int(TIME.time() * 1000) // self.interval_ms


@mutation(source, "redis_anchor")
def a3_ticks_begin_anew_where_the_interval_is_longer(right: Any) -> Any:
    return lambda settings: Anchor(right(settings).now_ms, -1)


@mutation(TickClock, "hear")
def a_clock_does_not_hear_of_greater_numbers(_: Any) -> Any:
    return lambda self, number: None


@mutation(StopSignal, "tick")
def partitions_stop_at_ticks_of_their_own(_: Any) -> Any:
    return lambda self, clock: clock.number + id(self) % 2


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
def counts_since_the_last_tick_are_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, position, last, clock, _, *more = right(self)
        return form, position, last, clock, (0, {}, 0, 0), *more

    return snapshot


@mutation(Intake, "snapshot")
def the_watermark_is_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, position, last, _, *more = right(self)
        return form, position, last, (0, 0, 0, 0, 0), *more

    return snapshot


@mutation(Intake, "_take")
def a1_junk_makes_a_quiet_partition_begin_to_be_quiet_anew(right: Any) -> Any:
    def take(self: Any, messages: Any) -> Any:
        found = right(self, messages)
        self.clock._ahead_ms, self.clock._proved_ms = 0, None
        return found

    return take


@mutation(PartitionClock, "prove")
def a4_a_quiet_partition_jumps_by_all_the_time_that_passed(right: Any) -> Any:
    def prove(self: Any, now_ms: int, flow_ms: int = 0) -> None:
        before_ms = self._proved_ms
        right(self, now_ms, flow_ms)
        if before_ms is not None and self.watermark_ms:
            jump_ms = max(0, now_ms - before_ms - self.quiet_ms)
            self.floor_ms = max(self.floor_ms, self.watermark_ms + jump_ms)

    return prove


# State


@mutation(PlayShard, "restore")
def a5_a_minute_is_final_by_the_lateness_of_now_alone(right: Any) -> Any:
    def restore(self: Any, state: Any) -> None:
        right(self, state)
        self.first_open = 0

    return restore


@mutation(PlayShard, "_restore_table")
def plays_are_forgotten_at_a_restart(_: Any) -> Any:
    return lambda self, pieces: None


@mutation(PlayShard, "snapshot")
def increments_since_the_last_cut_are_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, shards, state = right(self)
        fresh = PlayShard(self.index, shards, 0, 0, 0, True, None)
        state["increments"] = fresh.increments.snapshot(0, 0)
        return form, shards, state

    return snapshot


@mutation(PlayShard, "snapshot")
def outcomes_since_the_last_cut_are_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, shards, state = right(self)
        return form, shards, state | {"outcomes": {}}

    return snapshot


@mutation(PlayShard, "snapshot")
def conversions_since_the_last_cut_are_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, shards, state = right(self)
        return form, shards, state | {"conversions": []}

    return snapshot


@mutation(Journal, "snapshot")
def a_journal_forgets_its_older_pieces(right: Any) -> Any:
    def snapshot(self: Any, *of: Any, **more: Any) -> Any:
        found = right(self, *of, **more)
        self.pieces = []
        return found

    return snapshot


@mutation(ListenerShard, "snapshot")
def conversions_that_wait_are_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, shards, state = right(self)
        return form, shards, state | {"pending": []}

    return snapshot


@mutation(CreditBook, "snapshot")
def the_credit_books_account_is_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, currencies, account = right(self)
        return form, currencies, type(account)(0, 0, 0, 0)

    return snapshot


@mutation(CreditBook, "snapshot")
def currencies_of_campaigns_are_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, _, account = right(self)
        return form, {}, account

    return snapshot


@mutation(Ledger, "restore")
def accounts_that_do_not_change_are_not_given_out_at_a_restart(right: Any) -> Any:
    def restore(self: Any, state: Any) -> None:
        right(self, state)
        self._changed = set()

    return restore


@mutation(Ledger, "snapshot")
def the_ledger_is_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, _, *more = right(self)
        return form, {}, *more

    return snapshot


@mutation(RowShard, "mark_all_changed")
def rows_that_do_not_change_are_not_given_out_at_a_restart(_: Any) -> Any:
    return lambda self: None


@mutation(RowShard, "snapshot")
def labels_are_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, shards, index, state = right(self)
        fresh = type(self.labels)()
        return form, shards, index, state | {"labels": fresh.snapshot()}

    return snapshot


@mutation(RowShard, "snapshot")
def which_minutes_are_final_is_not_saved(right: Any) -> Any:
    def snapshot(self: Any) -> Any:
        form, shards, index, state = right(self)
        return form, shards, index, state | {"first_open": 0}

    return snapshot


# Outputs


@mutation(Covered, "provisional_from")
def d5_minutes_are_told_while_the_replay_is_behind(_: Any) -> Any:
    return lambda self, cut: 0


@mutation(Covered, "tell_final")
def which_minutes_were_told_is_not_kept_on_the_disk(_: Any) -> Any:
    return lambda self, before: None


@mutation(LinesPartition, "snapshot")
def an_epoch_ends_before_its_messages_are_out(_: Any) -> Any:
    return lambda self: self._writer.position


@mutation(steps.CreditsLogic, "cut")
def a_decision_reaches_redis_and_no_topic(right: Any) -> Any:
    return lambda self, messages: [one for one in right(self, messages) if type(one).__name__ != "Lines"]


@mutation(steps, "without")
def d4_a_forgotten_listener_is_known_to_some_partitions_alone(_: Any) -> Any:
    return lambda item, denied: item


__all__ = ["MUTATIONS", "mutated", "mutation"]
