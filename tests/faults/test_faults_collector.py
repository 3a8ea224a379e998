"""From a call at the collector's door to a row in Redis: processes, a broker and a flow of their own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from door_support import Collector, calling, messages
from faults_support import World, eventually


def test_what_the_door_has_stored_is_what_redis_counts_and_its_marks_are_no_pixels(
    world: World, tmp_path: Path
) -> None:
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


def test_what_a_collector_spooled_for_an_hour_counts_behind_fresh_pixels_of_another_and_across_a_kill(
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
