"""Bugs of saves: of what is in one, and of when it counts."""

from __future__ import annotations

from typing import Any

from flows.engine.committer import CommitPartition
from flows.engine.cut_step import CutStep
from flows.engine.ledger_step import LedgerLogic
from flows.engine.saves import Saves
from flows.engine.sinks import LinesLogic
from flows.engine.steps import PlaysLogic
from flows.model.messages import PartitionStates, Receipt
from flows.state import saves
from simulation.mutations import mutation


@mutation(CommitPartition, "write_batch")
def a_save_is_committed_when_half_of_it_is_there(right: Any) -> Any:
    def write_batch(self: Any, values: Any) -> None:
        for value in values:
            pieces = self._gathered.setdefault(value.cut.number, {})
            if isinstance(value, PartitionStates):
                self._states[value.cut.number] = value
            else:
                pieces[value.step, value.key] = value
            if 2 * len(pieces) >= len(self._expected) and value.cut.number in self._states:
                self._commit(value.cut, list(pieces.values()))

    return write_batch


def _behind(right: Any) -> Any:
    def on_batch(self: Any, values: Any) -> Any:
        cuts: list[Any] = []
        at_cut, self.at_cut = self.at_cut, cuts.append
        out, gone = right(self, values)
        self.at_cut = at_cut
        for cut in cuts:
            at_cut(cut)
        return out, gone

    return on_batch


@mutation(PlaysLogic, "on_batch")
def plays_are_saved_with_what_is_behind_the_cut(right: Any) -> Any:
    return _behind(right)


@mutation(CutStep, "on_batch")
def steps_are_saved_with_what_is_behind_the_cut(right: Any) -> Any:
    return _behind(right)


@mutation(LedgerLogic, "let_in")
def a_partition_is_saved_as_it_is_behind_the_cut(right: Any) -> Any:
    def let_in(self: Any, message: Any) -> Any:
        if isinstance(message, Receipt):
            self._partitions[message.tick.sender] = message.saved
        return right(self, message)

    return let_in


@mutation(LinesLogic, "__init__")
def letters_are_saved_before_the_partitions_ticks_have_come(right: Any) -> Any:
    return lambda self, sink, shards, partitions, state: right(self, sink, shards, False, state)


@mutation(saves, "KEPT_SAVES")
def the_save_before_is_not_kept(_: Any) -> Any:
    return 1


@mutation(saves, "sync_directory")
def a_manifest_may_last_and_its_pieces_not(_: Any) -> Any:
    return lambda path: None


@mutation(Saves, "state")
def a_step_begins_anew_at_a_restart(right: Any) -> Any:
    return lambda self, step, key: None if step == "attribution" else right(self, step, key)
