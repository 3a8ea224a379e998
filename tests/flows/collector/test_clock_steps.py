"""Collectors whose wall clock is wrong, and is set right while they run."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from door_support import Collector, byes, calling, events, messages, new_topic, until

from connectors.embedded import EmbeddedBroker

ROOT = Path(__file__).resolve().parents[3]
HOUR_S = 3_600


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as broker:
        yield broker


class Off(Collector):
    """A collector whose wall clock is off by so many seconds."""

    def __init__(self, directory: Path, broker: EmbeddedBroker, off_s: int, **settings: Any) -> None:
        self.topic = new_topic(broker)
        super().__init__(directory / "spool", broker.bootstrap, self.topic, **settings)
        self.forked, self._clock = False, directory / "wall"
        self.set_clock(off_s)
        stepping = f"{ROOT / 'benchmarks' / 'stepping'}{os.pathsep}{ROOT}"
        self.environment |= {"CHAOS_CLOCK": str(self._clock), "PYTHONPATH": stepping}

    def set_clock(self, off_s: int) -> None:
        self._clock.write_text(f"{off_s} 0")

    def offset_s(self) -> float:
        named = 'audiopixel_collect_clock_offset_seconds{witness="wall"} '
        (line,) = [one for one in self.reads("/metrics").decode().splitlines() if one.startswith(named)]
        return float(line.removeprefix(named))


def received_ms(found: list[list[dict[str, Any]]]) -> dict[str, int]:
    return {one["event_id"]: one["received_at"] for part in found for one in part if "event_id" in one}


def test_a_slow_clock_steps_forward_when_the_wall_clock_is_set(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    with Off(tmp_path, broker, -HOUR_S // 4) as collector:
        collector.start()
        with calling(collector.port) as call:
            assert call("slow") == 200
            collector.set_clock(0)
            until(lambda: call("right") == 200)
        assert collector.offset_s() == 0
        began_ms = time.time() * 1000
        assert collector.end() == 0
    received = received_ms(messages(broker.bootstrap, collector.topic))
    assert received["slow"] < began_ms - 800_000
    assert received["right"] > began_ms - 10_000


def test_a_clock_hours_ahead_ends_its_lane_and_begins_another(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with Off(tmp_path, broker, 2 * HOUR_S) as collector:
        collector.start()
        first = collector.id()
        with calling(collector.port) as call:
            assert call("ahead") == 200
        collector.set_clock(0)
        until(lambda: (tmp_path / "spool" / "0" / "id").exists() and collector.id() != first)
        until(lambda: collector.looks("/ready") == 200)
        assert collector.offset_s() == 0
        with calling(collector.port) as call:
            until(lambda: call("right") == 200)
        began_ms = time.time() * 1000
        assert collector.end() == 0
        assert "the clock is ahead" in collector.said
    found = messages(broker.bootstrap, collector.topic)
    assert byes(found, first) == byes(found, collector.id()) == 2
    received = received_ms(found)
    assert received["ahead"] > began_ms + HOUR_S * 1000
    assert began_ms - 20_000 < received["right"] <= began_ms
    for part in found:
        for name in (first, collector.id()):
            lows = [one["low_ms"] for one in part if one["collector"] == name]
            assert lows == sorted(lows)


def test_a_clock_ahead_is_right_at_the_next_boot_after_a_kill(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with Off(tmp_path, broker, 2 * HOUR_S) as collector:
        collector.start()
        first = collector.id()
        collector.kill()
        collector.set_clock(0)
        collector.start(ready=False)
        until(lambda: collector.looks("/ready") == 200)
        assert collector.id() != first
        assert collector.offset_s() == 0
        assert collector.end() == 0
    assert byes(messages(broker.bootstrap, collector.topic), first) == 2


def test_a_collector_ahead_stores_on_without_kafka_and_changes_lanes_later(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    with Off(tmp_path, broker, 2 * HOUR_S) as collector:
        collector.start()
        first = collector.id()
        broker.pause()
        try:
            with calling(collector.port) as call:
                assert [call(f"before{n}") for n in range(5)] == [200] * 5
                collector.set_clock(0)
                until(lambda: collector.looks("/ready") == 503)
                assert [call(f"behind{n}") for n in range(5)] == [200] * 5
            time.sleep(2)
            assert collector.id() == first
        finally:
            broker.resume()
        until(lambda: (tmp_path / "spool" / "0" / "id").exists() and collector.id() != first, 30)
        until(lambda: collector.looks("/ready") == 200)
        assert collector.end() == 0
    found = messages(broker.bootstrap, collector.topic)
    assert events(found) == {f"{name}{n}" for name in ("before", "behind") for n in range(5)}
    assert byes(found, first) == 2


def test_a_stop_in_the_midst_of_a_change_is_a_stop(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with Off(tmp_path, broker, 2 * HOUR_S, collect_drain="PT2S") as collector:
        collector.start()
        collector.set_clock(0)
        until(lambda: collector.looks("/ready") == 503)
        assert collector.process is not None
        assert isinstance(collector.process, subprocess.Popen)
        collector.process.send_signal(signal.SIGTERM)
        assert collector.process.wait(30) == 0
