"""Bugs of what writes to Redis and to topics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from connectors.redis.client import checked, failures, replies
from connectors.redis.marks import Marks
from connectors.redis.row_changes import RowChanges
from connectors.redis.rows import Emptied, RowStore, WriteOutcome
from flows.engine import steps
from flows.engine.sinks import LinesLogic, RedisLogic
from flows.publish import Covered, redis_writer
from flows.publish.backlog import Backlog
from flows.publish.fence import FenceRecord
from flows.publish.publisher import Publisher
from flows.publish.redis_writer import RedisWriter
from simulation.mutations import mutation

# Redis


@mutation(RowStore, "take_fence")
def the_fence_is_not_raised(_: Any) -> Any:
    return lambda self, key, above=0: 1


@mutation(redis_writer, "latest_fence_record")
def the_fence_is_not_read_from_the_disk(_: Any) -> Any:
    return lambda directory: FenceRecord()


@mutation(redis_writer, "write_fence_record")
def the_fence_is_not_kept_on_the_disk(_: Any) -> Any:
    return lambda *_: None


@mutation(RedisWriter, "behind")
def rows_are_shown_before_the_replay_is_past_the_last_flush(_: Any) -> Any:
    return lambda self, cut: False


@mutation(RedisWriter, "behind")
def one_partition_past_the_last_flush_is_enough(_: Any) -> Any:
    def behind(self: Any, cut: Any) -> bool:
        at = dict(cut.positions)
        covered = self.covered
        return bool(covered) and all(at.get(of, 0) < there for of, there in covered.items())

    return behind


@mutation(Publisher, "flush")
def a_cut_that_readers_do_not_get_is_written(right: Any) -> Any:
    def flush(self: Any, cut: Any, flushes: Any) -> None:
        right(self, replace(cut, publish=True), flushes)

    return flush


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
    def land(self: Any, rows: Any, cover: Any = None) -> Any:
        found = self._call(rows, self._landed, cover)
        if "uncovered" in found:
            raise Emptied
        outcomes = [WriteOutcome.SAME if one == "unbased" else one for one in found]
        self._landed.update({row.key: row for row in rows})
        return list(map(WriteOutcome, outcomes))

    return land


@mutation(RowChanges, "argument")
def fields_that_go_stay(right: Any) -> Any:
    def argument(self: Any, *of: Any) -> bytes:
        kinds, usual, parts = msgspec.msgpack.decode(right(self, *of))
        parts[2::3] = [0] * len(parts[2::3])
        return msgspec.msgpack.encode([kinds, usual, parts])

    return argument


@mutation(redis_writer, "following")
def d3_every_restart_with_recompute_begins_a_generation(_: Any) -> Any:
    def following(last: Any, there: int, resumed: bool, recompute: bool, settings: Any) -> Any:
        return FenceRecord(0, max(there, last.generation) + (1 if recompute or not there else 0), begun=True)

    return following


@mutation(RowStore, "_add_to_index")
def rows_are_in_no_index(_: Any) -> Any:
    return lambda self, rows: None


@mutation(RedisLogic, "on_batch")
def a_flush_does_not_wait_for_all_that_send_to_it(_: Any) -> Any:
    def on_batch(self: Any, values: Any) -> Any:
        for value in values:
            self._handover.flush(value.cut, [value])
            self._seen = {**getattr(self, "_seen", {}), value.shard: value.cut.number}
            if len(set(self._seen.values())) == 1 and len(self._seen) == len(self._aligner.expected):
                self._aligner.let_in, self._aligner.released = dict(self._seen), value.cut.number
                self.at_cut(value.cut)
        return [], False

    return on_batch


# Topics


@mutation(Covered, "provisional_from")
def d5_minutes_are_told_while_the_replay_is_behind(_: Any) -> Any:
    return lambda self, cut: 0


@mutation(Covered, "record_final")
def which_minutes_were_told_is_not_kept_on_the_disk(_: Any) -> Any:
    return lambda self, before: None


@mutation(LinesLogic, "settle")
def a_save_is_committed_before_its_messages_are_out(_: Any) -> Any:
    return lambda self: None


@mutation(steps.CreditsLogic, "cut")
def a_decision_reaches_redis_and_no_topic(right: Any) -> Any:
    return lambda self, messages: [one for one in right(self, messages) if type(one).__name__ != "Lines"]


@mutation(steps, "without")
def d4_a_forgotten_listener_is_known_to_some_partitions_alone(_: Any) -> Any:
    return lambda item, denied: item


@mutation(RedisWriter, "decide")
def decisions_of_a_cut_that_readers_do_not_get_are_not_written(right: Any) -> Any:
    def decide(self: Any, cut: Any) -> None:
        self.backlog.decisions, self.decided = [], cut.number

    return decide
