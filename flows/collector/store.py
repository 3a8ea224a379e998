"""The store: an event is acknowledged by Kafka or synced on the spool before its call is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from connectors.kafka_reports import Report
from flows.collector.call import Outcome, Understood
from flows.collector.lane import Lane, Line, line_of

GATHER_S: Final = 0.002
"""How long events are gathered into one batch: a produce of many costs little more than one of one."""
DEADLINE: Final = timedelta(milliseconds=250)
"""How long Kafka's word is waited for; callers give up after one to five seconds."""

_Sent = tuple[int, asyncio.Future[Report | None]]


@dataclass
class Store:
    """Keeps events by one lane.

    While something rests on the spool, fresh events go behind it, so that a partition sees a collector's
    events in order. So an outage costs its first callers the deadline, and nobody else anything.
    """

    lane: Lane
    deadline: timedelta = DEADLINE
    _batch: list[tuple[Line, asyncio.Future[_Sent]]] = field(default_factory=list)

    async def keep(self, understood: Sequence[Understood], received_ms: int) -> bool:
        """Make the stored ones of a call's events durable; whether they all are.

        Counts every event of the call in the ledger. False: nothing of them may be answered as stored; some
        may be in the log all the same, where they are repeats when they are sent again.
        """
        ledger = self.lane.ledger
        ledger.calls += len(understood)
        lines = []
        for one in understood:
            if one.outcome is Outcome.STORED:
                lines.append(line_of(one.event, one.key))
            elif one.outcome is Outcome.REJECTED:
                ledger.rejected += 1
            else:
                ledger.not_counted += 1
        if not lines:
            return True
        in_hand = self.lane.in_hand.take(received_ms)
        try:
            stored = await self._keep(lines)
        finally:
            self.lane.in_hand.done(in_hand)
        if stored:
            ledger.stored += len(lines)
        else:
            ledger.refused += len(lines)
        return stored

    async def _keep(self, lines: list[Line]) -> bool:
        left = lines if self.lane.resting else await self._produced(lines)
        if not left:
            self.lane.ledger.acknowledged += len(lines)
            return True
        if not self.lane.proven:
            return False  # nothing in the log would wait for what rests here
        if not await self.lane.rest(left):
            return False
        self.lane.ledger.acknowledged += len(lines) - len(left)
        return True

    async def _produced(self, lines: list[Line]) -> list[Line]:
        """Put events into the log; returns those that the brokers have not confirmed in time."""
        left = []
        for line, sent in [(line, await self._gathered(line)) for line in lines]:
            report = await sent[1]
            if report is None or report.error:
                left.append(line)
            else:
                self.lane.wrote(report)
        return left

    def _gathered(self, line: Line) -> asyncio.Future[_Sent]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Sent] = loop.create_future()
        if not self._batch:
            loop.call_later(GATHER_S, self._produce)
        self._batch.append((line, future))
        return future

    def _produce(self) -> None:
        batch, self._batch = self._batch, []
        sent = self.lane.produce([line for line, _ in batch])
        for (_, future), one in zip(batch, sent, strict=True):
            if not future.done():
                future.set_result(one)
        asyncio.get_running_loop().call_later(self.deadline.total_seconds(), self._give_up, sent)

    def _give_up(self, sent: list[_Sent]) -> None:
        for number, _ in sent:
            self.lane.log.reports.settle(number, None)
