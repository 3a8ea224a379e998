"""From a call at the collector's door to a row in Redis: processes, a broker and a flow of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from door_support import Caller, Collector, calling, events, messages
from faults_support import ROOT, World, eventually
from kafka_server import ApacheKafka


def test_redis_counts_the_stored_pixels_without_marks(world: World, tmp_path: Path) -> None:
    flow = world.start()
    with Collector(tmp_path / "spool", world.brokers, world.topic) as collector:
        collector.start()
        with calling(collector.port, "VLC/3.0") as call:
            for number in range(40):
                for event in ("impression", "start", "complete"):
                    assert call(f"{event}-{number}", e=event, p=f"play-{number}") == 200
            assert call("start-0", e="start", p="play-0") == 200
            assert call("delivered-0", e="delivered") == 200
        with calling(collector.port) as call:
            assert call("download-0", e="download") == 200
        world.shown(flow, 123)
        assert collector.end() == 0
    marks = sum("event" not in one for part in messages(world.brokers, world.topic) for one in part)
    assert marks >= world.partitions
    eventually(lambda: world.ledger("marks") == marks, otherwise=flow.said)
    rejected = ("malformed", "invalid", "unknown_event", "too_late")
    assert [world.ledger(f"rejected.{reason}") for reason in rejected] == [0, 0, 0, 0]
    assert [world.ledger(name) for name in ("received", "accepted", "repeated")] == [123, 122, 1]
    assert flow.metric("marks_total") == marks
    assert flow.metric("invalid_traffic_total", reason="no_user_agent") == 1
    row = world.row("breakfast-uk")
    assert [row[f"flight.{name}"] for name in ("impressions", "starts", "completes")] == ["40", "40", "40"]


def test_an_hour_of_spooled_pixels_counts_after_fresh_ones_and_a_kill(
    world: World,
) -> None:
    now_ms, hour_ms = int(time.time() * 1000), 3_600_000

    def message(collector: str, low_ms: int, number: int | None = None) -> bytes:
        told: dict[str, Any] = {"collector": collector, "low_ms": low_ms}
        if number is not None:
            told |= {"event_id": f"e{number}", "event": "start", "placement_id": "p", "ts": low_ms}
        return json.dumps(told).encode()

    flow = world.start()
    for collector, low_ms in (("late", now_ms - hour_ms), ("fresh", now_ms)):
        world.send_raw([(of, message(collector, low_ms), now_ms) for of in range(world.partitions)])
    fresh = [(n % 2, message("fresh", now_ms + n, n), now_ms + n) for n in range(100)]
    world.send_raw(fresh)
    world.shown(flow, 100)
    assert flow.metric("partition_low_mark_timestamp_seconds") == (now_ms - hour_ms) / 1000 * world.partitions
    flow.kill()
    flow = world.start()
    spooled = [
        (n % 2, message("late", now_ms - hour_ms + 30_000 * (n - 100), n), now_ms + n)
        for n in range(100, 200)
    ]
    world.send_raw(spooled)
    world.shown(flow, 200)
    assert [world.ledger(name) for name in ("accepted", "rejected.too_late", "marks")] == [200, 0, 4]
    assert world.row()["flight.unlinked_starts"] == "200"


AGENT, PLACEMENTS = "VLC/3.0", ("spooled", "behind", "fresh")
HOUR_MS = 3_600_000


def counts(world: World) -> dict[str, dict[str, str]]:
    """The counts of whole flights and days."""
    return {
        name: {
            field: value for field, value in world.row(name).items() if field.startswith(("flight.", "1d."))
        }
        for name in PLACEMENTS
    }


def off(world: World, directory: Path, name: str, behind_ms: int = 0) -> Collector:
    """A collector whose wall clock is behind."""
    (directory / name).mkdir()
    made = Collector(directory / name / "spool", world.brokers, world.topic)
    made.forked = False
    (directory / name / "clock").write_text(f"{-behind_ms / 1000} 0")
    made.environment |= {
        "CHAOS_CLOCK": str(directory / name / "clock"),
        "PYTHONPATH": f"{ROOT / 'benchmarks' / 'stepping'}:{ROOT}",
    }
    return made


@pytest.mark.apache
def test_kills_of_three_collectors_and_flows_count_each_pixel_once(
    kafka: ApacheKafka, kafka_world: World, tmp_path: Path
) -> None:
    world, began_ms = kafka_world, int(time.time() * 1000)
    flow = world.start()
    clocks = {"spooled": 2 * HOUR_MS, "behind": HOUR_MS, "fresh": 0}
    spooled, behind, fresh = (off(world, tmp_path, name, by_ms) for name, by_ms in clocks.items())
    with spooled, behind, fresh:
        spooled.start()
        behind.start()
        kafka.pause()
        with calling(spooled.port, AGENT) as call:  # two hours ago
            ts = {"e": "impression", "pl": "spooled", "ts": began_ms - 2 * HOUR_MS}
            assert [call(f"spooled-{n}", p=f"spooled-{n}", **ts) for n in range(40)] == [200] * 40
        spooled.kill()
        kafka.resume()
        (segment,) = (spooled.spool / "0").glob("*.ndjson")
        with segment.open("ab") as file:
            file.write(b'{"received_at":1795600000000,"torn')
        fresh.start()
        callers = [
            Caller(one.port, f"{name}-{n}", AGENT, e="impression", pl=name, ts=began_ms)
            for name, one in (("fresh", fresh), ("behind", behind))
            for n in range(2)
        ]
        for one in callers:
            one.start()
        time.sleep(1)
        flow.kill()
        fresh.kill()
        kafka.kill()
        fresh.start()  # on its spool alone
        (tmp_path / "spooled" / "clock").write_text("0 0")
        spooled.start()
        time.sleep(1)
        kafka.start()
        answered = {f"spooled-{n}" for n in range(40)}.union(*(one.stop() for one in callers))
        flow = world.start()
        eventually(lambda: answered <= events(messages(world.brokers, world.topic)), 60)
        assert (spooled.end(), fresh.end()) == (0, 0)
        assert (spooled.ledger()["torn"], spooled.ledger()["acknowledged"]) == (1, 40)
        behind.kill()  # and never comes back
        found = [one for part in messages(world.brokers, world.topic) for one in part if "event_id" in one]
        sent = {
            name: {one["event_id"] for one in found if one["placement_id"] == name} for name in PLACEMENTS
        }
        assert answered <= set().union(*sent.values())
        world.shown(flow, len(found), 60)
        rejected = [world.ledger(f"rejected.{reason}") for reason in ("malformed", "invalid", "too_late")]
        assert rejected == [0, 0, 0]
        assert world.ledger("accepted") == sum(map(len, sent.values()))
        assert world.ledger("clock_skewed") == sum(one["placement_id"] == "behind" for one in found) > 20
        assert world.meta("watermark_ms") < began_ms - HOUR_MS // 2
        released = [sys.executable, "-m", "flows.cli", "release", behind.id()]
        where = {"AUDIOPIXEL_REDIS_URL": world.redis.url, "AUDIOPIXEL_NAMESPACE": f"{world.topic}:v1"}
        environment = os.environ | fresh.environment | where
        subprocess.run(released, env=environment, check=True, capture_output=True, timeout=60)
        eventually(lambda: world.meta("watermark_ms") > began_ms - 60_000, otherwise=flow.said)
        told = counts(world)
        assert {name: int(told[name]["flight.impressions"]) for name in told} == {
            name: len(ids) for name, ids in sent.items()
        }
        assert flow.stop() < 10
    with world.client() as client:
        client.flushall()
    flow = world.start(RECOVERY_DIR=str(tmp_path / "again"))
    world.shown(flow, len(found), 60)
    eventually(lambda: counts(world) == told, otherwise=lambda: f"{counts(world)}\n{told}")
