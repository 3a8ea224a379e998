"""The soak bench on a few days: it counts every event once, and tells what grows."""

from datetime import date, timedelta
from io import StringIO

import pytest
from rich.console import Console

from benchmarks.bars import BARS
from benchmarks.soak import Day, Soak, changes
from connectors.embedded import EmbeddedValkey
from connectors.redis import connect


def test_a_soak_counts_every_event_once_while_names_come_and_go() -> None:
    run = Soak(9, 400, 20, Console(file=StringIO()))
    assert run.run() == 0
    assert len(run.days) == 8


def test_growth_in_the_last_quarter_is_reported() -> None:
    day = Day(100, 10, 1, 50, 10, 10, 1000, 0.01)
    table, grown = changes([day] * 6 + [day._replace(memory_mib=106)] * 2)
    assert grown["memory"] == pytest.approx(0.06)
    assert {bar.figure for bar in BARS if bar.bench == "soak"} <= grown.keys()
    assert grown["store"] == grown["processor"] == 0
    assert table[1] == ["memory, MiB", "100", "106", "+6.0%"]


def test_expired_days_and_decisions_are_removed_from_redis() -> None:
    run, first = Soak(9, 400, 20, Console(file=StringIO())), date(2025, 11, 25)
    run.days = [Day(100, 10, 1, 50, 10, 10, 1000, 0.01)] * 100
    with EmbeddedValkey() as valkey:
        run._client, run._namespace = connect(valkey.url), "n"
        for day in range(100):
            run._client.hset(f"n:days:{{p:2}}:{first + timedelta(days=day)}", "impressions", 1)
        run._client.hset("n:conversion:{o}", "d", 1)
        run._forget()
        left = {key.rpartition(":")[2] for key in run._client.keys("*")}
    assert left == {str(first + timedelta(days=day)) for day in range(100 - 62, 100)}
