"""Measure a live source beside a bare loop: `python -m benchmarks.sources`.

The loop consumes and produces the same bytes. Both read all of one foreign topic, by turns, each in a process
of its own. The processor time of all its threads counts, behind the first third of the messages, which fill
the source's tables. Messages are wide JSON, of which a dozen of 60 fields are read.

| topic | what a message has beside |
|---|---|
| plain | a listener's id, and consent as a boolean |
| strings | the same with a consent string, an address and a user agent, of each 10,000 distinct ones |
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.bars import ROOT
from benchmarks.measure import Meter
from connectors.embedded import EmbeddedBroker
from connectors.kafka import KafkaWriter

EVENTS: Final = 300_000
ROUNDS: Final = 5
BOUNDS: Final = {"plain": 2.5, "strings": 3.0}
"""Most processor time of a source by that of the bare loop."""
PARTITIONS: Final = 12
WARM: Final = 1 / 3
"""The share of messages that come before the measurement."""
DISTINCT: Final = 10_000
_AT_ONCE: Final = 5_000
_KEY: Final = "a key of a benchmark, 16 bytes or more"
_MAPPING: Final = """
topic = "%s"
time = "ms"
skip = ["kind!=ad"]
[names]
event = "ad.event"
event_id = "id"
placement_id = "ad.placement.id"
campaign_id = "ad.campaign"
creative_id = "ad.creative"
play_id = "ad.play"
playhead = "ad.position"
ts = "at"
platform = "platform"
station = "content.station"
listener_id = "listener.id"
%s
[values.event]
ad_start = "start"
ad_end = "complete"
"""
_MAPPED: Final = {
    "plain": 'consent = "listener.consent"',
    "strings": """
gdpr = "listener.gdpr"
gdpr_consent = "listener.tcf"
ip = "device.ip"
user_agent = "device.agent"
""",
}
_EVENTS: Final = ("impression", "ad_start", "firstQuartile", "midpoint", "thirdQuartile", "ad_end")
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def consent_string(created_ds: int) -> str:
    """A TC string that allows all that measurement needs, as of a tenth of a second since 1970."""
    fields = [
        (2, 6),
        (created_ds, 36),
        (created_ds, 36),
        (10, 12),
        (1, 12),
        (1, 6),
        (4 * 64 + 13, 12),
        (250, 12),
    ]
    fields += [
        (5, 6),
        (1, 1),
        (0, 1),
        (0, 12),
        ((1 << 24) - 1, 24),
        ((1 << 24) - 1, 24),
        (0, 1),
        (4 * 64 + 4, 12),
    ]
    fields += [(1, 16), (0, 1), (1, 1), (1, 16), (0, 1), (1, 1), (0, 12)]
    bits = "".join(format(value, f"0{width}b") for value, width in fields)
    bits += "0" * (-len(bits) % 6)
    return "".join(_LETTERS[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


def message(number: int, rng: Random, strings: list[str], agents: list[str], at_ms: int) -> dict[str, Any]:
    """A message of one of many players that are under way at once."""
    play, event = number // 6_000 * 1_000 + number % 1_000, number // 1_000 % 6
    who = play * 7919 % 50_000
    found: dict[str, Any] = {
        "id": f"{number:032x}",
        "kind": "ad",
        "at": at_ms,
        "platform": ("web", "ios", "android")[play % 3],
        "ad": {
            "event": _EVENTS[event],
            "placement": {"id": f"placement-{play % 500}", "name": f"Breakfast {play % 500}"},
            "campaign": f"campaign-{play % 50}",
            "creative": f"creative-{play % 200}",
            "play": f"play-{play:012d}",
            "position": event * 7_500,
        },
        "content": {"station": f"station-{play % 30}", "title": f"A song of number {number % 3_000}"},
        "listener": {
            "id": f"listener-{who:012d}",
            "consent": True,
            "gdpr": True,
            "tcf": strings[who % DISTINCT],
        },
        "device": {"ip": f"81.2.{who % DISTINCT // 250}.{1 + who % DISTINCT % 250}"},
    }
    found["device"]["agent"] = agents[who % DISTINCT]
    for field in range(42):
        found[f"field_{field}"] = rng.choice(
            (number * 7, f"value {number % 97}", number % 3 == 0, None, 12.5)
        )
    return found


def fill(broker: EmbeddedBroker, topic: str, events: int) -> int:
    """Make the foreign topic; returns the mean size of a message in bytes."""
    broker.create_topic(topic, PARTITIONS)
    rng, now_ms, size = Random(1), int(time.time() * 1000), 0
    strings = [consent_string(17_700_000_000 - number) for number in range(DISTINCT)]
    agents = [
        f"Mozilla/5.0 (iPhone; CPU iPhone OS {number % 17}_{number % 7} like Mac OS X) Player/{number}.0"
        for number in range(DISTINCT)
    ]
    writer = KafkaWriter(broker.bootstrap, topic)
    for number in range(events):
        at_ms = now_ms - 60_000 + number * 50_000 // events
        made = message(number, rng, strings, agents, at_ms)
        if topic == "plain":
            del made["listener"]["tcf"], made["device"]
        body = msgspec.json.encode(made)
        size += len(body)
        key = made["ad"]["play"]
        writer.send(hash_of(key) % PARTITIONS, key.encode(), body, at_ms)
    writer.close()
    return size // events


def hash_of(key: str) -> int:
    """A number of a play's key."""
    return int(key[-6:])


def bare(broker: str, topic: str, events: int) -> float:
    """Consume and produce the same bytes, with acknowledgement and commit of each batch."""
    consumer = Consumer({
        "bootstrap.servers": broker, "group.id": f"bare-{time.time_ns()}", "enable.auto.commit": False,
        "fetch.queue.backoff.ms": 10, "check.crcs": True, "queued.max.messages.kbytes": 16 << 10,
    })  # fmt: skip
    consumer.assign([TopicPartition(topic, one, 0) for one in range(PARTITIONS)])
    producer = Producer({
        "bootstrap.servers": broker, "compression.type": "lz4", "linger.ms": 20, "enable.idempotence": True,
        "queue.buffering.max.kbytes": 32 << 10, "partitioner": "murmur2_random",
    })  # fmt: skip
    failed: list[Any] = []

    def delivered(error: Any, _: Any) -> None:
        if error is not None:
            failed.append(error)

    done, warm, meter = 0, 0, Meter()
    while done < events:
        messages = consumer.consume(_AT_ONCE, 0.1)
        if done >= events * WARM and not warm:
            warm = done
            meter.start()
        for one in messages:
            while True:
                try:
                    producer.produce("copies", one.value(), one.key(), on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.01)
        done += len(messages)
        producer.flush()
        if messages:
            consumer.commit(asynchronous=False)
    meter.stop()
    if failed:
        raise SystemExit(f"bench: {failed[0]}")
    consumer.close()
    return meter.cpu_s / (events - warm)


def source(broker: str, topic: str, events: int) -> float:
    """Run a live source over the topic's messages."""
    from flows.collector.from_settings import understanding_of
    from flows.settings import load
    from flows.sources import Pixels
    from flows.sources.live import Live, spare_memory
    from flows.sources.messages import live_reader_of
    from flows.sources.source import parse_source

    settings = load(
        kafka_brokers=broker, kafka_topic="pixels", kafka_rejected_topic="letters", collect_key=_KEY,
        collect_placements="any",
    )  # fmt: skip
    mapping = parse_source(_MAPPING % (topic, _MAPPED[topic]), topic, f"{topic}-{time.time_ns()}")
    reader = live_reader_of(mapping, settings, start="earliest")
    live = Live(settings, Pixels(mapping, understanding_of(settings), reader.log_id(topic)), reader)
    spare_memory()
    warm, meter = 0, Meter()

    def ended() -> bool:
        nonlocal warm
        if not warm and live.ledger.read >= events * WARM:
            warm = live.ledger.read
            meter.start()
        return live.ledger.read >= events

    if live.run(ended):
        raise SystemExit("bench: the source ended before its time")
    meter.stop()
    if live.ledger.pixels != events:
        raise SystemExit(f"bench: {live.ledger.line()}")
    live.close()
    return meter.cpu_s / (events - warm)


CONTENDERS: Final[dict[str, Callable[[str, str, int], float]]] = {"bare": bare, "source": source}


def _measured(contender: str, broker: str, topic: str, events: int) -> float:
    """µs of processor time a message of a contender, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.sources",
        "--contender",
        contender,
        broker,
        topic,
        str(events),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return float(done.stdout.split()[-1])


def main() -> int:
    """Compare; exit code 1 where a bound is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sources", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS, help=f"of a topic ({EVENTS:,})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"turns of each ({ROUNDS})")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--contender", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        contender, broker, topic, events = arguments.contender
        print(CONTENDERS[contender](broker, topic, int(events)) * 1e6)
        return 0
    code, figures = 0, {}
    with EmbeddedBroker() as server:
        for topic in ("copies", "pixels"):
            server.create_topic(topic, PARTITIONS)
        server.create_topic("letters", 1)
        for topic, bound in BOUNDS.items():
            size = fill(server, topic, arguments.events)
            turns = [
                {name: _measured(name, server.bootstrap, topic, arguments.events) for name in CONTENDERS}
                for _ in range(arguments.rounds)
            ]
            share = statistics.median(one["source"] / one["bare"] for one in turns)
            us = {name: statistics.median(one[name] for one in turns) for name in CONTENDERS}
            figures[topic] = us | {"share": share, "bytes": size}
            passed = "" if share <= bound else "  MISSED"
            code |= share > bound
            print(
                f"{topic}: {size:,} B a message; bare loop {us['bare']:.1f} µs, source {us['source']:.1f} µs "
                f"of processor a message: {share:.2f} times, at most {bound}{passed}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures))
    return code


if __name__ == "__main__":
    sys.exit(main())
