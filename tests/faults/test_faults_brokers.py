"""A broker of three goes down under calls: events of the other partitions are in the log at once."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from door_support import Collector, calling, until
from kafka_mock import MockKafka

from flows.collector.partitions import partition_of

PARTITIONS, BROKERS = 12, 3
RATE, CONNECTIONS = 2_000, 24
DOWN_S = 25.0
"""Longer than a producer tries a message (20 s), so that what was given up is sent again."""
DOWN = {partition for partition in range(PARTITIONS) if 1 + partition % BROKERS == BROKERS}


@dataclass
class Calls:
    """Calls at a rate, over a few connections, in a thread of its own; as many as the machine allows."""

    port: int
    begun_s: dict[str, float] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    ending: bool = False

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)
        self.thread.start()

    def end(self) -> None:
        self.ending = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    async def _all(self) -> None:
        self._numbers, self._from_s = iter(range(1 << 40)), time.monotonic()
        await asyncio.gather(*(self._some() for _ in range(CONNECTIONS)))

    async def _some(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for number in self._numbers:
            ahead_s = number / RATE - (time.monotonic() - self._from_s)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            if self.ending:
                break
            name = f"e{number}"
            self.begun_s[name] = time.monotonic()
            writer.write(f"GET /p?e=start&pl=a&id={name}&p=play-{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            (length,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(int(length.split(b":")[1]))
            self.statuses[name] = int(head.split(b" ", 2)[1])
        writer.close()


@dataclass
class Reader:
    """Reads the log all the time: when each event was first seen there."""

    brokers: str
    topic: str
    seen_s: dict[str, float] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)
    ending: bool = False

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def end(self) -> None:
        self.ending = True
        self.thread.join(20)

    def _read(self) -> None:
        options = {"fetch.wait.max.ms": 50, "reconnect.backoff.max.ms": 500, "group.id": "reader"}
        consumer = Consumer({"bootstrap.servers": self.brokers, "log_level": 0} | options)
        consumer.assign([TopicPartition(self.topic, one, 0) for one in range(PARTITIONS)])
        while not self.ending:
            for message in consumer.consume(5_000, 0.05):
                if message.error() is not None:
                    continue
                said: dict[str, Any] = json.loads(message.value())
                if "event_id" in said and said["event_id"] not in self.seen_s:
                    self.seen_s[said["event_id"]] = time.monotonic()
                    self.partitions[said["event_id"]] = message.partition()
        consumer.close()


def resting(collector: Collector) -> float:
    lines = collector.reads("/metrics").decode().splitlines()
    (line,) = [one for one in lines if one.startswith("audiopixel_collect_resting_events ")]
    return float(line.split()[1])


def test_one_broker_down_of_three_loses_and_delays_nothing(tmp_path: Path) -> None:
    with (
        MockKafka(BROKERS, px=PARTITIONS, rejected=1, methodology=1) as kafka,
        Collector(tmp_path / "spool", kafka.bootstrap, "px") as collector,
    ):
        collector.start()
        reader, calls = Reader(kafka.bootstrap, "px"), Calls(collector.port)
        time.sleep(4)
        assert resting(collector) == 0
        kafka.down(BROKERS)
        down_s = time.monotonic()
        time.sleep(DOWN_S)
        rested = resting(collector)
        kafka.up(BROKERS)
        up_s = time.monotonic()
        until(lambda: resting(collector) == 0, 10)
        off_s = time.monotonic() - up_s
        time.sleep(3)
        assert resting(collector) == 0  # and stays off it
        calls.end()
        answered = {name for name, status in calls.statuses.items() if status == 200}
        until(lambda: answered <= reader.seen_s.keys(), 20)
        reader.end()
        assert collector.end() == 0
    assert len(answered) == len(calls.statuses)
    meanwhile = [name for name in answered if down_s < calls.begun_s[name] < up_s]
    for name in meanwhile:
        assert reader.partitions[name] == partition_of(f"play-{name}".encode(), PARTITIONS)
    others = [name for name in meanwhile if reader.partitions[name] not in DOWN]
    late_s = max(reader.seen_s[name] - calls.begun_s[name] for name in others)
    rate = len(meanwhile) / (up_s - down_s)
    print(f"{rate:.0f} calls/s, others seen in {late_s:.2f} s, {rested:.0f} rested, off in {off_s:.1f} s")
    assert len(others) > 0.6 * len(meanwhile)
    assert rested > 0.2 * len(meanwhile)
    assert late_s < 2
    ledger = collector.ledger()
    assert ledger["stored"] == ledger["acknowledged"] == len(answered)


def test_collectors_become_ready_despite_a_leaderless_partition(
    tmp_path: Path,
) -> None:
    leaders = {partition: 1 + partition % 3 for partition in range(PARTITIONS)} | {0: 4, 1: 1}
    keys = [f"play-{n}" for n in range(60)]
    led = [partition_of(key.encode(), PARTITIONS) > 0 for key in keys]
    assert 0 < led.count(False) < 20

    def statuses(collector: Collector) -> list[int]:
        with calling(collector.port) as call:
            return [call(f"{collector.port}-{key}", p=key) for key in keys]

    with (
        MockKafka(4, leaders, px=PARTITIONS, rejected=1, methodology=1) as kafka,
        Collector(tmp_path / "old", kafka.bootstrap, "px") as old,
        Collector(tmp_path / "new", kafka.bootstrap, "px") as new,
    ):
        assert statuses(old.start()) == [200] * len(keys)
        kafka.down(4)
        assert old.end() == 75  # one partition took no bye
        assert statuses(old.start()) == [200] * len(keys)
        assert resting(old) == led.count(False)
        assert statuses(new.start()) == [200 if one else 503 for one in led]
        kafka.up(4)
        until(lambda: resting(old) == 0, 10)
        until(lambda: statuses(new) == [200] * len(keys), 10)
        assert [old.end(), new.end()] == [0, 0]
    assert old.ledger()["acknowledged"] == old.ledger()["stored"] == len(keys)
