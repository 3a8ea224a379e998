"""The messages to subscribers: a chain by which a reader sees that it has lost one, named in `meta` too."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from audiopixel_client.mirror import META, Mirror, OlderStateError
from redis import Redis

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import Client, RedisUnavailable
from connectors.redis.rows import RowStore
from flows.model.fields import FIELDS, empty
from flows.model.messages import Flush, PackedRow
from flows.model.ticks import Cut
from flows.publish import backlog
from flows.publish.layout import LAYOUTS
from flows.publish.publisher import Publisher
from flows.settings.fields import Settings

T0 = 1_764_000_000_000


class Desk:
    """Executions one after the other, and a subscriber."""

    def __init__(self, settings: Settings, client: Client, url: str) -> None:
        self.settings, self.client, self.number = settings, client, 0
        self.now_s = 0.0
        self.subscriber: Any = Redis.from_url(url, decode_responses=True).pubsub()  # type: ignore[no-untyped-call]  # redis-py's
        self.subscriber.subscribe(f"{settings.namespace}:updates")
        self.subscriber.get_message(timeout=5)
        self.begin()

    def begin(self) -> None:
        """Another execution."""
        self.publisher = Publisher(self.settings, ["log"], False, monotonic_s=self._later)
        self.publisher.open()

    def _later(self) -> float:
        self.now_s += 20.0
        return self.now_s

    def flush(self, *names: str, turned: str = "", ended: str = "") -> None:
        self.number += 1
        cut = Cut(self.number, T0 + self.number, False, (("log", self.number),))
        values = empty(T0 + self.number)
        values[FIELDS.index("flight.impressions")] = self.number
        packed = LAYOUTS["row"].pack(values)
        some = [PackedRow("placement", name, T0, packed) for name in names]
        some += [PackedRow("placement", name, T0, packed, turned=True) for name in turned]
        gone = [("placement", name) for name in ended]
        flush = Flush(0, cut, some, ended=gone, rows_as_of_ms=T0 + self.number - len(turned))
        self.publisher.flush(cut, [flush])

    def messages(self) -> list[dict[str, Any]]:
        """All since the last look."""
        found = []
        while (one := self.subscriber.get_message(timeout=0.3)) is not None:
            found.append(json.loads(one["data"]))
        return found

    @property
    def chain(self) -> list[Any]:
        """The four of `meta`."""
        meta = self.client.hgetall(f"{self.settings.namespace}:meta")
        return [json.loads(meta[name]) for name in ("generation", "fence", "flush", "previous")]


def links(messages: list[dict[str, Any]]) -> list[Any]:
    return [[one[name] for name in ("generation", "fence", "flush", "previous")] for one in messages]


@pytest.fixture
def desk(
    settings_of: Callable[..., Settings], client: Client, valkey: EmbeddedValkey, tmp_path: Path
) -> Iterator[Desk]:
    desk = Desk(settings_of(recovery_dir=tmp_path), client, valkey.url)  # it outlives a loss of Redis's data
    yield desk
    desk.subscriber.close()
    desk.publisher.close()


def test_each_message_names_itself_and_the_one_before_as_meta_does(desk: Desk) -> None:
    seen = []
    for names in ("a", "", "ab"):
        desk.flush(*names)
        seen.append(desk.chain)
    told = desk.messages()
    assert links(told) == seen == [[1, 1, 1, None], [1, 1, 2, [1, 1, 1]], [1, 1, 3, [1, 1, 2]]]
    assert [one["placements"] for one in told] == [["a"], [], ["a", "b"]]
    assert [one["as_of_ms"] for one in told] == [T0 + 1, T0 + 2, T0 + 3]


def test_another_execution_begins_with_an_update_without_names(desk: Desk) -> None:
    desk.flush("a")
    desk.publisher.close()
    desk.begin()
    desk.flush("a")
    desk.flush("a")
    assert links(desk.messages())[1:] == [[1, 2, 1, None], [1, 2, 2, [1, 2, 1]]]


def test_a_loss_of_data_sends_an_update_without_names(desk: Desk) -> None:
    desk.flush("a")
    desk.flush("b")
    desk.client.flushdb()
    desk.flush("b")
    desk.flush("b")
    told = desk.messages()
    assert links(told)[2:] == [[1, 1, 3, None], [1, 1, 4, [1, 1, 3]]]
    assert sorted(told[2]["placements"]) == ["a", "b"]


@pytest.mark.parametrize("sent", [True, False])
def test_a_failed_update_is_repeated_under_its_number(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, sent: bool
) -> None:
    """Whether it went out or not, a subscriber misses nothing, and reads nothing for nothing."""
    desk.flush("a")
    write = RowStore.write

    def fails(*some: Any, publish: Any, **more: Any) -> None:
        write(*some, publish=publish if sent else None, **more)
        raise RedisUnavailable("connection", "gone for a moment")

    with monkeypatch.context() as patched:
        patched.setattr(RowStore, "write", fails)
        desk.flush("b")
    desk.flush("c")
    again = [[1, 1, 2, [1, 1, 1]]]
    told = desk.messages()
    assert links(told)[1:] == again * sent + again
    assert told[-1]["placements"] == ["b", "c"]
    assert desk.chain == again[0]


def test_the_next_update_names_late_and_ended_rows(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "TURNED_A_FLUSH", 1)
    desk.flush("a", "b", "c", "d")
    desk.flush("d", turned="ab")
    desk.flush("d", ended="c")
    assert not desk.client.exists(f"{desk.settings.namespace}:placement:{{c}}")
    desk.flush()
    assert [one["placements"] for one in desk.messages()] == [[*"abcd"], ["d"], [*"abd"], ["c"]]


class Follower:
    """A reader that knows what messages name alone, once it has read all rows."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._mirror = Mirror(["flight.impressions"], None, 30.0, 0.5, 2.0, {})
        self.wholes, self._lost = 0, False

    def take(self) -> None:
        """All messages that wait."""
        for told in self._desk.messages():
            found = None if self._lost else self._mirror.follows(json.dumps(told), self._mirror.flush)
            self.wholes += found is None
            try:
                self._read(*(found or (None, self._rows())))
                self._lost = False
            except OlderStateError:  # Redis has just lost its data
                self._lost = True

    def _read(self, flush: tuple[int, ...] | None, names: list[str]) -> None:
        client, namespace = self._desk.client, self._desk.settings.namespace
        reading = self._mirror.read(client.hmget(f"{namespace}:meta", META), T0 / 1000, 0.0)
        fields = self._mirror.fields
        rows = {name: client.hmget(f"{namespace}:placement:{{{name}}}", fields) for name in names}
        self._mirror.show(rows, reading, flush or reading.flush, whole=flush is None)

    def _rows(self) -> list[str]:
        return self._desk.client.zrange(f"{self._desk.settings.namespace}:index:placement", 0, -1)

    @property
    def shown(self) -> dict[str, tuple[int, ...]]:
        """Versions."""
        return {name: self._mirror.row(name).version for name in self._mirror.names()}

    @property
    def there(self) -> dict[str, tuple[int, ...]]:
        """The rows in Redis."""
        client, prefix = self._desk.client, f"{self._desk.settings.namespace}:placement:"
        found = {}
        for key in client.scan_iter(f"{prefix}*"):
            version = client.hmget(key, "generation", "fence", "rev")
            found[key[len(prefix) + 1 : -1]] = tuple(map(int, version))
        return found


@pytest.mark.parametrize("seed", range(12))
def test_a_follower_of_updates_has_the_rows_of_redis(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Rows are written in parts after a flush, and end. Writes and publications fail, with an effect or
    without. Data is lost, and other executions begin.
    """
    draw, follower, whole = random.Random(seed), Follower(desk), RowStore.write
    monkeypatch.setattr(backlog, "TURNED_A_FLUSH", draw.choice((1, 4)))
    monkeypatch.setattr(backlog, "TURNED_AT_ONCE", draw.choice((1, 3)))
    monkeypatch.setattr(Desk, "messages", quick_messages)

    def sample_names(most: int = 3) -> str:
        return "".join(draw.sample("abcdefgh", draw.randrange(most + 1)))

    for _ in range(40):
        fails = draw.random() < 0.2

        def write(*given: Any, fails: bool = fails, publish: Any = None, **more: Any) -> Any:
            if not fails:
                return whole(*given, publish=publish, **more)
            if draw.random() < 0.7:
                whole(*given, **{**more, "publish": publish if draw.random() < 0.5 else None})
            raise RedisUnavailable("connection", "gone for a moment")

        with monkeypatch.context() as patched:
            patched.setattr(RowStore, "write", write)
            ended = sample_names(1) if draw.random() < 0.3 else ""
            desk.flush(*sample_names(), turned="" if ended else sample_names(6), ended=ended)
        if draw.random() < 0.08:
            desk.client.flushdb()
        if draw.random() < 0.08:
            desk.publisher.close()
            desk.begin()
            desk.flush(*"abcdefgh")  # as one that has read the log again
        if draw.random() < 0.7 and follower.there:
            follower.take()
    for _ in range(10):
        desk.flush()
    follower.take()
    assert follower.shown == follower.there != {}
    assert 1 <= follower.wholes <= 12, "most messages follow each other"


def quick_messages(desk: Desk) -> list[dict[str, Any]]:
    """All that wait; the messages of this thread are there at once."""
    found = []
    while (one := desk.subscriber.get_message(timeout=0.02)) is not None:
        found.append(json.loads(one["data"]))
    return found
