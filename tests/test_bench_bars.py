"""The bars of cost: what is a pass, a miss, or a bar that was not run, and which runs are spoiled."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bars, cost
from benchmarks.cost import BARS, BENCHES, Bar, Turn, busy_s, least_loaded, verdict

RATE = Bar("rate", bars.Bar(1, "rate", "one", "rate", 0.9, True), 1.2)
WAIT = Bar("wait", bars.Bar(1, "wait", "one", "wait", 0.5), 0.4, seconds=True)


@pytest.mark.parametrize(
    ("bar", "turn", "outcome", "stretch"),
    [
        (RATE, Turn({"rate": 0.9}, 0.0), "pass", "no"),
        (RATE, Turn({"rate": 0.89}, 0.0), "**miss**", "no"),
        (RATE, Turn({"rate": 1.3}, 0.0), "pass", "yes"),
        # A ratio of two turns is no better on a slow machine.
        (RATE, Turn({"rate": 0.8}, 2.0, slower=2.0), "**miss**, loaded, decoding 2.00 ×", "no"),
        (WAIT, Turn({"wait": 0.5}, 0.1), "pass", "no"),
        (WAIT, Turn({"wait": 0.6}, 0.1, slower=1.5), "**miss**", "no"),
        (WAIT, Turn({"wait": 0.6}, 0.2, slower=1.5), "pass, loaded, decoding 1.50 ×", "no"),
        (WAIT, Turn({"wait": 0.8}, 0.2, slower=1.5), "**miss**, loaded, decoding 1.50 ×", "no"),
    ],
)
def test_a_bar_is_passed_or_missed_by_its_run(bar: Bar, turn: Turn, outcome: str, stretch: str) -> None:
    assert verdict(bar, {"one": turn})[3:5] == [outcome, stretch]


def test_a_missing_figure_names_its_command() -> None:
    for turns in ({}, {"one": Turn({}, 0.0)}):
        assert verdict(RATE._replace(where="install it"), turns)[3] == "not run: install it"


def test_the_least_loaded_of_three_spoiled_turns_stands() -> None:
    turns = [Turn({"rate": load}, load) for load in (0.5, 0.2, 0.9)]
    assert least_loaded(turns) is turns[1]


def test_a_spoiled_turn_is_repeated_and_a_quiet_one_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loads = {bench: iter([0.3, 0.05, 0.0]) for bench in BENCHES} | {"rows": iter([0.3, 0.2, 0.4, 0.0])}
    taken = list[str]()

    def turn(bench: str, results: Path, floor: object, smoke: bool) -> Turn:
        taken.append(bench)
        return Turn({"p99": 9.0} if bench == "rows" else {}, next(loads[bench]))

    monkeypatch.setattr(cost, "_turn", turn)
    monkeypatch.setattr(cost.Floor, "time", lambda self: 1.0)
    assert cost.run(smoke=False) == 1
    assert {bench: taken.count(bench) for bench in BENCHES} == dict.fromkeys(BENCHES, 2) | {"rows": 3}
    shown = capsys.readouterr().out
    assert "miss, loaded, decoding 1.00 ×" in shown
    assert shown.count("not run: ") == len(BARS) - 1


@pytest.mark.parametrize(
    ("figures", "smoke", "code"), [({"x": 1.0}, False, 0), ({}, False, 1), ({}, True, 0)]
)
def test_a_failing_bench_is_no_pass(
    monkeypatch: pytest.MonkeyPatch, figures: dict[str, float], smoke: bool, code: int
) -> None:
    monkeypatch.setattr(cost, "_turn", lambda *_: Turn(figures, 0.0))
    monkeypatch.setattr(cost.Floor, "time", lambda self: 1.0)
    assert cost.run(smoke) == code


def test_busy_time_leaves_idle_and_waiting_out(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 9000 800 4 6 40 7 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    assert busy_s(stat) == pytest.approx(2.0)
    assert busy_s(tmp_path / "none") == 0.0
