"""A live source: a topic's messages become pixels in ours, as they come.

It writes as a collector does: under an id for each partition of the source's topic, with a low mark in each
pixel and, once a second, in every partition, and with a bye when it ends. What was read and is not
acknowledged holds the low mark. Several processes share a topic's partitions as a consumer group.

Guarantee: pixels and dead letters are acknowledged before the source's place is committed. What comes again
behind a crash has the same event id, so it counts once.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog

from connectors.kafka import GroupReader, KafkaTrouble, KafkaWriter, Place, Record
from flows.collector.call import Outcome, Understood
from flows.collector.letters import letter
from flows.collector.log import mark_of
from flows.model.events import MAX_MS
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
MAX_MARKS: Final = 1_000
"""Marks that a process writes a second: of topics with many partitions each lane's come more seldom."""
FIRST_S: Final = 10.0
"""Time that low marks wait for partitions of which nothing is known yet, such as those without a leader."""
LOOK_S: Final = 60.0
"""Time between two looks whether our topic has more partitions."""
FLUSH: Final = timedelta(seconds=5)
RESTS: Final = 75
"""Exit code: it ended without a bye; start it again."""


def spare_memory() -> None:
    """Let the collector of cycles run seldom: thousands of records are alive at once, none in a cycle."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


@dataclass
class _Lane:
    """One partition of the source's topic on its way into ours.

    Attributes:
        received_ms: of its latest message that is in our topic.
        told_ms: its low mark.
        proven_ms: when it was last proven to have nothing more.
    """

    id: str
    received_ms: int
    told_ms: int
    proven_ms: int = 0

    def low_ms(self, in_hand_ms: int = MAX_MS) -> int:
        """The low mark, raised as far as it may be. It never falls.

        Args:
            in_hand_ms: the least time of receipt of messages that are not in our topic yet.
        """
        self.told_ms = max(self.told_ms, min(in_hand_ms, max(self.received_ms, self.proven_ms)))
        return self.told_ms


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
    """Reads a source's topic, or this process's share of it, and writes its pixels into ours.

    Attributes:
        id: of its lanes, without the partition.
        ledger: of this process.
        behind: messages of its partitions that it has not read, as of its last mark.

    Each partition of the source's topic is a lane of its own, `source-NAME-PARTITION`, whichever process
    reads it: what one process has promised the next one keeps.

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
        self.name, self._instruments = pixels.source.name, instruments or Instruments()
        self.id, self.ledger = f"source-{self.name}", Ledger()
        options = kafka_options(settings) | {"partitioner": "murmur2_random"}
        brokers = settings.kafka_brokers
        self._log = KafkaWriter(brokers, settings.kafka_topic, options, give_up_after=None)
        self._letters = KafkaWriter(brokers, settings.kafka_rejected_topic, options, give_up_after=None)
        self._partitions = self._log.partitions()
        self._out = structlog.get_logger("source")
        self._decoder, self._waiting = RecordDecoder(pixels.source), dict[Place, Awaited]()
        self._compiled = Compiled(pixels, self._decoder.message)
        self._lanes: dict[Place, _Lane] = {}
        self.behind = 0
        self._committed, self._marked_s, self._looked_s = True, 0.0, time.monotonic()
        self._moved_s = self._looked_s

    @property
    def low_ms(self) -> int:
        """The least low mark of its partitions, epoch ms; 0: none has one yet."""
        return min((lane.told_ms for lane in tuple(self._lanes.values())), default=0)

    @property
    def waiting(self) -> int:
        """Partitions that wait for a schema."""
        return len(self._waiting)

    def run(self, ended: Callable[[], bool]) -> int:
        """Go on until `ended`; returns the exit code: 0, or `RESTS`.

        Raises:
            ConnectError: the source's topic cannot be read on, or ours takes nothing for good.
        """
        while not ended():
            records = self._reader.read(AT_ONCE, WAIT)
            self._follow()
            if records and not self._take(records, ended):
                return RESTS
            if not self._committed:
                self._commit()
            if time.monotonic() - self._marked_s >= self._mark_every_s():
                self._mark()
            self._go_on()
        return self._end()

    def _follow(self) -> None:
        """Forget partitions that are another process's by now."""
        owned = self._reader.places.keys()
        for place in self._lanes.keys() - owned:
            del self._lanes[place]
            self._moved_s = time.monotonic()
        for place in self._waiting.keys() - owned:
            del self._waiting[place]

    def _lane(self, place: Place, low_ms: int) -> _Lane:
        """The lane of a partition; of a new one with its first low mark."""
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = _Lane(f"{self.id}-{place[1]}", low_ms, low_ms)
            self._moved_s = time.monotonic()
        return lane

    def _settled(self) -> bool:
        """True if each partition has a low mark. Until then none rises: the flow's time would pass what is
        still to be read of the others.
        """
        return self._reader.places.keys() <= self._lanes.keys() or time.monotonic() - self._moved_s > FIRST_S

    def _received(self, record: Record, now_ms: int) -> int:
        return min(record.timestamp_ms or now_ms, now_ms)

    def _take(self, records: Sequence[Record], ended: Callable[[], bool]) -> bool:
        """Write the pixels and dead letters of messages, then commit; False: it was ended before that."""
        messages, now_ms = None, self._clock_ms()
        if self._decoder.waits:
            records, messages, waiting = self._decoder.ready(records)
            if waiting:
                self._hold(waiting)
            if not records:
                return True
        made = self._compiled.made(records, now_ms, messages)
        in_hand: dict[Place, int] = {}
        latest: dict[Place, int] = {}
        for record in records:
            place, received_ms = (record.topic, record.partition), self._received(record, now_ms)
            latest[place] = received_ms
            if received_ms < in_hand.get(place, MAX_MS):
                in_hand[place] = received_ms
        new = [place for place in in_hand if place not in self._lanes]
        lanes = {place: self._lane(place, low_ms) for place, low_ms in in_hand.items()}
        if new:  # no pixel goes before a mark of its lane stands in every partition
            self._send_marks([lanes[place] for place in new])
            if not self._flushed(ended):
                return False
        settled, tails = self._settled(), dict[int, bytes]()
        for place, lane in lanes.items():
            low_ms = lane.low_ms(in_hand[place]) if settled else lane.told_ms
            tails[place[1]] = b',"collector":"%s","low_ms":%d}' % (lane.id.encode(), low_ms)
        self._log.write([(key, body + tails[partition]) for partition, key, body in made.lines])
        self._letters.write([letter_of(self.name, record, one) for record, one in made.rejected])
        if not self._flushed(ended):
            return False
        before = self.ledger.counts()
        self.ledger.add(made)
        outcomes, rejected = self.ledger.counts()
        self._instruments.count(self.name, outcomes - before[0], rejected - before[1])
        for place, received_ms in latest.items():
            lanes[place].received_ms = received_ms
        self._commit()
        return True

    def _commit(self) -> None:
        """Commit the places. While their brokers are away they stay to be committed: nothing is read then."""
        try:
            self._reader.commit(self._reader.places)
        except KafkaTrouble as error:
            if error.kind != "away":
                raise
            if self._committed:
                self._out.warning("the source's cluster does not answer", error=str(error))
            self._committed = False
        else:
            self._committed = True

    def _hold(self, waiting: Mapping[Place, Awaited]) -> None:
        """Let partitions wait for a schema that the registry has not answered for: they are read again from
        that message on, and it holds the low mark.
        """
        for place, one in waiting.items():
            received_ms = self._received(one.record, self._clock_ms())
            lane = self._lane(place, received_ms)
            lane.received_ms = min(lane.received_ms, received_ms)
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

    def _look(self) -> None:
        """Ask the brokers which partitions have nothing more: that alone moves the mark of an idle one."""
        proven_ms = self._clock_ms() - YOUNG_MS
        try:
            caught_up = self._reader.caught_up()
        except KafkaTrouble as error:
            if error.kind == "missing":
                raise
            return
        for place in caught_up:
            lane = self._lane(place, proven_ms)
            lane.proven_ms = proven_ms

    def _mark_every_s(self) -> float:
        """Seconds between two marks of a lane: each goes into every partition of our topic."""
        return max(MARK_EVERY_S, len(self._lanes) * len(self._partitions) / MAX_MARKS)

    def _mark(self) -> None:
        """Write a mark of each lane into every partition of our topic."""
        self._look()
        if time.monotonic() - self._looked_s > LOOK_S:
            with suppress(KafkaTrouble):  # those of before are there all the same
                self._partitions = self._log.partitions()
            self._looked_s = time.monotonic()
        if self._settled():
            for lane in self._lanes.values():
                lane.low_ms()
        self._send_marks(list(self._lanes.values()))
        self.behind = sum(self._reader.lag.values())
        self._instruments.mark(self.name, self.low_ms, self.behind, self.waiting)
        self._marked_s = time.monotonic()

    def _send_marks(self, lanes: Sequence[_Lane], bye: bool = False) -> None:
        now_ms = self._clock_ms()
        for lane in lanes:
            body = mark_of(lane.id, lane.told_ms, now_ms, bye)
            for partition in self._partitions:
                self._log.send(partition, b"", body, now_ms)

    def _end(self) -> int:
        """End. Who reads all of the topic says bye: nothing that was read is left to be written. Else the
        other processes take the lanes up.
        """
        self._mark()
        if len(self._reader.places) == self._reader.partitions:
            self._send_marks(list(self._lanes.values()), bye=True)
        return 0 if self._flushed(lambda: True) else RESTS

    def close(self) -> None:
        """Leave the brokers."""
        self._reader.close()


def letter_of(name: str, record: Record, rejected: Understood) -> tuple[bytes, bytes]:
    """Key and body of a message's dead letter: it names the record, and has nothing that names anybody."""
    made = letter("", rejected, f"source/{name}/{record.position}")
    assert made.key is not None
    return made.key, made.value
