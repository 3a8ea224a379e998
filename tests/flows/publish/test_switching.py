"""Two flows change places: what readers have is one generation, whole, whatever dies at whatever step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from connectors.embedded import EmbeddedValkey
from connectors.redis import connect
from connectors.redis.client import RedisUnavailable
from connectors.redis.rows import RowStore
from flows.errors import AudiopixelError
from flows.model.fields import FIELDS, empty
from flows.model.messages import Flush, PackedRow
from flows.model.ticks import Cut
from flows.publish.fence import FenceRecord, latest_fence_record, write_fence_record
from flows.publish.layout import LAYOUTS
from flows.publish.publisher import Publisher
from flows.publish.switching import ABANDONED_MS, FRESH_MS, ask, note_taken, seated, standing
from flows.settings.fields import Settings

NAMESPACE = "switch:v1"
BESIDE = "switch:v1:recompute:august"
NOW = 1_790_000_000_000
NAMES = [f"p{n}" for n in range(40)]


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def redis(server: EmbeddedValkey) -> Iterator[Redis]:
    with Redis(port=server.port, decode_responses=True) as redis:
        redis.flushall()
        yield redis


class Flow:
    """A publisher of rows that say which flow wrote them, by `impressions`; killed by being forgotten."""

    def __init__(self, url: str, directory: Path, impressions: int, at: str | None = None) -> None:
        values: dict[str, Any] = {"redis_url": url, "namespace": NAMESPACE, "recovery_dir": directory}
        self._settings = Settings(**values, rows_namespace=at)
        self._impressions = impressions
        self.now_ms, self.number, self.names = NOW, 1, list(NAMES)
        self.start(False)

    def start(self, resumed: bool = True) -> None:
        """Begin again, as a process after a kill."""
        settings = seated(self._settings)
        clock: Callable[[], float] = lambda: self.now_ms / 1000  # noqa: E731
        self.publisher = Publisher(settings, ["log"], resumed, switches=True, clock_s=clock)
        self.publisher.open()

    def flush(self, after_ms: int = 500) -> None:
        self.now_ms += after_ms
        self.number += 1
        cut = Cut(self.number, self.now_ms, False, (("log", self.number),), counted_since_ms=NOW)
        rows = [self._row(name) for name in self.names]
        self.publisher.flush(cut, [Flush(0, cut, rows)])

    def _row(self, name: str) -> PackedRow:
        values = empty(self.now_ms)
        values[FIELDS.index("flight.impressions")] = self._impressions * 1_000_000 + self.number
        return PackedRow("placement", name, self.now_ms, LAYOUTS["row"].pack(values))

    @property
    def namespace(self) -> str:
        return self.publisher.writer.namespace


class Reader:
    """Polls like a reader: first `meta`, then rows. The reader uses only rows of `meta`'s generation."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def used(self) -> dict[int, set[str]]:
        """The names of the used rows, by the number of the flow that wrote them."""
        generation = self._redis.hget(f"{NAMESPACE}:meta", "generation")
        found: dict[int, set[str]] = {}
        for name in self._redis.zrange(f"{NAMESPACE}:index:placement", 0, -1):
            row = self._redis.hgetall(f"{NAMESPACE}:placement:{{{name}}}")
            if row and row["generation"] == generation:
                found.setdefault(int(row["flight.impressions"]) // 1_000_000, set()).add(name)
        return found

    def meta(self) -> dict[str, str]:
        return self._redis.hgetall(f"{NAMESPACE}:meta")


class World:
    def __init__(self, server: EmbeddedValkey, redis: Redis, tmp_path: Path) -> None:
        url = f"redis://127.0.0.1:{server.port}/0"
        self.redis, self.client = redis, connect(url)
        self.live = Flow(url, tmp_path / "live", 1)
        self.again = Flow(url, tmp_path / "again", 2, BESIDE)
        self.reader = Reader(redis)
        self.flush()

    def flush(self, after_ms: int = 500) -> None:
        for flow in (self.live, self.again):
            flow.flush(after_ms)

    def ask(self) -> int:
        wanted = standing(self.client, NAMESPACE).generation + 1
        ask(self.client, NAMESPACE, "august", wanted, self.live.now_ms)
        return wanted


@pytest.fixture
def world(server: EmbeddedValkey, redis: Redis, tmp_path: Path) -> World:
    return World(server, redis, tmp_path)


def test_a_switch_and_the_way_back_take_a_generation_each(world: World) -> None:
    assert world.reader.used() == {1: {*NAMES}}
    world.live.names += ["only-live"]
    world.flush()
    assert world.ask() == 2
    world.live.flush()
    assert (world.reader.meta()["judged"], world.reader.meta()["unjudged_reason"]) == ("0", "switching")
    assert world.reader.used() == {1: {*NAMES, "only-live"}}
    world.again.flush()
    assert world.reader.used() == {2: {*NAMES}}
    assert world.reader.meta()["generation"] == "2"
    assert "only-live" not in world.redis.zrange(f"{NAMESPACE}:index:placement", 0, -1)
    assert not world.redis.exists(f"{NAMESPACE}:placement:{{only-live}}")
    world.flush()
    assert (world.live.namespace, world.again.namespace) == (BESIDE, NAMESPACE)
    world.flush()
    beside = world.redis.hgetall(f"{BESIDE}:placement:{{only-live}}")
    assert int(beside["flight.impressions"]) // 1_000_000 == 1
    assert world.reader.meta().get("unjudged_reason") != "switching"
    assert world.ask() == 3
    world.again.flush()
    world.live.flush()
    assert world.reader.used() == {1: {*NAMES, "only-live"}}
    world.flush()
    world.flush()
    assert (world.live.namespace, world.again.namespace) == (NAMESPACE, BESIDE)
    assert world.reader.meta()["generation"] == "3"


class Killed(BaseException):
    """The process is gone: nothing of it goes on."""


STEPS = ("fence", "disk", "claim", "marks", "rows", "some rows", "meta")


def dies(monkeypatch: pytest.MonkeyPatch, step: str, of: Flow) -> None:
    """Let the next process that takes a step of a switch die at it: before `fence` to `marks`, with no row
    written or a part of them, or behind `meta`.
    """
    real = {name: getattr(RowStore, name) for name in ("take_fence", "claim", "watch", "_call")}
    written = [0]

    def dying(name: str) -> Callable[..., Any]:
        def call(self: RowStore, *args: Any, **more: Any) -> Any:
            raise Killed(name)

        return call

    def rows(self: RowStore, rows: Any, *args: Any, **more: Any) -> Any:
        if of.publisher.writer._store is not self or not of.publisher.writer.serves:
            return real["_call"](self, rows, *args, **more)
        at_meta = rows and rows[0].layout == "meta"
        if rows and rows[0].layout == "row":
            written[0] += 1
            if step == "rows":
                raise Killed(step)
            if step == "some rows":
                real["_call"](self, rows[: len(rows) // 2], *args, **more)
                raise Killed(step)
        found = real["_call"](self, rows, *args, **more)
        if at_meta and step == "meta":
            raise Killed(step)
        return found

    if step in ("rows", "some rows", "meta"):
        monkeypatch.setattr(RowStore, "_call", rows)
    elif step == "disk":
        monkeypatch.setattr("flows.publish.redis_writer.write_fence_record", dying("write_fence_record"))
    else:
        monkeypatch.setattr(
            RowStore, {"fence": "take_fence", "claim": "claim", "marks": "watch"}[step], dying(step)
        )


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("back", ["it starts again", "the other one takes it back"])
def test_a_kill_at_any_step_leaves_one_generation_whole(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str, back: str
) -> None:
    world.ask()
    world.live.flush()
    with monkeypatch.context() as patched:
        dies(patched, step, world.again)
        with pytest.raises(Killed):
            world.again.flush()
    claimed = step in ("marks", "rows", "some rows", "meta")
    used = world.reader.used()
    assert len(used) == 1, "rows of two generations at once"
    if not claimed:
        assert used == {1: {*NAMES}}
    if back == "it starts again":
        world.again.start()
        for _ in range(3):
            world.live.flush()
            assert len(world.reader.used()) <= 1
            world.again.flush()
            assert len(world.reader.used()) == 1
    else:
        for _ in range(int((FRESH_MS + ABANDONED_MS) / 5_000) + 2):
            world.live.flush(5_000)
            assert len(world.reader.used()) <= 1
        world.again.now_ms = world.live.now_ms
        world.again.start()
        for _ in range(3):
            world.flush()
    serving = (world.live, world.again)[world.again.namespace == NAMESPACE]
    assert {world.live.namespace, world.again.namespace} == {NAMESPACE, BESIDE}
    assert world.reader.used() == {1 if serving is world.live else 2: {*NAMES}}
    assert "unjudged_reason" not in world.reader.meta()
    if back != "it starts again":
        assert serving is (world.again if step == "meta" else world.live)


def test_a_dead_serving_flow_finds_its_place_at_its_return(world: World) -> None:
    world.ask()
    for _ in range(8):
        world.again.flush(5_000)  # the serving flow writes nothing: after 30 s it is down
        world.live.now_ms = world.again.now_ms
        world.ask() if world.again.namespace == BESIDE else None
    assert world.reader.used() == {2: {*NAMES}}
    world.live.start()
    assert world.live.namespace == BESIDE
    world.flush()
    assert world.reader.used() == {2: {*NAMES}}
    assert standing(world.client, BESIDE).generation == 2


def test_an_unanswered_switch_request_is_dropped(world: World) -> None:
    world.ask()
    world.live.flush()
    assert world.reader.meta()["unjudged_reason"] == "switching"
    world.live.flush(FRESH_MS)
    assert "unjudged_reason" not in world.reader.meta()
    world.again.flush(FRESH_MS + 500)
    assert world.reader.used() == {1: {*NAMES}}


def test_a_claim_without_an_answer_is_repeated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.ask()
    world.live.flush()
    claim = RowStore.claim

    def lost(self: RowStore, *args: Any) -> dict[str, str]:
        claim(self, *args)
        raise RedisUnavailable("timeout", "no answer")

    with monkeypatch.context() as patched:
        patched.setattr(RowStore, "claim", lost)
        world.again.flush()
    assert world.again.namespace == BESIDE
    world.live.flush()
    time.sleep(0.2)  # the pause after an error
    world.again.flush(30_000)
    assert world.reader.used() == {2: {*NAMES}}
    world.live.now_ms = world.again.now_ms
    world.flush()
    assert (world.live.namespace, world.again.namespace) == (BESIDE, NAMESPACE)


def test_both_flows_restore_their_places_in_an_emptied_redis(world: World) -> None:
    world.ask()
    world.live.flush()
    world.again.flush()
    world.flush()
    world.redis.flushall()
    for flow in (world.live, world.again):
        flow.start()
    assert (world.live.namespace, world.again.namespace) == (BESIDE, NAMESPACE)
    world.flush()
    assert world.reader.used() == {2: {*NAMES}}
    assert int(world.reader.meta()["generation"]) >= 2


def test_a_foreign_flow_still_ends_this_one(world: World) -> None:
    RowStore(world.client, LAYOUTS).claim(f"{NAMESPACE}:positions", 1, 99)
    with pytest.raises(AudiopixelError, match="another execution took over"):
        world.live.flush()


def test_the_fence_file_keeps_its_format_without_a_switch(world: World, tmp_path: Path) -> None:
    assert (tmp_path / "live" / "fence-0").read_text().splitlines()[0] == "[1,1,false]"
    write_fence_record(tmp_path, 0, FenceRecord(3, 2))
    assert latest_fence_record(tmp_path) == FenceRecord(3, 2)
    write_fence_record(tmp_path, 0, FenceRecord(4, 2, True, "here", "there"))
    assert latest_fence_record(tmp_path) == FenceRecord(4, 2, True, "here", "there")


def test_the_next_request_keeps_the_displaced_flows_place(world: World) -> None:
    world.ask()
    world.live.flush()
    world.again.flush()
    world.ask()  # at once, before the flow that served has seen anything
    world.live.flush()
    assert world.live.namespace == BESIDE
    for _ in range(3):
        world.flush()
    assert (world.live.namespace, world.again.namespace) == (NAMESPACE, BESIDE)
    assert world.reader.used() == {1: {*NAMES}}
    assert world.reader.meta()["generation"] == "3"


def test_a_request_during_a_downtime_keeps_the_displaced_flows_place(world: World) -> None:
    world.ask()
    world.live.flush()
    world.again.flush()
    world.ask()
    world.live.start()
    assert world.live.namespace == BESIDE


def test_a_flow_delayed_before_its_claim_overwrites_no_judged_row(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ask()
    world.live.flush()

    def asleep(*args: Any) -> None:
        world.live.flush(FRESH_MS)
        assert world.reader.meta()["judged"] == "1"
        note_taken(*args)

    with monkeypatch.context() as patched:
        patched.setattr("flows.publish.redis_writer.note_taken", asleep)
        dies(patched, "some rows", world.again)
        with pytest.raises(Killed):
            world.again.flush()
    assert len(world.reader.used()[1]) < len(NAMES)
    assert (world.reader.meta()["judged"], world.reader.meta()["unjudged_reason"]) == ("0", "switching")


def test_a_start_after_a_kill_deletes_the_other_flows_rows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.live.names += ["only-live"]
    world.flush()
    world.ask()
    world.live.flush()
    with monkeypatch.context() as patched:
        dies(patched, "rows", world.again)
        with pytest.raises(Killed):
            world.again.flush()
    world.again.start()
    world.again.flush()
    assert world.reader.used() == {2: {*NAMES}}
    assert not world.redis.exists(f"{NAMESPACE}:placement:{{only-live}}")
    assert "only-live" not in world.redis.zrange(f"{NAMESPACE}:index:placement", 0, -1)


@pytest.mark.parametrize("starts", [False, True])
def test_a_flow_down_during_a_switch_survives_an_emptied_redis(world: World, starts: bool) -> None:
    world.ask()
    world.live.flush()
    world.again.flush()
    world.redis.flushall()
    if starts:
        world.again.start()
    for _ in range(2):
        world.again.flush()
    world.live.start()
    assert world.live.namespace == BESIDE
    world.flush()
    assert world.reader.used() == {2: {*NAMES}}


def test_rows_with_a_lost_generation_are_not_taken_over(world: World) -> None:
    world.redis.flushall()
    assert world.ask() == 1
    world.again.flush()
    assert world.again.namespace == BESIDE
    world.flush()
    assert world.reader.used() == {1: {*NAMES}}


def test_an_unanswered_claim_is_repeated_under_its_own_fence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ask()
    world.live.flush()
    claim, tries = RowStore.claim, [0]

    def lost(self: RowStore, *args: Any) -> dict[str, str]:
        tries[0] += 1
        if tries[0] == 1:
            claim(self, *args)
        raise RedisUnavailable("timeout", "no answer")

    with monkeypatch.context() as patched:
        patched.setattr(RowStore, "claim", lost)
        for _ in range(2):
            world.again.flush()
            time.sleep(0.3)  # the pause after an error
    assert tries == [2]
    world.again.flush()
    assert world.reader.used() == {2: {*NAMES}}
    world.flush()
    assert (world.live.namespace, world.again.namespace) == (BESIDE, NAMESPACE)
