"""A Redis that loses data at any moment, also within a flush: the next flush finds out and fills it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from redis import Redis
from redis_between import Between, Dump, bring_back, dump

from connectors.embedded import EmbeddedValkey
from connectors.redis import client, rows
from connectors.redis.client import RedisUnavailable, connect
from connectors.redis.commands import read_rows
from connectors.redis.rows import RowStore
from flows.errors import StateError
from flows.model.fields import FIELDS, empty
from flows.model.messages import LEDGER_SHARD, ConversionAccount, Flush, PackedRow, PartitionAccount
from flows.model.ticks import Cut
from flows.publish import ledger
from flows.publish.layout import LAYOUTS
from flows.publish.publisher import Publisher
from flows.publish.redis_writer import RedisWriter
from flows.settings.fields import Settings

NAMESPACE = "lost:v1"
T0 = 1_790_000_000_000
PIPELINE, SCRIPT = 4, 2
PAUSE_S = 60.0
"""Longer than the publisher ever waits."""


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture(autouse=True)
def small_pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "CHUNK", PIPELINE)
    monkeypatch.setattr(rows, "_A_SCRIPT", SCRIPT)


def row(scope: str, name: str, impressions: int) -> PackedRow:
    values = empty(T0)
    values[FIELDS.index("flight.impressions")] = impressions
    return PackedRow(scope, name, T0, LAYOUTS["row"].pack(values))


class Execution:
    """A publisher of one execution, and what it was given to publish."""

    def __init__(self, url: str, number: int = 0, resumed: bool = False) -> None:
        self.now_s = T0 / 1000
        self.number = number
        settings = Settings(redis_url=url, namespace=NAMESPACE, recovery_dir=None)  # type: ignore[arg-type]  # text is taken
        clock = partial(getattr, self, "now_s")
        self.publisher = Publisher(settings, ["log"], resumed, clock_s=clock, monotonic_s=clock)
        self.publisher.open()

    def flush(self, *some: PackedRow, **more: Any) -> None:
        self.now_s += PAUSE_S
        self.number += 1
        cut = Cut(self.number, T0 + self.number * 1000, False, (("log", self.number),))
        account = PartitionAccount("log", dict.fromkeys(ledger.COUNTS, self.number), self.number, T0)
        book = Flush(LEDGER_SHARD, cut, accounts=[account], conversions=ConversionAccount(3, 1, 1, 1))
        self.publisher.flush(cut, [Flush(0, cut, some, **more), book])

    def quiet(self) -> None:
        """Rows that never change again, with a sketch of who was reached."""
        some = [row(scope, f"quiet-{n}", 7) for n in range(3) for scope in ("placement", "station")]
        self.flush(*some, sketches=[("quiet-0", "registers")])

    def busy(self) -> None:
        self.flush(*(row("placement", f"busy-{n}", self.number) for n in range(6)))


def shown(redis: Redis) -> dict[str, Any]:
    """All that readers can see, but the wall clock's and the chain of messages, which says what failed."""
    found: dict[str, Any] = {}
    for key in map(bytes.decode, redis.keys()):
        match redis.type(key):
            case b"hash":
                apart = (b"updated_ms", b"flush", b"previous")
                content = {name: value for name, value in redis.hgetall(key).items() if name not in apart}
            case b"zset":
                content = dict(redis.zrange(key, 0, -1, withscores=True))
            case _:
                content = redis.get(key)
        if ":marker" not in key:
            found[key] = (content, redis.pttl(key) > 0)
    return found


class Undisturbed:
    """The result of the same flushes without faults: the rows after each flush, and the number of its
    commands.
    """

    def __init__(self, server: EmbeddedValkey, redis: Redis) -> None:
        redis.flushall()
        self.after, self.commands = [], []
        with Between(server) as between:
            execution = Execution(between.url)
            opened = len(between.commands)
            for flush in FLUSHES:
                flush(execution)
                self.after.append(shown(redis))
                self.commands.append(len(between.commands) - opened)
            execution.publisher.close()


FLUSHES = (Execution.quiet, Execution.busy, Execution.busy, Execution.busy)


@pytest.fixture(scope="module")
def redis(server: EmbeddedValkey) -> Iterator[Redis]:
    with Redis(port=server.port) as redis:
        yield redis


@pytest.fixture(scope="module")
def truth(server: EmbeddedValkey, redis: Redis) -> Undisturbed:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(client, "CHUNK", PIPELINE)
        patched.setattr(rows, "_A_SCRIPT", SCRIPT)
        return Undisturbed(server, redis)


def disturbed(
    server: EmbeddedValkey, redis: Redis, happens: Callable[[int], bool]
) -> Iterator[dict[str, Any]]:
    """The rows after each flush, with `happens` called after each command since the start."""
    redis.flushall()
    with Between(server) as between:
        execution = Execution(between.url)
        opened = len(between.commands)
        between.then = lambda number: happens(number - opened)
        for flush in FLUSHES:
            flush(execution)
            yield shown(redis)
        execution.publisher.close()


@pytest.mark.parametrize("restarted", [False, True], ids=["flushed", "restarted"])
def test_a_store_emptied_within_a_flush_is_restored_by_the_next(
    server: EmbeddedValkey, redis: Redis, truth: Undisturbed, restarted: bool
) -> None:
    first, second = truth.commands[:2]
    assert second - first > 12, "a flush of several pipelines"
    for moment in range(first, second + 1):

        def happens(number: int, moment: int = moment) -> bool:
            if number == moment:
                redis.flushall()
            return restarted and number == moment

        after = list(disturbed(server, redis, happens))
        taken = 3 if restarted else 2  # a flush that gets an error because of the restart tries again
        assert after[taken:] == truth.after[taken:], (
            f"emptied behind command {moment - first} of {second - first}"
        )


@profile(suppress_health_check=list(HealthCheck))
@given(moments=st.data())
def test_a_store_restored_to_any_moment_recovers_with_a_flush(
    server: EmbeddedValkey, redis: Redis, truth: Undisturbed, moments: st.DataObject
) -> None:
    end = moments.draw(st.integers(1, truth.commands[1]), "lost behind")
    begin = moments.draw(st.integers(1, end), "back to")
    held: list[Dump] = []

    def happens(number: int) -> bool:
        if number == begin:
            held.append(dump(redis))
        if number == end:
            bring_back(redis, held[0])
        return number == end

    after = list(disturbed(server, redis, happens))
    assert after[3] == truth.after[3]


def test_a_lost_execution_counter_does_not_stop_a_start(server: EmbeddedValkey, redis: Redis) -> None:
    redis.flushall()
    redis.set(f"{NAMESPACE}:fence", 19)
    first = Execution(server.url)
    first.quiet()
    fences = [first.publisher.writer.fence]
    for lost in ([f"{NAMESPACE}:fence"], [f"{NAMESPACE}:fence", f"{NAMESPACE}:positions"]):
        redis.delete(*lost)
        again = Execution(server.url, first.number, resumed=True)
        again.busy()
        fences.append(again.publisher.writer.fence)
        again.publisher.close()
        (held,) = read_rows(connect(server.url, timeout=timedelta(seconds=2)), [f"{NAMESPACE}:meta"])
        assert int(held["fence"]) == fences[-1] == int(redis.get(f"{NAMESPACE}:fence") or 0)
    assert fences == [20, 21, 22]
    first.publisher.close()


class Died(Exception):
    """The process is gone."""


def test_a_crash_after_a_loss_leaves_no_row_without_positions(
    server: EmbeddedValkey, redis: Redis, truth: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise Died

    refilled = RedisWriter._write_again
    for moment in range(1, truth.commands[0] + 8):
        begin = truth.commands[0] + 1
        losses = [begin, begin + moment]  # in a flush, and as it is written again

        def happens(number: int, losses: list[int] = losses) -> bool:
            if number in losses:
                redis.flushall()
            if number >= losses[-1]:
                monkeypatch.setattr(RedisWriter, "_write_again", dies)
            return False

        monkeypatch.setattr(RedisWriter, "_write_again", refilled)
        with suppress(Died):
            for _ in disturbed(server, redis, happens):
                pass
        if redis.keys(f"{NAMESPACE}:placement:*") or redis.keys(f"{NAMESPACE}:station:*"):
            assert redis.hexists(f"{NAMESPACE}:positions", "positions"), f"emptied {moment} commands later"


@pytest.mark.parametrize("flushed", [True, False])
def test_after_a_loss_no_row_is_older_than_published_ones(
    server: EmbeddedValkey, redis: Redis, monkeypatch: pytest.MonkeyPatch, flushed: bool
) -> None:
    redis.flushall()
    older, newer = Execution(server.url, 6), Execution(server.url, 0 if flushed else 1)
    if flushed:
        newer.busy()
    redis.flushall()
    older.busy()  # it does not know of the newer one, and nothing is there that would tell
    store = newer.publisher.writer._store
    assert store is not None

    def unheard(*claim: Any) -> None:
        RowStore.claim(store, *claim)
        raise RedisUnavailable("timeout", "no answer")

    with monkeypatch.context() as patched:
        patched.setattr(store, "claim", unheard)
        newer.busy()
    key, seen = f"{NAMESPACE}:placement:{{busy-0}}", list[tuple[bytes | None, ...]]()
    for _ in range(6):
        newer.busy()
        if len(seen) == 1:  # nor by a stop
            newer.publisher.finish()  # whose clock stands still
        seen.append((redis.hget(key, "fence"), redis.hget(key, "flight.impressions")))
    assert seen == [(b"1", b"6")] * 4 + [(b"2", b"6"), (b"2", b"7")]
    older.publisher.close()
    newer.publisher.close()


@pytest.mark.parametrize(
    ("key", "field", "text"),
    [
        ("positions", "positions", "{{"),
        ("positions", "positions", '{"log": "far"}'),
        ("positions", "generation", "one"),
        ("positions", "fence", "1.5"),
        ("meta", "unjudged_since_ms", "long ago"),
    ],
)
def test_invalid_values_in_redis_end_a_start_in_one_line(
    server: EmbeddedValkey, redis: Redis, key: str, field: str, text: str
) -> None:
    redis.flushall()
    redis.hset(f"{NAMESPACE}:{key}", mapping={"generation": 1, "fence": 1, "rev": 1, field: text})
    with pytest.raises(StateError, match=f"^Redis holds .* as {field} of an earlier execution"):
        Execution(server.url)
