"""Redis away in every way: the flow keeps its place, says so, loses nothing and fills it again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from faults_support import World, eventually, in_memory
from sentinel_support import Pair

from connectors.embedded import EmbeddedBroker

Fault = Callable[[World], AbstractContextManager[None]]


@contextmanager
def refusing(world: World) -> Iterator[None]:
    world.redis.kill()
    yield
    world.redis.start()


@contextmanager
def hanging(world: World) -> Iterator[None]:
    world.redis.pause()
    yield
    world.redis.resume()


@contextmanager
def full(world: World) -> Iterator[None]:
    with world.client() as client:
        client.config_set("maxmemory", "1")
        yield
        client.config_set("maxmemory", "0")


@contextmanager
def read_only(world: World) -> Iterator[None]:
    with world.client() as client:
        client.replicaof("127.0.0.1", "1")
        yield
        client.replicaof("NO", "ONE")


@contextmanager
def emptied(world: World) -> Iterator[None]:
    world.redis.kill()
    shutil.rmtree(world.directory / "redis" / "appendonlydir")
    yield
    world.redis.start()


def flight(row: dict[str, str]) -> dict[str, str]:
    """The fields that time alone does not change."""
    return {name: value for name, value in row.items() if name.startswith("flight.")}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (refusing, "connection"),
        (hanging, "timeout"),
        (full, "oom"),
        (read_only, "readonly"),
        (emptied, "connection"),
    ],
)
def test_a_flow_survives_a_redis_outage_and_publishes_all_afterwards(
    world: World, fault: Fault, reason: str
) -> None:
    flow = world.start()
    world.send(40, placement_id="quiet")
    world.send(60)
    world.shown(flow)
    before = world.row("quiet")

    with fault(world):
        world.send(100)
        eventually(lambda: flow.metric("received_total") == world.sent, otherwise=flow.said)
        eventually(lambda: flow.metric("redis_errors_total", reason=reason) >= 2, otherwise=flow.said)
        eventually(lambda: flow.metric("redis_pending_rows") > 0, otherwise=flow.said)
        assert flow.process.poll() is None

    world.shown(flow)
    row = world.row()
    assert (row["flight.impressions"], row["flight.reach"]) == ("160", "160")
    # Rolling windows may have moved on: a quiet row is published again once per watermark minute.
    assert flight(world.row("quiet")) == flight(before)
    eventually(lambda: flow.metric("redis_pending_rows") == 0)
    assert f"reason={reason}" in flow.said()
    assert "redis takes rows again" in flow.said()


def test_an_emptied_redis_gets_every_row_and_later_flows_are_newer(world: World) -> None:
    flow = world.start()
    world.send(50, placement_id="quiet")
    world.shown(flow)
    flow.stop()
    second = world.start()
    fence = int(world.row("quiet")["fence"])
    assert fence == 2

    with world.client() as client:
        client.flushall()
    eventually(lambda: world.row("quiet"), otherwise=second.said)
    assert world.row("quiet")["flight.impressions"] == "50"
    assert "redis lost its data" in second.said()
    second.stop()

    third = world.start()
    assert int(world.row("quiet")["fence"]) > fence
    third.stop()


def test_a_redis_restored_from_an_older_copy_is_rewritten(world: World) -> None:
    flow = world.start()
    world.send(30)
    world.shown(flow)
    older, newer = world.directory / "older", world.directory / "redis" / "appendonlydir"
    shutil.copytree(newer, older)
    world.send(30)
    world.send(10, placement_id="quiet")
    world.shown(flow)

    world.redis.kill()
    shutil.rmtree(newer)
    shutil.copytree(older, newer)
    world.redis.start()

    eventually(lambda: world.row("quiet").get("flight.impressions") == "10", otherwise=flow.said)
    assert world.row()["flight.impressions"] == "60"


@pytest.mark.parametrize("older", [False, True])
def test_a_flow_follows_a_promotion_and_fills_what_the_replica_lacks(
    broker: EmbeddedBroker, tmp_path: Path, older: bool
) -> None:
    with Pair() as pair:
        world = in_memory(broker, pair.primary, tmp_path)
        flow = world.start(REDIS_URL=pair.url)
        world.send(60)
        world.send(10, placement_id="quiet")
        world.shown(flow)
        if older:
            pair.part()
            world.send(40)
            world.send(10, placement_id="quiet")
            world.shown(flow)
        fence = world.row("quiet")["fence"]
        pair.primary.kill()
        world.redis = pair.replica
        world.send(50)
        eventually(lambda: "redis takes rows again" in flow.said(), otherwise=flow.said)
        world.shown(flow)
        eventually(lambda: flow.metric("redis_pending_rows") == 0, otherwise=flow.said)
        assert world.row()["flight.impressions"] == str(150 if older else 110)
        quiet = world.row("quiet")
        assert (quiet["flight.impressions"], quiet["fence"]) == ("20" if older else "10", fence)
        # Replication is asynchronous: a whole replica may lack a flush of the last milliseconds, too.
        assert not older or "redis lost its data" in flow.said()
        flow.stop()


def test_without_redis_at_the_start_one_line_says_so(world: World) -> None:
    world.redis.kill()

    flow = world.start(ready=False)

    assert flow.ended() == 1
    assert f"Redis at {world.redis.url} cannot be reached" in flow.last()


def test_a_flow_stopped_without_redis_publishes_all_after_both_return(world: World) -> None:
    flow = world.start()
    world.send(20)
    world.shown(flow)
    world.redis.kill()
    world.send(20)
    eventually(lambda: flow.metric("received_total") == world.sent)
    assert flow.stop() < 10

    world.redis.start()
    again = world.start()

    world.shown(again)
    assert world.row()["flight.impressions"] == "40"
    assert again.metric("received_total") == 0, "what was read before the stop was read again"


def test_a_replaced_execution_writes_nothing_after_waking(world: World) -> None:
    stale = world.start()
    world.send(30)
    world.shown(stale)
    stale.pause()
    world.send(30)
    newer = world.start(RECOVERY_DIR=str(world.directory / "elsewhere"))
    world.shown(newer)
    shown = world.row()

    stale.resume()

    assert stale.ended() == 1
    assert "another execution took over" in stale.last()
    assert world.row() == shown
    assert shown["fence"] == "2"
    assert newer.process.poll() is None
