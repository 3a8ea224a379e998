"""The store of touches against a list that is searched from end to end, and its files."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from flows.attribution.eligible import standing
from flows.attribution.touches import Caps, Touches, TouchStore
from flows.errors import StateError
from flows.model.messages import CLICK_TOUCH, IMPRESSION_TOUCH, KIND, KIND_BITS, REACH_ONLY, START_TOUCH
from flows.state import runs
from flows.state.journal import Files

DAY, MINUTE = 86_400_000, 60_000
PLAY_MS = 30 * MINUTE
ALL = Caps(10**6, 10**6, 10**6, 10**6)
OF_CAMPAIGN = np.zeros(5, np.uint32)
Row = tuple[int, int, int, int, int]
"""Listener, time, kind, names, play."""


@dataclass
class Model:
    """The content of the store, read in the plain way."""

    rows: list[Row] = field(default_factory=list)

    def add(self, rows: list[Row]) -> None:
        self.rows += [row for row in rows if row[2] != REACH_ONLY]

    def of(self, who: int, oldest: int) -> list[Row]:
        """Without the starts whose impression, of their minute or an earlier one, is there."""
        theirs = [row for row in self.rows if row[0] == who]
        heard = {(row[4], row[1]) for row in theirs if row[2] == IMPRESSION_TOUCH}
        return sorted(
            row
            for row in theirs
            if row[1] >= oldest
            and not (
                row[2] == START_TOUCH
                and any(
                    play == row[4] and abs(at - row[1]) <= DAY and at // MINUTE <= row[1] // MINUTE
                    for play, at in heard
                )
            )
        )


def add(store: TouchStore, rows: list[Row]) -> None:
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    who, ts, kinds, combos, plays = columns
    store.add(
        who.astype(np.uint64),
        ts.astype(np.int64),
        kinds.astype(np.uint8),
        combos.astype(np.uint32),
        plays.astype(np.uint32),
    )


def rows_of(some: Touches) -> list[Row]:
    columns = (column.tolist() for column in some.columns)
    return sorted(
        (w, ts >> KIND_BITS, ts & KIND, combo, play) for w, ts, combo, play in zip(*columns, strict=True)
    )


def touch_rows(store: TouchStore, who: int) -> list[Row]:
    return rows_of(standing(store.touches_of(np.array([who], np.uint64)), store.apart_ms)[0])


def some_rows(rng: random.Random, count: int, now: int, listeners: int = 40) -> list[Row]:
    """New plays: impressions and their starts, of one minute or of others, of which each may come later."""
    rows: list[Row] = []
    for _ in range(count):
        who, play = rng.randrange(1, listeners), rng.getrandbits(32)
        at = now - rng.randrange(600_000)
        kind = rng.choice([IMPRESSION_TOUCH, START_TOUCH, START_TOUCH, CLICK_TOUCH, REACH_ONLY])
        rows.append((who, at, kind, rng.randrange(5), play))
        if kind == START_TOUCH and rng.random() < 0.5:
            apart = rng.choice([50, 0, -50, -90_000, 90_000, PLAY_MS + 1, DAY, -DAY, DAY + 1, -DAY - 1])
            rows.append((who, at - apart, IMPRESSION_TOUCH, rng.randrange(5), play))
    return rows


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spill", [1 << 16, 100])
def test_the_store_equals_a_plain_list(
    seed: int, spill: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "SPILL_ROWS", spill)
    rng = random.Random(seed)
    store, model = TouchStore(ALL, PLAY_MS), Model()
    waiting: list[Row] = []
    files = Files(tmp_path)
    now, oldest = 10**12, 0
    for step in range(120):
        now += rng.randrange(DAY // 4)
        rows = some_rows(rng, rng.randrange(1, 60), now)
        later, waiting = waiting, [row for row in rows if rng.random() < 0.2]
        rows = [row for row in rows if row not in waiting] + later
        rng.shuffle(rows)
        add(store, rows)
        model.add(rows)
        if rng.random() < 0.4:
            oldest = now - 10 * DAY
            store.compact(oldest - store.apart_ms, now - 600_000, OF_CAMPAIGN)
        who = rng.randrange(1, 40)
        assert [row for row in touch_rows(store, who) if row[1] >= oldest] == model.of(who, oldest)
        since, until = oldest + rng.randrange(10 * DAY), now - rng.randrange(DAY)
        heard = [row for row in model.rows if row[2] == IMPRESSION_TOUCH and since <= row[1] < until]
        assert rows_of(store.impressions(since, until)) == sorted(heard)
        if step % 11 == 0:
            gone = rng.randrange(1, 40)
            settled = TouchStore(ALL, PLAY_MS)
            settled.restore(snapshot(store, files), files)
            store = settled
            store.erase(np.array([gone], np.uint64))
            model.rows = [row for row in model.rows if row[0] != gone]
            waiting = [row for row in waiting if row[0] != gone]
    store.compact(oldest - store.apart_ms, now, OF_CAMPAIGN)
    for who in range(1, 40):
        assert [row for row in touch_rows(store, who) if row[1] >= oldest] == model.of(who, oldest)
    assert len(store) < 2 * len([row for row in model.rows if row[1] >= oldest]) + 500, (
        "what has expired goes"
    )


def test_only_unusable_touches_are_dropped_and_they_are_counted() -> None:
    store = TouchStore(Caps(listens=5, clicks=2), play_ms=10_000)
    for second in range(400):
        rows: list[Row] = [
            (1, second * 1000, CLICK_TOUCH if second % 2 else IMPRESSION_TOUCH, 0, second),
            (2, second, CLICK_TOUCH, 0, 1),
            (3, second * 1000, START_TOUCH, second % 2, second),
        ]
        add(store, rows)
        store.compact(-1, 300_000 if second >= 300 else 0, np.arange(2, dtype=np.uint32))
    for who in (1, 3):
        assert len([row for row in touch_rows(store, who) if row[1] >= 300_000]) == 100, "not settled"
    newest = {row[1] for row in touch_rows(store, 1) if row[1] < 300_000}
    assert newest >= {290_000 + 2000 * n for n in range(5)} | {297_000, 299_000}
    assert {row[1] for row in touch_rows(store, 3) if row[1] < 300_000} >= {
        290_000 + 1000 * n for n in range(10)
    }
    assert store.dropped == 1200 - len(store)
    assert store.dropped > 100


def test_one_listener_with_many_plays_costs_as_much_as_many_listeners() -> None:
    """In compared touches, the work would be by the square: an all-zero device id is one listener."""
    looked_at = []
    for listeners in (1, 20_000):
        store, n = TouchStore(), 20_000
        who = np.arange(n, dtype=np.uint64) % np.uint64(listeners) + np.uint64(1)
        plays, names = np.arange(n, dtype=np.uint32), np.zeros(n, np.uint32)
        ts = 10**12 + np.arange(n, dtype=np.int64) * 30
        began = time.process_time()
        for first in range(0, n, 1000):
            some = slice(first, first + 1000)
            for kind, later in ((START_TOUCH, 0), (IMPRESSION_TOUCH, MINUTE)):
                kinds = np.full(1000, kind, np.uint8)
                store.add(who[some], ts[some] + later, kinds, names[some], plays[some])
        store.compact(0, 2 * 10**12, OF_CAMPAIGN)
        standing(store.touches_of(np.unique(who)), store.apart_ms)
        looked_at.append(time.process_time() - began)
    assert looked_at[0] < 10 * looked_at[1] + 0.5


def test_a_touch_takes_24_bytes() -> None:
    store = TouchStore()
    rng = np.random.default_rng(1)
    for _ in range(20):
        n = 10_000
        store.add(
            rng.integers(1, 2**63, n).astype(np.uint64),
            rng.integers(10**12, 10**12 + DAY, n),
            np.full(n, IMPRESSION_TOUCH, np.uint8),
            np.zeros(n, np.uint32),
            rng.integers(0, 2**32, n).astype(np.uint32),
        )
        store.compact(0, 0, OF_CAMPAIGN)
    assert store.old_runs.nbytes == 24 * 200_000
    assert len(list(store.old_runs)) < 12, "a look-up is a search in each"


def snapshot(store: TouchStore, files: Files) -> tuple[object, ...]:
    state = store.snapshot(files)
    files.keep(store.file_names())
    return state


def filled(files: Files, monkeypatch: pytest.MonkeyPatch) -> tuple[TouchStore, tuple[object, ...]]:
    monkeypatch.setattr(runs, "SPILL_ROWS", 1000)
    store = TouchStore()
    add(store, [(who, 10**12 + who, IMPRESSION_TOUCH, 0, who) for who in range(1, 3000)])
    store.compact(0, 0, OF_CAMPAIGN)
    return store, snapshot(store, files)


def test_a_snapshot_lists_large_segments_and_does_not_write_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, first = filled(Files(tmp_path), monkeypatch)
    (file,) = tmp_path.iterdir()
    written_ns = file.stat().st_mtime_ns
    add(store, [(7, 10**12, CLICK_TOUCH, 0, 1)])
    store.compact(0, 0, OF_CAMPAIGN)
    second = snapshot(store, Files(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.stat().st_mtime_ns == written_ns
    assert sum(len(body) for _, body in second[0]) == 24  # type: ignore[attr-defined, misc]  # a list of (name, bytes)
    again = TouchStore()
    again.restore(first, Files(tmp_path))
    assert touch_rows(again, 7) == [(7, 10**12 + 7, IMPRESSION_TOUCH, 0, 7)]
    again.restore(second, Files(tmp_path))
    assert len(touch_rows(again, 7)) == 2


@pytest.mark.parametrize("damage", ["missing", "cut", "changed", "no directory"])
def test_a_missing_or_damaged_file_stops_with_what_to_do(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, state = filled(Files(tmp_path), monkeypatch)
    (file,) = tmp_path.iterdir()
    body = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(body[:-24])
    elif damage == "changed":
        file.write_bytes(body[:100] + bytes([body[100] ^ 1]) + body[101:])
    with pytest.raises(StateError, match=r"recovery directory|recompute from the log"):
        TouchStore().restore(state, Files(None if damage == "no directory" else tmp_path))


def test_a_forgotten_listener_is_in_no_file_two_snapshots_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = filled(files := Files(tmp_path), monkeypatch)
    assert store.erase(np.array([1234], np.uint64)) == 1
    old = next(tmp_path.iterdir())
    kept = []
    for _ in range(2):
        snapshot(store, files)
        kept.append(old.exists())
    assert kept == [True, False]
    assert all((1234).to_bytes(8, "little") not in path.read_bytes() for path in tmp_path.iterdir())
    assert touch_rows(store, 1234) == []
    assert touch_rows(store, 1235) != []


def test_files_of_a_dead_execution_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, state = filled(files := Files(tmp_path), monkeypatch)
    add(store, [(who, 2 * 10**12, IMPRESSION_TOUCH, 0, who) for who in range(1, 3000)])
    store.compact(0, 0, OF_CAMPAIGN)
    snapshot(store, files)  # written, but never committed
    assert len(list(tmp_path.iterdir())) == 2
    resumed = TouchStore()
    resumed.restore(state, files := Files(tmp_path))
    snapshot(resumed, files)
    assert len(list(tmp_path.iterdir())) == 2, "an older save of before may be fallen back to"
    snapshot(resumed, files)
    assert [path.name for path in tmp_path.iterdir()] == [name for name, _ in state[0]]  # type: ignore[attr-defined]  # a list
    again = TouchStore()
    again.restore(state, Files(tmp_path))
    assert len(again) == 2999
