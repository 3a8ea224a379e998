"""A live source next to a flow: killed, repeated, idle, with junk, on a broker that goes away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from collector_support import CONSENT
from confluent_kafka import Producer
from faults_support import World, eventually, in_memory
from prometheus_client.exposition import generate_latest
from sources_support import MAPPING, Running, Theirs, messages

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.kafka import GroupReader, KafkaTrouble, KafkaWriter
from connectors.redis import connect
from flows.doctor import Doctor, Level
from flows.settings.loading import load
from flows.sources.live import Live
from flows.sources.messages import live_reader_of
from flows.sources.source import parse_source
from flows.sources.source_rows import SourceRows
from flows.viewers.collectors import Collectors


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as server:
        yield server


@pytest.fixture
def world(broker: EmbeddedBroker, tmp_path: Path) -> Iterator[World]:
    with EmbeddedValkey() as redis:
        world = in_memory(broker, redis, tmp_path)
        yield world
        world.close()


class Killed(Exception):
    """Ends a source as a kill does."""


def test_a_flow_counts_each_message_once(world: World) -> None:
    theirs = Theirs(world)
    flow = world.start()
    running = Running(theirs.live())
    theirs.send(300)
    theirs.send(30, kind="music")
    theirs.send_raw(b"rubbish", int(time.time() * 1000))
    theirs.send(3, event="bogus")
    eventually(lambda: world.row().get("flight.impressions") == "300", 60, flow.said)
    eventually(lambda: running.live.ledger.read == 334)
    assert running.stop() == 0
    ledger = running.live.ledger
    assert ledger.line() == (
        "read 334 = pixels 300 + not ours 30 + rejected 4 (unknown_event 3, malformed 1)"
    )
    shown = generate_latest(running.live._instruments.registry).decode()
    name = world.topic
    for outcome, count in (("pixels", 300), ("not_ours", 30), ("rejected", 4)):
        assert f'audiopixel_source_messages_total{{outcome="{outcome}",source="{name}"}} {count}.0' in shown
    assert f'audiopixel_source_rejected_total{{reason="malformed",source="{name}"}} 1.0' in shown
    assert f'audiopixel_source_low_mark_timestamp_seconds{{source="{name}"}} 1.' in shown
    letters = messages(world, world.settings["KAFKA_REJECTED_TOPIC"])
    assert sorted(one["reason"] for one in letters) == ["malformed"] + ["unknown_event"] * 3
    for letter in letters:
        assert letter["position"].startswith(f"source/{world.topic}/{theirs.topic}/")
        assert letter["sender"] == f"source/{world.topic}"
    assert world.ledger("rejected.too_late") == 0


def test_messages_repeated_after_a_kill_count_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Theirs(world)
    flow = world.start()
    reader_commit = GroupReader.commit
    Running(theirs.live()).stop()  # its places are committed
    for _ in range(4):
        live = theirs.live()
        killed = threading.Event()

        def commit(reader: GroupReader, places: Any, killed: threading.Event = killed) -> None:
            killed.set()
            raise Killed  # after the pixels, before the position

        monkeypatch.setattr(GroupReader, "commit", commit)

        def run(live: Live = live) -> None:
            with suppress(Killed):
                live.run(lambda: False)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        theirs.send(50)
        assert killed.wait(30)
        thread.join(10)
        live.close()
        monkeypatch.setattr(GroupReader, "commit", reader_commit)
    running = Running(theirs.live())
    eventually(lambda: world.row().get("flight.impressions") == str(theirs.sent), 60, flow.said)
    assert running.stop() == 0
    pixels = [one for one in messages(world) if "event_id" in one]
    assert len(pixels) > theirs.sent == len({one["event_id"] for one in pixels}), "some came again"
    assert world.ledger("accepted") == theirs.sent
    assert world.ledger("rejected.too_late") == 0


def test_marks_enclose_the_pixels_of_every_partition(
    world: World,
) -> None:
    theirs = Theirs(world)
    running = Running(theirs.live())
    eventually(lambda: len(messages(world)) >= 2)
    theirs.send(40)
    eventually(lambda: running.live.ledger.pixels == 40)
    assert running.stop() == 0
    for partition in (0, 1):
        own = [one for one in messages(world) if one["partition"] == partition]
        assert "event_id" not in own[0]
        assert own[-1]["bye"] is True
        lanes = [[one for one in own if one["collector"].endswith(f"-{lane}")] for lane in range(3)]
        for lane in lanes:
            assert "event_id" not in lane[0]
            assert lane[-1]["bye"] is True
            lows = [one["low_ms"] for one in lane]
            assert lows == sorted(lows)
        for before, one in (pair for lane in lanes for pair in pairwise(lane)):
            if "event_id" in one:
                assert one["received_at"] >= before["low_ms"], "nothing is older than was said"


def test_the_low_mark_waits_for_read_messages_but_not_idle_partitions(world: World) -> None:
    theirs = Theirs(world)
    running = Running(theirs.live())
    theirs.send(30, partition=0)  # two partitions have never had a message
    eventually(lambda: running.live.ledger.pixels == 30)
    began_ms = int(time.time() * 1000)
    eventually(lambda: max(one["low_ms"] for one in messages(world)) > began_ms, 20)
    running.stop()
    old_ms = int(time.time() * 1000) - 120_000
    theirs.send_raw(
        json.dumps(
            {"kind": "ad", "event": "impression", "placement": "p", "play": "old", "at": old_ms}
        ).encode(),
        old_ms,
    )
    running = Running(theirs.live())
    eventually(lambda: running.live.ledger.pixels == 1)
    running.stop()
    (old,) = (one for one in messages(world) if one.get("play_id") == "old")
    assert old["received_at"] == old_ms
    marks = [one["low_ms"] for one in messages(world) if one["low_ms"] <= old_ms]
    assert len(marks) >= 2, "the first marks of its second run"


def test_the_low_mark_waits_for_unread_partitions_after_a_long_stop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = Theirs(world)
    Running(theirs.live()).stop()  # its places are committed
    now_ms = int(time.time() * 1000)
    writer = KafkaWriter(world.brokers, theirs.topic)
    for partition in range(theirs.partitions):
        for number, at_ms in enumerate((now_ms - 1_800_000, now_ms)):
            message = {"kind": "ad", "event": "impression", "placement": "p", "play": f"{partition}/{number}"}
            writer.send(partition, b"", json.dumps(message | {"at": at_ms}).encode(), at_ms)
    writer.close()
    monkeypatch.setattr("flows.sources.live.AT_ONCE", 1)
    monkeypatch.setattr("flows.sources.live.MARK_EVERY_S", 0.0)
    running = Running(theirs.live())
    eventually(lambda: running.live.ledger.pixels == 6)
    assert running.stop() == 0
    for partition in (0, 1):
        low_ms = 0
        for one in messages(world):
            if one["partition"] == partition:
                if "event_id" in one:
                    assert one["received_at"] >= low_ms, "nothing is older than was said"
                low_ms = one["low_ms"]


def test_a_source_without_its_topic_says_so(world: World) -> None:
    theirs = Theirs(world)
    source = theirs.source.model_copy(update={"topic": "nobodys"})
    with pytest.raises(Exception, match="nobodys"):
        live_reader_of(source, theirs.settings)


def test_keyed_like_a_collectors(world: World) -> None:
    """Pixels of a play lie in one partition, where a collector's would."""
    theirs = Theirs(world)
    running = Running(theirs.live())
    for event in ("impression", "start", "complete"):
        sent, theirs.sent = theirs.sent, 0
        theirs.send(20, event=event)
        theirs.sent = sent + 20
    eventually(lambda: running.live.ledger.pixels == 60)
    running.stop()
    places: dict[str, set[int]] = {}
    for one in messages(world):
        if "event_id" in one:
            places.setdefault(one["play_id"], set()).add(one["partition"])
    assert len(places) == 20
    assert all(len(partitions) == 1 for partitions in places.values())
    assert {partition for one in places.values() for partition in one} == {0, 1}


def test_an_unresponsive_cluster_moves_no_low_mark(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages may be waiting there that are older than now."""
    theirs = Theirs(world)
    running = Running(theirs.live())
    eventually(lambda: len(messages(world)) >= 4)
    look = GroupReader.caught_up

    def away(reader: GroupReader) -> frozenset[Any]:
        raise KafkaTrouble("away", "away", theirs.topic)

    monkeypatch.setattr(GroupReader, "caught_up", away)
    time.sleep(1.2)
    marks = [one["low_ms"] for one in messages(world)]
    before = max(marks)
    eventually(lambda: len(messages(world)) >= len(marks) + 4)
    assert max(one["low_ms"] for one in messages(world)) == before
    monkeypatch.setattr(GroupReader, "caught_up", look)
    eventually(lambda: max(one["low_ms"] for one in messages(world)) > before)
    assert running.stop() == 0


def test_a_tombstone_is_not_ours_and_an_empty_message_is_malformed(world: World) -> None:
    theirs = Theirs(world)
    running = Running(theirs.live())
    producer = Producer({"bootstrap.servers": world.brokers})
    for value in (None, b""):
        producer.produce(theirs.topic, value, b"key", 0)
    producer.flush(10)
    eventually(lambda: running.live.ledger.read == 2)
    assert running.stop() == 0
    assert running.live.ledger.line() == "read 2 = pixels 0 + not ours 1 + rejected 1 (malformed 1)"


def test_an_outage_of_the_sources_own_cluster_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, tried = Theirs(world), list[Any]()
    running = Running(theirs.live())
    commit = GroupReader.commit

    def away(reader: GroupReader, places: Any) -> None:
        tried.append(places)
        raise KafkaTrouble("away", "away", theirs.topic)

    monkeypatch.setattr(GroupReader, "commit", away)
    theirs.send(30)
    eventually(lambda: running.live.ledger.pixels == 30 and len(tried) > 3)
    monkeypatch.setattr(GroupReader, "commit", commit)
    eventually(lambda: running.live._committed)
    assert running.stop() == 0
    theirs.send(20)
    running = Running(theirs.live())
    eventually(lambda: running.live.ledger.read == 20)
    assert running.stop() == 0
    assert running.live.ledger.read == 20, "the places of the first thirty were committed"


def test_figures_reach_the_page_and_the_doctor(world: World) -> None:
    theirs = Theirs(world)
    settings = load(**{name.lower(): value for name, value in world.settings.items()})
    running = Running(theirs.live())
    figures = SourceRows(settings, [running.live])
    theirs.send(30)
    theirs.send_raw(b"rubbish", int(time.time() * 1000))
    with closing(connect(world.redis.url)) as client:
        shown = Collectors(client, settings.namespace)

        def row() -> dict[str, Any]:
            return next(iter(shown.read()["sources"]), {})

        eventually(lambda: row().get("read") == 31 and row()["low_ms"], 30)
        found = row()
        assert {name: found[name] for name in ("source", "pixels", "not_ours", "rejected", "away")} == {
            "source": world.topic,
            "pixels": 30,
            "not_ours": 0,
            "rejected": 1,
            "away": False,
        }
        assert found["rejected_by"] == {"malformed": 1}
        doctor = Doctor(settings)
        (line,) = doctor._sources(client)
        assert line.level is Level.OK
        assert line.words == "read 31, pixels 30, not ours 0, rejected 1, behind 0"
        doctor = Doctor(settings, now_ms=lambda: int(time.time() * 1000) + 60_000)
        (line,) = doctor._sources(client)
        assert line.level is Level.LOOK
        figures.close()
        assert running.stop() == 0
        assert not shown._sources(int(time.time() * 1000)), "who ends in order leaves no line"


CANARIES = {
    "who": "canary-listener-5150",
    "ifa": "CA9A4141-03EE-455A-B3C4-E57283966239",
    "ip": "81.2.69.142",
    "agent": "CanaryPlayer/7.3 (kitchen)",
    "tcf": CONSENT,
    "secret": "canary-cookie",
}


def test_no_canary_is_in_any_output(world: World) -> None:
    """Addresses, agents, consent strings and raw ids go in, decided once and again, and never come out."""
    theirs = Theirs(world)
    names = 'listener_id = "who"\nifa = "ifa"\nip = "ip"\nuser_agent = "agent"\ngdpr_consent = "tcf"\n'
    theirs.source = parse_source(f"{MAPPING.format(topic=theirs.topic)}{names}", "theirs.toml", world.topic)
    settings = load(**{name.lower(): value for name, value in world.settings.items()})
    running = Running(theirs.live())
    figures = SourceRows(settings, [running.live])
    for _ in range(3):
        theirs.send(10, **CANARIES)
    theirs.send(3, event="bogus", **CANARIES)
    theirs.send(3, kind="music", **CANARIES)
    theirs.send_raw(json.dumps(CANARIES).encode()[:-1], int(time.time() * 1000))
    eventually(lambda: running.live.ledger.read == 37)
    with closing(connect(world.redis.url)) as client:
        eventually(lambda: any("collectors" not in str(key) for key in client.scan_iter("*:source:*")))
        stored = [str(client.hgetall(key)) for key in client.scan_iter("*:source*")]
    shown = generate_latest(running.live._instruments.registry).decode()
    figures.close()
    assert running.stop() == 0
    pixels = messages(world)
    given = [one for one in pixels if "event_id" in one]
    assert len(given) == 30
    assert all(one["consent"] and "." in one["listener_id"] and "household_id" in one for one in given)
    said = json.dumps([pixels, messages(world, world.settings["KAFKA_REJECTED_TOPIC"]), stored, shown])
    assert [one for one in CANARIES.values() if one in said or one[:10] in said] == []
