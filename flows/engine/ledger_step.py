"""The ledger's step, which also watches the feed, and supplies the states of the source partitions to all
saves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from flows.delivery import PlanFollower
from flows.engine.cut_step import CutStep
from flows.model.messages import (
    LEDGER_SHARD,
    Flush,
    Message,
    PartitionStates,
    Receipt,
    Settled,
    SilentUnit,
)
from flows.model.ticks import Cut, awake_ms
from flows.publish import Ledger
from flows.settings import Settings, ms
from flows.silence import Watch


class LedgerLogic(CutStep[Receipt | Settled]):
    """The ledger after an aligner of the source partitions and the placement shards.

    The step also supplies the partitions' states to the members' saves: a partition alone cannot tell which
    of its ticks belongs to a cut. The step also watches the feed, since all accepted pixels, and each
    partition's proof of its end, arrive at it.

    Args:
        members: the number of members with a part of each save.
        partitions: the states from which the execution continues.
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
        bounds = ms(settings.silent_after), ms(settings.silent_history)
        self._watch, self._plans = Watch(settings.zone, *bounds), PlanFollower(settings)
        self._proofs: dict[str, tuple[int, bool]] = {}
        super().__init__(self._ledger, (), state)
        if state is not None:
            self._watch.restore(state[2])

    def let_in(self, message: Receipt | Settled) -> Iterator[list[Receipt | Settled]]:
        """Pass both sides to the aligner; a receipt names the partitions to wait for."""
        if isinstance(message, Settled):
            return super().let_in(message)
        tick = message.tick
        self._aligner.expect(frozenset((*tick.senders, *self._shards)))
        return self._aligner.cuts(tick.sender, message, tick.number, tick.first)

    def cut(self, messages: list[Receipt | Settled]) -> Iterable[Message]:
        """The accounts that a cut changes, and at a save the partitions' states."""
        here: Cut | None = None
        for message in messages:
            if isinstance(message, Receipt):
                self._ledger.receive(message)
                self._partitions[message.tick.sender] = message.saved
                self._proofs[message.tick.sender] = message.now_ms, message.proven
                for name in message.byes:
                    self._watch.end(name)
            else:
                here = message.cut
                for outcome in message.outcomes:
                    self._ledger.add_outcomes(outcome)
                self._take_units(message)
        assert here is not None, "a cut without the placement shards"
        accounts, arrivals = self._ledger.cut(here)
        silent = self._silent_units(here)
        flush = Flush(LEDGER_SHARD, here, accounts=accounts, arrivals=arrivals, silent=silent)
        if not here.save:
            return [flush]
        states = dict(self._partitions)
        return [flush, *(PartitionStates(here, states, member) for member in self._members)]

    def _take_units(self, settled: Settled) -> None:
        """Take a placement shard's pixels by unit of the feed."""
        units = dict(settled.units)
        for outcome in settled.outcomes:
            units[f"partition:{outcome.sender}"] = outcome.accepted - outcome.invalid_traffic
        self._watch.take_pixels(
            {unit: pixels for unit, pixels in units.items() if pixels}, settled.impressions
        )

    def _silent_units(self, cut: Cut) -> Sequence[SilentUnit]:
        """The silent units at a cut. Time counts for silence while every partition is read to its end, and no
        collector holds time back.
        """
        if (book := self._plans.changed(awake_ms())) is not None:
            self._watch.follow(book)
        there = dict(cut.positions)
        self._proofs = {name: proof for name, proof in self._proofs.items() if name in there}
        proofs = self._proofs.values()
        proven = bool(proofs) and all(shown for _, shown in proofs) and not cut.held_by
        now_ms = max((now_ms for now_ms, _ in proofs), default=0)
        return self._watch.cut(now_ms, proven, cut.watermark_ms, cut.counted_since_ms)

    def snapshot(self) -> tuple[Any, ...]:
        """The ledger's state, the aligner's, and the watch's, at a cut."""
        return *super().snapshot(), self._watch.snapshot()
