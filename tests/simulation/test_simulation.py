"""The simulation: what it plays is right, is the same each time, and it finds bugs that are put in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flows.cli.reconcile_settings import rules
from flows.engine.steps import AttributionLogic
from flows.reconcile import differences, recompute
from simulation.__main__ import judged, story
from simulation.checker import NAMESPACE
from simulation.history import History, histories, make
from simulation.member import base_settings
from simulation.mutations import mutations
from simulation.play import Player, Result, play, playing, simulated
from simulation.redis_client import Client
from simulation.shrink import shrunk
from simulation.stage import PERHAPS
from simulation.world import T0_MS

FOUND = json.loads((Path(__file__).parent / "found.json").read_text())
"""Mutation to the seed that found it, and what it said."""


@pytest.fixture(scope="module", autouse=True)
def simulation() -> Iterator[None]:
    with simulated():
        yield


@pytest.mark.parametrize("seed", range(12))
def test_every_history_keeps_every_promise_and_ends_like_an_undisturbed_one(seed: int) -> None:
    for history in histories(seed):
        found = judged(history)
        assert not found.wrong, story(found)
        assert found.flushes > 3


@pytest.mark.parametrize("seed", [36, 56])
def test_members_with_disks_of_their_own_become_fewer_and_more(seed: int) -> None:
    history = make(seed)
    assert history.own_disks
    found = judged(history)
    assert not found.wrong, story(found)
    assert any("is dealt to" in text for _, text in found.story)


def test_an_unexpected_error_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object) -> None:
        raise ValueError("too many values")

    monkeypatch.setattr(AttributionLogic, "cut", cut)
    assert play(make(5)).wrong == "the flow failed by ValueError: too many values"


def test_a_seed_is_the_same_history_each_time() -> None:
    one, other = play(make(5)), play(make(5))
    assert (one.story, one.end, one.steps) == (other.story, other.end, other.steps)


def test_uncompiled_kernels_play_the_same_history() -> None:
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "simulation", "--seed", "5"],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.strip() == story(judged(make(5))).strip()


def test_the_oracle_finds_no_difference_after_an_undisturbed_history(tmp_path: Path) -> None:
    # The model counts what depends on pixels alone; DuckDB judges windows, rates and conversions, too.
    history = replace(make(6), forgets=False).undisturbed()
    history = replace(
        history,
        entries={
            name: [one for one in some if PERHAPS.encode() not in one.value]
            for name, some in history.entries.items()
        },
    )
    files = []
    for number, some in enumerate(history.entries.values()):
        files.append(tmp_path / f"{number}.ndjson")
        files[-1].write_bytes(b"".join(received(one.value, T0_MS + one.at_ms) + b"\n" for one in some))
    player = Player(history)
    with playing(player):
        assert player.play().wrong == ""
        truth = recompute(files, rules(base_settings()), guards_receipts=False)
        found = differences(truth, Client(player.server), NAMESPACE)
    assert found == []
    assert truth.totals["accepted"] > 10


@pytest.mark.parametrize("name", FOUND)
def test_an_injected_bug_is_found_by_its_seed(name: str) -> None:
    assert any(judged(history, name).wrong for history in histories(FOUND[name]["seed"]))


def test_the_list_of_found_bugs_names_existing_mutations() -> None:
    assert len(FOUND) >= 30
    assert set(FOUND) <= set(mutations())


def test_a_failing_history_is_shortened_and_reported() -> None:
    name = "a message is skipped at a restart"
    whole = make(FOUND[name]["seed"])
    short = shrunk(whole, lambda history: judged(history, name), tries=25)
    assert short.wrong
    assert short.history.pixels < whole.pixels
    assert len(short.history.faults) <= len(whole.faults)
    told = story(short)
    for part in ("The log", "What happened", "execution 2 starts", short.wrong):
        assert part in told


def test_shortening_keeps_a_historys_failure() -> None:
    def failing(history: History) -> Result:
        return Result(history, f"row {history.pixels} fell" if history.pixels > 9 else "no row is there")

    short = shrunk(make(5), failing)
    assert short.wrong == "row 10 fell"


def received(raw: bytes, at_ms: int) -> bytes:
    """A message as a line, with the broker's time as that of its receipt."""
    try:
        pixel = json.loads(raw)
    except ValueError:
        return raw
    return json.dumps(pixel | {"received_at": at_ms}).encode() if isinstance(pixel, dict) else raw
