"""Switches by seeds: they keep every promise, are the same each time, and find bugs that are put in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation.bugs_of_switches import BUGS, with_bug
from simulation.play import simulated
from simulation.switches import played, story

FOUND = json.loads((Path(__file__).parent / "found_switches.json").read_text())
"""Bug to the seed that found it, and what it said."""


@pytest.fixture(scope="module", autouse=True)
def simulation() -> Iterator[None]:
    with simulated():
        yield


@pytest.mark.parametrize("seed", range(12))
def test_two_flows_change_places_and_readers_use_rows_of_one(seed: int) -> None:
    play = played(seed)
    assert not play.wrong, story(play)
    assert play.figures["polls"] > 20


def test_some_seeds_confirm_switches_kill_and_lose() -> None:
    plays = [played(seed) for seed in range(6)]
    for name in ("confirmed", "crashes", "losses"):
        assert sum(play.figures[name] for play in plays) > 0, name


def test_a_seed_is_the_same_history_of_switches_each_time() -> None:
    one, other = played(1), played(1)
    assert (one.world.story, one.figures) == (other.world.story, other.figures)


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_of_switches_is_found_by_its_seed(name: str) -> None:
    with with_bug(name):
        assert played(FOUND[name]["seed"]).wrong
