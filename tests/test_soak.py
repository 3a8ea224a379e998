"""The soak bench on a few days: it counts every event once, and tells what grows."""

from io import StringIO

import pytest
from rich.console import Console

from benchmarks.bars import BARS
from benchmarks.soak import Day, Soak, changes


def test_a_soak_counts_every_event_once_while_names_come_and_go() -> None:
    run = Soak(9, 400, 20, Console(file=StringIO()))
    assert run.run() == 0
    assert len(run.days) == 8


def test_what_grows_in_the_last_quarter_is_said() -> None:
    day = Day(100, 10, 1, 50, 10, 10, 1000, 0.01)
    table, grown = changes([day] * 6 + [day._replace(memory_mib=106)] * 2)
    assert grown["memory"] == pytest.approx(0.06)
    assert {bar.figure for bar in BARS if bar.bench == "soak"} <= grown.keys()
    assert grown["store"] == grown["processor"] == 0
    assert table[1] == ["memory, MiB", "100", "106", "+6.0%"]
