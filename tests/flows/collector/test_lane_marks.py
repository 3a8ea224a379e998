"""A lane's marks: its clock, its low mark and its id, and the bye for the process before it."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from pathlib import Path
from shutil import copytree

import pytest
from prometheus_client import generate_latest
from store_support import World, run

from connectors.kafka_reports import Report
from flows.collector.instruments import Instruments
from flows.collector.lane_id import MAX_BEFORE, LaneId


def test_offsets_to_brokers_and_the_wall_clock_are_metrics(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        instruments = Instruments(world.ledger)
        instruments.lane = lambda: world.lane

        def offsets() -> dict[str, str]:
            lines = generate_latest(instruments.registry).decode().splitlines()
            found = (one.split() for one in lines if one.startswith("audiopixel_collect_clock_offset"))
            return {name.split('"')[1]: value for name, value in found}

        assert await world.keep("a")
        assert offsets().keys() == {"wall"}
        world.lane.wrote([Report(None, 0, logged_ms=world.lane.clock.now_ms() + 3_600_000)])
        assert offsets().keys() == {"wall", "brokers"}
        assert -3_600 <= float(offsets()["brokers"]) < -3_590
        await world.lane.close()

    run(tmp_path, test)


def test_marks_carry_the_clock_also_among_constant_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.collector.lane.MARK_ANYWAY_S", 0.6)

    async def test(world: World) -> None:
        world.lane.start()
        for _ in range(30):  # the stand-in for a log puts them into partition 0
            assert await world.keep("a")
            await asyncio.sleep(0.05)
        await world.lane.say_bye(timedelta(seconds=1))
        await world.lane.close()
        marks = [json.loads(one.value) for _, one in world.producer.sent if one.partition == 0]
        assert len(marks) >= 3
        assert all(one["low_ms"] <= one["now_ms"] for one in marks)
        times = [one["now_ms"] for one in marks]
        assert times == sorted(times)

    run(tmp_path, test)


def test_a_process_writes_its_predecessors_bye_after_its_own_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.collector.lane.BYE_AGAIN_S", 0.4)
    monkeypatch.setattr("flows.collector.lane.BYES_FOR_S", 1.5)
    (tmp_path / "id").write_text("0123456789abcdef")  # as a version before this one kept it

    async def test(world: World) -> None:
        lane = world.lane
        assert list(lane.before) == ["0123456789abcdef"]
        assert lane.id.partition("~")[0] == "0123456789abcdef"
        lane.start()
        while lane.before or (tmp_path / "id").read_text().split() != [lane.id]:
            await asyncio.sleep(0.05)
        await lane.close()
        for partition in (0, 1):
            sent = [json.loads(one.value) for _, one in world.producer.sent if one.partition == partition]
            assert sent[0]["collector"] == lane.id
            byes = [one for one in sent if one.get("bye")]
            assert {one["collector"] for one in byes} == {"0123456789abcdef"}
            assert len(byes) >= 2  # a message in flight of that process may follow a first bye

    run(tmp_path, test)


def test_processes_of_a_copied_directory_have_own_ids_and_end_the_former(
    tmp_path: Path,
) -> None:
    there, copy = tmp_path / "there", tmp_path / "copy"
    first = LaneId(new(there) / "id")
    copytree(there, copy)
    one, other = LaneId(there / "id"), LaneId(copy / "id")
    assert one.before == other.before == (first.id,)
    assert len({first.id, one.id, other.id}) == 3
    assert len({name.partition("~")[0] for name in (first.id, one.id, other.id)}) == 1
    assert LaneId(there / "id").before == (one.id, first.id)  # the end of the first process is not known yet
    for _ in range(3 * MAX_BEFORE):
        last = LaneId(there / "id")
    assert len(last.before) == MAX_BEFORE


def new(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_a_lane_hours_ahead_holds_the_log_without_kafka(tmp_path: Path) -> None:
    hour_ms, off_ms = 3_600_000, 0

    async def test(world: World) -> None:
        nonlocal off_ms
        lane = world.lane
        lane.clock.wall_ms = lambda: time.time_ns() // 1_000_000 + off_ms
        before_ms = lane.low_ms()
        off_ms = 2 * hour_ms  # the machine's clock is set wrongly, and set right again
        lane.clock.keep()
        off_ms = 0
        assert lane.clock.wrong
        world.producer.answers = False
        stored_ms = lane.clock.wall_ms() + 5  # the clocks have whole milliseconds
        assert await world.keep("ahead")
        assert lane.resting == 1
        off_ms = hour_ms  # Kafka is away for so long
        lane.clock.keep()
        assert before_ms <= lane.low_ms() <= stored_ms
        mark = json.loads(lane.mark())
        assert mark["low_ms"] <= stored_ms
        assert abs(mark["now_ms"] - lane.clock.wall_ms()) < 1_000
        world.producer.answers = True
        lane.start()
        while lane.resting:
            await asyncio.sleep(0.01)
        (drained,) = [json.loads(one.value) for _, one in world.producer.sent[1:] if one.key]
        assert drained["received_at"] > stored_ms + hour_ms
        assert before_ms <= drained["low_ms"] <= stored_ms
        await lane.close()
        lows = [json.loads(one.value)["low_ms"] for _, one in world.producer.sent]
        assert lows == sorted(lows)

    run(tmp_path, test)


def test_an_ended_lead_lowers_no_mark_of_a_busy_lane(tmp_path: Path) -> None:
    off_ms = 0

    async def test(world: World) -> None:
        nonlocal off_ms
        lane = world.lane
        lane.clock.wall_ms = lambda: time.time_ns() // 1_000_000 + off_ms
        calls = [lane.in_hand.take(lane.clock.now_ms())]
        off_ms = -50_000
        low_ms = lane.low_ms()
        assert low_ms <= lane.clock.wall_ms() + 1_000
        off_ms = 0
        await asyncio.sleep(0.01)
        calls.append(lane.in_hand.take(lane.clock.now_ms()))  # there is always one in hand
        lane.in_hand.finish(calls[0])
        assert lane.low_ms() == calls[1].received_ms
        await lane.close()

    run(tmp_path, test)
