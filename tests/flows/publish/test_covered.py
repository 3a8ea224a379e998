"""Minutes obey the rules of rows: a published value is never taken back, after any death and any restart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from connectors.ports import free_ports
from connectors.redis.client import Client
from flows.attribution.credit_book import CreditBook
from flows.engine.steps import RowsLogic
from flows.errors import StateError
from flows.model.counts import FLIGHT_COUNTS, MINUTE_COUNTS
from flows.model.events import IMPRESSION
from flows.model.messages import Lines, RowBatch
from flows.model.ticks import Cut
from flows.publish.covered import NEVER, RETRY_S, Covered, positions_key
from flows.publish.fence import FenceRecord, write_fence_record
from flows.settings.fields import Settings
from flows.state.saves import decode, encode

MINUTE = 60_000
BEGIN = 29_000_000
Told = tuple[str, str, int]
"""Key, state, impressions."""


def store(client: Client, settings: Settings, **positions: int) -> None:
    """The data that a flush stores."""
    client.hset(positions_key(settings.namespace), "positions", json.dumps(positions))


def cut_at_positions(**positions: int) -> Cut:
    return Cut(1, 0, False, tuple(positions.items()))


def is_behind(covered: Covered, cut: Cut) -> bool:
    return covered.provisional_from(cut) == NEVER


def test_a_cut_is_behind_until_every_partition_has_passed(
    settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    assert not is_behind(Covered(settings), cut_at_positions(a=0)), "nobody has published"
    store(client, settings, a=5, b=7)
    covered = Covered(settings)
    assert [
        is_behind(covered, cut_at_positions(**cut)) for cut in ({"a": 9}, {"a": 5, "b": 6}, {"a": 5, "b": 7})
    ] == [
        True,
        True,
        False,
    ]
    store(client, settings, a=50, b=70)  # by this execution
    assert not is_behind(covered, cut_at_positions(a=6, b=8))


def test_while_redis_does_not_tell_a_cut_is_behind(
    settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    now_s, settings = [0.0], settings_of()
    covered = Covered(settings_of(redis_url=f"redis://127.0.0.1:{port}/0"), clock_s=lambda: now_s[0])
    assert is_behind(covered, cut_at_positions(a=9))
    covered.settings = settings
    assert is_behind(covered, cut_at_positions(a=9)), "not asked at every cut: each may take a timeout"
    now_s[0] += RETRY_S
    assert not is_behind(covered, cut_at_positions(a=9))


@pytest.mark.parametrize("begun", [False, True])
def test_only_a_restart_within_a_generation_can_be_behind(
    settings_of: Callable[..., Settings], client: Client, tmp_path: Any, begun: bool
) -> None:
    settings = settings_of(recovery_dir=tmp_path)
    write_fence_record(tmp_path, 0, FenceRecord(3, 2, begun))
    store(client, settings, a=5)
    assert is_behind(Covered(settings, recompute=True), cut_at_positions(a=4)) == begun


# What the topic gets


def batch(cut: Cut, minutes: list[int]) -> RowBatch:
    """An impression in each of some minutes, of one placement."""
    n, counts = len(minutes), np.zeros((len(minutes), MINUTE_COUNTS), np.int64)
    counts[:, IMPRESSION] = 1
    rows, none = np.zeros(n, np.uint32), np.zeros(0, np.uint32)
    latest, first = (np.array([of(minutes, default=BEGIN) * MINUTE]) for of in (max, min))
    return RowBatch(
        *(0, 0, cut, [("placement", "p")], latest, rows, np.array(minutes, np.uint32), counts, none),
        *(np.zeros((0, FLIGHT_COUNTS), np.int64), none, none, np.zeros(0, np.uint64), [], first, latest),
    )


class Execution:
    """A row shard that reads a log of minutes, one pixel each, in order."""

    def __init__(
        self, settings: Settings, log: list[int], covered: Covered, state: bytes, begin: int
    ) -> None:
        self._log, self._position, self._book = log, begin, CreditBook(1)
        self._first = decode(state) is None
        self._rows = RowsLogic(settings, True, decode(state), b"sixteen bytes !!", covered)

    def cuts(self, sizes: list[int], number: int, until: int) -> Iterator[tuple[Cut, list[Told], bytes]]:
        """Cuts after each so many pixels and at `until`, with the rows published at each, and the resulting
        state.
        """
        for size in [*sizes, until]:
            begin, self._position = self._position, min(until, self._position + size)
            number += 1
            watermark_ms = self._log[max(0, self._position - 1)] * MINUTE
            cut = Cut(number, watermark_ms, False, (("log", self._position),), self._first)
            self._first = False
            credits = self._book.cut(cut, [])[0]
            out, _ = self._rows.on_batch([batch(cut, self._log[begin : self._position]), *credits])
            minutes = [
                (key.decode(), json.loads(body))
                for one in out
                if isinstance(one, Lines)
                for key, body in one.messages
            ]
            told = [(key, body["state"], body["impressions"]) for key, body in minutes]
            yield cut, told, encode(self._rows.snapshot())


SIZES = st.lists(st.integers(0, 6), max_size=12)


@profile(suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=1, max_size=50),
    first=SIZES,
    second=SIZES,
    saved=st.integers(0, 12),
    away=st.sampled_from([None, 0, 0, 1, 3]),
)
@example(steps=[0, 0, 0, 2, 1], first=[3, 2], second=[2], saved=0, away=0)
def test_a_rereading_flow_never_retracts_a_published_minute(
    settings_of: Callable[..., Settings],
    client: Client,
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[int],
    first: list[int],
    second: list[int],
    saved: int,
    away: int | None,
) -> None:
    settings = settings_of(
        shards=1,
        recovery_dir=tmp_path_factory.mktemp("store"),
        allowed_lateness=timedelta(minutes=1),
        minutes_interval=timedelta(0),
        horizon=timedelta(hours=1),
    )
    client.delete(positions_key(settings.namespace))
    log = (BEGIN + np.cumsum(steps)).tolist()
    told: list[Told] = []
    number, begin, state = 0, 0, encode(None)
    crash = min(len(log), sum(first)) if first else len(log)
    for cut, some, after in Execution(settings, log, Covered(settings), state, 0).cuts(first, 0, crash):
        told += some
        if away is None or cut.number <= away:  # behind that one Redis is not there
            store(client, settings, log=dict(cut.positions)["log"])
        number = cut.number
        if cut.number <= saved:
            begin, state = dict(cut.positions)["log"], after
    covered = Covered(settings)
    again = Execution(settings, log, covered, state, begin)
    for cut, some, _ in again.cuts(second, number, len(log)):
        told += some
        if not is_behind(covered, cut):
            store(client, settings, log=dict(cut.positions)["log"])

    for key in {key for key, _, _ in told}:
        mine = [(name == "final", count) for of, name, count in told if of == key]
        finals = [final for final, _ in mine]
        assert finals == sorted(finals), f"{key}: {mine}"
        if away is None:  # otherwise the value of an open minute may be in the topic alone
            assert mine == sorted(mine), f"{key}: {mine}"
        whole = log.count(int(key.partition("|")[2]) // MINUTE)
        assert {count for final, count in mine if final} <= {whole}
        if all(not final for final, _ in mine):
            assert mine[-1][1] == whole, "at the end of the log the newest is told"


def test_final_minutes_are_on_disk_before_publication(
    settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = settings_of(recovery_dir=tmp_path / "store")
    one, other = Covered(settings), Covered(settings)
    assert one.provisional_from(cut_at_positions(a=1)) == 0
    one.record_final(BEGIN + 2)
    other.record_final(BEGIN + 1)
    assert one.provisional_from(cut_at_positions(a=1)) == 0, "it knows itself what it has told"
    again = Covered(settings)
    assert again.provisional_from(cut_at_positions(a=1)) == BEGIN + 2
    written = (tmp_path / "store" / "final").stat().st_mtime_ns
    again.record_final(BEGIN + 2)
    assert (tmp_path / "store" / "final").stat().st_mtime_ns == written, "once a minute, not once a cut"
    line, below = (tmp_path / "store" / "final").read_bytes().split(b"\n")
    for damaged in (b"", line[:-2], line[:-2] + b"]\n" + below, line.replace(b"2", b"0") + b"\n" + below):
        (tmp_path / "store" / "final").write_bytes(damaged)
        with pytest.raises(StateError, match=r"final is damaged.*as a line \[minute\]"):
            Covered(settings).provisional_from(cut_at_positions(a=1))
    (tmp_path / "store" / "final").write_text(f"[{BEGIN + 2}]\n")  # as it says
    assert Covered(settings).provisional_from(cut_at_positions(a=1)) == BEGIN + 2
