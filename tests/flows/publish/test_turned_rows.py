"""Rows that only time has changed: many of them delay no pixel's numbers, and `meta` says that they wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import pytest

from connectors.redis.client import Client, RedisUnavailable
from flows.model.fields import FIELDS, empty
from flows.model.messages import Flush, PackedRow
from flows.model.ticks import Cut
from flows.publish import backlog
from flows.publish.layout import LAYOUTS
from flows.publish.publisher import Publisher
from flows.settings.fields import Settings

T0 = 1_764_000_000_000
NAMES = "abcdef"


@dataclass
class Desk:
    """A publisher for whom each look at the clock is a second later: it has time for one part a flush."""

    settings: Settings
    client: Client

    def __post_init__(self) -> None:
        seconds = count()
        self.publisher = Publisher(self.settings, ["log"], False, monotonic_s=lambda: float(next(seconds)))
        self.publisher.open()

    def flush(self, number: int, fresh: str = "", turned: str = "", ended: bool = False) -> None:
        """Rows whose numbers are `number`; its watermark is as many ms behind `T0`."""
        values = empty(T0 + number)
        values[FIELDS.index("flight.impressions")] = number
        packed = LAYOUTS["row"].pack(values)
        cut = Cut(number, T0 + number, ended, (("log", number),))
        some = [
            PackedRow("placement", name, T0, packed, turned=name in turned)
            for name in sorted({*fresh, *turned})
        ]
        self.publisher.flush(cut, [Flush(0, cut, some)])

    def shown(self) -> str:
        """What readers have of each, one digit each; `-`: nothing."""
        namespace = self.settings.namespace
        keys = [f"{namespace}:placement:{{{name}}}" for name in NAMES]
        return "".join([self.client.hget(key, "flight.impressions") or "-" for key in keys])

    @property
    def behind(self) -> int | None:
        """The watermark of all rows, in ms behind `T0`, where `meta` says that some are not as of its own."""
        told = self.client.hget(f"{self.settings.namespace}:meta", "rows_as_of_ms")
        return None if told is None else int(told) - T0


@pytest.fixture
def desk(
    settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    monkeypatch.setattr(backlog, "TURNED_A_FLUSH", 3)
    monkeypatch.setattr(backlog, "TURNED_AT_ONCE", 2)
    desk = Desk(settings_of(), client)
    desk.flush(1, fresh=NAMES)
    assert (desk.shown(), desk.behind) == ("111111", None)
    yield desk
    desk.publisher.close()


def test_many_are_written_in_parts_behind_the_numbers_of_pixels(desk: Desk) -> None:
    told = desk.client.pubsub()
    told.subscribe(f"{desk.settings.namespace}:updates")
    desk.flush(2, fresh="f", turned="abcde")
    assert (desk.shown(), desk.behind) == ("221112", 1)
    desk.flush(3)
    assert (desk.shown(), desk.behind) == ("222222", None)
    messages = [told.get_message(timeout=5) for _ in range(4)]
    told.close()
    assert [message["data"].partition('"placements":')[2] for message in messages[1:]] == [
        *('["f"]}', '["a","b"]}', '["c","d","e"]}')
    ]


def test_a_row_that_gets_a_pixel_waits_no_more(desk: Desk) -> None:
    desk.flush(2, turned=NAMES)
    assert (desk.shown(), desk.behind) == ("221111", 1)
    desk.flush(3, fresh="f", turned="ab")
    assert (desk.shown(), desk.behind) == ("222213", 1), "c and d were next"
    desk.flush(4)
    assert (desk.shown(), desk.behind) == ("332223", None)


def test_few_are_written_with_the_others(desk: Desk) -> None:
    desk.flush(2, fresh="f", turned="abc")
    assert (desk.shown(), desk.behind) == ("222112", None)


def test_a_later_minute_takes_the_place_of_one_that_waits(desk: Desk) -> None:
    desk.flush(2, turned=NAMES)
    desk.flush(3, turned=NAMES)
    assert (desk.shown(), desk.behind) == ("223311", 1)
    for number in (4, 5):
        desk.flush(number)
    assert (desk.shown(), desk.behind) == ("333333", None)


def test_a_log_that_ends_is_written_whole(desk: Desk) -> None:
    desk.flush(2, turned=NAMES)
    desk.flush(3, turned="ab", ended=True)
    assert (desk.shown(), desk.behind) == ("332222", None)


def test_a_store_that_was_emptied_gets_those_that_wait_too(desk: Desk) -> None:
    desk.flush(2, turned=NAMES)
    desk.client.flushall()
    desk.flush(3, fresh="a")
    assert (desk.shown(), desk.behind) == ("322222", None)


def test_a_row_that_ends_while_it_waits_is_gone(desk: Desk) -> None:
    desk.flush(2, turned=NAMES)
    cut = Cut(3, T0 + 3, False, (("log", 3),))
    desk.publisher.flush(cut, [Flush(0, cut, ended=[("placement", "f")])])
    for number in (4, 5):
        desk.flush(number)
    assert (desk.shown(), desk.behind) == ("22222-", None)


def test_a_flush_that_failed_moves_no_promise(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: object, **__: object) -> None:
        raise RedisUnavailable("connection", "gone for a moment")

    with monkeypatch.context() as patched:
        patched.setattr("connectors.redis.RowStore.write", down)
        desk.flush(2, turned="abc")
    desk.flush(3, turned="def")
    assert (desk.shown(), desk.behind) == ("221111", 1)
