"""Writes an archive: each message of the topic once, as segments.

The manifest alone holds the writer's position, so the listed segments and the position never differ. A kill
leaves at most a file that no manifest lists, which the next start deletes. No answer of the store ends the
writer: while the store is away, it waits.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from connectors.durable import Taken
from connectors.kafka import KafkaInput
from connectors.objects import Away, Objects
from connectors.stream import Reader
from flows.archive.instruments import Instruments
from flows.archive.manifest import Part, part_paths, read_part
from flows.archive.message_lines import Forgetting
from flows.archive.patient_store import PatientStore
from flows.archive.removal import RemovalPass, RemovedPeople, removed_people
from flows.archive.series import Series, claimed
from flows.errors import StateError
from flows.intake import DenyList
from flows.settings import Settings, kafka_options
from flows.state.arrays import U64

AT_ONCE: Final = 1_000
REST_S: Final = 0.05
"""The pause after a round that has read nothing."""
PROVE_S: Final = 1.0
"""The time between two requests to the brokers for a partition's end."""
LOOK_S: Final = 60.0
"""The time between two checks for new partitions."""
REPORT_EVERY_S: Final = 10.0
AGAIN_S: Final = 5.0
"""The pause before a call of the store is repeated."""
YOUNG_MS: Final = 2_000
"""The longest time from a message's timestamp until the topic has it."""


class _Stopped(Exception):
    """The process must end while the store is away."""


@dataclass
class _OpenPartition:
    """A partition: its reader, its series, and the last request for its end."""

    reader: Reader
    series: Series
    asked_ms: int = 0
    asked_s: float = float("-inf")
    at_end: bool = False


@dataclass
class Writer:
    """Reads all partitions and writes their segments.

    Args:
        store: the archive's store. Of two writers of one place the later one claims it, and the earlier one
            ends.
        stop: ends the writer once it is set.
        once: whether the writer ends at the present end of the topic.
        denied: reads the deny-list; by default from Redis.
        report: receives every few seconds the epoch ms before which the archive has all messages, the number
            of missing messages, and the number of objects that the last removal pass could not read.
    """

    settings: Settings
    store: Objects
    stop: threading.Event
    once: bool = False
    instruments: Instruments = field(default_factory=Instruments)
    denied: Callable[[], U64] | None = None
    report: Callable[[int, int, int], None] = lambda through_ms, missing, unreadable: None
    clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000

    def __post_init__(self) -> None:
        self._log = structlog.get_logger("archive")
        self._open: dict[str, _OpenPartition] = {}
        self._denied = self.denied or DenyList(self.settings)
        self._listed: U64 | None = None
        self._secret = self.settings.secret_listener_key()
        self._forgetting = Forgetting(self._secret, ())
        self._pass: Iterator[None] | None = None
        self._looked_s = self._reported_s = float("-inf")
        self._removed = RemovedPeople()
        self._patient = PatientStore(self.store, self._wait, self._answers_again)
        self._epoch, self._is_away = secrets.token_hex(8), False

    def run(self) -> None:
        """Write until `stop`. Everything that was read is then in segments.

        Raises:
            ConnectError: Kafka is away, or has deleted messages that were not read.
            StateError: another process writes to this archive, or the archive is of another topic.
        """
        settings = self.settings
        source = KafkaInput(
            settings.kafka_brokers,
            [settings.kafka_topic],
            options=kafka_options(settings),
            on_lost=settings.kafka_on_lost,
            group=f"{settings.kafka_group}-archive",
        )
        every_s = settings.archive_interval.total_seconds()
        try:
            self._took_up(removed_people(self._patient))
            while not self.stop.is_set():
                self._open_new(source)
                self._read_deny_list()
                busy = False
                for partition in self._open.values():
                    busy |= self._read(partition, every_s)
                busy |= self._continue_removal()
                self._report()
                if self.once and self._pass is None and all(one.at_end for one in self._open.values()):
                    break
                if not busy:
                    self.stop.wait(REST_S)
            for partition in self._open.values():
                partition.series.seal()
                self._show(partition)
            self._report(last=True)
        except _Stopped:
            self._log.warning("the store is away: the next start reads what is not written")
        except Taken:
            raise StateError(
                "another process has claimed this archive meanwhile: run one archive for it"
            ) from None
        finally:
            for partition in self._open.values():
                partition.reader.close()

    def _open_new(self, source: KafkaInput) -> None:
        """Open partitions that are new."""
        if time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        for name in source.partitions():
            if name not in self._open:
                topic, _, partition = name.rpartition("/")
                self._open[name] = self._opened(source, topic, int(partition))

    def _opened(self, source: KafkaInput, topic: str, partition: int) -> _OpenPartition:
        paths = part_paths(self._patient, partition).get(partition)
        if paths and (other := read_part(self._patient, paths[-1])[0].topic) != topic:
            raise StateError(f"the archive at this place is of the topic {other}: name another for {topic}")
        part, tag = claimed(self._patient, partition, self._epoch) or (None, None)
        name = f"{topic}/{partition}"
        reader = source.open(name, None if part is None else part.next, "" if part is None else part.log_id)
        first = Part(
            topic=topic, partition=partition, first=reader.position, log_id=reader.log_id, epoch=self._epoch
        )
        size, now_s = self.settings.archive_bytes, time.monotonic()
        series = Series(self._patient, part or first, tag, size, self._epoch, began_s=now_s)
        if part is None:
            series.begin()
        series.tidy()
        return _OpenPartition(reader, series)

    def _read(self, partition: _OpenPartition, every_s: float) -> bool:
        series, now_s, now_ms = partition.series, time.monotonic(), self.clock_ms()
        messages = partition.reader.read(AT_ONCE)
        if messages is not None:
            partition.at_end = False
            series.take(messages, partition.reader.log_id, now_ms, now_s, self._forgetting)
            self.instruments.messages.labels(series.part.name).inc(len(messages.values))
        elif now_s - partition.asked_s >= PROVE_S or self.once:
            proven, asked_ms = partition.reader.proven(), partition.asked_ms
            partition.asked_ms, partition.asked_s = now_ms, now_s
            if proven and asked_ms:
                partition.at_end = True
                series.prove(asked_ms - YOUNG_MS, now_s, every_s)
        if series.builder is not None and now_s - series.began_s >= every_s:
            series.seal()
        self._show(partition)
        return messages is not None

    def _report(self, last: bool = False) -> None:
        if self._open and (last or time.monotonic() - self._reported_s >= REPORT_EVERY_S):
            self._reported_s = time.monotonic()
            series = [one.series for one in self._open.values()]
            self.report(
                min(one.through_ms for one in series),
                sum(one.lost for one in series),
                len(self._removed.unreadable),
            )

    def _show(self, partition: _OpenPartition) -> None:
        self.instruments.show(partition.series, partition.reader.lag)

    def _read_deny_list(self) -> None:
        """Remove the people of the present deny-list from all messages from now on."""
        listed = self._denied()
        if listed is self._listed:
            return
        self._listed = listed
        # A Redis that has lost its list does not undo a removal.
        self._forgetting = Forgetting(self._secret, {*listed.tolist(), *self._removed.denied})

    def _continue_removal(self) -> bool:
        """Continue the removal of forgotten people from older segments. Returns False if no pass is due."""
        if self._pass is None:
            assert self._listed is not None
            due = RemovalPass.due(self._removed, self._listed, self.settings, time.time())
            if due is None:
                if self._removed.denied >= frozenset(self._listed.tolist()):
                    self.instruments.forgotten.set(time.time())
                return False
            for partition in self._open.values():
                partition.series.seal()
            self._pass = due.run(
                self._patient,
                {one.series.part.partition: one.series for one in self._open.values()},
                self._secret,
            )
        if next(self._pass, self) is self:
            self._pass = None
            self._took_up(removed_people(self._patient))
        return True

    def _took_up(self, removed: RemovedPeople) -> None:
        self._removed = removed
        self.instruments.unreadable.set(len(removed.unreadable))

    def _wait(self, error: Away) -> None:
        if not self._is_away:
            self._log.warning("the store is away", error=str(error))
        self._is_away = True
        self.instruments.retried.inc()
        if self.stop.wait(AGAIN_S):
            raise _Stopped from None

    def _answers_again(self) -> None:
        self._is_away = False
        self._log.info("the store answers again")
