"""Reach: exact while few, within theory's error when many, and a function of who was there alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.rows import rolling_reach
from flows.rows.reach import EXACT_UP_TO, Distinct
from flows.rows.rolling_reach import Rolling
from flows.state import journal
from flows.state.hyperloglog import PRECISION, REGISTERS, estimate, histogram, rank
from flows.state.journal import Files
from flows.state.saves import decode, encode

SEEDS = 100
STANDARD_ERROR = 1.04 / REGISTERS**0.5
"""Of one estimate, relative: 0.81 % (Flajolet et al. 2007)."""
SIZES = (1_200, 5_000, 16_000, 30_000, 40_000, 50_000, 80_000, 200_000)
"""Classic estimators switch formulas at 40,960 and 81,920 and have their bump there."""

U64 = npt.NDArray[np.uint64]


def listeners(rng: np.random.Generator, number: int) -> U64:
    return rng.integers(1, (1 << 64) - 1, number, np.uint64)


def added(*parts: tuple[Any, U64], rows: int = 1) -> Distinct:
    """(row or rows, listeners) one after the other."""
    distinct = Distinct()
    for row, who in parts:
        distinct.add(np.broadcast_to(np.asarray(row, np.uint32), len(who)).copy(), who, rows)
    return distinct


def reaches(distinct: Distinct, rows: int = 1) -> list[int]:
    counts: list[int] = distinct.reach(np.arange(rows)).tolist()
    return counts


def restored(one: Any, *files: Files) -> Any:
    again = type(one)()
    again.restore(decode(encode(one.snapshot(*files))), *files)
    return again


def test_reach_is_exact_up_to_a_thousand() -> None:
    who = listeners(np.random.default_rng(0), EXACT_UP_TO)
    distinct = Distinct()
    for number, one in enumerate(who, 1):
        for _ in range(2):
            distinct.add(np.zeros(1, np.uint32), np.array([one]), 1)
        assert reaches(distinct) == [number]
    assert not len(distinct.registers)
    distinct.add(np.zeros(1, np.uint32), np.array([12345], np.uint64), 1)
    assert len(distinct.registers) == 1


def test_reach_never_falls_where_the_count_becomes_a_sketch() -> None:
    for seed in range(20):
        who, distinct, row = (
            listeners(np.random.default_rng(seed), EXACT_UP_TO + 50),
            Distinct(),
            np.zeros(1, np.int64),
        )
        distinct.add(np.zeros(EXACT_UP_TO - 1, np.uint32), who[: EXACT_UP_TO - 1], 1)
        shown = []
        for one in who[EXACT_UP_TO - 1 :]:
            distinct.add(np.zeros(1, np.uint32), np.array([one], np.uint64), 1)
            shown.append(int(distinct.reach(row)[0]))
        assert shown == sorted(shown), f"seed {seed}"


def test_the_mean_error_of_reach_is_within_theory_at_every_size() -> None:
    rng = np.random.default_rng(7)
    distinct = Distinct()
    found, size = {}, 0
    for more in SIZES:
        for row in range(SEEDS):
            distinct.add(np.full(more - size, row, np.uint32), listeners(rng, more - size), SEEDS)
        size = more
        errors = distinct.reach(np.arange(SEEDS)) / size - 1
        found[size] = (float(errors.mean()), float(np.sqrt((errors**2).mean())))
    print({size: f"mean {mean:+.3%}, rms {rms:.3%}" for size, (mean, rms) in found.items()})
    for size, (mean, rms) in found.items():
        assert abs(mean) <= 4 * STANDARD_ERROR / SEEDS**0.5, size
        assert rms <= 0.010, size


@pytest.mark.parametrize("number", [0, 1, 2, 100, 5_000_000])
def test_the_estimator_holds_from_nothing_to_millions(number: int) -> None:
    registers = np.zeros(REGISTERS, np.uint8)
    for who in np.array_split(listeners(np.random.default_rng(number), number), 10):
        places = (who >> np.uint64(64 - PRECISION)).astype(np.int64)
        rest = who << np.uint64(PRECISION)
        ranks = np.where(rest == 0, 51, 64 - np.floor(np.log2(np.maximum(rest, 1).astype(np.float64))))
        np.maximum.at(registers, places, np.minimum(ranks, 51).astype(np.uint8))
    assert abs(estimate(histogram(registers)) - number) <= max(0.01, 4 * STANDARD_ERROR) * number


def ranked(who: int) -> tuple[int, int]:
    hashed: Any = np.uint64(who)
    return rank(hashed)


def test_a_hashs_rank_is_its_first_bit_after_the_register() -> None:
    for register in (0, 1, REGISTERS - 1):
        for zeros in range(50):
            assert ranked(register << 50 | 1 << 49 - zeros) == (register, zeros + 1)
        assert ranked(register << 50) == (register, 51)


@given(st.integers(0, 2**32), st.integers(0, 3_000), st.integers(1, 5))
def test_order_repetition_and_batches_change_nothing(seed: int, number: int, batches: int) -> None:
    rng = np.random.default_rng(seed)
    who, row = listeners(rng, number), rng.integers(0, 2, number).astype(np.uint32)
    once = added((row, who), rows=2)
    order = rng.permutation(np.concatenate([np.arange(number), rng.integers(0, max(number, 1), number)]))
    again = added(*((row[some], who[some]) for some in np.array_split(order, batches)), rows=2)
    assert reaches(again, 2) == reaches(once, 2)
    assert registers_of(again) == registers_of(once)


def registers_of(distinct: Distinct) -> dict[int, bytes]:
    dense = {row: int(place) for row, place in enumerate(distinct.dense_of) if place >= 0}
    for place in dense.values():
        assert (np.bincount(distinct.registers[place], minlength=52) == distinct.histograms[place]).all()
    return {row: distinct.registers[place].tobytes() for row, place in dense.items()}


@pytest.mark.parametrize("number", [300, 990, 20_000])
def test_a_roll_up_is_the_union_of_its_placements_listeners(number: int) -> None:
    rng = np.random.default_rng(number)
    who = listeners(rng, number)
    of = [who[: number // 2], who[number // 3 :], who[:: number // 7]]
    distinct = added(
        *((np.uint32(row), some) for row, some in enumerate(of)),
        *((3, some) for some in of),
        (4, who),
        rows=5,
    )
    placements, registers = reaches(distinct, 5), registers_of(distinct)
    assert placements[3] == placements[4]
    assert registers.get(3) == registers.get(4)
    if number <= EXACT_UP_TO:
        assert placements[3] == number < sum(placements[:3])
    else:
        dense = [distinct.registers[distinct.dense_of[row]] for row in (0, 1)]
        assert np.maximum(*dense).tobytes() == registers[3]


@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 1_500), st.sampled_from(["", "", "clear", "merge"])), max_size=8),
    st.booleans(),
)
def test_a_restart_does_not_change_a_distinct_count(
    seed: int, steps: list[tuple[int, str]], in_files: bool
) -> None:
    rng = np.random.default_rng(seed)
    straight, stopped = Distinct(), Distinct()
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "SPILL_BYTES", 2_000)
        patch.setattr(journal, "COMPACTION_SLACK", 500)
        files = Files(Path(name) if in_files else None)
        for size, then in steps:
            who, row = listeners(rng, size), rng.integers(0, 3, size).astype(np.uint32)
            late = added((0, listeners(rng, 50))).registers_of(np.zeros(1, np.int64))[0]
            for one in (straight, stopped):
                one.add(row, who, 3)
                if then == "clear":
                    one.clear(1)
                elif then == "merge":
                    one.merge(1, late, 3)
            if rng.random() < 0.5:
                stopped.gather(files)
            if rng.random() < 0.5:
                stopped.snapshot(files)
            stopped = restored(stopped, files)
            files.keep(stopped.file_names())
            assert reaches(stopped, 3) == reaches(straight, 3)
            assert registers_of(stopped) == registers_of(straight)


def test_a_snapshot_writes_new_listeners_and_occasional_sketches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "COMPACTION_SLACK", 1_000)
    rng, files = np.random.default_rng(5), Files(tmp_path)
    distinct = added((0, listeners(rng, 2_000)), (1, listeners(rng, 2_000)), rows=2)
    before = len(encode(distinct.snapshot(files)))
    distinct.add(np.ones(100, np.uint32), listeners(rng, 100), 2)
    assert 500 < len(encode(distinct.snapshot(files))) - before < 16 * 100 + 50
    sizes = []
    for _ in range(200):
        distinct.add(np.ones(1_000, np.uint32), listeners(rng, 1_000), 2)
        sizes.append(len(encode(distinct.snapshot(files))))
    print(f"{max(sizes)} bytes at most, of two sketches of {REGISTERS}")
    assert max(sizes) < 2 * REGISTERS + 16 * (2 * 2 * REGISTERS // 16 + 1_000 + 1_000) + 1_000


# Rolling


Heard = tuple[int, int, int]
"""row, minute, listener"""


@pytest.fixture(params=[1_000, 12], ids=["exact", "crowded"])
def limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many listeners of a minute are counted exactly."""
    monkeypatch.setattr(rolling_reach, "MINUTE_EXACT_UP_TO", request.param)
    number: int = request.param
    return number


def sketched(who: set[int]) -> int:
    return round(
        estimate(histogram(added((0, np.array(list(who), np.uint64))).registers_of(np.zeros(1, np.int64))[0]))
    )


def wanted(heard: set[Heard], minute: int, rows: int, limit: int) -> list[list[int]]:
    """By who was heard alone: a window is estimated where one of its minutes has more than `limit`."""

    def shown(wanted_row: int, width: int) -> int:
        of = [(m, who) for row, m, who in heard if row == wanted_row and minute - width < m <= minute]
        right = {who for _, who in of}
        crowded = any(number > limit for number in Counter(m for m, _ in of).values())
        return max(limit + 1, sketched(right)) if crowded else len(right)

    return [[shown(row, width) for row in range(rows)] for width in (5, 60)]


@pytest.mark.parametrize("in_files", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_rolling_reach_counts_only_listeners_of_5_and_60_minutes(
    seed: int, limit: int, in_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has pixels ahead of and before the watermark's minute, jumps, quiet hours, and restarts
    anywhere.
    """
    monkeypatch.setattr(journal, "SPILL_BYTES", 300)
    monkeypatch.setattr(journal, "COMPACTION_SLACK", 2)
    files = Files(tmp_path if in_files else None)
    rng = np.random.default_rng(seed)
    rolling, heard, estimated = Rolling(), set[Heard](), []
    known = listeners(rng, 400)
    minute = 29_000_000
    rolling.advance(minute)
    for _ in range(150):
        number = int(rng.integers(0, 60 if rng.random() < 0.5 else 6))
        rows = rng.integers(0, 3, number).astype(np.uint32)
        minutes = minute + rng.choice([0, 0, 0, -1, -4, -30, -59, 1, 3, 4, 70], number).astype(np.int64)
        who = rng.choice(known[: 30 if rng.random() < 0.5 else 400], number)
        rolling.add(rows, minutes, who, 3)
        heard |= set(zip(rows.tolist(), minutes.tolist(), who.tolist(), strict=True))
        if number % 3 == 0:
            rolling.gather(files)
        if rng.random() < 0.15:
            rolling.snapshot(files)
            files.keep(rolling.file_names())
        if rng.random() < 0.15:
            rolling = restored(rolling, files)
            files.keep(rolling.file_names())
        minute += int(
            rng.choice(
                [0, 0, 1, 1, 1, 2, 6, 59, 64, 200], p=[0.2, 0.2, 0.1, 0.1, 0.2, 0.1, 0.04, 0.02, 0.02, 0.02]
            )
        )
        rolling.advance(minute)
        got = [counts.tolist() for counts in rolling.reach(np.arange(3))]
        assert got == wanted(heard, minute, 3, limit)
        estimated.append(len(rolling.crowds.places))
        heard = {one for one in heard if one[1] >= minute - 60}
    assert bool(max(estimated)) == (limit == 12)
    assert min(estimated) == 0
    assert any(tmp_path.iterdir()) == in_files


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 1), st.integers(1, 40)), min_size=1, max_size=120),
    st.lists(st.integers(1, 30), min_size=1, max_size=8),
    st.integers(2, 6),
)
def test_rolling_reach_does_not_depend_on_where_a_cut_fell(
    log: list[Heard], sizes: list[int], limit: int
) -> None:
    """Minute, row and listener of each pixel in the log's order; a pixel may be older than the watermark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rolling_reach, "MINUTE_EXACT_UP_TO", limit)
        found = []
        for cuts in (sizes, [1], [len(log)]):
            rolling, at, watermark = Rolling(), 0, 0
            for size in cycle(cuts):
                some = log[at : at + size]
                watermark = max([watermark, *(1_000 + minute for minute, _, _ in some)])
                rolling.advance(watermark)
                minutes, rows, who = zip(*some, strict=True)
                rolling.add(np.array(rows, np.uint32), 1_000 + np.array(minutes), ranked_apart(who), 2)
                at += size
                if at >= len(log):
                    break
            found.append([counts.tolist() for counts in rolling.reach(np.arange(2))])
        assert found[1] == found[0] == found[2]


def ranked_apart(who: Iterable[int]) -> U64:
    return np.array([one * 0x9E3779B97F4A7C15 & (1 << 64) - 1 for one in who], np.uint64)


def test_rolling_reach_is_exact_again_after_a_row_shrinks(
    tmp_path: Path,
) -> None:
    rng, row, files = np.random.default_rng(1), np.zeros(1, np.int64), Files(tmp_path)
    rolling, minute = Rolling(), 29_000_000
    for _ in range(60):
        minute += 1
        rolling.advance(minute)
        rolling.add(np.zeros(3_000, np.uint32), np.full(3_000, minute), listeners(rng, 3_000), 1)
    rolling.snapshot(files)
    files.keep(rolling.file_names())
    assert rolling.crowds.registers.nbytes >= 60 * REGISTERS
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) >= 60 * REGISTERS
    for number in (300, 700, 1_000):
        minute += 61
        rolling.advance(minute)
        rolling.add(np.zeros(number, np.uint32), np.full(number, minute), listeners(rng, number), 1)
        assert [int(counts[0]) for counts in rolling.reach(row)] == [number, number]
    assert rolling.crowds.registers.nbytes == 0
    assert len(encode(rolling.snapshot(files))) <= 24 * number + 200  # who was heard in the last hour
    assert not rolling.file_names()


def test_listeners_of_quiet_minutes_are_exact_without_registers() -> None:
    rng, rolling = np.random.default_rng(3), Rolling()
    for minute in range(29_000_000, 29_000_000 + 60):
        rolling.advance(minute)
        rolling.add(np.zeros(900, np.uint32), np.full(900, minute), listeners(rng, 900), 1)
    assert [int(counts[0]) for counts in rolling.reach(np.zeros(1, np.int64))] == [4_500, 54_000]
    assert rolling.crowds.registers.nbytes == 0


def test_one_crowded_minute_takes_the_memory_of_three_sketches() -> None:
    rng, rolling, minute = np.random.default_rng(4), Rolling(), 29_000_000
    rolling.advance(minute)
    rolling.add(np.zeros(1_500, np.uint32), np.full(1_500, minute), listeners(rng, 1_500), 1)
    for _ in range(59):
        minute += 1
        rolling.advance(minute)
        rolling.add(np.zeros(10, np.uint32), np.full(10, minute), listeners(rng, 10), 1)
    assert len(rolling.crowds.registers) <= 4
    short, long = (int(counts[0]) for counts in rolling.reach(np.zeros(1, np.int64)))
    assert short == 50
    assert abs(long / 2_090 - 1) <= 4 * STANDARD_ERROR


def test_a_row_of_many_listeners_stays_within_the_sketchs_error() -> None:
    rng = np.random.default_rng(11)
    rolling, minute = Rolling(), 29_000_000
    rolling.advance(minute)
    by_minute: list[U64] = []
    for _ in range(130):
        who = listeners(rng, 1_200)
        rolling.add(np.zeros(len(who), np.uint32), np.full(len(who), minute), who, 1)
        by_minute.append(who)
        short, long = (int(counts[0]) for counts in rolling.reach(np.zeros(1, np.int64)))
        for got, minutes in ((short, 5), (long, 60)):
            right = 1_200 * min(minutes, len(by_minute))
            assert abs(got / right - 1) <= 4 * STANDARD_ERROR
        minute += 1
        rolling.advance(minute)
    assert len(rolling.crowds.registers) <= 2 * (60 + 2)
    assert rolling.used <= 60 * 1_200


def test_rolling_memory_is_that_of_an_hour() -> None:
    rng = np.random.default_rng(12)
    rolling, sizes = Rolling(), []
    for minute in range(29_000_000, 29_000_000 + 300):
        rolling.advance(minute)
        who = listeners(rng, 200)
        rolling.add(rng.integers(0, 4, 200).astype(np.uint32), np.full(200, minute), who, 4)
        sizes.append((rolling.table.nbytes, len(encode(rolling.snapshot(Files(None))))))
    for series in zip(*sizes, strict=True):
        assert max(series[80:]) <= max(series[:80])
    assert rolling.used <= 2 * 60 * 200  # once an hour those are dropped who have no minute left


def test_an_unread_log_stays_small_with_crowded_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rolling_reach, "MINUTE_EXACT_UP_TO", 10)
    rng, rolling = np.random.default_rng(2), Rolling()
    rolling.add(np.zeros(90_000, np.uint32), np.zeros(90_000, np.int64), listeners(rng, 90_000), 100)
    for row in range(100):
        rolling.add(np.full(11, row, np.uint32), np.zeros(11, np.int64), listeners(rng, 11), 100)
    log = rolling._log
    held = log._block.nbytes + sum(block.nbytes for block in log._full)
    assert held <= 2 * rolling.table.nbytes
    assert sum(map(len, log._full)) <= rolling.used
    assert sorted(map(tuple, rolling.changed().tolist())) == sorted(map(tuple, rolling.whole().tolist()))
