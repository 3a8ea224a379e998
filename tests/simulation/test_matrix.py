"""The matrix shows which file finds a bug, and which does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulation.matrix import failing, main
from simulation.mutations import mutations

BUG = "a2 ticks are of the wall clock"
FINDS = """
from flows.engine.tick_clock import TickClock

def test_it():
    assert TickClock.number.fget.__name__ == "number"
"""


def test_a_bug_is_found_by_a_file_failing_under_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finds, other = tmp_path / "test_finds.py", tmp_path / "test_other.py"
    finds.write_text(FINDS)
    other.write_text("def test_it(): pass")
    assert BUG in mutations()
    assert main(["--bug", BUG, str(finds), str(other)]) == 0
    assert [word.rpartition("/")[2] for word in capsys.readouterr().out.split()[-1:]] == ["test_finds.py"]
    assert main(["--bug", BUG, str(other)]) == 1
    assert capsys.readouterr().out == f"{BUG}: none\n"


def test_files_failing_without_a_bug_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fails = tmp_path / "test_fails.py"
    fails.write_text("def test_it(): assert False")
    assert main([str(fails)]) == 2
    assert "fails without any bug: " in capsys.readouterr().err


def test_arguments_selecting_no_test_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no tests ran"):
        failing("", [str(tmp_path)])
