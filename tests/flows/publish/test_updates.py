"""The messages to subscribers: a chain by which a reader sees that it has lost one, named in `meta` too."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
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
def desk(settings_of: Callable[..., Settings], client: Client, valkey: EmbeddedValkey) -> Iterator[Desk]:
    desk = Desk(settings_of(), client, valkey.url)
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


def test_another_execution_begins_with_one_that_names_none(desk: Desk) -> None:
    desk.flush("a")
    desk.publisher.close()
    desk.begin()
    desk.flush("a")
    desk.flush("a")
    assert links(desk.messages())[1:] == [[1, 2, 1, None], [1, 2, 2, [1, 2, 1]]]


def test_behind_a_loss_of_data_comes_one_that_names_none(desk: Desk) -> None:
    desk.flush("a")
    desk.flush("b")
    desk.client.flushdb()
    desk.flush("b")
    desk.flush("b")
    told = desk.messages()
    assert links(told)[2:] == [[1, 1, 3, None], [1, 1, 4, [1, 1, 3]]]
    assert sorted(told[2]["placements"]) == ["a", "b"]


@pytest.mark.parametrize("sent", [True, False])
def test_one_whose_publication_failed_comes_again_under_its_number(
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


def test_rows_written_behind_a_flush_and_rows_that_ended_are_named_in_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "TURNED_A_FLUSH", 1)
    desk.flush("a", "b", "c", "d")
    desk.flush("d", turned="ab")
    desk.flush("d", ended="c")
    assert not desk.client.exists(f"{desk.settings.namespace}:placement:{{c}}")
    desk.flush()
    assert [one["placements"] for one in desk.messages()] == [[*"abcd"], ["d"], [*"abd"], ["c"]]
