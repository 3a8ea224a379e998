"""Rows that readers have keep their places below the cap, in whatever order the log is read again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from connectors.ports import free_ports
from connectors.redis import read_rows
from connectors.redis.client import Client
from connectors.stream import ConnectError
from flows.attribution.credit_book import CreditBook
from flows.engine.steps import RowsLogic
from flows.model.counts import FLIGHT_COUNTS, MINUTE_COUNTS
from flows.model.events import IMPRESSION
from flows.model.messages import Flush, RowBatch
from flows.model.redis_keys import row_key
from flows.model.ticks import Cut
from flows.publish import Publisher, ShownRows
from flows.replay import replay
from flows.rows import row_index
from flows.settings.fields import Settings
from flows.state.saves import decode, encode

KEY = b"sixteen bytes !!"
MINUTE = 29_000_000
COUNT = "flight.impressions"


def batch(cut: Cut, names: Sequence[str]) -> RowBatch:
    """An impression of each of some placements."""
    counted = Counter(names)
    n, none = len(counted), np.zeros(0, np.uint32)
    counts = np.zeros((n, MINUTE_COUNTS), np.int64)
    counts[:, IMPRESSION] = list(counted.values())
    times, minutes = np.full(n, cut.watermark_ms), np.full(n, cut.watermark_ms // 60_000, np.uint32)
    return RowBatch(
        *(0, 0, cut, [("placement", name) for name in counted], times, np.arange(n, dtype=np.uint32)),
        *(minutes, counts, none, np.zeros((0, FLIGHT_COUNTS), np.int64), none, none),
        *(np.zeros(0, np.uint64), [], times, times),
    )


class Execution:
    """A row shard that reads two partitions of names, and publishes."""

    def __init__(self, settings: Settings, state: bytes, resumed: bool) -> None:
        self._rows = RowsLogic(settings, False, decode(state), KEY, shown=ShownRows(settings))
        self._publisher = Publisher(settings, ["a", "b"], resumed)
        self._publisher.open()
        self._book, self._first = CreditBook(1), decode(state) is None

    def cut(
        self,
        number: int,
        names: Sequence[str],
        positions: tuple[int, int],
        minute: int = MINUTE,
        flushed: bool = True,
        publish: bool = True,
    ) -> None:
        """A cut."""
        at = tuple(zip("ab", positions, strict=True))
        cut = Cut(number, minute * 60_000, False, at, self._first, publish=publish)
        self._first = False
        out, _ = self._rows.on_batch([batch(cut, names), *self._book.cut(cut, [])[0]])
        if flushed:
            self._publisher.flush(cut, [one for one in out if isinstance(one, Flush)])

    def state(self) -> bytes:
        return encode(self._rows.snapshot())

    def close(self) -> None:
        self._publisher.close()


def seen(client: Client, settings: Settings, names: set[str]) -> dict[str, int]:
    """A reader's view of every name and of `other`."""
    keys = {name: row_key(settings.namespace, "placement", name) for name in names}
    keys["other"] = row_key(settings.namespace, "other", "placement")
    rows = read_rows(client, list(keys.values()), [COUNT])
    return {name: int(row[COUNT]) for name, row in zip(keys, rows, strict=True) if row}


NAMES = st.lists(st.sampled_from("stuvwxyz"), max_size=8)
SIZES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=3)


@profile(suppress_health_check=list(HealthCheck), max_examples=25)
@given(a=NAMES, b=NAMES, first=SIZES, second=SIZES, saved=st.integers(0, 3), cap=st.integers(1, 5))
@example(a=["s"], b=["t"], first=[(1, 0)], second=[(0, 1)], saved=0, cap=1)
def test_behind_a_crash_no_reader_sees_less_and_nothing_counts_twice(
    settings_of: Callable[..., Settings],
    client: Client,
    a: list[str],
    b: list[str],
    first: list[tuple[int, int]],
    second: list[tuple[int, int]],
    saved: int,
    cap: int,
) -> None:
    settings, everything = settings_of(shards=1, row_cap=cap), {*a, *b}
    client.flushdb()
    number, begin, state = 0, (0, 0), encode(None)
    before: dict[str, int] = {}
    whole = len(a), len(b)
    for sizes in (first, [*second, whole]):
        execution, at = Execution(settings, state, number > 0), begin
        for some in sizes:
            number += 1
            to = min(whole[0], at[0] + some[0]), min(whole[1], at[1] + some[1])
            execution.cut(number, a[at[0] : to[0]] + b[at[1] : to[1]], to)
            at, now = to, seen(client, settings, everything)
            assert all(now.get(name, 0) >= count for name, count in before.items()), (before, now)
            before = now
            if number <= saved:
                begin, state = at, execution.state()
        execution.close()
    assert sum(before.values()) == len(a) + len(b)
    assert len(before.keys() - {"other"}) <= cap


@pytest.mark.parametrize("rare", [False, True])
def test_no_row_is_older_than_its_published_version(
    rare: bool, settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that wait for their part would be written as they were while the log was read again."""

    def as_of() -> list[int]:
        rows = read_rows(
            client, [row_key(settings.namespace, "placement", name) for name in "stu"], ["as_of_ms"]
        )
        return [int(row["as_of_ms"]) // 60_000 - MINUTE for row in rows]

    settings = settings_of(shards=1)
    dying = Execution(settings, encode(None), False)
    dying.cut(1, "stu", (3, 0))
    state = dying.state()
    dying.cut(2, "", (3, 1), MINUTE + 6)
    dying.close()
    assert as_of() == [6, 6, 6]
    monkeypatch.setattr(row_index, "TURNED_A_SECOND", 1)
    again = Execution(settings, state, True)
    again.cut(3, "", (3, 0))
    if rare:
        again.cut(4, "", (3, 1), MINUTE + 6, publish=False)
    again.cut(5, "", (3, 1), MINUTE + 6)
    assert as_of() == [6, 6, 6]
    again.cut(6, "", (3, 2), MINUTE + 70)
    assert sorted(as_of()) == [6, 6, 70]
    again.close()


def test_a_row_ended_before_a_crash_is_published_and_leaves_redis(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of(shards=1)
    dying = Execution(settings, encode(None), False)
    dying.cut(1, ["s"], (1, 0))
    dying.cut(2, ["s"], (2, 0), MINUTE + 60, flushed=False)
    dying.cut(3, ["t"], (2, 1), MINUTE + 5 * 1440, flushed=False)
    state = dying.state()
    dying.close()
    key = row_key(settings.namespace, "placement", "s")
    client.hset(key, "delivery.state", "under")  # it had a plan, which is taken away meanwhile
    client.persist(key)
    new = Execution(settings, state, True)
    new.cut(4, [], (2, 1), MINUTE + 5 * 1440)
    assert client.hget(key, "delivery.state") is None
    assert client.pttl(key) > 0
    assert seen(client, settings, {"s", "t"}) == {"s": 2, "t": 1}
    new.cut(5, [], (2, 1), MINUTE + 5 * 1440 + 60)
    assert seen(client, settings, {"s", "t"}) == {"t": 1}
    assert client.zrange(f"{settings.namespace}:index:placement", 0, -1) == ["t"]
    new.close()


def test_names_of_a_generation_before_keep_no_places(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of(shards=1, row_cap=1)
    old = Execution(settings, encode(None), False)
    old.cut(1, ["s"], (1, 0))
    old.close()
    client.hset(row_key(settings.namespace, "placement", "s"), "generation", "0")
    new = Execution(settings, encode(None), True)
    new.cut(2, ["t", "s"], (1, 1))
    new.close()
    assert seen(client, settings, {"s", "t"})["t"] == 1


def test_without_redis_no_row_begins(settings_of: Callable[..., Settings]) -> None:
    (port,) = free_ports(1)
    settings = settings_of(shards=1, redis_url=f"redis://127.0.0.1:{port}/0")
    rows = RowsLogic(settings, False, None, KEY, shown=ShownRows(settings))
    cut = Cut(1, 0, False, (("a", 1),), True)
    with pytest.raises(ConnectError):
        rows.on_batch([batch(cut, ["s"]), *CreditBook(1).cut(cut, [])[0]])


def test_a_new_generation_keeps_no_positions_of_another_log(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Path
) -> None:
    settings = settings_of(shards=1, row_cap=3)

    def replayed(log: str, **how: bool) -> dict[str, int]:
        names = [f"{log}-{number}" for number in range(3)]
        file = tmp_path / f"{log}.ndjson"
        lines = (
            {"event_id": name, "event": "impression", "placement_id": name, "ts": MINUTE * 60_000}
            for name in names
        )
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        replay([str(file)], settings, KEY, **how)
        return seen(client, settings, set(names))

    assert replayed("old") == dict.fromkeys(("old-0", "old-1", "old-2"), 1)
    assert replayed("new", recompute=True) == dict.fromkeys(("new-0", "new-1", "new-2"), 1)
