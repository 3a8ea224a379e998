"""The store and its lane, over a log that answers on a test's command and a disk that fails on command."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from store_support import World, run


def test_a_call_of_a_thousand_events_is_one_batch(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        assert await world.keep(*map(str, range(1_000)))
        assert world.producer.batches == 1
        assert (world.ledger.stored, world.ledger.acknowledged) == (1_000, 1_000)

    run(tmp_path, test)


def test_unconfirmed_events_are_spooled_before_fresh_ones(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.producer.answers = False
        assert await world.keep("a")
        assert world.lane.resting == 1
        batches = world.producer.batches
        assert await world.keep("b")
        assert (world.lane.resting, world.producer.batches) == (2, batches)
        world.producer.answers = True
        world.lane.start()
        while world.lane.resting:
            await asyncio.sleep(0.01)
        drained = [json.loads(one.value) for _, one in world.producer.sent[1:] if one.key]
        assert [one["event_id"] for one in drained] == ["a", "b"]
        assert all(one["low_ms"] <= one["received_at"] for one in drained)
        assert world.ledger.balanced(0)
        await world.lane.close()

    run(tmp_path, test)


@pytest.mark.parametrize("failing", [False, True])
def test_the_ledger_adds_up_after_a_stop_during_a_drain(
    tmp_path: Path, failing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(world: World) -> None:
        world.producer.answers = False
        assert await world.keep("a", "b")
        world.producer.answers = True
        free, produce = threading.Event(), world.producer.produce

        def busy(messages: Sequence[Any]) -> list[Any]:
            world.lane._disk.submit(free.wait)
            return produce(messages)

        def broken(number: int) -> None:
            raise OSError("the disk does not take the cursor")

        world.producer.produce = busy  # type: ignore[method-assign]
        if failing:
            monkeypatch.setattr(world.lane.spool._cursor, "keep", broken)
        sent = len(world.producer.sent)
        world.lane.start()
        while len(world.producer.sent) < sent + 2:
            await asyncio.sleep(0.001)
        for _ in range(20):  # the log has answered, and its outcomes wait for the disk
            await asyncio.sleep(0)
        bye = asyncio.create_task(world.lane.say_bye(timedelta(seconds=1)))
        await asyncio.sleep(0)
        free.set()
        await bye
        await world.lane.close()
        assert world.ledger.balanced(world.lane.resting), world.ledger.line(world.lane.resting)
        assert (world.ledger.acknowledged, world.lane.resting) == (2, 0)

    run(tmp_path, test)


def test_the_low_mark_waits_for_the_outcome_of_refused_events(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.producer.answers = False
        before = world.lane.clock.now_ms()
        assert not await world.keep("a")  # a new id may not rest
        assert before <= (first := world.lane.low_ms()) <= before + 10, "its receipt"
        await asyncio.sleep(0.02)
        assert world.lane.low_ms() == first
        assert world.ledger.refused == 1
        world.producer.tell(0, "it timed out")
        await asyncio.sleep(0)
        assert world.lane.low_ms() > first

    run(tmp_path, test, proven=False)


def test_a_hung_disk_refuses_calls_and_counts_late_writes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(world: World) -> None:
        world.producer.answers = False
        hung, append = threading.Event(), world.lane.spool.append

        def slow(bodies: Sequence[bytes], queues: Sequence[int]) -> None:
            hung.wait(10)
            append(bodies, queues)

        monkeypatch.setattr(world.lane.spool, "append", slow)
        before, began_s = world.lane.clock.now_ms(), asyncio.get_running_loop().time()
        assert not await world.keep("a")
        assert asyncio.get_running_loop().time() - began_s < 1
        assert before <= (first := world.lane.low_ms()) <= before + 10, "its receipt"
        assert world.ledger.stored == world.ledger.refused == 0  # nobody knows yet
        assert world.lane.low_ms() == first
        hung.set()
        while not world.lane.resting:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        assert world.ledger.balanced(world.lane.resting)
        assert world.lane.low_ms() == first

    run(tmp_path, test)


def test_a_failing_disk_refuses_calls_and_is_unready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        def full(*_: Sequence[Any]) -> None:
            raise OSError(28, "No space left on device")

        world.producer.answers = False
        monkeypatch.setattr(world.lane.spool, "append", full)
        assert not await world.keep("a")
        assert world.lane.failing
        assert world.ledger.balanced(0)
        world.producer.answers = True
        assert await world.keep("b")  # what Kafka has needs no disk
        assert world.ledger.balanced(0)

    run(tmp_path, test)


def test_a_bye_is_the_last_message_in_every_partition(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.lane.start()
        await asyncio.sleep(0.05)
        assert await world.lane.say_bye(timedelta(seconds=1))
        assert {message.partition for _, message in world.producer.sent[-2:]} == {0, 1}
        assert world.producer.said()["bye"]
        count = len(world.producer.sent)
        await asyncio.sleep(0.7)
        assert len(world.producer.sent) == count
        assert not (tmp_path / "marked").exists()  # the log waits for this id no more
        await world.lane.close()

    run(tmp_path, test)


def test_a_bye_without_kafka_is_no_bye(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        world.lane.partitions = list
        assert not await world.lane.say_bye(timedelta(seconds=1))
        await world.lane.close()

    run(tmp_path, test)
