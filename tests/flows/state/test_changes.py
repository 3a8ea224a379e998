"""The list of changed slots, or the log of versions, is what a scan of the whole table finds, whatever grew,
went or was restarted.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.attribution import frequency as counters
from flows.attribution.frequency import DAY_MS, Frequency
from flows.model.events import CODES
from flows.model.messages import Pixels
from flows.model.pixel import COLUMNS, LINKED, REFUSED, ConversionPixel
from flows.model.ticks import Cut
from flows.plays import slots
from flows.plays.play_shard import PlayShard
from flows.rows import pair_log, rolling_reach
from flows.rows.cells import Cells
from flows.rows.rolling_reach import Rolling
from flows.state import interner, journal
from flows.state.changes import marked
from flows.state.hash_table import HashTable
from flows.state.journal import Files
from flows.state.saves import decode, encode

MINUTE = 60_000
BEGIN = 29_000_000
EVENTS = ("impression", "start", "firstQuartile", "midpoint", "complete", "skip", "click")
NAMES: Any = [("placement", "c", None, None, None, None, None), ("placement", None, "p", *[None] * 4)]


def listed(changes: Any) -> list[int]:
    found: list[int] = sorted(changes[1 : 1 + changes[0]].tolist())
    return found


def scanned(words: Any, mark: Any) -> list[int]:
    found: list[int] = np.flatnonzero(words & mark).tolist()
    return found


def right(table: HashTable, mark: Any) -> None:
    words = table.slots[:, 1]
    assert listed(table.changes) == scanned(words, mark) == listed(marked(words, mark))
    assert len(table.changes) == len(words) + 1


def pixels_of(rng: random.Random, minute: int) -> Pixels:
    """Pixels of few plays in any order: held, joined, repeated, refused, of no play, behind their horizon."""
    pixels = np.zeros((rng.randint(1, 40), COLUMNS), np.uint64)
    for one in pixels:
        code = CODES[rng.choice(EVENTS)]
        info = code | (LINKED if rng.random() < 0.9 else 0) | (REFUSED if rng.random() < 0.1 else 0)
        ts = (minute - rng.choice((0, 0, 1, 5))) * MINUTE
        one[0], one[1], one[2], one[3] = rng.randint(1, 400), rng.randint(0, 9), ts, minute * MINUTE - 10_000
        one[5], one[6] = info, rng.randint(0, 1)
    conversion = np.zeros(COLUMNS, np.uint64)
    conversion[0], conversion[2], conversion[3] = rng.randint(1 << 20, (1 << 20) + 99), minute * MINUTE, 1
    conversion[5] = CODES["conversion"]
    pixel = ConversionPixel(NAMES[0], "purchase", None, "id", None, None, None)
    return Pixels("p", 0, pixels, NAMES, [pixel], conversion[np.newaxis])


@pytest.mark.parametrize("seed", range(5))
def test_the_list_of_changed_plays_equals_a_scan(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 2_000)
    monkeypatch.setattr(interner, "DROP_AT", 1)
    rng, minute = random.Random(seed), BEGIN
    shard = PlayShard(0, 1, 10 * MINUTE, 30 * MINUTE, 60 * MINUTE, recovery=tmp_path)
    drained = 0
    for number in range(300):
        shard.apply(pixels_of(rng, minute))
        right(shard.table, slots.CHANGED)
        minute += rng.choice((0, 0, 0, 1, 3, 40)) if rng.random() < 0.2 else 0
        shard.cut(Cut(number, minute * MINUTE - 10_000, False, ()))
        right(shard.table, slots.CHANGED)
        if rng.random() < 0.3:
            shard.gather()
            right(shard.table, slots.CHANGED)
        if rng.random() < 0.3:
            before = scanned(shard.table.slots[:, slots.FLAGS], slots.CHANGED)
            rows = shard.table.slots[before]
            rows[:, slots.FLAGS] &= ~slots.CHANGED
            got = shard.table.changed() if rng.random() < 0.5 else None
            if got is None:
                state = decode(encode(shard.snapshot()))
                if rng.random() < 0.3:
                    shard = PlayShard(0, 1, 10 * MINUTE, 30 * MINUTE, 60 * MINUTE, recovery=tmp_path)
                    shard.restore(state)
            else:
                assert sorted(map(tuple, got.tolist())) == sorted(map(tuple, rows.tolist()))
                shard.table.journal.append(got)
                drained += len(got)
            right(shard.table, slots.CHANGED)
    assert drained


@pytest.mark.parametrize("seed", range(5))
def test_the_log_of_rolling_reach_equals_a_scan(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 2_000)
    monkeypatch.setattr(rolling_reach, "MINUTE_EXACT_UP_TO", 30)
    monkeypatch.setattr(rolling_reach, "CHUNK", 40)
    monkeypatch.setattr(pair_log, "BLOCK", 50)
    rng, minute, files = random.Random(seed), BEGIN, Files(tmp_path)
    of, folds, lost = Rolling(minute=minute), 0, 0
    saved = dict[tuple[int, int], tuple[int, int]]()

    def usable(some: dict[tuple[int, int], tuple[int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
        return {key: one for key, one in some.items() if one[1] and one[0] >> 32 >= of.known_from}

    def by_pair(rows: Any) -> dict[tuple[int, int], tuple[int, int]]:
        return {(who, row & 0xFFFFFFFF): (row, bits) for who, row, bits in rows.tolist() if who}

    for _ in range(200):
        number = rng.choice((1, 20, 300))
        rows = np.array([rng.randrange(3) for _ in range(number)], np.uint32)
        minutes = np.array([minute - rng.randrange(-1, 5) for _ in range(number)], np.int64)
        of.add(rows, minutes, np.array([rng.randint(1, 2_000) for _ in rows], np.uint64), 3)
        folds += len(of.crowds.places)
        if rng.random() < 0.3:
            minute += rng.choice((1, 1, 2, 70))
            of.advance(minute)
        if rng.random() < 0.3:
            whole, found = of._log._whole, of.changed()
            of.journal.append(found, of.minute)
            # Registers replace the listeners of a minute that became crowded, also over older versions.
            saved = (saved if whole else {}) | by_pair(found)
            lost += not whole
            assert usable(saved) == usable(by_pair(of.table))
            assert not len(of.changed())
        if rng.random() < 0.3:
            state = decode(encode(of.snapshot(files)))
            saved = by_pair(of.table)
            files.keep(of.file_names())
            if rng.random() < 0.3:
                of = Rolling()
                of.restore(state, files)
    assert folds
    assert lost


@pytest.mark.parametrize("seed", range(5))
def test_the_list_of_changed_frequency_equals_a_scan(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 2_000)
    rng, day, files, of = random.Random(seed), 20_000, Files(tmp_path), Frequency()
    for _ in range(200):
        who = np.array([rng.randint(1, 500) for _ in range(rng.choice((0, 1, 30)))], np.uint64)
        campaigns = np.array([rng.randrange(2) for _ in who], np.int64)
        of.count(who, np.full(len(who), day * DAY_MS), ("red", "blue"), campaigns)
        right(of.table, counters.CHANGED)
        if rng.random() < 0.1:
            day += rng.choice((1, 30, 61))
            of.sweep(day)
        if rng.random() < 0.1:
            of.erase([rng.randint(1, 500)])
        right(of.table, counters.CHANGED)
        if rng.random() < 0.3:
            state = decode(encode(of.snapshot(files)))
            files.keep(of.file_names())
            if rng.random() < 0.3:
                of = Frequency()
                of.restore(state, files)
            right(of.table, counters.CHANGED)


def test_a_new_table_compiles_its_save_loops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(journal.Journal, "load", lambda _, table: loaded.append(table))
    made = [PlayShard(0, 1, 1, 1, 1).table, Rolling(), Frequency().table, Cells()]
    assert all(one is table for one, table in zip(made, loaded, strict=True))
