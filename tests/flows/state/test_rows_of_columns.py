"""Rows of declared columns are restored exactly from a snapshot, after their removal, and next to others."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import pytest

from flows.state.rows import Rows, flags, numbers, unsaved_numbers, values
from flows.state.saves import decode, encode


class Pair(NamedTuple):
    left: int
    right: int


class Table(Rows):
    """Some of each kind."""

    single, wide = numbers(), numbers(3)
    names: dict[int, tuple[str | None, ...]] = values()
    pairs: dict[int, Pair] = values(lambda pair: Pair(*pair))
    seen, published = flags(), unsaved_numbers()


def row_values(table: Table, row: int) -> tuple[object, ...]:
    columns = (table.single, table.wide, table.seen, table.published)
    return (*(column[row].tolist() for column in columns), table.names.get(row), table.pairs.get(row))


EMPTY = (0, [0, 0, 0], False, 0, None, None)


def filled(table: Table, row: int, rng: random.Random) -> None:
    table.make_room(row + 1)
    table.single[row], table.wide[row] = rng.randint(-(2**62), 2**62), [rng.randrange(9) for _ in range(3)]
    table.seen[row], table.published[row] = True, 7
    if rng.random() < 0.7:
        table.names[row], table.pairs[row] = ("a", None, str(row)), Pair(row, 2**60)


@pytest.mark.parametrize("seed", range(8))
def test_a_snapshot_replaces_only_its_own_rows(seed: int) -> None:
    rng, table, again = random.Random(seed), Table(2), Table(2)
    for row in range(20):
        filled(table, row, rng)
        filled(again, row, rng)
    some = np.array(sorted(rng.sample(range(20), 7)))
    others = [row for row in range(20) if row not in some]
    before = [row_values(again, row) for row in others]
    again.restore(some, decode(encode(table.snapshot(some))))
    assert [row_values(again, row) for row in others] == before
    for row in some.tolist():
        assert row_values(again, row)[:2] == row_values(table, row)[:2]
        assert row_values(again, row)[4:] == row_values(table, row)[4:]


@pytest.mark.parametrize("seed", range(8))
def test_a_removed_row_returns_at_another_number(seed: int) -> None:
    rng, table = random.Random(seed), Table(2)
    for row in range(12):
        filled(table, row, rng)
    before = {row: row_values(table, row) for row in range(12)}
    names, pairs = table.names, table.pairs
    leaving = sorted(rng.sample(range(12), 5))
    taken = decode(encode(table.take_out(leaving)))
    assert [row_values(table, row) for row in leaving] == [EMPTY] * 5
    assert all(row_values(table, row) == before[row] for row in range(12) if row not in leaving)
    table.make_room(40)
    for row, values_of in zip(leaving, taken, strict=True):
        table.put_back(row + 20, values_of)
        single, wide, _, _, *plain = before[row]
        assert row_values(table, row + 20) == (single, wide, False, 0, *plain)
    assert (table.names, table.pairs) == (names, pairs)
    assert table.names is names, "owners hold the dictionary"
    assert table.pairs is pairs


def test_room_doubles_and_new_places_are_empty() -> None:
    table = Table(2)
    filled(table, 1, random.Random(1))
    table.make_room(9)
    assert len(table) == len(table.single) == len(table.seen) == 16
    assert row_values(table, 9) == EMPTY
    assert table.row_bytes == 8 * (1 + 3)
