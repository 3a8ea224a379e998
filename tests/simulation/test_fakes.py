"""The fakes of Bytewax and Redis keep the contracts of the real ones."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.testing import cluster_main
from redis import Redis

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import RedisUnavailable, connect
from connectors.redis.commands import SharedField, append, put_fields, put_shared, read_rows, server_clock
from connectors.redis.fenced_hash import FencedHash, RowVersion
from connectors.redis.marks import Marks
from connectors.redis.rows import Emptied, RowStore, Superseded
from simulation.disk import Disk
from simulation.engine import Engine, at_random, steps_of
from simulation.redis_client import Client, Server
from simulation.redis_store import Store
from simulation.world import TIME, Fault, PlayedThread, World

# Redis

LAYOUTS = {"row": FencedHash(("a", "b", "c", "d")), "plain": FencedHash(("text",))}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


def version(source: random.Random) -> RowVersion:
    layout = source.choice(("row", "row", "plain"))
    values = (
        [source.choice((None, 0, 7, 1 << 53, "1.5", "ü")) for _ in range(4)]
        if layout == "row"
        else [source.choice(("one", "two"))]
    )
    return RowVersion(
        f"{layout}:{source.randrange(3)}",
        layout,
        LAYOUTS[layout].pack(values),
        source.randint(1, 2),
        source.randint(1, 3),
        source.randint(1, 4),
        source.choice((None, 60_000)),
        source.choice((None, "index")),
        f"m{source.randrange(3)}",
        source.randrange(100),
    )


class Writer:
    """Runs random operations on a Redis by the project's own code and keeps the answers."""

    def __init__(self, client: Any, seed: int) -> None:
        self.client, self.random = client, random.Random(seed)
        self.store = RowStore(client, LAYOUTS, clock_ms=lambda: 5)
        self.marks = Marks(client, "marks", 7)
        self.told: list[Any] = []

    def act(self) -> None:
        source, store = self.random, self.store
        key, run = f"row:{source.randrange(3)}", source.randint(1, 3)
        try:
            match source.randrange(13):
                case 0 | 1 | 2 | 3:
                    some = [version(source) for _ in range(source.randint(1, 5))]
                    self.told.append(store.write(some, first=version(source)))
                case 4:
                    self.told.append(sorted(store.claim(key, run, source.randint(1, 3)).items()))
                case 5:
                    self.told.append(store.take_fence("fence", source.randint(0, 9)))
                case 6:
                    store.raise_fence("fence", source.randint(0, 30))
                    store.put_in_older(key, source.randint(0, 4), {"a": "put", "judged": "0"})
                case 7:
                    store.drop([version(source) for _ in range(2)])
                case 8:
                    put_fields(self.client, {"decisions": {"a": str(run)}, "more": {"b": "1", "c": "2"}})
                    shared: list[SharedField] = [
                        (["decisions", "more"], b"d", str(run)),
                        (["more"], "b", "ü".encode()),
                    ]
                    put_shared(self.client, shared, timedelta(hours=1))
                case 9:
                    self.told.append(read_rows(self.client, [key, "nothing"], ["a", "rev"]))
                    self.told.append(server_clock(self.client, key, "rev")[1])
                case 10:
                    steps = self.marks.steps()
                    if source.random() < 0.3:
                        self.marks.begin()
                    with self.client.pipeline(transaction=False) as pipe:
                        for _, command in steps:
                            pipe.execute_command(*command)
                        self.told.append(self.marks.settle(steps, pipe.execute()))
                case 12:  # after a write in which the store lost the positions that cover these
                    self.told.append(store._land([version(source), version(source)], version(source)))
                case 11:
                    append(self.client, "stream", [{"state": str(run), "id": key}] * 2, 1000)
        except (Superseded, Emptied) as error:
            self.told.append(type(error).__name__)


def held(client: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in sorted(map(bytes.decode, client.keys())):
        kind = client.type(key).decode()
        if kind == "hash":
            content: Any = {name.decode(): value.decode() for name, value in client.hgetall(key).items()}
        elif kind == "zset":
            content = [
                {name.decode(): int(score) for name, score in client.zrange(key, 0, -1, withscores=True)}
            ]
        elif kind == "stream":
            entries = client.xrange(key)
            content = [{name.decode(): value.decode() for name, value in of.items()} for _, of in entries]
        else:
            content = client.get(key).decode()
        found[key] = content, client.pttl(key) > 0
    return found


@pytest.mark.parametrize("seed", range(12))
def test_the_simulated_redis_agrees_with_a_real_one(server: EmbeddedValkey, seed: int) -> None:
    redis = Redis(port=server.port)
    redis.flushall()
    store = Store(lambda: 0, lambda _: None)
    simulated = Writer(Client(Server(World(0), store)), seed)
    real_client = connect(server.url)
    real = Writer(real_client, seed)
    for _ in range(60):
        simulated.act()
        real.act()
    assert simulated.told == real.told
    assert {key: (value, key in store.until_ms) for key, value in store.keys.items()} == held(redis)
    real_client.close()
    redis.close()


def test_an_older_copy_has_no_key_expired_since() -> None:
    world = World(0)
    store = Store(lambda: world.now_ms, lambda _: None)
    client: Any = Client(Server(world, store))
    put_fields(client, {"short": {"a": "1"}}, timedelta(seconds=1))
    put_fields(client, {"long": {"a": "1"}}, timedelta(hours=1))
    older = store.copy()
    put_fields(client, {"short": {"a": "2"}}, timedelta(seconds=1))
    put_fields(client, {"idle": {"a": "1"}}, timedelta(seconds=1))
    world.elapsed_ms += 1000
    put_fields(client, {"short": {"a": "3"}}, timedelta(seconds=1))
    store.become(older)
    assert list(store.keys) == ["long"]


def test_an_older_copy_has_keys_overdue_for_expiry() -> None:
    world = World(0)
    store = Store(lambda: world.now_ms, lambda _: None)
    put_fields(client := cast(Any, Client(Server(world, store))), {"idle": {"a": "1"}}, timedelta(seconds=1))
    older = store.copy()
    world.elapsed_ms += 1000
    store.become(older)
    assert list(store.keys) == ["idle"]
    client.close()


def test_an_older_copy_runs_no_command_queued_before_it() -> None:
    world = World(0, (Fault("redis", 2, "stall", 2), Fault("redis", 3, "older")))
    store = Store(lambda: world.now_ms, lambda _: None)
    client: Any = Client(Server(world, store))
    for name, fails in (("first", False), ("waits", True), ("older", True), ("last", False), ("end", False)):
        with pytest.raises(RedisUnavailable) if fails else nullcontext():
            put_fields(client, {name: {"a": "1"}})
    assert list(store.keys) == ["last", "end"]


def test_a_crash_restores_no_file_of_a_removed_directory(tmp_path: Path) -> None:
    for order in range(8):  # each keeps or loses a name that was not synced by chance
        disk, save = Disk(World(order)), tmp_path / str(order)
        save.mkdir()
        disk.put(save / "piece", b"one")
        disk.sync(save)
        disk.put(save / "piece", b"two")
        shutil.rmtree(save)
        disk.crash()
        assert not save.exists()


def test_an_unknown_script_is_an_error() -> None:
    with pytest.raises(KeyError):
        Store(lambda: 0, lambda _: None).run("EVAL", "return 1", 0)


# Bytewax


class Numbers(StatefulSourcePartition[tuple[str, Any], None]):
    """Gives its numbers one by one, each to three keys."""

    def __init__(self, name: str) -> None:
        self.name, self.next = name, 0

    def next_batch(self) -> Iterable[tuple[str, Any]]:
        if self.next == 20:
            raise StopIteration
        self.next += 1
        return [(key, (self.name, self.next)) for key in ("x", "y", "z")]

    def snapshot(self) -> None:
        pass


class NumberSource(FixedPartitionedSource[tuple[str, Any], None]):
    def list_parts(self) -> list[str]:
        return ["left", "right"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> Numbers:
        assert resume_state is None
        return Numbers(for_part)


class Sum(StatefulBatchLogic[Any, Any, None]):
    """Adds up, and asserts what a step may rely on: each sender's numbers come in order, none twice, and all
    before the end.
    """

    def __init__(self, state: None) -> None:
        assert state is None
        self.latest: dict[str, int] = {}
        self.sum = 0

    def on_batch(self, values: list[Any]) -> tuple[list[Any], bool]:
        for name, number in values:
            assert number == self.latest.get(name, 0) + 1, (name, number, self.latest)
            self.latest = {**self.latest, name: number}
            self.sum += number
        return [(dict(self.latest), self.sum)], StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[list[Any], bool]:
        assert (self.latest, self.sum) == RIGHT
        return ["the end"], StatefulBatchLogic.RETAIN

    def snapshot(self) -> None:
        pass


class Behind(StatefulBatchLogic[Any, Any, None]):
    """Asserts that what a step sends at the end comes before the end of the next."""

    def __init__(self, state: None) -> None:
        self.values: list[Any] = []

    def on_batch(self, values: list[Any]) -> tuple[list[Any], bool]:
        self.values += values
        return values, StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[list[Any], bool]:
        assert self.values[-2:] == [RIGHT, "the end"]
        return ["all is over"], StatefulBatchLogic.RETAIN

    def snapshot(self) -> None:
        pass


class Collected(StatefulSinkPartition[Any, None]):
    def __init__(self, written: list[Any]) -> None:
        self.written = written

    def write_batch(self, values: list[Any]) -> None:
        self.written += values

    def snapshot(self) -> None:
        pass

    def close(self) -> None:
        self.written.append("closed")


class CollectingSink(FixedPartitionedSink[Any, None]):
    def __init__(self, written: list[Any]) -> None:
        self.written = written

    def list_parts(self) -> list[str]:
        return ["writer"]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> Collected:
        return Collected(self.written)


def sums(written: list[Any]) -> Dataflow:
    flow = Dataflow("sums")
    numbers = op.input("numbers", flow, NumberSource())
    some = op.filter_map("some", numbers, lambda one: one if one[0] != "w" else None)
    added = op.stateful_batch("sum", op.merge("all", some), Sum)
    op.output("out", op.stateful_batch("behind", added, Behind), CollectingSink(written))
    return flow


RIGHT = ({"left": 20, "right": 20}, 420)


def judge(written: list[Any]) -> None:
    assert [written.count(one) for one in (RIGHT, "the end", "all is over", "closed")] == [3, 3, 3, 1]
    assert written[-1] == "closed"


@pytest.mark.parametrize("seed", range(20))
def test_the_simulated_engine_keeps_order_and_tells_the_end(seed: int) -> None:
    world, written = World(seed), list[Any]()
    TIME.world = world
    engine = Engine(world, [steps_of(sums(written)) for _ in range(2)], seed)
    while len(engine.over) < len(engine.partitions):
        waiting = engine.waiting()
        left = [one for one in engine.partitions if one not in engine.over]
        if waiting and (not left or world.random.random() < 0.5):
            engine.deliver(*at_random(world.random, waiting))
        else:
            engine.read(at_random(world.random, left))
    engine.end()
    judge(written)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("epoch_s", [0, 10])
def test_bytewax_and_the_simulated_engine_keep_equal_states(workers: int, epoch_s: int) -> None:
    written = list[Any]()
    cluster_main(
        sums(written), [], 0, epoch_interval=timedelta(seconds=epoch_s), worker_count_per_proc=workers
    )
    judge(written)


def test_a_thread_of_a_test_before_sleeps_by_the_real_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = list[float]()
    world = World(0)
    monkeypatch.setattr(world, "sleep", slept.append)
    monkeypatch.setattr(TIME, "world", world, raising=False)
    for made in (threading.Thread, PlayedThread):
        thread = made(target=TIME.sleep, args=(0.001,))
        thread.start()
        thread.join()
    TIME.sleep(0.002)
    assert slept == [0.001, 0.002], "the played thread's, and the main one's"
