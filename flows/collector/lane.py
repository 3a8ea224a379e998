"""A lane: one spool under a collector's id, on its way into the log.

A lane produces events with its id and its low mark, drains its spool in order, and writes a mark into every
partition that it wrote nothing else to for a while, and now and then into the others. A directory that nobody
fills any more, because there are fewer processes than before, is a lane too, until nothing rests in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from math import inf
from pathlib import Path
from typing import Final, TypeVar

import structlog

from connectors.durable import replace_file, sync_directory
from connectors.kafka_reports import Produced, Report
from connectors.spool import Record, Spool, SpoolFullError
from flows.collector.clock import BrokersClock, CollectorClock
from flows.collector.lane_id import LaneId
from flows.collector.ledger import Ledger
from flows.collector.log import Line, Log, Sending, mark_of, safe, unsealed
from flows.collector.low_mark import InHand, low_mark

MARK_EVERY_S: Final = 1.0
BYE_AGAIN_S: Final = 20.0
BYES_FOR_S: Final = 60.0
"""The time for which bye is said for processes before this one, in s."""
MARK_ANYWAY_S: Final = 10.0
"""Between two marks where events are written all the time: a mark alone has the clock."""
DRAINED_AT_ONCE: Final = 500
PAUSES_S: Final = (0.1, 2.0)
"""The first and the longest pause of a drain that Kafka does not take."""
MAX_QUEUED: Final = 20_000
"""Events that may wait for the disk: one that hangs fills no memory."""
FAILING_S: Final = 5.0
"""The time for which a balancer is sent elsewhere after a write to the spool has failed, in s."""
_T = TypeVar("_T")


@dataclass
class Lane:
    """One collector's id on its way into the log.

    Its spool is used in a thread of its own; what of it is known here is as of the last use.

    Args:
        directory: of its spool.
        spool: that rests there.
        log: where events go.
        partitions: asked for the partitions of the topic.
        ledger: counts.
        method: hash of `flows.collector.method`, which its marks carry.

    Attributes:
        resting: events on the spool.
        told_ms: the last low mark.
        proven: whether the log waits for what this lane spools. A new id needs a mark in every partition
            first, and one that said bye needs them again.
    """

    directory: Path
    spool: Spool
    log: Log
    partitions: Callable[[], Sequence[int]]
    ledger: Ledger
    method: str = ""
    id: str = field(init=False)
    in_hand: InHand = field(default_factory=InHand)

    def __post_init__(self) -> None:
        self._log = structlog.get_logger("collector")
        self._ids = LaneId(self.directory / "id")
        self.id, self._began_s = self._ids.id, time.monotonic()
        self._stands = self.directory / "marked"
        self.proven = self._stands.exists()
        self.clock, self.brokers = CollectorClock(self.directory / "clock"), BrokersClock()
        self._disk = ThreadPoolExecutor(1, f"spool-{self.id}")
        self._wake = asyncio.Event()
        self._written_s: dict[int, float] = {}
        self._marked_s: dict[int, float] = {}
        self._marks: dict[int, Sending] = {}
        self._byes: dict[int, tuple[float, Sending]] = {}
        self._waiting: list[tuple[list[Line], asyncio.Future[bool]]] = []
        self._queued, self._failed_s = 0, -FAILING_S
        self._committing: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.resting, self._least_ms = self.spool.resting, self.spool.least
        self._torn, self.told_ms = self.spool.torn, 0
        self._lead_ms = self._led_ms = 0  # the greatest lead of its clock, and until when it had that
        self.ledger.inherited += self.resting + self._torn
        self.ledger.torn += self._torn

    def start(self) -> None:
        """Begin to drain, and to write marks; in the event loop."""
        self._tasks = [asyncio.create_task(self._drain()), asyncio.create_task(self._mark_again())]

    @property
    def before(self) -> Sequence[str]:
        """Ids under which processes before this one wrote, as long as the log may wait for them."""
        return self._ids.before

    @property
    def behind(self) -> int:
        """Events that rest or are about to: fresh ones go behind them."""
        return self.resting + self._queued

    @property
    def oldest_ms(self) -> int | None:
        """The receipt of the oldest event that rests; None: none does."""
        return self._least_ms

    @property
    def failing(self) -> bool:
        """True if the spool took nothing a moment ago."""
        return time.monotonic() - self._failed_s < FAILING_S

    def low_ms(self) -> int:
        """The least time of receipt of what is not in the log, by the wall clock.

        With the lead that its own clock had over it, the log would not wait for what was received meanwhile.
        """
        now_ms, lead_ms = self.clock.read()
        least_ms = low_mark(self.in_hand.least_ms, self._least_ms, now_ms)
        if lead_ms >= self._lead_ms or least_ms > self._led_ms:  # what had the greater lead is in the log
            self._lead_ms, self._led_ms = max(lead_ms, 0), now_ms
        self.told_ms = max(self.told_ms, least_ms - self._lead_ms)
        return self.told_ms

    def mark(self, bye: bool = False) -> bytes:
        """A mark of this moment."""
        low_ms, (now_ms, lead_ms) = self.low_ms(), self.clock.read()
        return mark_of(self.id, low_ms, now_ms - max(lead_ms, 0), bye, "" if bye else self.method)

    def produce(self, lines: Iterable[Line]) -> Sending:
        """Put events into the log, with this lane's id and low mark."""
        tail = b',"collector":"%s","low_ms":%d}' % (self.id.encode(), self.low_ms())
        return self.log.send([Produced(line.body[:-1] + tail, line.key) for line in lines])

    def wrote(self, report: Report) -> None:
        """A message of this lane stands in a partition."""
        self._written_s[report.partition] = time.monotonic()
        if report.logged_ms:
            self.brokers.take(self.clock.now_ms() - report.logged_ms)

    # Resting

    async def rest(self, lines: list[Line]) -> bool:
        """Put events on the spool; whether they are there when this returns.

        All that wait while the disk is busy are written with one sync.
        """
        if self._queued + len(lines) > MAX_QUEUED:
            self._failed_s = time.monotonic()
            return False
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((lines, future))
        self._queued += len(lines)
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit())
        return await future

    async def _commit(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            bodies = [line.sealed() for lines, _ in waiting for line in lines]
            stored = True
            try:
                await self._on_disk(partial(self.spool.append, bodies))
            except (SpoolFullError, OSError) as error:
                if not self.failing:
                    self._log.warning("the spool takes nothing", error=str(error) or "it is full")
                self._failed_s, stored = time.monotonic(), False
            self._queued -= len(bodies)
            for _, future in waiting:
                future.set_result(stored)
            if stored:
                self._wake.set()
        self._committing = None

    async def _drain(self) -> None:
        """Produce what rests, in order, until nothing does; again when something rests."""
        pause_s = PAUSES_S[0]
        while True:
            if not self.resting:
                self._wake.clear()
                await self._wake.wait()
            try:
                records = await self._on_disk(partial(self.spool.take, DRAINED_AT_ONCE))
                taken, failed = await self._produced(records)
                self._settling = asyncio.create_task(self._settled(taken, failed))
                await asyncio.shield(self._settling)
            except OSError as error:
                self._log.warning("the spool cannot be drained", error=str(error))
            else:
                if records and not failed:
                    pause_s = PAUSES_S[0]
                    continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSES_S[1])

    async def _produced(self, records: Sequence[Record]) -> tuple[list[int], list[Record]]:
        """Put records into the log; returns the numbers of those that are there, and the others."""
        sending = self.produce(unsealed(record.body) for record in records)
        taken, failed = [], []
        for record, report in zip(records, await sending.within(), strict=True):
            if report is not None and safe(report):
                self.wrote(report)
                taken.append(record.number)
            else:
                failed.append(record)
        return taken, failed

    async def _settled(self, taken: Sequence[int], failed: Sequence[Record]) -> None:
        """Acknowledge records on the spool and in the ledger. A stop waits for both: else the log had what
        the ledger says rests.
        """
        try:
            await self._on_disk(partial(self._settle, taken, failed))
        finally:  # the spool has them acknowledged, also where the disk does not take the cursor
            self.ledger.acknowledged += len(taken)

    def _settle(self, taken: Sequence[int], failed: Sequence[Record]) -> None:
        self.spool.give_back(failed)
        self.spool.acknowledge(taken)

    # Marks

    async def _mark_again(self) -> None:
        while True:
            try:
                await self._on_disk(self.clock.keep)
                if not self.proven and (here := set(self.partitions())) and here <= self._written_s.keys():
                    await self._on_disk(partial(replace_file, self._stands, b""))
                    self.proven = True
                if self.before and self._before_ended():
                    await self._on_disk(self._ids.forget_before)
            except OSError as error:
                self._log.warning("the disk does not keep the clock", error=str(error))
            self._mark()
            self._end_before()
            await asyncio.sleep(MARK_EVERY_S / (2 if self.proven else 20))

    def _mark(self) -> None:
        """Write a mark into every partition that this lane wrote nothing to, or no mark, for a while."""
        now_s, body = time.monotonic(), self.mark()
        for partition in self.partitions():
            before, written_s = self._marks.get(partition), self._written_s.get(partition, -inf)
            marked_s = self._marked_s.get(partition, -inf)
            due = now_s - written_s > MARK_EVERY_S or now_s - marked_s > MARK_ANYWAY_S
            if due and (before is None or before.ended.done()):
                self._marks[partition] = sending = self.log.send([Produced(body, None, partition)])
                sending.ended.add_done_callback(partial(self._marked, sending))

    def _marked(self, sending: Sending, _: asyncio.Future[None]) -> None:
        (report,) = sending.reports
        if report is not None and safe(report):
            self.wrote(report)
            self._marked_s[report.partition] = time.monotonic()

    def _end_before(self) -> None:
        """Say bye for the processes before this one where a word of this one stands, in whose place it waits.

        Again for a while: what the last of them had on its way may come behind a first bye.
        """
        now_s, bodies = time.monotonic(), [mark_of(one, 0, bye=True) for one in self.before]
        for partition in self.partitions() if bodies else ():
            said_s, sending = self._byes.get(partition, (-inf, None))
            due = now_s - said_s > BYE_AGAIN_S and (sending is None or sending.ended.done())
            if due and partition in self._written_s:
                sending = self.log.send([Produced(body, None, partition) for body in bodies])
                self._byes[partition] = now_s, sending

    def _before_ended(self) -> bool:
        """True if byes for the processes before this one stand in every partition, and have for a while."""
        here = self.partitions()
        sent = [self._byes[one][1].reports for one in here if one in self._byes]
        stand = len(sent) == len(here) > 0 and all(safe(report) for reports in sent for report in reports)
        return stand and time.monotonic() - self._began_s > BYES_FOR_S

    async def say_bye(self, timeout: timedelta) -> bool:
        """Say in every partition that this lane ends: nothing rests, so nothing need be waited for.

        Drains and marks no more: a mark behind its bye would bring it back.
        """
        await self._stop()
        partitions = sorted({*self.partitions(), *self._written_s})
        if self.resting or len(self.in_hand) or not partitions:
            return False
        with suppress(OSError):
            await self._on_disk(self._unprove)
        bodies = [self.mark(bye=True)]
        bodies += [mark_of(one, 0, bye=True) for one in self.before]
        sending = self.log.send([Produced(body, None, one) for one in partitions for body in bodies])
        ended = all(map(safe, await sending.within(timeout.total_seconds())))
        if ended and self.before:
            with suppress(OSError):  # then the next process says bye for them again
                await self._on_disk(self._ids.forget_before)
        return ended

    def _unprove(self) -> None:
        self._stands.unlink(missing_ok=True)
        sync_directory(self.directory)

    async def close(self, forget: bool = False) -> None:
        """Stop draining and let go of the directory; `forget`: its id has ended, nobody takes it up again."""
        await self._stop()
        if self._committing is not None:
            await self._committing
        if forget:
            with suppress(OSError):  # then it is taken up again, and says bye again
                self._ids.remove()
                (self.directory / "clock").unlink()  # another id begins by the wall clock
        await self._on_disk(self.spool.close)
        self.clock.close()
        self._disk.shutdown()

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        settling = [self._settling] if self._settling is not None else []
        await asyncio.gather(*self._tasks, *settling, return_exceptions=True)

    async def _on_disk(self, call: Callable[[], _T]) -> _T:
        """The result of a call in the disk's thread."""

        def called() -> tuple[_T, int, int | None, int]:
            result = call()
            return result, self.spool.resting, self.spool.least, self.spool.torn

        loop = asyncio.get_running_loop()
        result, self.resting, self._least_ms, torn = await loop.run_in_executor(self._disk, called)
        self.ledger.torn += torn - self._torn
        self._torn = torn
        return result
