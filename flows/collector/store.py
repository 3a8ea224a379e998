"""The store: an event is acknowledged by Kafka or synced on the spool before its call is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from flows.collector.call import Outcome, Understood
from flows.collector.lane import Lane, Way
from flows.collector.log import Line, Sending, line_of, safe
from flows.collector.low_mark import Call

GATHER_S: Final = 0.005
"""The time, in s, for which events are gathered into one batch. The producer sends a request for each
partition, and a request of many events costs little more than a request of one.
"""
DEADLINE: Final = timedelta(milliseconds=250)
"""The time limit of Kafka's acknowledgement."""
ANSWER: Final = timedelta(milliseconds=900)
"""The time limit of a call's answer; callers give up after one to five seconds."""
LONGEST_LINE: Final = 256 << 10
"""The greatest length of an event. An event that Kafka could never take would hold all later ones on the
spool.
"""


@dataclass(slots=True, eq=False)
class _Waiting:
    """The events of one call.

    Attributes:
        count: the number of the call's events.
        lines: the events that are not in the log.
        straight: the events of `lines` that go straight into the log.
        answer: the future for which the call waits.
    """

    count: int
    lines: list[Line]
    in_hand: Call
    answer: asyncio.Future[bool]
    straight: list[Line] = field(default_factory=list)

    def settle(self, stored: bool) -> None:
        if not self.answer.done():
            self.answer.set_result(stored)


@dataclass
class Store:
    """Makes events durable by one lane.

    While events rest for a partition, its fresh events follow them, so that the partition receives a
    collector's events in order. A later call may overtake one with events for two partitions, of which one
    rests. In an outage the first callers wait for the deadline, and later callers do not.
    """

    lane: Lane
    deadline: timedelta = DEADLINE
    answer: timedelta = ANSWER
    _batch: list[_Waiting] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def keep(self, understood: Sequence[Understood], received_ms: int) -> bool:
        """Make the accepted events of a call durable. Returns whether all of them are.

        Every event of the call is counted in the ledger, an accepted one once its outcome is known. If the
        result is False, none may be answered as stored. Some may be in the log all the same: they count as
        repeats when they are sent again.
        """
        ledger = self.lane.ledger
        ledger.calls += len(understood)
        lines, longest = [], 0
        for result in understood:
            if result.outcome is Outcome.STORED:
                line = line_of(result.event, result.key)
                longest = max(longest, len(line.body))
                lines.append(line)
            elif result.outcome is Outcome.REJECTED:
                ledger.rejected += 1
            else:
                ledger.not_counted += 1
        if not lines:
            return True
        if self.lane.clock.stood(received_ms):
            ledger.refuse(len(lines), "clock")
            return False
        if longest > LONGEST_LINE:
            ledger.refuse(len(lines), "size")
            return False
        laps = understood[0].laps
        laps.end("encode")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(len(lines), lines, self.lane.in_hand.take(received_ms), loop.create_future())
        if not self._batch:
            loop.call_later(GATHER_S, self._begin)
        self._batch.append(waiting)
        stored = await waiting.answer
        laps.end("durable")
        return stored

    def refuse(self, events: int, reason: str) -> None:
        """Count events that are refused whatever they are."""
        self.lane.ledger.calls += events
        self.lane.ledger.refuse(events, reason)

    def _begin(self) -> None:
        batch, self._batch = self._batch, []
        loop = asyncio.get_running_loop()
        loop.call_later(self.answer.total_seconds(), _give_up, batch)
        straight, behind = self._split(batch)
        for calls, send in (straight, self._send), (behind, self._rest_in_turn):
            if calls:
                task = loop.create_task(send(calls))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _split(self, batch: list[_Waiting]) -> tuple[list[_Waiting], list[_Waiting]]:
        """Separate the calls with an event that goes straight into the log from those without one.

        A call with an event that has no way is refused at once: no event of it may be stored.
        """
        lane, straight, behind = self.lane, list[_Waiting](), list[_Waiting]()
        clear = lane.clear
        for waiting in batch:
            if clear:
                waiting.straight = waiting.lines
                straight.append(waiting)
                continue
            ways = [lane.way(line.key) for line in waiting.lines]
            waiting.straight = [line for line, way in zip(waiting.lines, ways, strict=True) if way is Way.LOG]
            if Way.NONE in ways:
                self._end(waiting, False, None)
            else:
                (straight if waiting.straight else behind).append(waiting)
        return straight, behind

    async def _send(self, batch: list[_Waiting]) -> None:
        """Send the events of these calls into the log. Events that do not arrive in time, and the other
        events of these calls, go onto the spool.
        """
        lane, seconds, sending = self.lane, self.deadline.total_seconds(), None
        lines = [line for waiting in batch for line in waiting.straight]
        async with self._turn:  # without it the next batch would overtake one that has yet to resume
            if lane.clear or await lane.handed_over((line.key for line in lines), seconds):
                sending = lane.produce(lines)
        if sending is not None:
            await sending.within(seconds)
            batch = self._left(batch, sending)
        if batch:
            await self._rest(batch, sending)

    async def _rest_in_turn(self, batch: list[_Waiting]) -> None:
        """Put these calls onto the spool, after the batches before them."""
        async with self._turn:
            pass
        await self._rest(batch)

    async def _rest(self, batch: list[_Waiting], sending: Sending | None = None) -> None:
        """Put these calls onto the spool. An event that the log would not wait for may not rest, so its call
        is refused.
        """
        lane, resting = self.lane, list[_Waiting]()
        for waiting in batch:
            if all(lane.may_rest(line.key) for line in waiting.lines):
                resting.append(waiting)
            else:
                self._end(waiting, False, sending)
        if resting:
            stored = await lane.rest([line for waiting in resting for line in waiting.lines])
            for waiting in resting:
                self._end(waiting, stored, sending)

    def _left(self, batch: Sequence[_Waiting], sending: Sending) -> list[_Waiting]:
        """The calls with events that are not in the log, reduced to these events; the other calls end."""
        self.lane.wrote([report for report in sending.reports if report is not None and not report.error])
        if sending.safe and all(waiting.straight is waiting.lines for waiting in batch):
            for waiting in batch:
                waiting.lines = []
                self._end(waiting, True, None)
            return []
        left, reports = [], iter(sending.reports)
        for waiting in batch:
            stored = set[int]()
            for line, report in zip(waiting.straight, reports, strict=False):
                if safe(report):
                    stored.add(id(line))
            waiting.lines = [line for line in waiting.lines if id(line) not in stored]
            if waiting.lines:
                left.append(waiting)
            else:
                self._end(waiting, True, None)
        return left

    def _end(self, waiting: _Waiting, stored: bool, sending: Sending | None) -> None:
        ledger, in_hand = self.lane.ledger, self.lane.in_hand
        if stored:
            ledger.stored += waiting.count
            ledger.acknowledged += waiting.count - len(waiting.lines)
        else:
            ledger.refuse(waiting.count, "store")
        if stored or sending is None:
            in_hand.finish(waiting.in_hand)
        else:  # the events may arrive in the log all the same
            sending.ended.add_done_callback(lambda _: in_hand.finish(waiting.in_hand))
        waiting.settle(stored)


def _give_up(batch: Sequence[_Waiting]) -> None:
    for waiting in batch:
        waiting.settle(False)
