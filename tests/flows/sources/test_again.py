"""Dead letters of a source are read again at their offsets by a corrected mapping."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from command_support import ROOT, run_command
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from faults_support import World, eventually, in_memory
from kafka_server import ApacheKafka, KafkaUnavailable
from sources_support import MAPPING, Running, Theirs, messages

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from flows.rejected import Letter
from flows.resend import UNCHANGED, Resender, place_of
from flows.settings.loading import load

KEY = "a key of a test, 16 bytes or more"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with EmbeddedBroker() as broker, EmbeddedValkey() as redis:
        world = in_memory(broker, redis, tmp_path)
        yield world
        world.close()


def resend(theirs: Theirs) -> CompletedProcess[str]:
    """`audiopixel rejected --resend` of all letters."""
    told = theirs.world.settings | {"SOURCES": str(theirs.world.directory), "COLLECT_KEY": KEY}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
    environment |= {f"AUDIOPIXEL_{name}": value for name, value in told.items()} | {"COLUMNS": "200"}
    return run_command(
        "rejected", "--resend", directory=ROOT, environment=environment, into=theirs.world.directory
    )


def keep(theirs: Theirs, mapping: str = MAPPING) -> None:
    """Write the source's file."""
    file = theirs.world.directory / f"{theirs.source.name}.toml"
    file.write_text(mapping.format(topic=theirs.topic))


def reject(theirs: Theirs, count: int) -> None:
    """Send pixels, and as many messages of an event that the mapping does not know."""
    running = Running(theirs.live())
    theirs.send(count)
    theirs.send(count, event="gestartet")
    eventually(lambda: running.live.ledger.read == 2 * count)
    assert running.stop() == 0
    assert running.live.ledger.rejected == {"unknown_event": count}


def test_each_rejected_message_of_a_source_and_of_the_flow_counts_once(world: World) -> None:
    theirs, flow = Theirs(world), world.start()
    reject(theirs, 30)
    world.send(5, ip=7)
    eventually(lambda: world.row().get("flight.impressions") == "30", 60, flow.said)
    eventually(lambda: len(messages(world, world.settings["KAFKA_REJECTED_TOPIC"])) == 35, 60, flow.said)
    keep(theirs)
    same = resend(theirs)
    assert same.returncode == 1, same.stderr
    assert "letters 35 = taken 5 + rejected again 30 + not sent 0" in same.stdout
    assert "30 unknown_event: event" in same.stdout
    keep(theirs, MAPPING + '[values.event]\ngestartet = "impression"\n')
    for _ in range(2):
        mended = resend(theirs)
        assert mended.returncode == 0, mended.stderr
        assert "letters 35 = taken 35 + rejected again 0 + not sent 0" in mended.stdout
    eventually(lambda: world.ledger("repeated") == 40, 60, flow.said)
    assert world.row()["flight.impressions"] == "65"
    pixels = [one for one in messages(world) if "event_id" in one]
    assert len({one["event_id"] for one in pixels}) == 65
    again = [one for one in pixels if "collector" not in one and "ip" not in one]
    assert len(again) == 75, "they are of no lane, to which the source has made promises"
    assert all(one["received_at"] <= time.time() * 1000 for one in again)


@pytest.mark.apache
def test_a_message_deleted_from_its_topic_is_named_with_exit_code_1(tmp_path: Path) -> None:
    with EmbeddedValkey() as redis:
        try:
            kafka = ApacheKafka(tmp_path / "kafka")
            kafka.start()
        except KafkaUnavailable as error:
            pytest.skip(str(error))
        world = World(kafka.brokers, redis, tmp_path)
        try:
            theirs = Theirs(world, partitions=1)
            reject(theirs, 10)
            keep(theirs, MAPPING + '[values.event]\ngestartet = "impression"\n')
            admin = AdminClient({"bootstrap.servers": world.brokers})
            for gone in admin.delete_records([TopicPartition(theirs.topic, 0, 13)]).values():
                gone.result(30)
            partly = resend(theirs)
            assert partly.returncode == 1, partly.stderr
            assert "letters 10 = taken 7 + rejected again 0 + not sent 3" in partly.stdout
            assert f"3 of {theirs.topic}, which has deleted their messages" in partly.stdout
            for gone in admin.delete_topics([theirs.topic]).values():
                gone.result(30)
            wholly = resend(theirs)
            assert wholly.returncode == 1, wholly.stderr
            assert "taken 0 + rejected again 0 + not sent 10" in wholly.stdout
            assert f"10 of {theirs.topic}, which has deleted" in wholly.stdout
        finally:
            world.close()
            kafka.stop()


def letter(position: str) -> Letter:
    return Letter(position, "malformed", "", "source/theirs", {}, "")


@pytest.mark.parametrize(
    "position",
    [
        "audio-pixels/0/7",
        "collector/c1/source/theirs/events/0/7",
        "source/theirs/events/0/7/8",
        "source/../events/0/7",
        "source/theirs/ev/ents/0/7",
        "source/theirs/events/0/-7",
        "source/theirs/events/0/7\n",
    ],
)
def test_a_letter_of_another_position_is_none_of_a_sources(position: str) -> None:
    assert place_of(letter(position)) is None


def test_letters_of_absent_or_changed_sources_are_counted(tmp_path: Path) -> None:
    (tmp_path / "theirs.toml").write_text(MAPPING.format(topic="events"))
    resender = Resender(load(sources=tmp_path, collect_key=KEY), 0, 600_000, 0)
    resender.send([letter("source/nobodys/events/0/7"), letter("source/theirs/before/0/7")])
    assert resender.result.not_sent == {
        "of the source nobodys, which AUDIOPIXEL_SOURCES does not have": 1,
        "of before, which the source theirs does not read any more": 1,
    }


def test_no_field_of_a_sources_letter_is_set() -> None:
    resender = Resender(load(), 0, 600_000, 0, {"placement_id": "p"})
    resender.send([letter("source/theirs/events/0/7")])
    assert resender.result.not_sent == {UNCHANGED: 1}


def test_final_minutes_get_no_resent_pixels(world: World) -> None:
    theirs = Theirs(world)
    reject(theirs, 5)
    keep(theirs, MAPPING + '[values.event]\ngestartet = "impression"\n')
    settings: Any = theirs.settings.model_copy(update={"sources": world.directory})
    settings = settings.model_copy(update={"collect_key": load(collect_key=KEY).collect_key})
    found = messages(world, world.settings["KAFKA_REJECTED_TOPIC"])
    now_ms = int(time.time() * 1000)
    resender = Resender(settings, now_ms + 660_000, 600_000, now_ms)
    resender.send([letter(one["position"]) for one in found])
    resent = resender.result
    assert (resent.accepted, json.dumps(resent.not_sent)) == (0, '{"too late: its minute is final": 5}')
