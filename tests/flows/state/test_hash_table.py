"""Tables by key, against a dictionary: searches, growth, removals, and what saves have of them."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from flows.state import journal
from flows.state.hash_table import HashTable, find, find_key, find_pair, remove
from flows.state.journal import Files
from flows.state.kernel import mixed
from flows.state.saves import decode, encode

MARK = np.uint64(1 << 63)
LOW = (1 << 32) - 1


def key_of(row: list[int], paired: bool) -> tuple[int, ...]:
    return (row[0], row[1] & LOW) if paired else (row[0],)


def rows_of(table: HashTable) -> list[list[int]]:
    rows: list[list[int]] = table.whole().tolist()
    return rows


@pytest.mark.parametrize("in_files", [False, True])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_table_keeps_the_latest_row_of_each_key(
    seed: int, paired: bool, in_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 2_000)
    monkeypatch.setattr(journal, "COMPACTION_SLACK", 4)
    rng, files = random.Random(seed), Files(tmp_path if in_files else None)
    words, model = rng.choice((2, 3, 5)), dict[tuple[int, ...], list[int]]()
    table, dropped, restarted = HashTable(words, MARK, paired=paired), 0, 0

    def same() -> None:
        assert len(table) == len(model)
        assert sorted(rows_of(table)) == sorted(model.values())
        marked = np.flatnonzero(table.slots[:, 1] & MARK).tolist()
        assert sorted(table.changes[1 : 1 + table.changes[0]].tolist()) == marked

    for step in range(150):
        new = {
            key_of(row, paired): row
            for row in (
                [
                    mixed(rng.randrange(1, 40 + 4 * step), 1),
                    rng.randrange(3) | rng.randrange(9) << 32,
                    *(rng.getrandbits(64) for _ in range(words - 2)),
                ]
                for _ in range(rng.choice((0, 1, 60)))
            )
        }
        table.put(np.array([*new.values()], np.uint64).reshape(-1, words))
        model |= new
        same()
        if rng.random() < 0.1:
            gone = rng.randrange(3)
            table.keep(table.slots[:, 1] & np.uint64(LOW) != np.uint64(gone))
            before = len(model)
            model = {key: row for key, row in model.items() if row[1] & LOW != gone}
            dropped += before - len(model)
            if len(model) < before:
                table.begin_anew()
            same()
        if rng.random() < 0.3:
            table.gather(files)
        if rng.random() < 0.3:
            state = encode(table.snapshot(files))
            files.keep(table.file_names())
            assert not in_files or table.journal.rows <= 2 * len(model) + 300
            if rng.random() < 0.5:
                table = HashTable(words, MARK, paired=paired)
                table.restore(decode(state), files)
                restarted += 1
            same()
    assert dropped
    assert restarted


def test_a_loop_counts_in_the_array_of_its_owner() -> None:
    used = np.zeros(3, np.int64)
    table = HashTable(2, MARK, count=used[1:2])
    table.put(np.array([[5, 1], [6, 2], [5, 3]], np.uint64))
    assert used.tolist() == [0, 2, 0]
    used[1] = 0
    table.slots[:, 0] = 0
    table.rebuild()
    assert (len(table), rows_of(table)) == (0, [])


def crowded(rng: random.Random, count: int, capacity: int) -> list[int]:
    """Keys that begin near the end of the table, so that searches go round."""
    keys = {rng.choice((0, capacity - 2, capacity - 1)) << 32 | rng.getrandbits(20) for _ in range(9 * count)}
    return [(key >> 32) * 2**32 // capacity * 2**32 | key & 0xFFFFF | 1 << 31 for key in keys][:count]


@pytest.mark.parametrize("seed", range(20))
def test_a_removed_key_hides_no_other(seed: int) -> None:
    rng = random.Random(seed)
    slots = np.zeros((23, 2), np.uint64)
    model: dict[int, int] = {}
    for _ in range(400):
        key = rng.choice(crowded(rng, 5, len(slots)))
        if model and (len(model) == 18 or rng.random() < 0.4):
            remove(slots, np.uint64(gone := rng.choice([*model])))
            del model[gone]
        else:
            slot = find(slots, np.uint64(key))
            slots[slot] = key, rng.getrandbits(40)
            model[key] = int(slots[slot, 1])
        assert {int(key): int(value) for key, value in slots[slots[:, 0] != 0]} == model
        assert all(slots[find(slots, np.uint64(key)), 1] == value for key, value in model.items())


def test_keys_are_found_by_a_stored_hash() -> None:
    keys: Any = np.zeros(7, np.uint64)
    for key in range(1, 7):
        slot = find_key(keys, np.uint64(key), np.uint64(2**64 - 1))
        assert keys[slot] == 0
        keys[slot] = key
    assert keys.tolist() == [2, 3, 4, 5, 6, 0, 1], "from the last slot on, round the end"
    assert [find_key(keys, np.uint64(key), np.uint64(2**64 - 1)) for key in range(1, 7)] == [6, 0, 1, 2, 3, 4]


def test_a_new_pair_reuses_an_outdated_slot() -> None:
    slots = np.zeros((64, 2), np.uint64)
    first = find_pair(slots, 9, 1, 0)
    slots[first] = 9, 1 | 100 << 32
    assert find_pair(slots, 9, 1, 101) == first, "its own slot"
    second = next(
        number for number in range(2, 10_000) if find_pair(slots, 9, number, 0) == (first + 1) % 64
        and find_pair(slots, 9, number, 101) == first
    )  # fmt: skip
    assert find_pair(slots, 9, second, 100) == (first + 1) % 64, "the other is not too old"
    slots[(first + 1) % 64] = 9, second
    assert find_pair(slots, 9, second, 101) == (first + 1) % 64, "it is there, behind one that is too old"


_GROWING: Final = """
import numpy as np
from flows.state.allocator import keep_memory
from flows.state.hash_table import HashTable

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

keep_memory()
rng = np.random.default_rng(1)
tables = [HashTable(4, np.uint64(1 << 31)) for _ in range(8)]
rows = np.zeros((25_000, 4), np.uint64)
tables[0].put(np.ones((1, 4), np.uint64))
before = resident()
for _ in range(16):
    rows[:, 0] = rng.integers(1, 1 << 64, len(rows), np.uint64)
    for table in tables:
        table.put(rows)
tables_bytes = sum(table.nbytes + table.changes.nbytes for table in tables)
print((resident() - before) / tables_bytes)
"""


def test_tables_growing_together_leave_no_holes_in_memory() -> None:
    ran = subprocess.run([sys.executable, "-c", _GROWING], capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 1.25
