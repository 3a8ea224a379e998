"""A live source's processes are killed again and again, on topics of 12 partitions that lag each other by up
to five minutes, whatever their key: `SOURCE_KILLS=50 pytest tests/flows/sources/test_killed.py`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from command_support import ROOT, Command
from faults_support import World, eventually, in_memory
from kafka_server import ApacheKafka, KafkaUnavailable

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.kafka import KafkaWriter, ensure_topic
from connectors.stream import ConnectError
from flows.settings.loading import load
from flows.sources.messages import live_reader_of
from flows.sources.source import parse_source

KILLS: Final = int(os.environ.get("SOURCE_KILLS", "2"))
"""Of all four topics together."""
PARTITIONS: Final = 12
LAG_MS: Final = 300_000
SPAN_MS: Final = 420_000
"""The messages' own time, which is played in the rounds between two kills."""
ROUNDS: Final = int(os.environ.get("SOURCE_ROUNDS", "12"))
ROUND_S: Final = 0.5
EVENTS: Final = ("impression", "start", "firstQuartile", "midpoint", "thirdQuartile", "complete")
MAPPING: Final = """
topic = "{topic}"
identity = ["event", "play"]
[names]
event = "event"
placement_id = "placement"
play_id = "play"
listener_id = "listener"
consent = "consent"
ts = "at"
"""
Sent = tuple[int, dict[str, Any]]
Keyed = Callable[[int, dict[str, Any], Random], int]
KEYS: Final[dict[str, Keyed]] = {
    "play": lambda number, one, rng: hash_of(one["play"]),
    "listener": lambda number, one, rng: hash_of(one["listener"]),
    "nothing": lambda number, one, rng: number,
    "random": lambda number, one, rng: rng.randrange(PARTITIONS),
}


def hash_of(name: str) -> int:
    return int(name.strip("abcdefghijklmnopqrstuvwxyz-"))


def history(plays: int, began_ms: int) -> list[Sent]:
    """Messages in the order of their time: each play's six, 5 s apart."""
    found = []
    for play in range(plays):
        begin_ms = began_ms + play * (SPAN_MS - 30_000) // plays
        for number, event in enumerate(EVENTS):
            at_ms = begin_ms + number * 5_000
            found.append(
                (
                    at_ms,
                    {
                        "event": event,
                        "placement": "p",
                        "play": f"play-{play}",
                        "listener": f"listener-{play % 97}",
                        "consent": True,
                        "at": at_ms,
                    },
                )
            )
    return sorted(found, key=lambda one: one[0])


class Source:
    """The processes of a source next to a flow."""

    def __init__(self, world: World, directory: Path, key: str, processes: int) -> None:
        self.world, self.topic, self.processes = world, f"{world.topic}-theirs", dict[int, Command]()
        self.directory, self.kills = directory, 0
        (world.create or partial(ensure_topic, world.brokers))(self.topic, PARTITIONS)
        (directory / f"{key}.toml").write_text(MAPPING.format(topic=self.topic))
        self.name, self.shared = key, ["--shared"] if processes > 1 else []
        settings = load(kafka_brokers=world.brokers, kafka_topic=world.topic)
        source, deadline_s = parse_source(MAPPING.format(topic=self.topic), key, key), time.monotonic() + 10
        while "a broker may not lead the new partitions yet":
            try:
                live_reader_of(source, settings).close()
                break
            except ConnectError as error:
                if "Not leader" not in str(error) or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.2)
        for number in range(processes):
            self.start(number)

    def start(self, number: int) -> None:
        known = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
        told = self.world.settings | {
            "SOURCES": str(self.directory),
            "SOURCES_PORT": "0",
            "COLLECT_KEY": "a key of a test, 16 bytes or more",
        }
        environment = known | {f"AUDIOPIXEL_{name}": value for name, value in told.items()}
        log = self.directory / f"{self.name}-{number}-{self.kills}.log"
        command = Command(
            "sources", "run", self.name, *self.shared, directory=ROOT, environment=environment, out=log
        )
        self.processes[number] = command

    def kill(self, number: int) -> None:
        self.processes[number].kill()
        self.processes[number].wait()
        self.kills += 1
        self.start(number)

    def stop(self) -> list[int]:
        for process in self.processes.values():
            process.terminate()
        return [process.wait(60) for process in self.processes.values()]


@contextmanager
def worlds(broker: str, directory: Path) -> Iterator[Callable[[], World]]:
    with EmbeddedValkey() as redis, ExitStack() as stack:
        made: list[World] = []
        if broker == "apache":
            try:
                kafka = stack.enter_context(ApacheKafka(directory / "kafka"))
            except KafkaUnavailable as error:
                pytest.skip(str(error))
        else:
            embedded = stack.enter_context(EmbeddedBroker())

        def make() -> World:
            place = directory / str(len(made))
            place.mkdir()
            made.append(
                World(kafka.brokers, redis, place)
                if broker == "apache"
                else in_memory(embedded, redis, place)
            )
            return made[-1]

        try:
            yield make
        finally:
            for world in made:
                world.close()


def play(source: Source, keyed: Keyed, sent: list[Sent], kills: int) -> None:
    """Send a history, each partition as far behind as it lags, and kill meanwhile."""
    rng, writer = Random(7), KafkaWriter(source.world.brokers, source.topic)
    waiting = [(keyed(number, one, rng) % PARTITIONS, at_ms, one) for number, (at_ms, one) in enumerate(sent)]
    first_ms, last_ms = sent[0][0], sent[-1][0] + LAG_MS
    rounds = ROUNDS * max(1, kills)
    for number in range(rounds):
        until_ms = first_ms + (last_ms - first_ms) * (number + 1) // rounds
        left = []
        for partition, at_ms, one in waiting:
            if at_ms + LAG_MS * partition // (PARTITIONS - 1) <= until_ms:
                writer.send(partition, b"", json.dumps(one).encode(), at_ms)
            else:
                left.append((partition, at_ms, one))
        waiting = left
        writer.flush()
        if number % ROUNDS == ROUNDS // 2 and number // ROUNDS < kills:
            source.kill(number // ROUNDS % len(source.processes))
        time.sleep(ROUND_S)
    assert not waiting
    writer.close()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("broker", "processes"),
    # The embedded broker's groups do not outlive a member that is killed.
    [("tansu", 1), pytest.param("apache", 2, marks=pytest.mark.apache)],
)
def test_rows_are_equal_whatever_the_key_the_lag_and_the_kills(
    tmp_path: Path, broker: str, processes: int
) -> None:
    plays, found, repeated, killed = 240 + 40 * KILLS, dict[str, dict[str, str]](), 0, 0
    with worlds(broker, tmp_path) as make:
        for place, (key, keyed) in enumerate(KEYS.items()):
            world = make()
            source = Source(world, world.directory, key, processes)
            flow = world.start()
            kills = KILLS // len(KEYS) + (place < KILLS % len(KEYS))
            sent = history(plays, int(time.time() * 1000) - SPAN_MS)
            play(source, keyed, sent, kills)
            eventually(
                lambda world=world, sent=sent: world.ledger("accepted") >= len(sent),  # type: ignore[misc]
                180,
                lambda flow=flow, world=world: f"{world.ledger('accepted')} {flow.said()}",  # type: ignore[misc]
            )
            assert source.stop() == [0] * processes
            row = world.row()
            assert world.ledger("accepted") == len(sent)
            assert world.ledger("rejected.too_late") == 0
            found[key] = {name: value for name, value in row.items() if name.startswith("flight.")}
            # Each history begins when it is played, and of kills depends how much comes again.
            del found[key]["flight.since_ms"], found[key]["flight.repeated"]
            repeated += world.ledger("repeated")
            killed += source.kills
            flow.stop()
    print(f"{killed} kills, {len(KEYS) * plays * len(EVENTS):,} messages, {repeated:,} came again")
    want = found["play"]
    assert want["flight.impressions"] == want["flight.completes"] == str(plays)
    for key, row in found.items():
        assert row == want, key
    assert killed == KILLS
