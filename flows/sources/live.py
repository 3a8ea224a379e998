"""A live source: a topic's messages become pixels in ours, as they come.

It writes as a collector does: under an id, with a low mark in each pixel and, once a second, in every
partition, and with a bye when it ends. What was read and is not acknowledged holds the low mark.

Guarantee: pixels and dead letters are acknowledged before the source's place is committed. What comes again
behind a crash has the same event id, so it counts once.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog

from connectors.kafka import GroupReader, KafkaTrouble, KafkaWriter, Place, Record
from flows.collector.call import Outcome, Understood
from flows.collector.letters import letter
from flows.collector.log import mark_of
from flows.settings import Settings, kafka_options
from flows.sources.compiled import Compiled, Made
from flows.sources.instruments import Instruments
from flows.sources.messages import Awaited, RecordDecoder
from flows.sources.pixels import Pixels

AT_ONCE: Final = 5_000
WAIT: Final = timedelta(milliseconds=100)
MARK_EVERY_S: Final = 1.0
YOUNG_MS: Final = 2_000
"""A producer's message may be in the topic so long after its own timestamp; the low mark is so far back."""
FLUSH: Final = timedelta(seconds=5)
RESTS: Final = 75
"""Exit code: it ended without a bye; start it again."""


def spare_memory() -> None:
    """Let the collector of cycles run seldom: thousands of records are alive at once, none in a cycle."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


@dataclass
class Ledger:
    """Counts of messages: `read` = `pixels` + `not_ours` + `rejected`."""

    read: int = 0
    pixels: int = 0
    not_ours: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def add(self, made: Made) -> None:
        """Count a batch."""
        self.read += len(made.lines) + len(made.rejected) + made.not_ours
        self.pixels += len(made.lines)
        self.not_ours += made.not_ours
        self.rejected.update(found.reason for _, found in made.rejected)

    def take(self, found: Understood | None) -> None:
        """Count what became of one message."""
        self.read += 1
        if found is None or found.outcome is Outcome.NOT_COUNTED:
            self.not_ours += 1
        elif found.outcome is Outcome.STORED:
            self.pixels += 1
        else:
            self.rejected[found.reason] += 1

    def counts(self) -> tuple[Counter[str], Counter[str]]:
        """Messages by outcome, and the rejected ones by reason, so far."""
        rejected = self.rejected.total()
        outcomes = Counter(pixels=self.pixels, not_ours=self.not_ours, rejected=rejected)
        return outcomes, Counter(self.rejected)

    def line(self) -> str:
        """The sum that holds."""
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.rejected.most_common())
        rejected = f"rejected {self.rejected.total():,}" + (f" ({reasons})" if reasons else "")
        return f"read {self.read:,} = pixels {self.pixels:,} + not ours {self.not_ours:,} + {rejected}"


class Live:
    """Reads a source's topic and writes its pixels into ours.

    Args:
        settings: of our topics.
        pixels: makes pixels of messages.
        reader: of the source's topic.
        instruments: count what it does.
        clock_ms: the wall clock.

    Raises:
        ConnectError: Kafka does not serve us, or a topic is missing.
    """

    def __init__(
        self,
        settings: Settings,
        pixels: Pixels,
        reader: GroupReader,
        instruments: Instruments | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._reader, self._clock_ms = reader, clock_ms
        self._name, self._instruments = pixels.source.name, instruments or Instruments()
        self.id, self.ledger = f"source-{self._name}", Ledger()
        options = kafka_options(settings) | {"partitioner": "murmur2_random"}
        brokers = settings.kafka_brokers
        self._log = KafkaWriter(brokers, settings.kafka_topic, options, give_up_after=None)
        self._letters = KafkaWriter(brokers, settings.kafka_rejected_topic, options, give_up_after=None)
        self._partitions = self._log.partitions()
        self._out = structlog.get_logger("source")
        self._decoder, self._waiting = RecordDecoder(pixels.source), dict[Place, Awaited]()
        self._compiled = Compiled(pixels, self._decoder.message)
        self._received_ms: dict[Place, int] = {}
        self._caught_up_ms: dict[Place, int] = {}
        self._floor_ms = clock_ms() - int(settings.allowed_lateness.total_seconds() * 1000)
        self._told_ms, self._marked_s, self._looked_s = 0, 0.0, time.monotonic()

    def run(self, ended: Callable[[], bool]) -> int:
        """Go on until `ended`; returns the exit code: 0, or `RESTS`.

        Raises:
            ConnectError: the source's topic cannot be read on, or ours takes nothing for good.
        """
        records = self._first(ended)
        self._mark(min(map(self._received, records), default=None))
        if not self._flushed(ended):  # no pixel goes before a mark of ours stands in every partition
            return RESTS
        while True:
            if records and not self._take(records, ended):
                return RESTS
            if time.monotonic() - self._marked_s >= MARK_EVERY_S:
                self._mark()
            if ended():
                return self._end()
            self._go_on()
            records = self._reader.read(AT_ONCE, WAIT)

    def _first(self, ended: Callable[[], bool]) -> list[Record]:
        """Messages until each partition has given one or its end was found: then the low mark is known."""
        records: list[Record] = []
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s and len(records) < AT_ONCE and not ended():
            records += self._reader.read(AT_ONCE, WAIT)
            known = {(one.topic, one.partition) for one in records} | self._reader.at_end
            if known >= self._reader.places.keys():
                break
        for one in records:
            place, received_ms = (one.topic, one.partition), self._received(one)
            self._received_ms[place] = min(self._received_ms.get(place, received_ms), received_ms)
        # A partition of which nothing was read yet may have waited as long as these.
        self._floor_ms = min([self._floor_ms, *self._received_ms.values()])
        return records

    def _received(self, record: Record) -> int:
        now_ms = self._clock_ms()
        return min(record.timestamp_ms or now_ms, now_ms)

    def _take(self, records: Sequence[Record], ended: Callable[[], bool]) -> bool:
        """Write the pixels and dead letters of messages, then commit; False: it was ended before that."""
        messages = None
        if self._decoder.waits:
            records, messages, waiting = self._decoder.ready(records)
            if waiting:
                self._hold(waiting)
            if not records:
                return True
        made = self._compiled.made(records, self._clock_ms(), messages)
        low_ms = self._low_ms(min(map(self._received, records)))
        tail = b',"collector":"%s","low_ms":%d}' % (self.id.encode(), low_ms)
        self._log.write([(key, body + tail) for key, body in made.lines])
        self._letters.write([letter_of(self._name, record, one) for record, one in made.rejected])
        if not self._flushed(ended):
            return False
        before = self.ledger.counts()
        self.ledger.add(made)
        outcomes, rejected = self.ledger.counts()
        self._instruments.count(self._name, outcomes - before[0], rejected - before[1])
        for record in records:
            self._received_ms[record.topic, record.partition] = self._received(record)
        self._reader.commit(self._reader.places)
        return True

    def _hold(self, waiting: Mapping[Place, Awaited]) -> None:
        """Let partitions wait for a schema that the registry has not answered for: they are read again from
        that message on, and it holds the low mark.
        """
        for place, one in waiting.items():
            received_ms = self._received(one.record)
            self._received_ms[place] = min(self._received_ms.get(place, received_ms), received_ms)
            self._out.warning(
                "a partition waits for a schema", position=one.record.position, schema=one.schema_id
            )
        self._waiting |= waiting
        self._reader.hold({place: one.record.offset for place, one in waiting.items()})

    def _go_on(self) -> None:
        """Read on in partitions whose schema the registry has answered for."""
        ready = [place for place, one in self._waiting.items() if self._decoder.has_answer(one.schema_id)]
        for place in ready:
            del self._waiting[place]
        if ready:
            self._reader.go_on(ready)

    def _flushed(self, ended: Callable[[], bool]) -> bool:
        """Wait until Kafka has all that was written; False: it was ended before that."""
        away = False
        while True:
            try:
                self._log.flush(FLUSH)
                self._letters.flush(FLUSH)
            except KafkaTrouble as error:
                if error.kind != "away":
                    raise
                if not away:
                    self._out.warning("kafka does not answer", error=str(error))
                away = True
                if ended():
                    return False
            else:
                if away:
                    self._out.info("kafka answers again")
                return True

    def _low_ms(self, in_hand_ms: int | None = None) -> int:
        """The least time of receipt of what is not in our log. It never falls."""
        least_ms = [in_hand_ms] if in_hand_ms is not None else []
        for place in self._reader.places:
            proven_ms = self._caught_up_ms.get(place, 0) - YOUNG_MS
            least_ms.append(max(proven_ms, self._received_ms.get(place, self._floor_ms)))
        self._told_ms = max(self._told_ms, min(least_ms, default=0))
        return self._told_ms

    def _look(self) -> None:
        """Ask the brokers which partitions have nothing more: that alone moves the mark of an idle one."""
        asked_ms = self._clock_ms()
        try:
            self._caught_up_ms |= dict.fromkeys(self._reader.caught_up(), asked_ms)
        except KafkaTrouble as error:
            if error.kind != "away":
                raise

    def _mark(self, in_hand_ms: int | None = None, bye: bool = False) -> None:
        """Write a mark into every partition of our topic."""
        if in_hand_ms is None:
            self._look()
        if time.monotonic() - self._looked_s > 60:
            self._partitions, self._looked_s = self._log.partitions(), time.monotonic()
        body, now_ms = mark_of(self.id, self._low_ms(in_hand_ms), bye=bye), self._clock_ms()
        for partition in self._partitions:
            self._log.send(partition, b"", body, now_ms)
        self._instruments.mark(self._name, self._told_ms, sum(self._reader.lag.values()), len(self._waiting))
        self._marked_s = time.monotonic()

    def _end(self) -> int:
        """Say bye: nothing that was read is left to be written."""
        self._mark(bye=True)
        return 0 if self._flushed(lambda: True) else RESTS

    def close(self) -> None:
        """Leave the brokers."""
        self._reader.close()


def letter_of(name: str, record: Record, rejected: Understood) -> tuple[bytes, bytes]:
    """Key and body of a message's dead letter: it names the record, and has nothing that names anybody."""
    made = letter("", rejected, f"source/{name}/{record.position}")
    assert made.key is not None
    return made.key, made.value
