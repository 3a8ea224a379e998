"""Tables of listener and row (`flows.rows.pairs`): any capacity, growth, and memory while they grow."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.rows import pairs
from flows.rows.pairs import MAX_LOAD, ROW, WHO, new_pairs, refilled
from flows.rows.reach import EXACT_UP_TO, Distinct
from flows.rows.rolling_reach import Rolling
from flows.state.hash_table import find_pair, put

_GROWING: Final = """
import numpy as np
from flows.rows.rolling_reach import Rolling

def mib(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(name))

rng = np.random.default_rng(1)
rolling = Rolling()
rolling.advance(100)

def add(n):
    rows = rng.integers(0, 5_000, n).astype(np.uint32)
    rolling.add(rows, np.full(n, 100), rng.integers(1, 1 << 63, n, np.uint64), 5_000)

add(1_000)
before = mib("VmRSS")
for _ in range(75):
    add(20_000)
print((mib("VmHWM") - before) / (rolling.used * 24 / (1 << 20)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_table_grows_in_little_more_than_its_own_memory() -> None:
    ran = subprocess.run([sys.executable, "-c", _GROWING], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 2.6, "the most memory, log and table, in units of the pairs' own bytes"


@given(st.lists(st.integers(1, 400), max_size=12), st.integers(0, 1 << 32))
def test_pairs_are_found_in_tables_of_any_capacity(growths: list[int], seed: int) -> None:
    rng, known = np.random.default_rng(seed), set[tuple[int, int]]()
    table = new_pairs(0, 3)
    for more in growths:
        table = refilled(table, len(known) + more)
        added = np.zeros((more, 3), np.uint64)
        added[:, WHO], added[:, ROW] = rng.integers(1, 1 << 64, more, np.uint64), rng.integers(0, 9, more)
        put(added, table, True)
        known |= set(map(tuple, added[:, :2].tolist()))
        assert len(known) <= MAX_LOAD * len(table)
        assert set(map(tuple, table[table[:, WHO] != 0, :2].tolist())) == known
        for who, row in known:
            slot = find_pair(table, np.uint64(who), row, 0)
            assert (int(table[slot, WHO]), int(table[slot, ROW])) == (who, row)


def test_growth_from_the_smallest_table_counts_each_listener_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MIN_SLOTS", 4)
    rng, rolling, distinct = np.random.default_rng(3), Rolling(), Distinct()
    rolling.advance(100)
    seen = [set[int]() for _ in range(7)]
    for _ in range(60):
        n = int(rng.integers(1, 90))
        rows, who = rng.integers(0, 7, n).astype(np.uint32), rng.integers(1, 900, n).astype(np.uint64)
        rolling.add(rows, np.full(n, 100), who, 7)
        distinct.add(rows, who, 7)
        for row, listener in zip(rows.tolist(), who.tolist(), strict=True):
            seen[row].add(listener)
    assert max(map(len, seen)) <= EXACT_UP_TO
    assert rolling.reach(np.arange(7))[1].tolist() == list(map(len, seen))
    assert distinct.reach(np.arange(7)).tolist() == list(map(len, seen))
