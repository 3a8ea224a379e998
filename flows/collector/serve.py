"""Serving: one process of the collector, from the settings to its exit code."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from connectors.http_server import HttpServer, Request
from connectors.kafka import KafkaWriter
from connectors.kafka_reports import Durability, ReportingProducer
from connectors.spool import Spool, SpoolError, SpoolTakenError
from connectors.stream import ConnectError
from flows.collector import tag_answers
from flows.collector.call import Call, Outcome, Understood
from flows.collector.clock import MOST_AHEAD_MS
from flows.collector.doors import Answer, Doors, EventsCallback
from flows.collector.figures import Figures
from flows.collector.from_settings import understanding_of
from flows.collector.instruments import Instruments, health_server
from flows.collector.lane import Lane
from flows.collector.ledger import Ledger
from flows.collector.letters import Letters
from flows.collector.log import Log, received_ms
from flows.collector.method import Method, method_of
from flows.collector.planned import Planned
from flows.collector.refusals import Refusals
from flows.collector.store import Store
from flows.collector.understand import Understanding
from flows.errors import SettingsError, StateError
from flows.model.catalogue.limits import MAX_BODY_BYTES
from flows.settings import Settings, kafka_options

CONNECTIONS: Final = 10_000
"""The greatest number of connections that one process takes."""
RESTS: Final = 75
"""Exit code (EX_TEMPFAIL) of a collector that ends while something rests on its spool."""
UNREADY_ABOVE: Final = 0.8
"""The share of the spool above which a process is unready, so that a balancer uses another process."""
CLOCK_EVERY_S: Final = 0.5
PARTITIONS_EVERY_S: Final = 30.0
ORPHANS_EVERY_S: Final = 5.0
BYE: Final = timedelta(seconds=5)
"""The time limit of the byes of an ending lane."""
NEW_OBJECTS: Final = 20_000
"""The number of new objects between two runs of the garbage collector."""
FEWEST_REPLICAS: Final = 3
FEWEST_IN_SYNC: Final = 2


@dataclass
class Collector:
    """A process: its doors, its lane, and the lanes of directories that no process fills any more.

    A lane whose clock is too far ahead ends as at a stop, with all its stored events in the log.

    Args:
        seat: the number of this process among `seats`, for its spool directory and its health port.
        planned: the plans, if these decide which placements may make a row.

    Attributes:
        ended_by_clock: whether the process must begin again, with another lane.
    """

    settings: Settings
    seat: int = 0
    seats: int = 1
    planned: Planned | None = None
    ledger: Ledger = field(default_factory=Ledger)

    def __post_init__(self) -> None:
        self._log = structlog.get_logger("collector")
        self._partitions: list[int] = []
        self._leaving: asyncio.Task[None] | None = None
        self.ended_by_clock = False
        self._orphans: list[Lane] = []
        self._warned = set[Path]()
        self._method: Method | None = None

    async def run(self) -> int:
        """Serve until SIGTERM, SIGINT, or until the clock is too far ahead. Returns the exit code: 0, or
        `RESTS`.

        Raises:
            SettingsError, StateError, ConnectError: the process cannot begin.
        """
        settings, loop = self.settings, asyncio.get_running_loop()
        instruments = Instruments(self.ledger)
        understanding = understanding_of(settings, self.planned, on_cleaning=instruments.cleaned)
        options, log = kafka_options(settings), Log(loop)
        self._method = method_of(settings, understanding.judge.hashes, understanding.pseudonyms.key_ids)
        producer = ReportingProducer(settings.kafka_brokers, settings.kafka_topic, options, log.take_reports)
        log.producer = producer
        refusals = Refusals(settings.zone)
        letters = Letters(settings.kafka_brokers, settings.kafka_rejected_topic, options)
        lane = self._lane(settings.collect_spool / str(self.seat), log)
        store = Store(lane)
        letters.collector, instruments.unsent = lane.id, lambda: letters.unsent
        tasks = []
        if self.planned is not None:
            tasks.append(asyncio.create_task(self.planned.keep()))
            await self.planned.begin(lane.directory)

        def on_events(understood: Sequence[Understood]) -> None:
            instruments.count(understood)
            if len(understood) == 1 and understood[0].outcome is Outcome.STORED:
                return
            if rejected := [result for result in understood if result.outcome is Outcome.REJECTED]:
                letters.send(rejected)
                refusals.count(rejected)

        doors = self.doors(store, understanding, on_events)
        server = HttpServer(
            lambda request: _answered(doors, lane, instruments, request),
            settings.collect_host,
            settings.collect_port,
            CONNECTIONS,
            MAX_BODY_BYTES,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave, server)
        health = health_server(
            settings.collect_host,
            settings.collect_health_port and settings.collect_health_port + self.seat,
            instruments,
            lambda: server.listening and self.ready(lane),
            lambda: lane,
        )
        lane.start()
        _collect_cycles_seldom()
        tasks.append(asyncio.create_task(self._keep_partitions(producer)))
        tasks.append(asyncio.create_task(self._keep_orphans(log)))
        tasks.append(asyncio.create_task(self._keep_time(lane, server)))
        (key, *_) = understanding.pseudonyms.key_ids
        figures = Figures(settings, instruments, self.ledger, lane, refusals, key, doors.last)
        if settings.collect_figures:
            tasks.append(asyncio.create_task(figures.keep()))
        self._log.info("collecting", id=lane.id, resting=lane.resting, port=settings.collect_port)
        try:
            await server.serve()
        except OSError as error:
            raise SettingsError(
                f"{settings.collect_host}:{settings.collect_port} cannot be listened at ({error.strerror}): "
                "end what listens there, or set AUDIOPIXEL_COLLECT_PORT"
            ) from None
        finally:
            for task in tasks:
                task.cancel()
        code = await self._end(lane, letters)
        producer.close()
        health()
        return code

    def doors(self, store: Store, understanding: Understanding, on_events: EventsCallback) -> Doors:
        """The doors of this process."""
        settings = self.settings
        return Doors(
            understanding,
            store,
            on_events,
            calls_per_caller=settings.collect_calls_per_caller,
            undecided=lambda: not self._has_plans,
            tags=partial(tag_answers.answer, settings, understanding),
        )

    @property
    def _has_plans(self) -> bool:
        """True if no plans are needed, or a book of them has been read."""
        return self.planned is None or self.planned.has_read

    def ready(self, lane: Lane) -> bool:
        """True if a balancer may send calls to this process."""
        timely = not lane.clock.stands and not lane.clock.wrong
        able = lane.proven and not lane.failing and timely and self._has_plans
        return able and lane.spool.full < UNREADY_ABOVE and self._leaving is None

    def _lane(self, directory: Path, log: Log) -> Lane:
        try:
            return self._opened(directory, log)
        except SpoolError as error:
            raise StateError(str(error)) from None
        except OSError as error:
            raise StateError(f"{directory}: cannot hold a spool: {error.strerror}") from None

    def _opened(self, directory: Path, log: Log) -> Lane:
        """The lane of a directory. If the lane cannot be opened, its spool is closed for the next attempt."""
        spool = Spool(directory, self.settings.collect_spool_bytes, stamp=received_ms)
        method = "" if self._method is None else self._method.hash
        try:
            return Lane(directory, spool, log, lambda: self._partitions, self.ledger, method)
        except BaseException:
            spool.close()
            raise

    def _leave(self, server: HttpServer) -> None:
        """Become unready at once, and stop serving once balancers have seen it."""

        async def leave() -> None:
            await asyncio.sleep(self.settings.collect_drain.total_seconds())
            server.stop()

        if self.ended_by_clock:  # the process has stopped serving, and must not begin again after this signal
            self.ended_by_clock = False
        else:
            self._leaving = self._leaving or asyncio.create_task(leave())

    async def _keep_time(self, lane: Lane, server: HttpServer) -> None:
        """Stop serving once the lane's clock is too far ahead to wait for the wall clock. Before that,
        balancers must have seen that the process is unready, and nothing may rest.
        """
        loop, since_s, warned = asyncio.get_running_loop(), None, False
        drain_s = self.settings.collect_drain.total_seconds()
        while self._leaving is None:
            ahead_ms = lane.brokers.ahead_ms or 0
            if abs(ahead_ms) > MOST_AHEAD_MS and not warned:
                self._log.warning(
                    "the brokers' clocks and this machine's differ: set the one that is wrong",
                    ahead_seconds=ahead_ms // 1000,
                )
            warned = abs(ahead_ms) > MOST_AHEAD_MS
            if not lane.clock.wrong:
                since_s = None
            elif since_s is None:
                since_s = loop.time()
                self._log.warning(
                    "the clock is ahead: another lane begins when all that is stored is in Kafka",
                    id=lane.id,
                    ahead_seconds=lane.clock.offset_ms // 1000,
                )
            elif loop.time() - since_s >= drain_s and not lane.waiting_events:
                self.ended_by_clock = True
                server.stop()
                return
            await asyncio.sleep(CLOCK_EVERY_S)

    async def _keep_partitions(self, producer: ReportingProducer) -> None:
        """Read the topic's partitions, put the method's text into its topic as soon as that exists, and log
        once the durability of a stored event.
        """
        loop, away, weighed, published = asyncio.get_running_loop(), False, False, False
        while True:
            try:
                self._partitions = await loop.run_in_executor(None, producer.partitions)
                away = False
                published = published or await loop.run_in_executor(None, self._publish_method, weighed)
                if not weighed:
                    weighed = True
                    with suppress(ConnectError):  # brokers may refuse to show their settings
                        self._report_durability(await loop.run_in_executor(None, producer.durability))
                await asyncio.sleep(PARTITIONS_EVERY_S)
            except ConnectError as error:
                if not away:  # a known id begins on its spool alone
                    self._log.warning("kafka does not answer", error=str(error))
                away = True
                await asyncio.sleep(1.0)

    def _publish_method(self, again: bool) -> bool:
        """Put the text of the marks' `method` into its topic, by its hash. Returns False if Kafka does not
        take it. A failure is logged, except with `again`.
        """
        settings = self.settings
        try:
            options = kafka_options(settings)
            writer = KafkaWriter(settings.kafka_brokers, settings.kafka_methodology_topic, options)
            writer.write([self._method.line] if self._method is not None else [])
            writer.close(BYE)
        except ConnectError as error:
            if not again:
                self._log.warning("the methodology is not published: make its topic", error=str(error))
            return False
        return True

    def _report_durability(self, durability: Durability) -> None:
        if not durability.stamped_by_brokers:
            self._log.info(
                "the brokers' clocks cannot check this machine's clock: set "
                "message.timestamp.type=LogAppendTime for the topic",
                topic=self.settings.kafka_topic,
            )
        if durability.replicas < FEWEST_REPLICAS or durability.in_sync < FEWEST_IN_SYNC:
            self._log.warning(
                "the topic has too few replicas to keep acknowledged events safe: give it 3 replicas, and "
                "min.insync.replicas=2",
                topic=self.settings.kafka_topic,
                replicas=durability.replicas,
                min_insync_replicas=durability.in_sync,
            )

    async def _keep_orphans(self, log: Log) -> None:
        """Drain the directories beyond the seats, under their old ids, and write byes for them."""
        while True:
            adopted = await asyncio.get_running_loop().run_in_executor(None, self._adopted, log)
            for lane in adopted:
                self._log.info("draining the spool of an earlier process", id=lane.id, resting=lane.resting)
                lane.start()
            self._orphans += adopted
            await asyncio.sleep(ORPHANS_EVERY_S)
            for lane in [orphan for orphan in self._orphans if not orphan.resting]:
                if await lane.say_bye(BYE):
                    self._orphans.remove(lane)
                    await lane.close(has_ended=True)
                else:  # each process that adopts it has another id, which needs a bye of its own
                    lane.start()

    def _adopted(self, log: Log) -> list[Lane]:
        """Adopt the directories beyond the seats that no process has. Do not call it in the event loop, since
        it reads the directories.

        A directory that cannot be adopted is logged once, and tried again at the next call.
        """
        lanes, spool_root = list[Lane](), self.settings.collect_spool
        try:
            directories = sorted(spool_root.iterdir())
        except OSError as error:
            self._warn_once(spool_root, error)
            return lanes
        for directory in directories:
            if not directory.name.isdecimal() or int(directory.name) < self.seats:
                continue
            try:
                if (directory / "id").exists():
                    lanes.append(self._opened(directory, log))
                    self._warned.discard(directory)
            except SpoolTakenError:
                pass  # another process drains it
            except (SpoolError, SettingsError, OSError, ValueError) as error:
                self._warn_once(directory, error)
        return lanes

    def _warn_once(self, directory: Path, error: Exception) -> None:
        if directory not in self._warned:
            self._warned.add(directory)
            message = "the spool of an earlier process cannot be drained"
            self._log.warning(message, directory=str(directory), error=str(error))

    async def _end(self, lane: Lane, letters: Letters) -> int:
        deadline = asyncio.get_running_loop().time() + BYE.total_seconds()
        lanes = [lane, *self._orphans]
        while any(ending_lane.waiting_events or len(ending_lane.in_hand) for ending_lane in lanes):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.05)
        byes = await asyncio.gather(*(ending_lane.say_bye(BYE) for ending_lane in lanes))
        for ending_lane, ended in zip(lanes, byes, strict=True):
            if not ended:
                self._log.warning(
                    "a lane has not ended in the log: start the collector again",
                    id=ending_lane.id,
                    resting=ending_lane.resting,
                )
            await ending_lane.close(has_ended=ended and (ending_lane is not lane or self.ended_by_clock))
        letters.close()
        self._log.info("ended", ledger=self.ledger.line(sum(ending_lane.resting for ending_lane in lanes)))
        return 0 if all(byes) else RESTS


def _collect_cycles_seldom() -> None:
    """Let the garbage collector skip the objects of the start, and run seldom: a call leaves no cycle.

    By default it ran for every few calls, and walked all dialects and lists while calls waited.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, 20, 50)


async def _answered(doors: Doors, lane: Lane, instruments: Instruments, request: Request) -> Answer:
    """The answer to one request, whose time of receipt is by the lane's clock."""
    call = Call(
        request.method,
        request.path,
        request.query,
        request.headers,
        request.body,
        request.peer,
        lane.clock.now_ms(),
        instruments.stages.begin(),
    )
    answer = await (doors.unread(call, request.fault) if request.fault else doors.answer(call))
    instruments.answered(answer.status)
    return answer
