"""The soak bench on a few days: it counts every event once, and tells what grows."""

from io import StringIO

from rich.console import Console

from benchmarks.soak import Day, Soak, report


def test_a_soak_counts_every_event_once_while_names_come_and_go() -> None:
    run = Soak(9, 400, 20, Console(file=StringIO()))
    assert run.run() == 0
    assert len(run.days) == 8


def test_what_grows_in_the_last_quarter_is_no_pass() -> None:
    shown = Console(file=StringIO(), width=160)
    day = Day(100, 10, 1, 50, 10, 10, 1000, 0.01)
    assert report([day] * 8, shown)
    assert not report([day] * 6 + [day._replace(memory_mib=106)] * 2, shown)
    assert report([day] * 6 + [day._replace(memory_mib=90)] * 2, shown)
