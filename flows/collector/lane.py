"""A lane: one collector's id with its spool, on its way into the log.

A lane produces events with its id and its low mark, drains its spool in order, and writes a mark into every
partition that it wrote nothing else to for a while. A directory that nobody fills any more, because there are
fewer processes than before, is a lane too, under its old id, until nothing rests in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from uuid import uuid4

import msgspec
import structlog

from connectors.kafka_reports import Produced, Report, ReportingProducer
from connectors.spool import Record, Spool, SpoolFullError, replace_file
from flows.collector.clock import CollectorClock
from flows.collector.ledger import Ledger
from flows.collector.low_mark import InHand, low_mark

MARK_EVERY_S: Final = 1.0
DRAINED_AT_ONCE: Final = 500
PAUSES_S: Final = (0.1, 2.0)
"""The first and the longest pause of a drain that Kafka does not take."""
_KEY: Final = b',"_key":'
_RECEIVED: Final = b'{"received_at":'
_T = TypeVar("_T")


class Line(NamedTuple):
    """An event as JSON that begins with its time of receipt, and its Kafka key."""

    body: bytes
    key: bytes


def line_of(event: dict[str, Any], key: bytes) -> Line:
    """The line of a canonical event."""
    first = {"received_at": event["received_at"]}
    return Line(msgspec.json.encode(first | event), key)


def received_ms(body: bytes) -> int:
    """The time of receipt of an event's line."""
    begin = len(_RECEIVED)
    return int(body[begin : body.index(b",", begin)])


def _sealed(line: Line) -> bytes:
    """A line with its key, as it rests."""
    return b"%s%s%s}" % (line.body[:-1], _KEY, msgspec.json.encode(line.key.decode()))


def _unsealed(body: bytes) -> Line:
    at = body.rindex(_KEY)
    key: str = msgspec.json.decode(body[at + len(_KEY) : -1])
    return Line(body[:at] + b"}", key.encode())


class Reports:
    """Futures of what a producer's thread reports, by number, in the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._next = loop, 0
        self._waiting: dict[int, asyncio.Future[Report | None]] = {}

    def numbered(self) -> tuple[int, asyncio.Future[Report | None]]:
        """A number for a message, and the future of its report; None: it found no room, or was given up."""
        self._next += 1
        future: asyncio.Future[Report | None] = self._loop.create_future()
        self._waiting[self._next] = future
        return self._next, future

    def told(self, reports: list[Report]) -> None:
        """Called in the producer's thread."""
        self._loop.call_soon_threadsafe(self._settle, reports)

    def _settle(self, reports: list[Report]) -> None:
        for report in reports:
            self.settle(report.number, report)

    def settle(self, number: int, report: Report | None) -> None:
        """Give a number's future its result, where nobody did so before."""
        future = self._waiting.pop(number, None)
        if future is not None and not future.done():
            future.set_result(report)


@dataclass
class Log:
    """The topic, as lanes write to it."""

    producer: ReportingProducer
    reports: Reports

    def produce(self, messages: Iterable[Produced]) -> list[tuple[int, asyncio.Future[Report | None]]]:
        """Queue messages; a future for each, None at once where there is no room."""
        numbered = [(*self.reports.numbered(), message) for message in messages]
        left = self.producer.produce([(number, message) for number, _, message in numbered])
        for number in left:
            self.reports.settle(number, None)
        return [(number, future) for number, future, _ in numbered]


@dataclass
class Lane:
    """One collector's id on its way into the log.

    Args:
        directory: of its spool.
        spool: that rests there.
        log: where events go.
        partitions: asked for the partitions of the topic.
        ledger: counts.
    """

    directory: Path
    spool: Spool
    log: Log
    partitions: Callable[[], Sequence[int]]
    ledger: Ledger
    id: str = field(init=False)
    known: bool = field(init=False)
    in_hand: InHand = field(default_factory=InHand)

    def __post_init__(self) -> None:
        self._log = structlog.get_logger("collector")
        path = self.directory / "id"
        self.known = path.exists()
        if not self.known:
            replace_file(path, uuid4().hex[:16].encode())
        self.id = path.read_text()
        self.clock = CollectorClock(self.directory / "clock")
        self._disk = ThreadPoolExecutor(1, f"spool-{self.id}")
        self._wake = asyncio.Event()
        self._written_s: dict[int, float] = {}
        self._marking: set[int] = set()
        self._marked: set[int] = set()
        self._waiting: list[tuple[list[Line], asyncio.Future[bool]]] = []
        self._committing = False
        self._tasks: list[asyncio.Task[None]] = []
        self.ledger.inherited += self.spool.resting + self.spool.torn
        self.ledger.torn += self.spool.torn

    def start(self) -> None:
        """Begin to drain, and to write marks; in the event loop."""
        self._tasks = [asyncio.create_task(self._drain()), asyncio.create_task(self._mark_again())]

    @property
    def resting(self) -> int:
        """Events on the spool."""
        return self.spool.resting

    @property
    def proven(self) -> bool:
        """Whether the log waits for what this lane spools: a new id needs a mark in every partition first."""
        return self.known or (bool(self._marked) and self._marked >= set(self.partitions()))

    def low_ms(self) -> int:
        """The least time of receipt of what is not in the log."""
        return low_mark(self.in_hand.least_ms, self.spool.least, self.clock.now_ms())

    def produce(self, lines: Sequence[Line]) -> list[tuple[int, asyncio.Future[Report | None]]]:
        """Put events into the log, with this lane's id and low mark."""
        tail = b',"collector":"%s","low_ms":%d}' % (self.id.encode(), self.low_ms())
        return self.log.produce(Produced(line.body[:-1] + tail, line.key) for line in lines)

    def wrote(self, report: Report) -> None:
        """A message of this lane stands in a partition."""
        self._written_s[report.partition] = time.monotonic()

    # Resting

    async def rest(self, lines: list[Line]) -> bool:
        """Put events on the spool; whether they are there when this returns.

        All that wait while the disk is busy are written with one sync.
        """
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((lines, future))
        if not self._committing:
            self._committing = True
            self._tasks.append(asyncio.create_task(self._commit()))
            self._tasks = [task for task in self._tasks if not task.done()]
        return await future

    async def _commit(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            bodies = [_sealed(line) for lines, _ in waiting for line in lines]
            stored = True
            try:
                await self._on_disk(partial(self.spool.append, bodies))
            except (SpoolFullError, OSError) as error:
                self._log.warning("the spool takes nothing", error=str(error) or "it is full")
                stored = False
            for _, future in waiting:
                if not future.done():
                    future.set_result(stored)
            if stored:
                self._wake.set()
        self._committing = False

    async def _drain(self) -> None:
        """Produce what rests, in order, until nothing does; again when something rests."""
        pause_s = PAUSES_S[0]
        while True:
            if not self.spool.resting:
                self._wake.clear()
                await self._wake.wait()
            try:
                records = await self._on_disk(partial(self.spool.take, DRAINED_AT_ONCE))
                failed = await self._produced(records)
                await self._on_disk(partial(self.spool.give_back, failed))
            except OSError as error:
                self._log.warning("the spool cannot be drained", error=str(error))
                records, failed = [], []
            if records and not failed:
                pause_s = PAUSES_S[0]
                continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSES_S[1])

    async def _produced(self, records: Sequence[Record]) -> list[Record]:
        """Put records into the log; returns those that the brokers did not take."""
        sent = self.produce([_unsealed(record.body) for record in records])
        failed, safe = [], []
        for record, (_, future) in zip(records, sent, strict=True):
            report = await future
            if report is None or report.error:
                failed.append(record)
            else:
                self.wrote(report)
                safe.append(record.number)
        if safe:
            await self._on_disk(partial(self.spool.acknowledge, safe))
            self.ledger.acknowledged += len(safe)
        return failed

    # Marks

    async def _mark_again(self) -> None:
        while True:
            await self._on_disk(self.clock.keep)
            self.mark()
            await asyncio.sleep(MARK_EVERY_S / 2)

    def mark(self, bye: bool = False) -> list[asyncio.Future[Report | None]]:
        """Write a mark into every partition that this lane wrote nothing to for a while; `bye`: into all."""
        due_s = time.monotonic() - MARK_EVERY_S
        wanted = [
            one
            for one in self.partitions()
            if bye or (one not in self._marking and self._written_s.get(one, 0.0) < due_s)
        ]
        body = mark_of(self.id, self.low_ms(), bye)
        sent = self.log.produce(Produced(body, None, one) for one in wanted)
        for one, (_, future) in zip(wanted, sent, strict=True):
            self._marking.add(one)
            future.add_done_callback(partial(self._mark_done, one))
        return [future for _, future in sent]

    def _mark_done(self, partition: int, future: asyncio.Future[Report | None]) -> None:
        self._marking.discard(partition)
        report = None if future.cancelled() else future.result()
        if report is not None and not report.error:
            self.wrote(report)
            self._marked.add(partition)

    async def say_bye(self, timeout: timedelta) -> bool:
        """Say in every partition that this lane ends: nothing rests, so nothing need be waited for."""
        if self.spool.resting or len(self.in_hand):
            return False
        done, waiting = await asyncio.wait(self.mark(bye=True), timeout=timeout.total_seconds())
        reports = [future.result() for future in done]
        return not waiting and all(report is not None and not report.error for report in reports)

    async def close(self) -> None:
        """Stop draining and let go of the directory."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._on_disk(self.spool.close)
        self._disk.shutdown()

    async def _on_disk(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, call)


def mark_of(collector: str, low_ms: int, bye: bool = False) -> bytes:
    """A mark: no pixel, but how far back a collector may still write."""
    mark: dict[str, Any] = {"collector": collector, "low_ms": low_ms}
    return msgspec.json.encode(mark | ({"bye": True} if bye else {}))
