"""The fence never falls, and a generation is begun once, whatever dies at whatever moment and loses what."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from redis import Redis
from redis_between import Between

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import RedisUnavailable
from connectors.redis.rows import RowStore
from connectors.stream import ConnectError
from flows.errors import StateError
from flows.model.fields import FIELDS, empty
from flows.model.messages import Flush, PackedRow
from flows.model.ticks import Cut
from flows.publish.fence import FenceRecord, latest_fence_record, write_fence_record
from flows.publish.layout import LAYOUTS
from flows.publish.publisher import Publisher
from flows.settings.fields import Settings

NAMESPACE = "fence:v1"
NOW = 1_790_000_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def redis(server: EmbeddedValkey) -> Iterator[Redis]:
    with Redis(port=server.port, decode_responses=True) as redis:
        redis.flushall()
        yield redis


def execution(url: str, directory: Path | None, resumed: bool = False, **more: Any) -> Publisher:
    values: dict[str, Any] = {"redis_url": url, "namespace": NAMESPACE, "recovery_dir": directory}
    publisher = Publisher(Settings(**values), ["log"], resumed, **more)
    publisher.open()
    return publisher


def flush(publisher: Publisher, number: int, position: int) -> None:
    """A row that states how far the log was read."""
    values = empty(NOW)
    values[FIELDS.index("flight.impressions")] = position
    cut = Cut(number, NOW + number, False, (("log", position),))
    publisher.flush(cut, [Flush(0, cut, [PackedRow("placement", "p", NOW, LAYOUTS["row"].pack(values))])])


def seen(redis: Redis) -> tuple[int, ...]:
    """Generation, fence and impressions of the row."""
    fields = ["generation", "fence", "flight.impressions"]
    return tuple(int(value or 0) for value in redis.hmget(f"{NAMESPACE}:placement:{{p}}", fields))


STARTS = st.lists(
    st.tuples(
        st.integers(1, 12) | st.none(),
        st.sampled_from(["nothing", "all", "the counter", "the counter and the positions"]),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=8,
)


@profile(suppress_health_check=list(HealthCheck))
@given(starts=STARTS)
def test_fences_grow_over_crashes_and_losses_of_redis(
    server: EmbeddedValkey, redis: Redis, starts: list[tuple[int | None, str, int]]
) -> None:
    redis.flushall()
    used = [0]
    with TemporaryDirectory() as name, Between(server) as between:
        for dies_behind, lost, process in starts:
            between.refuses, last = False, dies_behind and len(between.commands) + dies_behind

            def die(number: int, last: int | None = last) -> bool:
                between.refuses |= number == last
                return between.refuses

            between.then = die
            try:
                publisher = execution(between.url, Path(name), process=process)
                publisher.close()
            except ConnectError:
                assert dies_behind is not None
            claimed = int(redis.hget(f"{NAMESPACE}:positions", "fence") or 0)
            if claimed and claimed != used[-1]:
                assert claimed > max(used)
                assert latest_fence_record(Path(name)).fence == claimed, "used before it was on the disk"
                used.append(claimed)
            if dies_behind is None:
                assert claimed == used[-1] > 0
                assert int(redis.get(f"{NAMESPACE}:fence") or 0) == claimed
            match lost:
                case "all":
                    redis.flushall()
                case "the counter":
                    redis.delete(f"{NAMESPACE}:fence")
                case "the counter and the positions":
                    redis.delete(f"{NAMESPACE}:fence", f"{NAMESPACE}:positions")


def test_of_several_members_files_the_greatest_counts(tmp_path: Path, redis: Redis, server: Any) -> None:
    write_fence_record(tmp_path, 0, FenceRecord(7, 1))
    write_fence_record(tmp_path, 11, FenceRecord(9, 1))
    write_fence_record(tmp_path, 2, FenceRecord(8, 1))
    execution(server.url, tmp_path, process=2).close()
    assert latest_fence_record(tmp_path) == FenceRecord(10, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"fence-0", "fence-2", "fence-11"}


def test_a_fence_that_fails_on_disk_is_not_used(tmp_path: Path, redis: Redis, server: Any) -> None:
    execution(server.url, tmp_path).close()
    (tmp_path / "fence-0.part").mkdir()
    with pytest.raises(StateError, match="cannot be used"):
        execution(server.url, tmp_path)
    assert redis.hget(f"{NAMESPACE}:positions", "fence") == "1"


@pytest.mark.parametrize("damaged", [b"[32,3,false]", b"[12,2,false]", b"[12,3,f\xe1lse]", b"[12", b""])
def test_a_damaged_fence_is_refused_with_advice(
    damaged: bytes, tmp_path: Path, redis: Redis, server: Any
) -> None:
    write_fence_record(tmp_path, 0, FenceRecord(12, 3))
    line, below = (tmp_path / "fence-0").read_bytes().split(b"\n")
    assert line == b"[12,3,false]"
    (tmp_path / "fence-0").write_bytes(damaged + b"\n" + below)
    with pytest.raises(StateError, match=r"fence-0 is damaged.*: restore it, or put .*\[fence, generation"):
        execution(server.url, tmp_path)
    (tmp_path / "fence-0").write_text("[12, 3, false]\n")  # as it says
    assert latest_fence_record(tmp_path) == FenceRecord(12, 3)


@pytest.mark.parametrize("snapshot", [False, True], ids=["before the first snapshot", "resumed"])
def test_a_recomputation_begins_one_generation_over_all_starts(
    tmp_path: Path, redis: Redis, server: Any, snapshot: bool
) -> None:
    older = execution(server.url, tmp_path / "older")
    flush(older, 1, 5000)
    older.close()
    first = execution(server.url, tmp_path / "new", recompute=True)
    flush(first, 2, 1000)
    assert seen(redis) == (2, 2, 1000), "it begins anew, and the older one's positions hold nothing back"
    first.close()
    again = execution(server.url, tmp_path / "new", resumed=snapshot, recompute=True)
    flush(again, 3, 900)
    assert seen(redis) == (2, 2, 1000), "the replay is behind what readers have"
    flush(again, 4, 1001)
    assert seen(redis) == (2, 3, 1001)
    again.close()


def test_a_start_crashed_before_its_claim_has_begun_its_generation(
    tmp_path: Path, redis: Redis, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = execution(server.url, tmp_path / "older")
    flush(older, 1, 5000)
    older.close()

    def down(*_: Any) -> Any:
        raise RedisUnavailable("connection", "gone for a moment")

    with monkeypatch.context() as patched:
        patched.setattr(RowStore, "claim", down)
        with pytest.raises(ConnectError):
            execution(server.url, tmp_path / "new", recompute=True)
    assert latest_fence_record(tmp_path / "new") == FenceRecord(2, 2, begun=True)
    again = execution(server.url, tmp_path / "new", recompute=True)
    flush(again, 2, 10)
    assert seen(redis) == (2, 3, 10)
    again.close()


def test_a_generation_outlives_a_redis_emptied_between_executions(
    tmp_path: Path, redis: Redis, server: Any
) -> None:
    write_fence_record(tmp_path, 0, FenceRecord(4, 3))
    publisher = execution(server.url, tmp_path, resumed=True)
    flush(publisher, 1, 10)
    assert seen(redis) == (3, 5, 10)
    publisher.close()


def test_a_state_of_an_older_generation_is_refused_and_writes_nothing(
    tmp_path: Path, redis: Redis, server: Any
) -> None:
    execution(server.url, tmp_path / "older").close()
    newer = execution(server.url, tmp_path / "newer", recompute=True)
    flush(newer, 1, 10)
    with pytest.raises(
        StateError, match=r"holds generation 2, and the recovery directory .* of generation 1"
    ):
        execution(server.url, tmp_path / "older", resumed=True)
    flush(newer, 2, 11)
    assert seen(redis) == (2, 2, 11)
    newer.close()
