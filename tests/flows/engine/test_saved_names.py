"""Names in the saves of all shards that number them come back, out of many pieces, with the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from flows.attribution import HouseholdShard, ListenerShard, Rules
from flows.clients import ClientShard
from flows.model.dimensions import Dimensions
from flows.plays import PlayShard
from flows.state import journal
from flows.state.saves import decode, encode

MINUTE = 60_000
Shard = Any
"""A shard of any kind."""


def plays(directory: Path) -> Shard:
    return PlayShard(0, 1, MINUTE, 30 * MINUTE, 60 * MINUTE, recovery=directory)


def listeners(directory: Path) -> Shard:
    return ListenerShard(0, 1, MINUTE, Rules(), directory)


def households(directory: Path) -> Shard:
    return HouseholdShard(0, 1, MINUTE, Rules(), directory)


def clients(directory: Path) -> Shard:
    return ClientShard(0, 1, MINUTE, lambda minute: minute // 1440, directory)


def number(shard: Shard, combos: Sequence[Dimensions]) -> list[int]:
    """Their numbers; those that are new get one."""
    names = shard.names.combos if isinstance(shard, PlayShard) else shard.names
    numbers: list[int] = names.numbers(combos).tolist()
    return numbers


@pytest.mark.parametrize("begin", [plays, listeners, households, clients])
def test_names_have_their_numbers_behind_a_restart(
    begin: Callable[[Path], Shard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SPILL_BYTES", 100)
    combos: list[Dimensions] = [(f"p{one}", f"c{one % 7}", *[None] * 5) for one in range(90)]
    shard = begin(tmp_path)
    for until in range(9, 90, 9):
        assert number(shard, combos[:until]) == [*range(until)]
        state = decode(encode(shard.snapshot()))
        shard = begin(tmp_path) if until % 2 else shard
        if until % 2:
            shard.restore(state)
    again = begin(tmp_path)
    again.restore(decode(encode(shard.snapshot())))
    assert number(again, combos) == [*range(90)]
    assert len([*tmp_path.rglob("?" * 32)]) >= 3, "the names are in files"
