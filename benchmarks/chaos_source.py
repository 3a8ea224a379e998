"""The source of a chaos run: a topic of another shape, and the process that reads it, killed and starved.

Each message of the topic is known by its place: what must come of it is one pixel, a dead letter, or nothing.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from confluent_kafka import Consumer, TopicPartition

from benchmarks.chaos_process import RESTS, WITHIN_S, Process, get
from benchmarks.chaos_services import until
from benchmarks.chaos_stream import GIVE_UP_AFTER, Breaker, Worker
from benchmarks.chaos_verdict import messages
from connectors.kafka.writer import KafkaWriter
from connectors.ports import free_run
from flows.simulate.feed import now_ms

NAME: Final = "theirs"
TOPIC: Final = "their-events"
LETTERS: Final = "their-rejected"
PARTITIONS: Final = 3
PLACEMENTS: Final = 6
MAPPING: Final = f"""
topic = "{TOPIC}"
skip = ["kind!=ad"]
[names]
event = "event"
placement_id = "placement"
play_id = "play"
ts = "at"
"""
"""No event id is mapped: what comes again is known by its place in the topic alone."""
COUNTS: Final = {
    "impression": "impressions", "start": "starts", "firstQuartile": "first_quartiles",
    "midpoint": "midpoints", "thirdQuartile": "third_quartiles", "complete": "completes", "click": "clicks",
}  # fmt: skip
"""Of a play's events, in their order, and of a click, each the count that it is in."""
EVENTS: Final = tuple(COUNTS)[:-1]
NO_BROKER: Final = 1
"""Exit code of a start while Kafka is away."""
BURST_S: Final = 0.001
"""From message to message in a burst."""
LOST: Final = 20
"""Messages that an injected bug passes over, at least."""
_LOW_MARK: Final = re.compile(rb"audiopixel_source_low_mark_timestamp_seconds\{[^}]*\} ([0-9.e+]+)")
_POSITION: Final = re.compile(rf"source/{NAME}/{TOPIC}/(\d+)/(\d+)")

Place = tuple[int, int]
"""Partition and offset."""


class Ad(NamedTuple):
    """The values of a pixel; pixels without a play may have equal values."""

    placement: str
    event: str
    play: str


NOT_OURS: Final = "not ours"
REJECTED: Final = "rejected"
Due = Ad | str
"""What must come of a message: a pixel that says this, `NOT_OURS`, or `REJECTED`."""


class Foreign(Worker):
    """Writes plays into a topic of another shape, and among them what is not ours, or rubbish.

    Attributes:
        sent: what must come of each message, by its place.
        playing: held from a play's first message to its last.
        hurry: set for a burst of messages.
    """

    def __init__(self, brokers: str, seed: int, rate: float) -> None:
        super().__init__("theirs")
        self._random, self._pause_s, self._seed = random.Random(seed), 1 / rate, seed
        self._writer = KafkaWriter(brokers, TOPIC, give_up_after=GIVE_UP_AFTER)
        self._over, self.hurry, self.playing = threading.Event(), threading.Event(), threading.Lock()
        self._ends = [0] * PARTITIONS
        self.sent: dict[Place, Due] = {}

    def work(self) -> None:
        """Write plays until the end."""
        for number in itertools.count():
            with self.playing:
                self._play(f"theirs-{self._seed}-{number}")
            if self._over.is_set():
                break

    def end(self) -> None:
        """Begin no more plays, and wait until the topic has all."""
        self._over.set()
        if self.is_alive():
            self.join()
        if self.failed is not None:
            raise self.failed
        self._writer.close(GIVE_UP_AFTER)

    def ends(self) -> dict[int, int]:
        """The end of each partition, once the topic has all; call it while no play goes on."""
        self._writer.flush(GIVE_UP_AFTER)
        return dict(enumerate(self._ends))

    def _play(self, play: str) -> None:
        placement = f"theirs-{self._random.randrange(PLACEMENTS)}"
        for event in EVENTS[: self._random.randint(1, 9)]:
            self._ad(Ad(placement, event, play))
        chance = self._random.random()
        if chance < 0.3:
            self._ad(Ad(placement, "click", ""))
        elif chance < 0.6:
            self._send({"kind": "music"}, NOT_OURS)
        elif chance < 0.8:
            self._send({"kind": "ad", "event": "bogus", "placement": placement, "at": now_ms()}, REJECTED)
        elif chance < 0.9:
            self._send(b"rubbish", REJECTED)

    def _ad(self, ad: Ad) -> None:
        told = {"kind": "ad", "event": ad.event, "placement": ad.placement, "at": now_ms()}
        self._send(told | ({"play": ad.play} if ad.play else {}), ad)

    def _send(self, told: Mapping[str, object] | bytes, due: Due) -> None:
        """Write a message into any partition; it is idempotent, so that its place is known."""
        partition = self._random.randrange(PARTITIONS)
        value = told if isinstance(told, bytes) else json.dumps(told).encode()
        self._writer.send(partition, b"", value, now_ms())
        self.sent[partition, self._ends[partition]] = due
        self._ends[partition] += 1
        self._over.wait(BURST_S if self.hurry.is_set() else self._random.uniform(0.0, 2.0) * self._pause_s)


class Source(Breaker):
    """`audiopixel sources run`, killed and starved at random once started.

    Attributes:
        foreign: writes what it reads.

    Args:
        settings: of the run's flow.
        seconds, faults: as for `Breaker`.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        directory: Path,
        seed: int,
        seconds: float,
        rate: float,
        faults: int,
    ) -> None:
        super().__init__(seed, seconds, faults)
        self._brokers, self._port = settings["KAFKA_BROKERS"], free_run(1)
        sources = directory / "sources"
        sources.mkdir()
        (sources / f"{NAME}.toml").write_text(MAPPING)
        own = {
            "KAFKA_REJECTED_TOPIC": LETTERS,
            "COLLECT_KEY": "a key of the edge for chaos alone",
            "SOURCES": sources,
            "SOURCES_PORT": self._port,
        }
        self._process = Process(
            *("sources", "run", NAME), settings={**settings, **own}, log=directory / "source.log"
        )
        self.foreign = Foreign(self._brokers, seed, rate)
        self._was_ready = False

    def open(self) -> None:
        """Start it: its marks stand in every partition when it returns."""
        self._start()
        self._until_ready()

    def work(self) -> None:
        """Kill it and starve it."""
        began_s = time.monotonic()
        faults = (self._killed, self._killed, self._killed_again, self._starved, self._starved, self._rolled)
        for moment_s in self.moments_s():
            while not self._over.is_set() and time.monotonic() - began_s < moment_s:
                with self._breaking:
                    self._look()
                self._over.wait(0.2)
            if self._over.is_set():
                return
            with self._breaking:
                self._random.choice(faults)()
        while not self._over.wait(0.2):
            with self._breaking:
                self._look()

    @contextmanager
    def shut(self) -> Iterator[None]:
        """No play goes on, and all that was read is in our topic: keys may get other partitions."""
        with self._breaking, self.foreign.playing:
            self._until_ready()
            self._end_process(self.foreign.ends())
            yield
            self.open()

    def end(self) -> None:
        """End the source: by a kill after the last message, and a start that reads the rest.

        Raises:
            AssertionError: it did not read its topic to the end, or did not stop.
        """
        self._over.set()
        self.join()
        if self.failed is not None:
            raise self.failed
        self._kill()
        self.foreign.end()
        self.open()
        self._end_process(self.foreign.ends())

    def close(self) -> None:
        """Kill what is left."""
        self._over.set()
        self._process.kill()

    def places(self) -> dict[int, int]:
        """The places that its group keeps."""
        consumer = self._consumer()
        try:
            asked = [TopicPartition(TOPIC, one) for one in range(PARTITIONS)]
            return {one.partition: one.offset for one in consumer.committed(asked, timeout=10)}
        finally:
            consumer.close()

    def store_early(self) -> None:
        """A bug: the places of messages are stored, and it dies before their pixels are written."""
        with self._breaking:
            self._until_ready()
            self._kill()
            before = self.places()
            while len(self.foreign.sent) < sum(before.values()) + LOST:
                time.sleep(0.1)
            with self.foreign.playing:
                ends = self.foreign.ends()
            consumer = self._consumer()
            moved = [TopicPartition(TOPIC, partition, end) for partition, end in ends.items()]
            consumer.commit(offsets=moved, asynchronous=False)
            consumer.close()
            self.open()

    def _consumer(self) -> Consumer:
        group = {"group.id": f"audiopixel-source-{NAME}", "enable.auto.commit": False, "log_level": 0}
        return Consumer({"bootstrap.servers": self._brokers, **group})

    # The process

    def _start(self) -> None:
        self._was_ready = False
        self._process.start()

    def _look(self) -> None:
        """Start it again where it ended before it was ready: while Kafka is away it cannot begin."""
        if not self._was_ready and self._process.lives:
            mark = _LOW_MARK.search(get(self._port, "/metrics")[1])
            self._was_ready = mark is not None and float(mark[1]) > 0
        if (code := self._process.code) is not None:
            assert not self._was_ready, f"the source ended by itself with code {code}"
            assert code == NO_BROKER, f"the source did not begin: code {code}"
            self._start()

    def _is_ready(self) -> bool:
        self._look()
        return self._was_ready

    def _until_ready(self) -> None:
        until(self._is_ready, WITHIN_S, "the source was not ready")

    def _end_process(self, ends: Mapping[int, int]) -> None:
        until(lambda: self.places() == ends, WITHIN_S, "the source did not get to the end of its topic")
        while (code := self._process.end()) == RESTS:
            self.open()
        assert code == 0, f"the source ended with code {code} on SIGTERM"

    def _kill(self) -> None:
        """SIGKILL in a burst of messages."""
        self.foreign.hurry.set()
        time.sleep(self._random.uniform(0.05, 0.4))
        self._process.kill()
        self.foreign.hurry.clear()
        self.done["source killed"] += 1

    # Faults

    def _killed(self) -> None:
        self._kill()
        time.sleep(self._random.uniform(0.0, 2.0))
        self._start()

    def _killed_again(self) -> None:
        """Kill the source, and again during the start after the kill."""
        self._killed()
        time.sleep(self._random.uniform(0.3, 4.0))
        self._killed()

    def _starved(self) -> None:
        """Starve the source of the processor for a while."""
        self._process.pause()
        time.sleep(self._random.uniform(0.5, 6.0))
        self._process.resume()
        self.done["source starved"] += 1

    def _rolled(self) -> None:
        """SIGTERM and start, as on an upgrade."""
        self._until_ready()  # before that it has no handler of signals
        assert (code := self._process.end()) in (0, RESTS), f"the source ended with code {code} on SIGTERM"
        self._start()
        self.done["source stopped"] += 1


@dataclass
class Ledger:
    """The account of a source at the end of a run: read = pixels + not ours + rejected.

    Attributes:
        read: messages, by the places that its group keeps.
        pixels: in our topic, each once.
        not_ours: messages that must make nothing.
        rejected: dead letters, each once.
        stored_again: pixels that our topic has once more each.
    """

    read: int
    pixels: int
    not_ours: int
    rejected: int
    stored_again: int

    def differences(self) -> list[str]:
        """The sum, where it does not hold."""
        found = self.pixels + self.not_ours + self.rejected
        return [] if self.read == found else [f"the source has read {self.read}, and accounts for {found}"]


def pixels_in(directory: Path) -> dict[Ad, Counter[str]]:
    """How often the log of a directory has each event that the source put there, by what it says."""
    found: dict[Ad, Counter[str]] = {}
    for file in directory.glob("log-*.ndjson"):
        for line in file.open("rb"):
            if b'"collector":"source-%b-' % NAME.encode() in line and b'"event_id":' in line:
                one = json.loads(line)
                ad = Ad(one["placement_id"], one["event"], one.get("play_id", ""))
                found.setdefault(ad, Counter())[one["event_id"]] += 1
    return found


def rejected_in(brokers: str) -> set[Place]:
    """The places of messages of which there is a dead letter."""
    found = set()
    for _, _, value in messages(brokers, LETTERS):
        position = _POSITION.fullmatch(json.loads(value)["position"])
        assert position is not None, value
        found.add((int(position[1]), int(position[2])))
    return found


def against_the_topic(
    sent: Mapping[Place, Due],
    stored: Mapping[Ad, Counter[str]],
    rejected: Collection[Place],
    read: int,
    fields: Callable[[str], Mapping[str, str]],
) -> tuple[Ledger, list[str]]:
    """The account of a source, and what did not become what it must, exactly once.

    Args:
        sent: what must come of each message.
        stored: events of our topic by what they say, how often each.
        rejected: messages of which there is a dead letter.
        read: messages, by the places that its group keeps.
        fields: the published fields of a placement.
    """
    due = Counter(one for one in sent.values() if isinstance(one, Ad))
    ledger = Ledger(
        read,
        pixels=sum(map(len, stored.values())),
        not_ours=sum(one == NOT_OURS for one in sent.values()),
        rejected=len(rejected),
        stored_again=sum(times.total() - len(times) for times in stored.values()),
    )
    found = ledger.differences()
    for ad in sorted(due.keys() | stored.keys()):
        if due[ad] != (events := len(stored.get(ad, ()))):
            found.append(f"{' '.join(ad)}: {due[ad]} messages of the source's topic are {events} events")
    letters = {place for place, one in sent.items() if one == REJECTED}
    for partition, offset in sorted(letters ^ set(rejected)):
        what = "has no dead letter" if (partition, offset) in letters else "has a dead letter, and is none"
        found.append(f"{TOPIC}/{partition}/{offset} {what}")
    for placement in sorted({ad.placement for ad in due}):
        row = fields(placement)
        for event, count in COUNTS.items():
            want = sum(times for ad, times in due.items() if ad.placement == placement and ad.event == event)
            if int(row.get(f"flight.{count}", 0)) != want:
                counted = row.get(f"flight.{count}")
                found.append(f"{placement} {count}: {want} were sent to the source, {counted} are counted")
    return ledger, found
