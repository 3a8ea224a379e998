"""Rows that only time has changed: many of them delay no pixel's numbers, and `meta` says that they wait."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import msgspec
import pytest
from rows_support import MINUTE, batch

from connectors.redis.client import Client, RedisUnavailable
from flows.model.fields import FIELDS, TIMES, empty
from flows.model.messages import Flush, PackedRow
from flows.model.ticks import Cut
from flows.publish import backlog
from flows.publish.layout import LAYOUTS
from flows.publish.publisher import Publisher
from flows.rows import RowShard, pack_rows
from flows.rows.row_index import Limits
from flows.settings.fields import Settings

T0 = 1_764_000_000_000
NAMES = "abcdef"
MANY = "abcdefghijkl"
VERSION = ("generation", "fence", "rev", "updated_ms", *TIMES)


@dataclass
class Desk:
    """A publisher whose clock advances by a second at each look: it has time for one part a flush."""

    settings: Settings
    client: Client

    def __post_init__(self) -> None:
        seconds = count()
        self.publisher = Publisher(self.settings, ["log"], False, monotonic_s=lambda: float(next(seconds)))
        self.publisher.open()

    def flush(
        self,
        number: int,
        fresh: str = "",
        turned: str = "",
        ended: bool = False,
        last: bool = False,
        whole: int | None = None,
    ) -> None:
        """Rows whose numbers are `number`; its watermark is as many ms behind `T0`. The shard has given out
        all as of `whole`.
        """
        values = empty(T0 + number)
        values[FIELDS.index("flight.impressions")] = number
        packed = LAYOUTS["row"].pack(values)
        cut = Cut(number, T0 + number, ended, (("log", number),), last=last)
        some = [
            PackedRow("placement", name, T0, packed, turned=name in turned)
            for name in sorted({*fresh, *turned})
        ]
        whole_ms = T0 + (number if whole is None else whole)
        self.publisher.flush(cut, [Flush(0, cut, some, rows_as_of_ms=whole_ms)])

    def shown(self) -> str:
        """The version of each row that readers have, one digit each; `-` for none."""
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
    messages = [told.get_message(timeout=5) for _ in range(3)]
    told.close()
    assert [message["data"].partition('"placements":')[2] for message in messages[1:]] == [
        *('["f"]}', '["a","b","c","d","e"]}')
    ], "one a flush: what came behind it is in the next"


def test_a_row_with_a_new_pixel_stops_waiting(desk: Desk) -> None:
    desk.flush(2, turned=NAMES)
    assert (desk.shown(), desk.behind) == ("221111", 1)
    desk.flush(3, fresh="f", turned="ab")
    assert (desk.shown(), desk.behind) == ("222213", 1), "c and d were next"
    desk.flush(4)
    assert (desk.shown(), desk.behind) == ("332223", None)


def test_an_endless_round_still_moves_metas_lower_bound(desk: Desk) -> None:
    desk.flush(2, fresh="f", turned="ab", whole=1)
    assert (desk.shown(), desk.behind) == ("221112", 1), "behind the flush, though they are few"
    desk.flush(3, turned="cd", whole=2)
    assert (desk.shown(), desk.behind) == ("223312", 1)
    desk.flush(4, turned="ef", whole=3)
    assert (desk.shown(), desk.behind) == ("223344", 2)


def test_few_are_written_with_the_others(desk: Desk) -> None:
    desk.flush(2, fresh="f", turned="abc")
    assert (desk.shown(), desk.behind) == ("222112", None)


def test_a_later_minute_replaces_a_waiting_one(desk: Desk) -> None:
    desk.flush(2, turned=NAMES)
    desk.flush(3, turned=NAMES)
    assert (desk.shown(), desk.behind) == ("223311", 1)
    for number in (4, 5):
        desk.flush(number)
    assert (desk.shown(), desk.behind) == ("333333", None)


def test_an_ended_log_is_written_whole(desk: Desk) -> None:
    desk.flush(2, turned=NAMES)
    desk.flush(3, turned="ab", ended=True)
    assert (desk.shown(), desk.behind) == ("332222", None)


def test_a_stop_writes_all(desk: Desk) -> None:
    desk.flush(2, turned=NAMES)
    desk.flush(3, turned="ab", last=True)
    assert (desk.shown(), desk.behind) == ("332222", None)


def test_an_emptied_store_gets_waiting_rows_too(desk: Desk) -> None:
    desk.flush(2, turned=NAMES)
    desk.client.flushall()
    desk.flush(3, fresh="a")
    assert (desk.shown(), desk.behind) == ("322222", None)


def test_a_row_ending_while_waiting_is_deleted(desk: Desk) -> None:
    desk.flush(2, turned=NAMES)
    cut = Cut(3, T0 + 3, False, (("log", 3),))
    desk.publisher.flush(cut, [Flush(0, cut, ended=[("placement", "f")])])
    for number in (4, 5):
        desk.flush(number)
    assert (desk.shown(), desk.behind) == ("22222-", None)


def test_a_failed_flush_moves_no_lower_bound(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("connectors.redis.RowStore.write", down)
        desk.flush(2, turned="abc")
    desk.flush(3, turned="def")
    assert (desk.shown(), desk.behind) == ("221111", 1)


def down(*_: object, **__: object) -> None:
    raise RedisUnavailable("connection", "gone for a moment")


@pytest.mark.parametrize("seed", range(12))
def test_no_row_is_older_than_metas_lower_bound(
    seed: int, settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of two shards that give out parts, through a writer that writes parts, and a Redis that fails."""
    rng, desk = random.Random(seed), Desk(settings_of(), client)
    monkeypatch.setattr(backlog, "TURNED_A_FLUSH", rng.choice((1, 4)))
    monkeypatch.setattr(backlog, "TURNED_AT_ONCE", rng.choice((1, 3)))
    limits = Limits(turned=rng.choice((1, 2, 3)))
    shards = [RowShard(at, 2, 2 * MINUTE, MINUTE, lambda of: of // 1440, limits=limits) for at in range(2)]
    states, now = list[tuple[int, dict[str, dict[str, str]]]](), T0 // MINUTE
    said, namespace = set[bool](), desk.settings.namespace
    for number in range(1, 80):
        now += 0 if number > 60 else rng.choice((0, 0, 1, 1, 2, 7))
        cut = Cut(number, now * MINUTE, False, (("log", number),), publish=rng.random() < 0.8 or number > 60)
        flushes, state = list[Flush](), dict[str, dict[str, str]]()
        for shard in shards:
            some = {} if number > 60 else {rng.choice(MANY[shard.index :: 2]): rng.randrange(9) for _ in "12"}
            plays = [batch(cut, [(now, who)], ("placement", name)) for name, who in some.items()]
            windows, _ = shard.apply(cut, plays)
            rows = pack_rows(windows, shard.watermark_ms, shard.final_through_ms) if windows else []
            flushes.append(Flush(shard.index, cut, rows, rows_as_of_ms=shard.turning.whole_ms))
            every = shard.numbers_of(shard.columns.alive.nonzero()[0])
            state |= {row.name: unpacked_row(row.packed) for row in pack_rows(every, cut.watermark_ms, 0)}
        states.append((cut.watermark_ms, state))
        with monkeypatch.context() as patched:
            if rng.random() < 0.1 and number < 60:
                patched.setattr("connectors.redis.RowStore.write", down)
            desk.publisher.flush(cut, flushes)
        meta = client.hgetall(f"{namespace}:meta")
        if meta:
            as_of_ms = int(meta.get("rows_as_of_ms") or meta["watermark_ms"])
            since = [state for of_ms, state in states if of_ms >= as_of_ms]
            for name in state:
                row = client.hgetall(f"{namespace}:placement:{{{name}}}")
                shown = {field: value for field, value in row.items() if field not in VERSION}
                assert not row or any(of.get(name) == shown for of in since), (number, name)
            said.add("rows_as_of_ms" in meta)
    assert said == {True, False}
    assert (desk.behind, since) == (None, [state for of_ms, state in states if of_ms == now * MINUTE])
    desk.publisher.close()


def unpacked_row(packed: bytes) -> dict[str, str]:
    """A packed row as a reader gets it, without its times."""
    values = zip(FIELDS, msgspec.msgpack.decode(packed), strict=True)
    return {name: str(value) for name, value in values if value is not None and name not in TIMES}
