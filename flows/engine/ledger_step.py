"""The ledger's step, which keeps the states of the source partitions too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from flows.engine.cut_step import CutStep
from flows.model.messages import LEDGER_SHARD, Flush, Message, Receipt, Settled
from flows.model.ticks import Cut
from flows.publish import Ledger
from flows.settings import Settings


class LedgerLogic(CutStep[Receipt | Settled]):
    """The ledger behind an aligner of the source partitions and the placement shards.

    It keeps the partitions' states too. Each comes with the tick that the cut has of its partition, which no
    partition knows by itself.
    """

    def __init__(self, settings: Settings, state: tuple[Any, ...] | None) -> None:
        self._ledger = Ledger(settings.reject_share, settings.reject_least)
        self._shards = range(settings.shards)
        self._partitions: dict[str, bytes] = {} if state is None else dict(state[2])
        super().__init__(self._ledger, (), state)

    def let_in(self, message: Receipt | Settled) -> Iterator[list[Receipt | Settled]]:
        """Hand both sides to the aligner; a receipt names the partitions to wait for."""
        if isinstance(message, Settled):
            return super().let_in(message)
        tick = message.tick
        self._aligner.expect(frozenset((*tick.senders, *self._shards)))
        return self._aligner.cuts(tick.sender, message, tick.number, tick.first)

    def cut(self, messages: list[Receipt | Settled]) -> Iterable[Message]:
        """The accounts that a cut changes."""
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
        return [Flush(LEDGER_SHARD, here, accounts=accounts, arrivals=arrivals)]

    def snapshot(self) -> tuple[Any, ...]:
        """The ledger's state and the aligner's, and the packed state of each partition."""
        return (*super().snapshot(), dict(self._partitions))
