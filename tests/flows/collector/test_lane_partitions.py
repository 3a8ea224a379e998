"""A partition without a leader: its own events rest or are refused, and no others do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from store_support import Producer, World, run

from connectors.kafka_reports import Produced, Report
from flows.collector.partitions import partition_of

KEYS = {0: b"key-6", 1: b"key-0"}
"""A key of each partition."""
PATIENT = timedelta(seconds=5)
"""A time limit where the order is at issue, on a busy machine too."""


class Brokers(Producer):
    """Each partition's leader answers, or does not; later it takes what has come, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.away, self.late_s = set[int](), 0.0
        self.log: dict[int, list[dict[str, Any]]] = {0: [], 1: []}
        self._hung: list[tuple[Any, Produced]] = []

    def produce(self, messages: Sequence[tuple[Any, Produced]]) -> list[Any]:
        self.batches += 1
        self.sent += messages
        later = [one for one in messages if self.partition(one[1]) in self.away]
        now = [one for one in messages if self.partition(one[1]) not in self.away]
        self._hung += later
        asyncio.get_running_loop().call_later(self.late_s, self.take, now)
        return []

    def partition(self, message: Produced) -> int:
        if message.partition is not None:
            return message.partition
        assert message.key is not None
        return partition_of(message.key, 2)

    def take(self, messages: Sequence[tuple[Any, Produced]]) -> None:
        for (sending, place), message in messages:
            partition = self.partition(message)
            self.log[partition].append(json.loads(message.value))
            sending.note(place, Report((sending, place), partition))

    def come_back(self) -> None:
        hung, self._hung, self.away = self._hung, [], set()
        self.take(hung)

    def give_up(self) -> None:
        """Report messages that have waited for too long as failed."""
        hung, self._hung = self._hung, []
        for (sending, place), message in hung:
            sending.note(place, Report((sending, place), self.partition(message), "timed out"))

    def ids(self, partition: int) -> list[str]:
        return list(dict.fromkeys(one["event_id"] for one in self.log[partition] if "event_id" in one))


@pytest.fixture
def brokers() -> Brokers:
    assert {n: partition_of(key, 2) for n, key in KEYS.items()} == {0: 0, 1: 1}
    return Brokers()


async def answered(world: World, partition: int, event_id: str) -> tuple[bool, float]:
    began_s = time.monotonic()
    return await world.keep(event_id, key=KEYS[partition]), time.monotonic() - began_s


def test_only_keys_of_leaderless_partitions_are_spooled(tmp_path: Path, brokers: Brokers) -> None:
    async def test(world: World) -> None:
        world.lane.start()
        brokers.away = {0}
        for n in range(20):
            assert (await answered(world, 0, f"a{n}"))[0]
            stored, took_s = await answered(world, 1, f"b{n}")
            assert stored
            assert n == 0 or took_s < 0.03
        assert world.lane.resting == 20
        assert brokers.ids(1) == [f"b{n}" for n in range(20)]
        oldest_ms = world.lane.oldest_ms
        assert oldest_ms is not None
        assert world.lane.low_ms() <= oldest_ms
        await asyncio.sleep(1.2)
        lows = [one["low_ms"] for one in brokers.log[1]]
        assert lows == sorted(lows)
        assert max(lows) <= oldest_ms  # the flow's time is the least of both partitions'
        brokers.come_back()
        while world.lane.resting:
            await asyncio.sleep(0.01)
        assert brokers.ids(0) == [f"a{n}" for n in range(20)]
        assert await world.lane.say_bye(timedelta(seconds=1))
        assert world.ledger.balanced(0)
        await world.lane.close()

    run(tmp_path, test, producer=brokers)


def test_returned_events_are_sent_again_in_order(tmp_path: Path, brokers: Brokers) -> None:
    async def before(world: World) -> None:
        world.lane.start()
        brokers.away = {0, 1}
        for n in range(6):
            assert (await answered(world, n % 2, f"{n}"))[0]
        brokers.give_up()
        await asyncio.sleep(0.05)
        assert world.lane.resting == 6
        assert not await world.lane.say_bye(timedelta(milliseconds=100))
        await world.lane.close()

    async def spool_backlog(world: World) -> None:
        brokers.away = {0}
        world.lane.start()
        while world.lane.resting > 3:
            await asyncio.sleep(0.01)
        assert brokers.ids(1) == ["1", "3", "5"]
        brokers.come_back()
        while world.lane.resting:
            await asyncio.sleep(0.01)
        assert brokers.ids(0) == ["0", "2", "4"]
        assert world.ledger.balanced(0)
        await world.lane.close()

    run(tmp_path, before, producer=brokers, proven=True)
    assert (tmp_path / "marked").exists()
    run(tmp_path, spool_backlog, producer=brokers, proven=False)


def test_a_growing_backlog_drains_in_order(tmp_path: Path, brokers: Brokers) -> None:
    async def test(world: World) -> None:
        lane, ends_s, calls = world.lane, time.monotonic() + 6, list[asyncio.Task[bool]]()
        lane.start()
        brokers.late_s = 0.3  # not in time
        while len(calls) < 300 or lane.waiting_events:
            assert time.monotonic() < ends_s, "still on the spool"
            calls.append(world.keep(f"{len(calls):05d}", key=KEYS[1]))
            await asyncio.sleep(0.001)
            if len(calls) == 300:
                assert lane.waiting_events
                brokers.late_s = 0.005
        assert all(await asyncio.gather(*calls))
        assert await world.keep("last", key=KEYS[1])
        assert lane.waiting_events == 0
        assert brokers.ids(1) == [*(f"{n:05d}" for n in range(len(calls))), "last"]
        await lane.close()
        assert world.ledger.balanced(0)

    run(tmp_path, test, producer=brokers, answer=PATIENT)


async def first_and_second(world: World) -> tuple[Any, list[Any]]:
    """The queue of an event that the disk has not taken yet, and two calls after it. The first is a batch
    that waits, the second is in no batch yet.
    """
    queue = world.lane._queue(KEYS[1])
    world.lane._queued[queue] += 1
    first = world.keep("first", key=KEYS[1])
    await asyncio.sleep(0.01)
    second = world.keep("second", key=KEYS[1])
    await asyncio.sleep(0)
    return queue, [first, second]


def test_a_batch_waiting_for_spooled_events_is_not_overtaken(tmp_path: Path, brokers: Brokers) -> None:
    async def test(world: World) -> None:
        lane = world.lane
        queue, calls = await first_and_second(world)
        assert brokers.ids(1) == []
        lane._queued[queue] -= 1
        lane._note_change()
        world.store._begin()  # before the first batch has resumed
        assert await asyncio.gather(*calls) == [True, True]
        assert brokers.ids(1) == ["first", "second"]
        await lane.close()

    run(tmp_path, test, producer=brokers, deadline=PATIENT, answer=PATIENT)


def test_a_batch_spooled_late_is_not_overtaken(tmp_path: Path, brokers: Brokers) -> None:
    async def test(world: World) -> None:
        lane = world.lane
        queue, calls = await first_and_second(world)
        lane._behind.add(queue)  # a drained event has failed
        lane._note_change()
        world.store._begin()
        assert await asyncio.gather(*calls) == [True, True]
        lane._queued[queue] -= 1
        assert brokers.ids(1) == []
        lane.start()
        while lane.resting:
            await asyncio.sleep(0.01)
        assert brokers.ids(1) == ["first", "second"]
        await lane.close()

    run(tmp_path, test, producer=brokers, deadline=PATIENT, answer=PATIENT)


def test_a_new_id_is_ready_and_refuses_keys_of_a_silent_partition(
    tmp_path: Path, brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.collector.lane.SILENT_S", 0.5)
    monkeypatch.setattr("flows.collector.lane.UNANSWERED_S", 0.2)

    async def test(world: World) -> None:
        brokers.away = {0}
        world.lane.start()
        began_s = time.monotonic()
        while not world.lane.proven:
            await asyncio.sleep(0.01)
        assert time.monotonic() - began_s < 2
        stored, took_s = await answered(world, 0, "a")
        assert not stored
        assert took_s < 0.025
        assert (await answered(world, 1, "b"))[0]
        assert not await world.keep("c", "d", key=KEYS[0])
        assert world.ledger.refused_by == {"store": 3}
        brokers.come_back()
        ends_s = time.monotonic() + 2
        while not (await answered(world, 0, "e"))[0]:
            assert time.monotonic() < ends_s
        await asyncio.sleep(0.6)
        brokers.away = {0}
        assert (await answered(world, 0, "f"))[0]  # now the log waits for it
        assert world.lane.resting == 1
        brokers.come_back()
        while world.lane.resting:
            await asyncio.sleep(0.01)
        await world.lane.close()

    run(tmp_path, test, producer=brokers, proven=False)


def test_a_quiet_lane_stopped_without_a_bye_keeps_its_proof(tmp_path: Path, brokers: Brokers) -> None:
    async def stops(world: World) -> None:
        world.lane.start()
        while len(brokers.log[0]) < 1:
            await asyncio.sleep(0.01)
        brokers.away = {0}
        assert not await world.lane.say_bye(timedelta(milliseconds=200))
        assert not any(one.get("bye") for one in brokers.log[0])
        assert brokers.log[1][-1]["bye"]
        await world.lane.close()
        brokers.give_up()

    async def resume(world: World) -> None:
        assert not world.lane.proven  # no message waits for partition 1 yet
        world.lane.start()
        while not world.lane.proven:
            await asyncio.sleep(0.01)
        assert (await answered(world, 0, "a"))[0]
        assert world.lane.resting == 1
        assert (await answered(world, 1, "b"))[0]
        await world.lane.close()

    run(tmp_path, stops, producer=brokers)
    assert (tmp_path / "marked").read_text().split() == ["2", "0"]
    run(tmp_path, resume, producer=brokers, proven=False)


def test_a_call_with_one_unroutable_event_is_refused_whole(tmp_path: Path, brokers: Brokers) -> None:
    async def test(world: World) -> None:
        world.lane._standing.keep(2, {1})
        world.lane.proven = True
        world.lane.start()
        brokers.away = {0}
        await asyncio.sleep(1.3)
        assert not await world.keep("a", "b", keys=[KEYS[1], KEYS[0]])
        assert brokers.ids(1) == []
        assert world.ledger.balanced(0)
        await world.lane.close()

    run(tmp_path, test, producer=brokers, proven=False)
