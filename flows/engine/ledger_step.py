"""The ledger's step, which gives the states of the source partitions to all saves too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flows.engine.cut_step import CutStep
from flows.model.messages import LEDGER_SHARD, Flush, Message, PartitionStates, Receipt, Settled
from flows.model.ticks import Cut
from flows.publish import Ledger
from flows.settings import Settings


class LedgerLogic(CutStep[Receipt | Settled]):
    """The ledger behind an aligner of the source partitions and the placement shards.

    It gives the partitions' states to the members' saves, too. Each comes with the tick that the cut has of
    its partition, which no partition knows by itself.

    Args:
        members: how many have a part of each save.
        partitions: the states that the execution goes on from.
    """

    def __init__(
        self,
        settings: Settings,
        state: tuple[Any, ...] | None,
        members: int = 1,
        partitions: Mapping[str, bytes] | None = None,
    ) -> None:
        self._ledger = Ledger(settings.reject_share, settings.reject_least)
        self._shards = range(settings.shards)
        self._members = range(members)
        self._partitions = dict(partitions or {})
        super().__init__(self._ledger, (), state)

    def let_in(self, message: Receipt | Settled) -> Iterator[list[Receipt | Settled]]:
        """Hand both sides to the aligner; a receipt names the partitions to wait for."""
        if isinstance(message, Settled):
            return super().let_in(message)
        tick = message.tick
        self._aligner.expect(frozenset((*tick.senders, *self._shards)))
        return self._aligner.cuts(tick.sender, message, tick.number, tick.first)

    def cut(self, messages: list[Receipt | Settled]) -> Iterable[Message]:
        """The accounts that a cut changes; of a save the partitions' states."""
        here: Cut | None = None
        for one in messages:
            if isinstance(one, Receipt):
                self._ledger.receive(one)
                self._partitions[one.tick.sender] = one.saved
            else:
                here = one.cut
                for outcome in one.outcomes:
                    self._ledger.add_outcomes(outcome)
        assert here is not None, "a cut without the placement shards"
        accounts, arrivals = self._ledger.cut(here)
        flush = Flush(LEDGER_SHARD, here, accounts=accounts, arrivals=arrivals)
        if not here.save:
            return [flush]
        states = dict(self._partitions)
        return [flush, *(PartitionStates(here, states, member) for member in self._members)]
