"""A lane: one spool under a collector's id, on its way into the log.

A lane produces events with its id and its low mark, and drains its spool. It writes a mark into every
partition that it has written nothing else to for a while, and now and then into the others. The directory of
a process that no longer runs, because there are fewer processes than before, is a lane too until its spool is
empty.

Each partition is in order by itself: events for a partition without a leader rest on the spool, and no
others. The low mark is the least of the resting events for any partition. A low mark for each partition would
gain nothing, since the flow's time is the least of all partitions'. It would also be wrong after a kill: the
lane then sends again events that other partitions have, and these must count as repeats instead of too late.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from functools import partial
from math import inf
from pathlib import Path
from typing import Final, TypeVar

import structlog

from connectors.kafka_reports import Produced, Report
from connectors.spool import QUEUES, Record, Spool, SpoolFullError
from flows.collector.clock import BrokersClock, CollectorClock
from flows.collector.lane_id import LaneId
from flows.collector.ledger import Ledger
from flows.collector.log import Line, Log, Sending, mark_of, safe, unsealed
from flows.collector.low_mark import InHand, low_mark
from flows.collector.partitions import Standing, partition_of

MARK_EVERY_S: Final = 1.0
"""Seconds without a message after which a partition gets a mark."""
BYE_AGAIN_S: Final = 20.0
"""Seconds between two byes for an earlier process."""
BYES_FOR_S: Final = 60.0
"""The time for which byes for earlier processes are repeated, in s."""
MARK_ANYWAY_S: Final = 10.0
"""Seconds between two marks of a partition that receives events: only a mark carries the clock."""
DRAINED_AT_ONCE: Final = 500
"""The greatest number of a queue's events on their way into the log at a time; fewer if there are many
partitions.
"""
ALL_DRAINED_AT_ONCE: Final = 20_000
"""The greatest number of all queues' events on their way into the log at a time."""
IN_TIME_S: Final = 0.25
"""The time limit, in s, of the log's acknowledgements after which fresh events go straight into the log."""
UNANSWERED_S: Final = 1.0
"""The time after which a mark's partition counts as silent, in s."""
SILENT_S: Final = 3.0
"""The time, in s, for which a new id waits for silent partitions while others answer."""
PAUSES_S: Final = (0.1, 2.0)
"""The first and the longest pause of a drain after Kafka has refused events, in s."""
MAX_QUEUED: Final = 20_000
"""The greatest number of events that may wait for the disk, so that a hanging disk fills no memory."""
FAILING_S: Final = 5.0
"""The time, in s, for which the process is unready after a write to the spool has failed."""
_T = TypeVar("_T")


class Way(Enum):
    """The next place of a fresh event."""

    LOG = "straight into the log"
    SPOOL = "behind the events that rest for its partition"
    NONE = "none: its partition would not wait for it, and does not answer"


@dataclass
class Lane:
    """A collector's id on its way into the log.

    The spool is used in a thread of its own; the lane's figures of it are as of its last use.

    Args:
        directory: the directory of the spool.
        spool: the spool of this lane.
        log: the topic.
        partitions: returns the partitions of the topic; empty while they are unknown.
        ledger: receives the counts.
        method: hash of `flows.collector.method`, which its marks carry.

    Attributes:
        resting: the number of events on the spool.
        published_ms: the last low mark that was written, epoch ms.
        proven: whether the log waits for events that this lane spools. A new id first needs a mark in every
            partition that answers, and an id that wrote a bye needs the marks again.
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
        self._standing = Standing(self.directory / "marked")
        self.proven = self._standing.whole(0)
        self.clock, self.brokers = CollectorClock(self.directory / "clock"), BrokersClock()
        self._disk = ThreadPoolExecutor(1, f"spool-{self.id}")
        self._changed = asyncio.Event()
        self._written_s: dict[int, float] = {}
        self._marked_s: dict[int, float] = {}
        self._marks: dict[int, tuple[float, Sending]] = {}
        self._first_s = inf  # when the first message of this process was acknowledged, monotonic
        self._byes: dict[int, tuple[float, Sending]] = {}
        self._waiting: list[tuple[list[Line], list[int], asyncio.Future[bool]]] = []
        self._failed_s = -FAILING_S
        self._queued: Counter[int] = Counter()  # events that wait for the disk, by queue of the spool
        self._due: Counter[int] = Counter()  # events on the disk that are not on their way into the log
        self._behind: set[int] = set()  # queues whose fresh events must follow the resting ones
        self._committing: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._drains: dict[int, asyncio.Task[None]] = {}
        if self.spool.resting and self._topic_partitions:
            self.spool.sort(lambda body: self._queue(unsealed(body).key))
        self._due.update(self.spool.due)
        self._behind.update(queue for queue, due in self._due.items() if due)
        self.resting, self._least_ms = self.spool.resting, self.spool.least
        self._torn, self.published_ms = self.spool.torn, 0
        self._lead_ms = self._led_ms = 0  # the greatest lead of its clock, and the last time of that lead
        self.ledger.inherited += self.resting + self._torn
        self.ledger.torn += self._torn

    def start(self) -> None:
        """Begin to drain, and to write marks; in the event loop."""
        self._tasks = [asyncio.create_task(self._mark_again())]
        self._begin_drains()

    @property
    def before(self) -> Sequence[str]:
        """The ids of earlier processes, for as long as the log may wait for them."""
        return self._ids.before

    @property
    def waiting_events(self) -> int:
        """The number of events that rest or are about to; fresh events follow them."""
        return self.resting + self._queued.total()

    @property
    def oldest_ms(self) -> int | None:
        """The time of receipt of the oldest resting event, or None."""
        return self._least_ms

    @property
    def failing(self) -> bool:
        """True if a write to the spool failed a moment ago."""
        return time.monotonic() - self._failed_s < FAILING_S

    def low_ms(self) -> int:
        """The least time of receipt of events that are not in the log, by the wall clock.

        By the lane's own clock, ahead of the wall clock, the mark would be later than events that are
        received meanwhile.
        """
        now_ms, lead_ms = self.clock.read()
        least_ms = low_mark(self.in_hand.least_ms, self._least_ms, now_ms)
        # After `_led_ms` the events of the greater lead are in the log.
        if lead_ms >= self._lead_ms or least_ms > self._led_ms:
            self._lead_ms, self._led_ms = max(lead_ms, 0), now_ms
        self.published_ms = max(self.published_ms, least_ms - self._lead_ms)
        return self.published_ms

    def mark(self, bye: bool = False) -> bytes:
        """A mark of this moment."""
        low_ms, (now_ms, lead_ms) = self.low_ms(), self.clock.read()
        return mark_of(self.id, low_ms, now_ms - max(lead_ms, 0), bye, "" if bye else self.method)

    def produce(self, lines: Iterable[Line]) -> Sending:
        """Put events into the log, with this lane's id and low mark."""
        tail = b',"collector":"%s","low_ms":%d}' % (self.id.encode(), self.low_ms())
        return self.log.send([Produced(line.body[:-1] + tail, line.key) for line in lines])

    def wrote(self, reports: Sequence[Report]) -> None:
        """Note that partitions have messages of this lane, by reports that came just now."""
        if not reports:
            return
        now_s = time.monotonic()
        self._first_s = min(self._first_s, now_s)
        self._written_s.update(dict.fromkeys({report.partition for report in reports}, now_s))
        if (latest_ms := max(report.logged_ms for report in reports)) > 0:
            self.brokers.take(self.clock.now_ms() - latest_ms)

    # Ways

    @property
    def clear(self) -> bool:
        """True if every event may go straight into the log, and onto the spool if the log fails."""
        return not self._behind and not self.waiting_events and self._standing.whole(len(self.partitions()))

    def way(self, key: bytes) -> Way:
        """The way of a fresh event."""
        if self._topic_partitions:
            partition = partition_of(key, self._topic_partitions)
            if not self._standing.stands_in(partition) and self._silent(partition):
                return Way.NONE
        return Way.SPOOL if self._queue(key) in self._behind else Way.LOG

    def may_rest(self, key: bytes) -> bool:
        """True if the log would wait for this event while it rests."""
        if not self._topic_partitions:
            return self._standing.whole(0)
        return self._standing.stands_in(partition_of(key, self._topic_partitions))

    async def handed_over(self, keys: Iterable[bytes], seconds: float) -> bool:
        """Wait until all resting events of some keys' partitions are on their way into the log.

        Returns:
            False if they are not, within `seconds`.
        """
        queues, ends_s = {self._queue(key) for key in keys}, time.monotonic() + seconds
        while any(self._due[queue] or self._queued[queue] for queue in queues):
            left_s = ends_s - time.monotonic()
            if left_s <= 0 or queues & self._behind:
                return False
            await self._change(left_s)
        return True

    @property
    def _topic_partitions(self) -> int:
        """The last known number of the topic's partitions, or 0."""
        return len(self.partitions()) or self._standing.topic_partitions

    def _queue(self, key: bytes) -> int:
        """The queue of the spool in which a key's events rest: its partition's, which a few may share."""
        count = self._topic_partitions
        return partition_of(key, count) % QUEUES if count else 0

    def _silent(self, partition: int) -> bool:
        """True if a mark in a partition has no answer, or a bad one."""
        sent_s, mark = self._marks.get(partition, (0.0, None))
        if mark is None:
            return False
        return not safe(mark.reports[0]) if mark.ended.done() else time.monotonic() - sent_s > UNANSWERED_S

    # Resting

    async def rest(self, lines: list[Line]) -> bool:
        """Put events on the spool; True once they are there.

        All events that wait while the disk is busy are written with one sync.
        """
        if self._queued.total() + len(lines) > MAX_QUEUED:
            self._failed_s = time.monotonic()
            return False
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        queues = [self._queue(line.key) for line in lines]
        self._waiting.append((lines, queues, future))
        self._queued.update(queues)
        self._behind.update(queues)
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit())
        return await future

    async def _commit(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            bodies = [line.sealed() for lines, _, _ in waiting for line in lines]
            queues = [queue for _, line_queues, _ in waiting for queue in line_queues]
            stored = True
            try:
                await self._on_disk(partial(self.spool.append, bodies, queues))
            except (SpoolFullError, OSError) as error:
                if not self.failing:
                    self._log.warning("the spool takes nothing", error=str(error) or "it is full")
                self._failed_s, stored = time.monotonic(), False
            self._queued.subtract(queues)
            for _, _, future in waiting:
                future.set_result(stored)
            self._begin_drains()
            for queue in set(queues) - self._drains.keys():
                self._open_if_empty(queue)
            self._note_change()
        self._committing = None

    def _open_if_empty(self, queue: int) -> None:
        if not self._due[queue] and not self._queued[queue]:
            self._behind.discard(queue)

    def _begin_drains(self) -> None:
        """Begin to drain each queue in which events rest, once the lane has started."""
        for queue, due in self._due.items() if self._tasks else ():
            if due and queue not in self._drains:
                self._drains[queue] = asyncio.create_task(self._drain(queue))

    async def _drain(self, queue: int) -> None:
        """Produce the resting events of a queue, in order, until none rest.

        Fresh events go straight into the log again once all resting events are on their way and the log
        acknowledges in time. A backlog that new events join all the time therefore ends, too.
        """
        pause_s, in_time = PAUSES_S[0], False
        while self._due[queue] or self._queued[queue]:
            try:
                if not self._due[queue]:
                    if in_time:
                        self._behind.discard(queue)
                    await self._change()
                    continue
                most = min(DRAINED_AT_ONCE, 1 + ALL_DRAINED_AT_ONCE // max(1, self._topic_partitions))
                records = await self._on_disk(partial(self.spool.take, most, queue))
                if in_time and not self._due[queue]:
                    self._behind.discard(queue)
                began_s = time.monotonic()
                stored_numbers, failed = await self._produced(records)
                in_time = not failed and time.monotonic() - began_s < IN_TIME_S
                self._behind.update(self._queue(unsealed(record.body).key) for record in failed)
                settling = asyncio.create_task(self._settled(stored_numbers, failed))
                self._settling.add(settling)
                settling.add_done_callback(self._settling.discard)
                await asyncio.shield(settling)
            except OSError as error:
                in_time = False
                self._log.warning("the spool cannot be drained", error=str(error))
            else:
                if not failed:
                    pause_s = PAUSES_S[0]
                    continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSES_S[1])
        self._drains.pop(queue, None)
        self._open_if_empty(queue)
        self._note_change()

    async def _change(self, seconds: float | None = None) -> None:
        """Wait until another event is on the disk or on its way."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _produced(self, records: Sequence[Record]) -> tuple[list[int], list[Record]]:
        """Put records into the log. Returns the numbers of those that arrived, and the other records."""
        sending = self.produce(unsealed(record.body) for record in records)
        stored_numbers, failed = [], []
        for record, report in zip(records, await sending.within(), strict=True):
            if report is not None and safe(report):
                self.wrote([report])
                stored_numbers.append(record.number)
            else:
                failed.append(record)
        return stored_numbers, failed

    async def _settled(self, stored_numbers: Sequence[int], failed: Sequence[Record]) -> None:
        """Acknowledge records on the spool and in the ledger. A stop waits for both: else the log would have
        events that the ledger counts as resting.
        """
        try:
            await self._on_disk(partial(self._settle, stored_numbers, failed))
        finally:  # they are acknowledged on the spool even if its cursor cannot be written
            self.ledger.acknowledged += len(stored_numbers)
            self._begin_drains()
            self._note_change()

    def _settle(self, stored_numbers: Sequence[int], failed: Sequence[Record]) -> None:
        self.spool.give_back(failed, [self._queue(unsealed(record.body).key) for record in failed])
        self.spool.acknowledge(stored_numbers)

    # Marks

    async def _mark_again(self) -> None:
        while True:
            try:
                await self._on_disk(self.clock.keep)
                await self._prove()
                if self.before and self._before_ended():
                    await self._on_disk(self._ids.forget_before)
            except OSError as error:
                self._log.warning("the clock cannot be written to the disk", error=str(error))
            self._mark()
            self._end_before()
            await asyncio.sleep(MARK_EVERY_S / (2 if self.proven else 20))

    async def _prove(self) -> None:
        """Store the partitions that have a mark of this lane.

        The lane is proven once all of them have one, or all that are not silent.
        """
        partitions = self.partitions()
        count = len(partitions)
        standing = frozenset(
            partition
            for partition in partitions
            if self._standing.stands_in(partition) or partition in self._written_s
        )
        if count and (count, standing) != (self._standing.topic_partitions, self._standing.partitions):
            await self._on_disk(partial(self._standing.keep, count, standing))
        waited = time.monotonic() - self._first_s > SILENT_S
        self.proven = self.proven or 0 < len(standing) >= (1 if waited else count)

    def _mark(self) -> None:
        """Write a mark into every partition that has had no message of this lane for a while, or no mark for
        longer.
        """
        now_s, body = time.monotonic(), self.mark()
        for partition in self.partitions():
            _, before = self._marks.get(partition, (0.0, None))
            written_s = self._written_s.get(partition, -inf)
            marked_s = self._marked_s.get(partition, -inf)
            due = now_s - written_s > MARK_EVERY_S or now_s - marked_s > MARK_ANYWAY_S
            if due and (before is None or before.ended.done()):
                sending = self.log.send([Produced(body, None, partition)])
                self._marks[partition] = now_s, sending
                sending.ended.add_done_callback(partial(self._marked, sending))

    def _marked(self, sending: Sending, _: asyncio.Future[None]) -> None:
        (report,) = sending.reports
        if report is not None and safe(report):
            self.wrote([report])
            self._marked_s[report.partition] = time.monotonic()

    def _end_before(self) -> None:
        """Write byes for earlier processes into each partition that has a message of this process, for which
        the partition waits.

        The byes are repeated for a while, since the last messages of an earlier process may arrive after a
        first bye.
        """
        now_s, bodies = time.monotonic(), [mark_of(collector, 0, bye=True) for collector in self.before]
        for partition in self.partitions() if bodies else ():
            sent_s, sending = self._byes.get(partition, (-inf, None))
            due = now_s - sent_s > BYE_AGAIN_S and (sending is None or sending.ended.done())
            if due and partition in self._written_s:
                sending = self.log.send([Produced(body, None, partition) for body in bodies])
                self._byes[partition] = now_s, sending

    def _before_ended(self) -> bool:
        """True if byes for all earlier processes have stood in every partition for a while."""
        partitions = self.partitions()
        sent = [self._byes[partition][1].reports for partition in partitions if partition in self._byes]
        stand = len(sent) == len(partitions) > 0 and all(safe(each) for reports in sent for each in reports)
        return stand and time.monotonic() - self._began_s > BYES_FOR_S

    async def say_bye(self, timeout: timedelta) -> bool:
        """Write a bye into every partition if nothing rests. Returns whether all partitions have one: then
        the log does not wait for this lane.

        The lane drains and marks no more, since the log would wait for it again after a mark. A partition
        that answers no mark gets no bye and continues to wait: the next process may spool events for it at
        once.
        """
        await self._stop()
        partitions = sorted({*self.partitions(), *self._written_s})
        if self.resting or len(self.in_hand) or not partitions:
            return False
        seconds = timeout.total_seconds() / 2
        answers = await self.log.send(
            [Produced(self.mark(), None, partition) for partition in partitions]
        ).within(seconds)
        answering = [partition for partition, answer in zip(partitions, answers, strict=True) if safe(answer)]
        # Write the proof first, and only for partitions that answered a mark. A bye may be in the log without
        # being acknowledged, and after an acknowledged one a kill could come before the disk has the proof.
        standing = {partition for partition in partitions if self._standing.stands_in(partition)}.difference(
            answering
        )
        for partition in answering:  # a lane that continues must write into these again
            self._written_s.pop(partition, None)
        try:
            await self._on_disk(partial(self._standing.keep, len(partitions), standing))
        except OSError as error:
            self._log.warning("the end cannot be written to the disk", error=str(error))
            return False
        bodies = [self.mark(bye=True)]
        bodies += [mark_of(collector, 0, bye=True) for collector in self.before]
        sending = self.log.send(
            [Produced(body, None, partition) for partition in answering for body in bodies]
        )
        ended = all(map(safe, await sending.within(seconds))) and answering == partitions
        if ended and self.before:
            with suppress(OSError):  # then the next process repeats these byes
                await self._on_disk(self._ids.forget_before)
        return ended

    async def close(self, has_ended: bool = False) -> None:
        """Stop draining and release the directory; with `has_ended` also remove the id."""
        await self._stop()
        if self._committing is not None:
            await self._committing
        if has_ended:
            with suppress(OSError):  # then the next process adopts it, and writes its bye again
                self._ids.remove()
                (self.directory / "clock").unlink()  # another id begins by the wall clock
        await self._on_disk(self.spool.close)
        self.clock.close()
        self._disk.shutdown()

    async def _stop(self) -> None:
        tasks = [*self._tasks, *self._drains.values()]
        self._tasks, self._drains = [], {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._settling, return_exceptions=True)

    async def _on_disk(self, call: Callable[[], _T]) -> _T:
        """Run a call in the disk's thread, and return its result."""

        def called() -> tuple[_T, int, int | None, int, Counter[int]]:
            result, spool = call(), self.spool
            return result, spool.resting, spool.least, spool.torn, spool.due.copy()

        loop = asyncio.get_running_loop()
        result, self.resting, self._least_ms, torn, self._due = await loop.run_in_executor(self._disk, called)
        self.ledger.torn += torn - self._torn
        self._torn = torn
        return result
