"""Serving: one process of the collector, from the settings to its exit code."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import structlog

from connectors.http_server import HttpServer, Request
from connectors.kafka_reports import Produced, ReportingProducer
from connectors.spool import Spool, SpoolError
from connectors.stream import ConnectError
from flows.collector.call import Call, Understood
from flows.collector.callers import Callers, Token, networks
from flows.collector.consent import Policy
from flows.collector.dialects import load_dialects
from flows.collector.doors import MOST_HEADERS, Answer, Doors
from flows.collector.instruments import Instruments, health_server
from flows.collector.invalid_traffic import judge_of
from flows.collector.lane import Lane, Log, Reports, mark_of, received_ms
from flows.collector.ledger import Ledger
from flows.collector.letters import Letters
from flows.collector.pseudonyms import Pseudonyms
from flows.collector.signatures import Signatures
from flows.collector.store import Store
from flows.collector.understand import Understanding
from flows.errors import SettingsError, StateError
from flows.outputs import kafka_options
from flows.settings import Settings

RESTS: Final = 75
"""Exit code (EX_TEMPFAIL) of a collector that ends while something rests on its spool."""
UNREADY_ABOVE: Final = 0.8
"""Share of the spool beyond which a balancer had better look elsewhere."""
PARTITIONS_EVERY_S: Final = 30.0
BYE: Final = timedelta(seconds=5)
ADOPT_AFTER_S: Final = 5.0
"""How long directories beyond the seats are left to whoever may still hold them."""


def understanding_of(settings: Settings, planned: frozenset[str] = frozenset(), **more: Any) -> Understanding:
    """What calls are, by the settings.

    Raises:
        SettingsError: a key is missing, or a list cannot be read.
    """
    key = settings.collect_key
    if key is None:
        raise SettingsError(
            "AUDIOPIXEL_COLLECT_KEY is not set: listeners, devices and households are known by keyed hashes "
            "alone. Set it to 16 to 64 secret bytes "
            "(python -c 'import secrets; print(secrets.token_hex(16))'), the same for all collectors, and "
            "keep it"
        )
    if settings.collect_placements == "signed" and not settings.collect_signing_keys:
        raise SettingsError(
            "AUDIOPIXEL_COLLECT_SIGNING_KEYS is empty, so that no tag could pass: give a key "
            '({"a1": "a secret"}), or say AUDIOPIXEL_COLLECT_PLACEMENTS=planned, or =any for a trial'
        )
    secret = key.get_secret_value().encode()
    return Understanding(
        load_dialects(settings.collect_dialects),
        Callers(
            {
                name: Token(
                    one.sha256, frozenset(one.rights), frozenset(one.campaigns), one.device_from, one.masked
                )
                for name, one in settings.collect_tokens.items()
            },
            networks(settings.collect_proxies),
            [(ip_network(net, strict=False), where) for net, where in settings.collect_servers.items()],
        ),
        Policy(
            settings.collect_vendor,
            settings.collect_purposes,
            frozenset(settings.collect_interest_purposes),
            settings.collect_needs_disclosure,
            required=settings.consent == "required",
            free=frozenset(country.upper() for country in settings.collect_consent_free),
        ),
        Pseudonyms(secret, [one.get_secret_value().encode() for one in settings.collect_previous_keys]),
        judge_of({str(name): path for name, path in settings.collect_lists.items()}),
        signatures_of(settings),
        blake2b(digest_size=32, key=secret, person=b"calls").digest(),
        settings.collect_placements,
        lambda placement, campaign: placement in planned if placement else campaign in planned,
        **more,
    )


def signatures_of(settings: Settings) -> Signatures:
    """The signatures of tags, by the settings."""
    keys = {name: key.get_secret_value().encode() for name, key in settings.collect_signing_keys.items()}
    return Signatures(keys, frozenset(settings.collect_click_hosts))


@dataclass
class Collector:
    """One process: its doors, its lane, and the lanes of directories that nobody fills any more.

    Args:
        seat: which of `seats` processes this is: its spool directory and its health port.
    """

    settings: Settings
    seat: int = 0
    seats: int = 1
    ledger: Ledger = field(default_factory=Ledger)

    def __post_init__(self) -> None:
        self._log = structlog.get_logger("collector")
        self._partitions: list[int] = []
        self._leaving = False
        self._orphans: list[Lane] = []

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code: 0, or `RESTS`.

        Raises:
            SettingsError, StateError, ConnectError: it cannot begin.
        """
        settings, loop = self.settings, asyncio.get_running_loop()
        instruments = Instruments(self.ledger)
        understanding = understanding_of(settings, tell=instruments.cleaned)
        reports = Reports(loop)
        options = kafka_options(settings)
        producer = ReportingProducer(settings.kafka_brokers, settings.kafka_topic, options, reports.told)
        log = Log(producer, reports)
        letters = Letters(settings.kafka_brokers, settings.kafka_rejected_topic, options)
        try:
            self._partitions = await loop.run_in_executor(None, producer.partitions)
        except ConnectError as error:  # a known collector begins on its spool alone
            self._log.warning("kafka does not answer", error=str(error))
        lane = self._lane(settings.collect_spool / str(self.seat), log)
        store = Store(lane)
        letters.collector = lane.id

        def rejected(understood: Sequence[Understood]) -> None:
            letters.send(understood)
            instruments.rejected(understood)

        doors = Doors(understanding, store, rejected, settings.collect_calls_per_caller)
        server = HttpServer(
            lambda request: _answered(doors, lane, instruments, request),
            settings.collect_host,
            settings.collect_port,
            settings.collect_connections,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: loop.create_task(self._leave(server)))
        health = health_server(
            settings.collect_host,
            settings.collect_health_port and settings.collect_health_port + self.seat,
            instruments,
            lambda: self.ready(lane),
            lambda: lane,
        )
        lane.start()
        keeping = asyncio.create_task(self._keep_partitions(producer, log))
        self._log.info(
            "collecting", id=lane.id, known=lane.known, resting=lane.resting, port=settings.collect_port
        )
        try:
            await server.serve()
        finally:
            keeping.cancel()
        code = await self._end(lane, letters)
        producer.close()
        health()
        return code

    def ready(self, lane: Lane) -> bool:
        """Whether a balancer may send calls here."""
        return lane.proven and lane.spool.full < UNREADY_ABOVE and not self._leaving

    def _lane(self, directory: Path, log: Log) -> Lane:
        try:
            spool = Spool(directory, self.settings.collect_spool_bytes, stamp=received_ms)
            return Lane(directory, spool, log, lambda: self._partitions, self.ledger)
        except SpoolError as error:
            raise StateError(str(error)) from None
        except OSError as error:
            raise StateError(f"{directory}: no spool can be kept there: {error.strerror}") from None

    async def _leave(self, server: HttpServer) -> None:
        """Be unready at once, and stop serving when balancers have seen it."""
        if self._leaving:
            return
        self._leaving = True
        await asyncio.sleep(self.settings.collect_drain.total_seconds())
        server.stop()

    async def _keep_partitions(self, producer: ReportingProducer, log: Log) -> None:
        """Know the topic's partitions, and drain directories that nobody fills any more."""
        await asyncio.sleep(ADOPT_AFTER_S)
        self._adopt(log)
        while True:
            if not self._partitions:
                await asyncio.sleep(1.0)
            try:
                loop = asyncio.get_running_loop()
                self._partitions = await loop.run_in_executor(None, producer.partitions)
                if self._partitions:
                    await asyncio.sleep(PARTITIONS_EVERY_S)
            except ConnectError:
                await asyncio.sleep(1.0)

    def _adopt(self, log: Log) -> None:
        """Drain the unlocked directories beyond the seats, under their old ids."""
        root = self.settings.collect_spool
        for directory in sorted(root.iterdir()):
            if directory.name.isdigit() and int(directory.name) >= self.seats and (directory / "id").exists():
                try:
                    lane = self._lane(directory, log)
                except StateError:
                    continue  # another process drains it
                self._log.info("draining the spool of a process of before", id=lane.id, resting=lane.resting)
                lane.start()
                self._orphans.append(lane)

    async def _end(self, lane: Lane, letters: Letters) -> int:
        deadline = asyncio.get_running_loop().time() + BYE.total_seconds()
        lanes = [lane, *self._orphans]
        while any(one.resting or len(one.in_hand) for one in lanes):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.05)
        left = 0
        for one in lanes:
            ended = await one.say_bye(BYE)
            left += one.resting
            if not ended and not one.resting:
                self._log.warning("kafka does not take the last mark", id=one.id)
                left += 1
            await one.close()
        letters.close()
        resting = sum(one.resting for one in lanes)
        self._log.info("ended", ledger=self.ledger.line(resting))
        return RESTS if left else 0


async def _answered(doors: Doors, lane: Lane, instruments: Instruments, request: Request) -> Answer:
    """The answer of one request, its time of receipt by the lane's clock."""
    call = Call(
        request.method,
        request.path,
        request.query,
        request.headers,
        request.body,
        request.peer,
        lane.clock.now_ms(),
    )
    answer = await doors.answer(call)
    instruments.answered(answer.status)
    return answer


async def release(settings: Settings, collector: str) -> None:
    """Say bye for a collector that does not come back, so that nothing waits for it any more.

    Raises:
        ConnectError: Kafka does not take it.
    """
    reports = Reports(asyncio.get_running_loop())
    options = kafka_options(settings)
    producer = ReportingProducer(settings.kafka_brokers, settings.kafka_topic, options, reports.told)
    try:
        partitions = await asyncio.get_running_loop().run_in_executor(None, producer.partitions)
        body = mark_of(collector, 0, bye=True)
        for _, future in Log(producer, reports).produce(Produced(body, None, one) for one in partitions):
            report = await future
            if report is None or report.error:
                raise ConnectError(f"{settings.kafka_topic}: the mark was not taken")
    finally:
        producer.close()


def bounded(headers: Sequence[tuple[str, str]]) -> Mapping[str, str]:
    """Headers by lower-case name, of those repeated the last; one more than may be, where there are more."""
    return {name.lower(): value for name, value in headers[: MOST_HEADERS + 1]}
