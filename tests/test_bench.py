from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.answers import differences
from benchmarks.measure import Answers, Result
from benchmarks.report import bars

TRUTH = Answers(
    {"placement/a": {"starts": 9, "reach": 8}, "placement/b": {"starts": 2000, "reach": 2000}},
    {"a|60000": {"starts": 9}, "a|120000": {"starts": 0}},
)


@pytest.mark.timeout(180)
def test_a_smoke_run_compares_outputs_and_ends_with_the_ratios(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--smoke", "--events", "30000", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(
        r"ratios: plain_bytewax=\d+\.\d\d duckdb=\d+\.\d\d decode_floor=\d+\.\d\d "
        r"plain_bytewax_tuned=\d+\.\d\d",
        last,
    ), last
    assert re.search(r"^outputs: equal in 1,\d\d\d flights and \d{3,} minutes$", done.stdout, re.MULTILINE)

    def outcome(run: str) -> Result:
        return msgspec.json.decode((tmp_path / run / "result.json").read_bytes(), type=Result)

    truth = outcome("duckdb_batch").answers
    assert sum(row["impressions"] for row in truth.minutes.values()) > 5000
    assert outcome("flow_file_minutes").answers.minutes == truth.minutes
    assert outcome("flow_file_run_1").answers.flights.keys() == truth.flights.keys()
    assert outcome("flow_kafka_run_1").answers.flights.keys() == truth.flights.keys()
    assert outcome("plain_bytewax").answers.minutes.keys() == outcome("plain_tuned").answers.minutes.keys()


@pytest.mark.parametrize(
    ("flights", "minutes", "found"),
    [
        ({"placement/a": {"starts": 9}, "placement/b": {"starts": 2000}}, {"a|60000": {"starts": 9}}, []),
        ({"placement/a": {"reach": 9}, "placement/b": {"reach": 2000}}, {}, ["placement/a reach: 8 and 9"]),
        ({"placement/a": {"reach": 8}, "placement/b": {"reach": 2060}}, {}, []),
        (
            {"placement/a": {"reach": 8}, "placement/b": {"reach": 2090}},
            {},
            ["placement/b reach: 2000 and 2090"],
        ),
        ({"placement/a": {"starts": 9}}, {}, ["placement/b starts: 2000 and 0"]),
        ({}, {"a|60000": {"starts": 9}, "c|60000": {"starts": 1}}, ["c|60000 starts: 0 and 1"]),
        ({}, {}, ["no answers at all"]),
    ],
)
def test_a_number_that_differs_is_named(
    flights: dict[str, dict[str, int]], minutes: dict[str, dict[str, int]], found: list[str]
) -> None:
    assert differences(TRUTH, Answers(flights, minutes)) == found


def test_a_bar_is_missed_by_the_figure_that_misses_it() -> None:
    def result(cpu_s: float, **facts: float) -> Result:
        return Result(
            events=1000, seconds=cpu_s, cpu_s=cpu_s, startup_s=0, peak_mib=100, answers=Answers(), facts=facts
        )

    results = {
        "flow_file": result(1.0, bytes_a_play=65.0),
        "flow_kafka": result(1.9),
        "plain_bytewax": result(9.9),
        "plain_tuned": result(4.0),
        "duckdb_batch": result(0.51),
        "decode_floor": result(0.3),
        "flow_long": result(1.0, half_mib=100.0),
    }
    assert [bar.passed for bar in bars(results)] == [False, True, True, False, True]
