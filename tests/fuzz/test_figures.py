"""Figures of the fuzz add up over runs, and the next run continues after the last one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fuzz import __main__ as command
from fuzz.figures import tried
from fuzz.run import AT_ONCE


def test_figures_add_up_and_no_batch_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fuzz.json"
    for inputs in (2 * AT_ONCE, 2 * AT_ONCE, 3 * AT_ONCE):
        about = ["fuzz", "--door", "claims", "--inputs", f"{inputs}", "--figures", f"{file}"]
        monkeypatch.setattr("sys.argv", about)
        assert command.main() == 0
        assert tried(file, "claims") == inputs
    told = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert told == ["500", "0", "250"]
    held = json.loads(file.read_text())
    assert list(held) == ["claims"]
    assert held["claims"]["inputs"] == sum(held["claims"]["outcomes"].values()) == 3 * AT_ONCE
