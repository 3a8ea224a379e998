"""Figures of the simulation: they add up over runs, and a run that is stopped loses nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation import __main__ as command
from simulation import figures
from simulation.__main__ import STOPS, played
from simulation.figures import COUNTED, RUNS, Sum, add_up, first_seed


def test_figures_add_up_over_runs_and_name_the_next_seed(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert first_seed(file) == 0
    told = {"seeds": 10, "failures": 0, "steps": 100, "crashes": 3}
    add_up(file, told, 0, 1.2, ("2026-01-01", "one"))
    add_up(file, told | {"seeds": 5, "failures": 1}, 10, 2.2, ("2026-01-01", "one"))
    total = add_up(file, told, 15, 1.0, ("2026-01-01", "two"))
    assert total == {"seeds": 25, "failures": 1, "steps": 300, "crashes": 9, "seconds": 4}
    assert first_seed(file) == 25
    one = {"date": "2026-01-01", "commit": "one", "from": 0, "to": 14, "failures": 1, "seconds": 3}
    two = {"date": "2026-01-01", "commit": "two", "from": 15, "to": 24, "failures": 0, "seconds": 1}
    assert json.loads(file.read_text())["runs"] == [
        one | {"steps": 200, "crashes": 6},
        two | {"steps": 100, "crashes": 3},
    ]
    add_up(file, told, 3, 1.0, ("2026-01-02", "two"))  # played again, by number
    assert first_seed(file) == 25


def test_the_file_stays_small(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    for number in range(RUNS + 5):
        add_up(file, {"seeds": 1, "failures": 0, "steps": 1, "crashes": 0}, number, 0.5, ("", str(number)))
    held = json.loads(file.read_text())
    assert (held["sum"]["seeds"], len(held["runs"])) == (RUNS + 5, RUNS)


def test_a_killed_run_leaves_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, some = tmp_path / "figures.json", dict.fromkeys(COUNTED, 2)
    monkeypatch.setattr(figures, "SAVED_EVERY_S", 0)
    run = Sum(file, 40)
    run.add(some)
    run.add(some)
    assert json.loads(file.read_text())["sum"]["steps"] == 4
    assert first_seed(file) == 44
    monkeypatch.setattr(figures, "SAVED_EVERY_S", 3600)
    run.add(some)
    assert first_seed(file) == 44
    run.save()
    assert (first_seed(file), run.total["seeds"], run.figures["seeds"]) == (46, 6, 6)


@pytest.fixture
def signals() -> Iterator[None]:
    before = [signal.getsignal(number) for number in STOPS]
    yield
    for number, handler in zip(STOPS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_stopped_run_adds_its_started_seeds(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "AT_ONCE", 1)
    monkeypatch.setattr(command, "IN_LINE", 2)
    seeds = []
    for some, stories in played(range(1000), processes):
        assert not stories
        seeds.append(some["seeds"])
        if len(seeds) == 1:
            os.kill(os.getpid(), signal.SIGINT)
    assert set(seeds) == {1}
    assert len(seeds) <= 1 + 2 * processes
