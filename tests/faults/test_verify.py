"""`audiopixel verify` on a live flow finds no difference after a kill, and names a wrong minute."""

from __future__ import annotations

import json
import os
import re
import time
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from command_support import run_command
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from faults_support import World, eventually

from connectors.kafka import KafkaWriter
from connectors.kafka.read_once import Span
from connectors.kafka.writer import ensure_topic
from flows.archive import store_of, write_from_messages
from flows.settings import Settings, load
from flows.verify import Past, final_before, line_of, refuse, write_messages

MINUTE_MS = 60_000


def verified(world: World, tmp_path: Path, *arguments: str, **settings: str) -> CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
    environment |= {f"AUDIOPIXEL_{name}": value for name, value in (world.settings | settings).items()}
    return run_command("verify", *arguments, directory=tmp_path, environment=environment, into=tmp_path)


def final(world: World) -> list[dict[str, object]]:
    """The final minutes of the topic."""
    span = Span(world.brokers, world.settings["KAFKA_MINUTES_TOPIC"], {}, 0)
    try:
        found = [json.loads(one.value) for one in span.records()]
    finally:
        span.close()
    return [one for one in found if one["state"] == "final"]


@pytest.mark.apache
def test_a_live_flow_publishes_the_counts_of_its_topic(kafka_world: World, tmp_path: Path) -> None:
    world = kafka_world
    world.settings |= {
        "HORIZON": "PT2M",
        "ALLOWED_LATENESS": "PT20S",
        "QUIET": "PT2S",
        "OUT_OF_ORDERNESS": "PT1S",
    }
    flow = world.start(REJECT_SHARE="1")
    began_ms = (int(time.time() * 1000) // MINUTE_MS - 12) * MINUTE_MS
    for minute in range(10):
        at_ms = began_ms + minute * MINUTE_MS
        world.send(40, ts_ms=at_ms + 5_000)
        world.send(20, ts_ms=at_ms + 20_000, event="start", received_at=None)
        world.send_raw([(minute % 2, b"rubbish\nof two lines", at_ms + 21_000)])
        sent, world.sent = world.sent, world.sent - 30
        world.send(10, ts_ms=at_ms + 25_000)  # some again
        world.sent = sent + 10
        if minute == 4:
            world.shown(flow)
            flow.kill()
            flow = world.start(REJECT_SHARE="1")
    world.shown(flow)
    eventually(lambda: len({one["minute_ms"] for one in final(world)}) >= 8, 60, flow.said)
    done = verified(world, tmp_path, "--since", "30m")
    assert done.returncode == 0, done.stdout + done.stderr
    with world.client() as client:
        watermark_ms = int(client.hget(f"{world.topic}:v1:meta", "watermark_ms") or 0)
    short = verified(world, tmp_path, "--since", f"{int(time.time()) - watermark_ms // 1000 + 61}s")
    assert short.returncode == 0, "a minute became final since then: " + short.stdout + short.stderr
    assert " within 1 minutes: 0 d" in short.stdout or " within 2 minutes: 0 d" in short.stdout
    found = re.match(
        r"read ([\d,]+) messages; (\d+) final minutes of 1 placements within (\d+) minutes: 0 d", done.stdout
    )
    assert found is not None, done.stdout
    assert int(found[2]) >= 7
    assert list(tmp_path.glob("audiopixel-verify-*")) == []

    unwritten = f"{world.topic}-unwritten"
    ensure_topic(world.brokers, unwritten, 1)
    silent = verified(world, tmp_path, "--since", "30m", KAFKA_MINUTES_TOPIC=unwritten)
    assert silent.returncode == 1, "minutes that nobody wrote are no good answer"
    assert re.search(r": [1-9]\d* differences", silent.stdout)

    wrong = next(one for one in final(world) if one["minute_ms"] == began_ms + 4 * MINUTE_MS)
    writer = KafkaWriter(world.brokers, world.settings["KAFKA_MINUTES_TOPIC"])
    key = f"{wrong['placement_id']}|{wrong['minute_ms']}".encode()
    writer.write([(key, json.dumps(wrong | {"impressions": 7}).encode())])
    writer.close()
    done = verified(world, tmp_path, "--since", "30m")
    assert done.returncode == 1
    assert f"p|{wrong['minute_ms']}" in done.stdout
    assert ": 1 differences" in done.stdout

    flow.kill()
    with world.client() as client:
        client.hincrby(f"{world.topic}:v1:meta", "watermark_ms", -20 * MINUTE_MS)
    behind = verified(world, tmp_path, "--since", "30m")
    assert behind.returncode == 1
    assert "minutes behind: what came since is not compared" in behind.stdout

    early = verified(world, tmp_path, "--since", "1s")
    assert early.returncode == 2, "it is no difference"
    assert "no minute has become final since then" in early.stderr
    assert "are more than --most 5" in verified(world, tmp_path, "--since", "30m", "--most", "5").stderr
    assert "takes a number with s, m, h or d" in verified(world, tmp_path, "--since", "soon").stderr


@pytest.mark.parametrize("minutes", [2, 10, 12, 13, 60])
def test_a_span_contains_the_minutes_that_became_final_in_it(minutes: int) -> None:
    lateness_ms = Settings.model_fields["allowed_lateness"].default // timedelta(milliseconds=1)
    now_ms = 30_000_000 * MINUTE_MS + 30_000
    begin, end = final_before(now_ms - minutes * MINUTE_MS, lateness_ms), final_before(now_ms, lateness_ms)
    assert (end - begin) // MINUTE_MS == minutes
    assert end + MINUTE_MS + lateness_ms <= now_ms, "the last of them is final"


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (b'{"event":"start"}', b'{"event":"start","received_at":7}'),
        (b"{ }", b'{ "received_at":7}'),
        (b'{"event":"start","received_at":3}', b'{"event":"start","received_at":3}'),
        (b'{"collector":"c","low_ms":5}', b'{"collector":"c","low_ms":5}'),
        (b"rubbish\nof two", b"rubbish of two"),
        (b"[1]", b"[1]"),
    ],
)
def test_a_message_is_a_line_with_its_receipt(value: bytes, line: bytes) -> None:
    assert line_of(value, 7) == line


@pytest.mark.apache
def test_messages_deleted_from_kafka_are_read_in_the_flows_archive(
    kafka_world: World, tmp_path: Path
) -> None:
    world, now_ms = kafka_world, int(time.time() * 1000)
    values = [b'{"n":%d,"received_at":1}' % number for number in range(5)]
    world.send_raw([(0, value, now_ms) for value in values])
    archive = tmp_path / "archive"
    write_from_messages(store_of(str(archive)), world.topic, ((0, now_ms, value) for value in values))
    admin = AdminClient({"bootstrap.servers": world.brokers})
    for deleted in admin.delete_records([TopicPartition(world.topic, 0, 3)]).values():
        assert deleted.result(30).low_watermark == 3
    settings = load(kafka_topic=world.topic, kafka_brokers=world.brokers, kafka_start=f"archive:{archive}")
    span = Span(world.brokers, world.topic, {}, now_ms - MINUTE_MS)
    try:
        assert span.cut == {0}
        refuse(span, Past.of_settings(settings, now_ms - MINUTE_MS), settings, 5)
        past = Past.of_settings(settings, now_ms - MINUTE_MS)
        (path, *_), messages = write_messages(span, past, tmp_path)
    finally:
        span.close()
    assert path.read_bytes().splitlines() == values
    assert (messages, past.messages) == (5, 3)
