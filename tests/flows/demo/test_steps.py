"""The steps of the demo's start."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from flows.demo.steps import Steps


def test_each_step_has_a_numbered_line_and_a_line_with_seconds() -> None:
    out = io.StringIO()
    steps = Steps(Console(file=out, width=200), 2)
    with steps.step("start [servers]"):
        assert out.getvalue() == "[1/2] start [servers] …\n"
    with steps.step("compile"):
        pass
    lines = out.getvalue().splitlines()
    assert [re.sub(r"\d+\.\d s$", "S", line) for line in lines] == [
        "[1/2] start [servers] …",
        "[1/2] start [servers]  S",
        "[2/2] compile …",
        "[2/2] compile  S",
    ]


def test_a_failed_step_has_no_line_of_completion() -> None:
    out = io.StringIO()
    with pytest.raises(RuntimeError), Steps(Console(file=out, width=200), 1).step("start"):
        raise RuntimeError
    assert out.getvalue() == "[1/1] start …\n"
