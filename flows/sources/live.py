"""A live source: a topic's messages become pixels of the pixel topic, as they come.

The source writes as a collector does. It has an id for each partition of its topic, a low mark in each pixel
and once a second in every partition, and a bye at its end. Messages that were read and are not acknowledged
hold the low mark. Several processes share a topic's partitions as a consumer group.

Guarantee: pixels and dead letters are acknowledged before the source's position is committed. Messages that
are read again after a crash have the same event ids, so they count once.
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
from flows.sources.compiled import Compiled, MappedBatch
from flows.sources.instruments import Instruments
from flows.sources.messages import Awaited, RecordDecoder
from flows.sources.pixels import Pixels
from flows.sources.unreadable import UnreadableValues

AT_ONCE: Final = 5_000
WAIT: Final = timedelta(milliseconds=100)
MARK_EVERY_S: Final = 1.0
YOUNG_MS: Final = 2_000
"""The longest time from a message's timestamp until the topic has it. An idle partition's low mark is behind
the clock by this time.
"""
MAX_MARKS: Final = 1_000
"""The greatest number of marks that a process writes in one second. If the topics have many partitions, each
lane's marks are less frequent.
"""
FIRST_S: Final = 10.0
"""The time for which low marks wait for partitions without a known position, such as without a leader."""
LOOK_S: Final = 60.0
"""The time between two checks for new partitions of the pixel topic."""
FLUSH: Final = timedelta(seconds=5)
RESTS: Final = 75
"""The exit code of an end without a bye: start the source again."""


def spare_memory() -> None:
    """Let Python collect cycles seldom: thousands of records are alive at once, none in a cycle."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


@dataclass
class _Lane:
    """A partition of the source's topic on its way into the pixel topic.

    Attributes:
        received_ms: the receipt of its latest message that is in the pixel topic.
        published_ms: the low mark.
        proven_ms: the moment of the latest proof that the partition has no further messages.
    """

    id: str
    received_ms: int
    published_ms: int
    proven_ms: int = 0

    def low_ms(self, in_hand_ms: int = MAX_MS) -> int:
        """The low mark, raised as far as possible and never lowered.

        Args:
            in_hand_ms: the least time of receipt of messages that are not in the pixel topic yet.
        """
        self.published_ms = max(self.published_ms, min(in_hand_ms, max(self.received_ms, self.proven_ms)))
        return self.published_ms


@dataclass
class Ledger:
    """Counts of messages: `read` = `pixels` + `not_ours` + `rejected`. Only `take` counts `unreadable`
    values.
    """

    read: int = 0
    pixels: int = 0
    not_ours: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    unreadable: UnreadableValues = field(default_factory=UnreadableValues)

    def add(self, batch: MappedBatch) -> None:
        """Count a batch."""
        self.read += len(batch.lines) + len(batch.rejected) + batch.not_ours
        self.pixels += len(batch.lines)
        self.not_ours += batch.not_ours
        self.rejected.update(understood.reason for _, understood in batch.rejected)

    def take(self, understood: Understood | None) -> None:
        """Count one message by its outcome."""
        self.read += 1
        if understood is None or understood.outcome is Outcome.NOT_COUNTED:
            self.not_ours += 1
            return
        self.unreadable.take(understood)
        if understood.outcome is Outcome.STORED:
            self.pixels += 1
        else:
            self.rejected[understood.reason] += 1

    def counts(self) -> tuple[Counter[str], Counter[str]]:
        """The messages by outcome so far, and the rejected ones by reason."""
        rejected = self.rejected.total()
        outcomes = Counter(pixels=self.pixels, not_ours=self.not_ours, rejected=rejected)
        return outcomes, Counter(self.rejected)

    def line(self) -> str:
        """The sum of the counts as a line."""
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.rejected.most_common())
        rejected = f"rejected {self.rejected.total():,}" + (f" ({reasons})" if reasons else "")
        return f"read {self.read:,} = pixels {self.pixels:,} + not ours {self.not_ours:,} + {rejected}"


class Live:
    """Reads a source's topic, or this process's share of it, and writes its pixels to the pixel topic.

    Attributes:
        id: the id of its lanes, without the partition.
        ledger: the counts of this process.
        behind: the number of unread messages in its partitions at its last mark.

    Each partition of the source's topic is a lane, `source-NAME-PARTITION`. Its id does not depend on the
    process that reads it, so the next process keeps the low mark that this one has sent.

    Args:
        settings: of the pixel topic and the topic of dead letters.
        pixels: makes pixels of messages.
        reader: of the source's topic.
        instruments: counts its messages.
        clock_ms: the wall clock.

    Raises:
        ConnectError: Kafka is away, or a topic is missing.
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
        """The least low mark of all lanes, in epoch ms; 0 if none has one yet."""
        return min((lane.published_ms for lane in tuple(self._lanes.values())), default=0)

    @property
    def waiting(self) -> int:
        """Partitions that wait for a schema."""
        return len(self._waiting)

    def run(self, ended: Callable[[], bool]) -> int:
        """Read and write until `ended`. Returns the exit code: 0, or `RESTS`.

        Raises:
            ConnectError: the source's topic cannot be read any further, or the pixel topic cannot be written
                at all.
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
            self._resume_answered()
        return self._end()

    def _follow(self) -> None:
        """Drop partitions that now belong to another process."""
        owned = self._reader.places.keys()
        for place in self._lanes.keys() - owned:
            del self._lanes[place]
            self._moved_s = time.monotonic()
        for place in self._waiting.keys() - owned:
            del self._waiting[place]

    def _lane(self, place: Place, low_ms: int) -> _Lane:
        """The lane of a partition. A new one begins with its first low mark."""
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = _Lane(f"{self.id}-{place[1]}", low_ms, low_ms)
            self._moved_s = time.monotonic()
        return lane

    def _settled(self) -> bool:
        """True if each partition has a low mark. Until then no mark rises. Otherwise the flow's watermark
        would pass the unread messages of the other partitions.
        """
        return self._reader.places.keys() <= self._lanes.keys() or time.monotonic() - self._moved_s > FIRST_S

    def _received(self, record: Record, now_ms: int) -> int:
        return min(record.timestamp_ms or now_ms, now_ms)

    def _take(self, records: Sequence[Record], ended: Callable[[], bool]) -> bool:
        """Write the pixels and dead letters of messages, then commit. False if the source was ended before
        the commit.
        """
        messages, now_ms = None, self._clock_ms()
        if self._decoder.waits:
            records, messages, waiting = self._decoder.ready(records)
            if waiting:
                self._wait_for_schemas(waiting)
            if not records:
                return True
        batch = self._compiled.batch(records, now_ms, messages)
        in_hand: dict[Place, int] = {}
        latest: dict[Place, int] = {}
        for record in records:
            place, received_ms = (record.topic, record.partition), self._received(record, now_ms)
            latest[place] = received_ms
            if received_ms < in_hand.get(place, MAX_MS):
                in_hand[place] = received_ms
        new = [place for place in in_hand if place not in self._lanes]
        lanes = {place: self._lane(place, low_ms) for place, low_ms in in_hand.items()}
        if new:  # a lane's mark stands in every partition before its first pixel
            self._send_marks([lanes[place] for place in new])
            if not self._flushed(ended):
                return False
        settled, tails = self._settled(), dict[int, bytes]()
        for place, lane in lanes.items():
            low_ms = lane.low_ms(in_hand[place]) if settled else lane.published_ms
            tails[place[1]] = b',"collector":"%s","low_ms":%d}' % (lane.id.encode(), low_ms)
        self._log.write([(key, body + tails[partition]) for partition, key, body in batch.lines])
        self._letters.write([letter_of(self.name, record, one) for record, one in batch.rejected])
        if not self._flushed(ended):
            return False
        before = self.ledger.counts()
        self.ledger.add(batch)
        outcomes, rejected = self.ledger.counts()
        self._instruments.count(self.name, outcomes - before[0], rejected - before[1])
        for place, received_ms in latest.items():
            lanes[place].received_ms = received_ms
        self._commit()
        return True

    def _commit(self) -> None:
        """Commit the positions. While the brokers are away the commit stays due, and nothing is read."""
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

    def _wait_for_schemas(self, waiting: Mapping[Place, Awaited]) -> None:
        """Stop reading partitions whose next message has a schema that the registry has not sent. The
        message holds the low mark, and reading resumes with the message.
        """
        for place, awaited in waiting.items():
            received_ms = self._received(awaited.record, self._clock_ms())
            lane = self._lane(place, received_ms)
            lane.received_ms = min(lane.received_ms, received_ms)
            self._out.warning(
                "a partition waits for a schema", position=awaited.record.position, schema=awaited.schema_id
            )
        self._waiting |= waiting
        self._reader.hold({place: one.record.offset for place, one in waiting.items()})

    def _resume_answered(self) -> None:
        """Resume the partitions whose schema the registry has sent."""
        ready = [place for place, one in self._waiting.items() if self._decoder.has_answer(one.schema_id)]
        for place in ready:
            del self._waiting[place]
        if ready:
            self._reader.resume(ready)

    def _flushed(self, ended: Callable[[], bool]) -> bool:
        """Wait until Kafka has all that was written. False if the source was ended before that."""
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

    def _prove_ends(self) -> None:
        """Find the partitions that have no further messages, by the brokers. Only this raises the low mark
        of an idle partition.
        """
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
        """The seconds between two marks of a lane; each mark goes into every partition of the pixel topic."""
        return max(MARK_EVERY_S, len(self._lanes) * len(self._partitions) / MAX_MARKS)

    def _mark(self) -> None:
        """Write a mark of each lane into every partition of the pixel topic."""
        self._prove_ends()
        if time.monotonic() - self._looked_s > LOOK_S:
            with suppress(KafkaTrouble):  # the partitions of before still exist
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
            body = mark_of(lane.id, lane.published_ms, now_ms, bye)
            for partition in self._partitions:
                self._log.send(partition, b"", body, now_ms)

    def _end(self) -> int:
        """End the source. A process that reads the whole topic sends a bye, since it has written everything
        that it has read. Otherwise the other processes take the lanes over.
        """
        self._mark()
        if len(self._reader.places) == self._reader.partitions:
            self._send_marks(list(self._lanes.values()), bye=True)
        return 0 if self._flushed(lambda: True) else RESTS

    def close(self) -> None:
        """Close the connections to the brokers."""
        self._reader.close()


def letter_of(name: str, record: Record, rejected: Understood) -> tuple[bytes, bytes]:
    """The key and the body of a message's dead letter, which names the record and no person."""
    dead_letter = letter("", rejected, f"source/{name}/{record.position}")
    assert dead_letter.key is not None
    return dead_letter.key, dead_letter.value
