from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from benchmarks.answers import differences
from benchmarks.measure import Answers, Job, Result
from benchmarks.peers import duckdb_job
from benchmarks.peers.built import build
from benchmarks.peers.job import METRICS, Unavailable, answers
from benchmarks.report import Bar, Row, bars, markdown, worse
from benchmarks.stages import STAGES, meter

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
        "flow_kafka": result(1.1),
        "plain_bytewax": result(29.9),
        "plain_tuned": result(4.0),
        "duckdb_batch": result(1.21),
        "decode_floor": result(0.3),
        "flow_long": result(1.0, half_mib=100.0),
    }
    assert [bar.passed for bar in bars(results)] == [False, True, True, False, True]


def took(seconds: float, cpu_s: float) -> Result:
    return Result(events=1_000_000, seconds=seconds, cpu_s=cpu_s, startup_s=0, peak_mib=1, answers=Answers())


def test_a_ratio_is_that_of_elapsed_or_of_processor_time_whichever_is_less() -> None:
    assert worse(took(2.0, 1.0), took(3.0, 3.0)) == 1.5
    assert worse(took(1.0, 2.0), took(3.0, 3.0)) == 1.5


def test_readme_has_every_contender_beside_ours_and_every_bar() -> None:
    rows = [
        Row("flow_file", "audiopixel", took(2.0, 1.5), ""),
        Row("kafka_floor", "Kafka consumer alone", took(9.0, 9.0), ""),
        Row("jet", "Jet 5", took(4.0, 6.0), "snapshots"),
    ]
    assert markdown(
        "2026-11-26: a log", rows, [Bar("fast", 1.0, 1.5), Bar("small", 1.0, 1.5, at_least=False)]
    ) == [
        "Run of 2026-11-26: a log.",
        "",
        "| | CPU µs an event | elapsed µs | audiopixel is, by CPU | elapsed |",
        "|---|---|---|---|---|",
        "| **audiopixel**, from a file to Redis, recovery on, everything | **1.50** | **2.00** |  |  |",
        "| Jet 5: snapshots | 6.00 | 4.00 | 4.00 × | 2.00 × |",
        "",
        "| bar | asked | found | |",
        "|---|---|---|---|",
        "| fast | at least 1.5 | 1.00 | **miss** |",
        "| small | at most 1.5 | 1.00 | pass |",
    ]


def test_the_rivals_job_counts_a_repeated_pixel_and_a_listener_once(tmp_path: Path) -> None:
    def pixel(event: str, at_ms: int, play: str, listener: str, consent: bool = True) -> bytes:
        fields = {"event": event, "ts": at_ms, "placement_id": "p", "play_id": play, "listener_id": listener}
        return msgspec.json.encode({**fields, "consent": consent})

    log = tmp_path / "log.ndjson"
    log.write_bytes(
        b"\n".join(
            [
                *[pixel("impression", 60_000, "one", "Ann")] * 2,
                pixel("start", 119_999, "one", "Ann"),
                pixel("start", 119_999, "two", "Bob", consent=False),
                pixel("complete", 120_000, "one", "Ann"),
                pixel("click", 120_000, "one", "Ann"),
            ]
        )
    )
    job = Job(log=str(log), events=6, warm=str(log), scratch=str(tmp_path))
    assert duckdb_job.run(job).answers.minutes == {
        "p|60000": dict(zip(METRICS, (1, 2, 0, 0, 0, 0, 1), strict=True)),
        "p|120000": dict(zip(METRICS, (0, 0, 0, 0, 0, 1, 0), strict=True)),
    }


def test_a_rival_that_counts_one_listener_more_differs() -> None:
    truth, more = (answers([("p", 1, 1, 1, 0, 0, 0, 0, 2000 + extra)]) for extra in (0, 1))
    assert differences(truth, more) == ["p|60000 listeners: 2000 and 2001"]


def test_what_cannot_be_built_says_so_with_the_last_words(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="sh could not build it: no repository"):
        build(["/bin/sh", "-c", "echo no repository >&2; exit 1"], tmp_path)


@pytest.mark.timeout(180)
def test_rivals_that_cannot_be_had_are_named_and_the_others_compared(tmp_path: Path) -> None:
    tools = tmp_path / "bin"  # neither Java's nor Rust's
    tools.mkdir()
    tools.joinpath("sh").symlink_to("/bin/sh")
    command = [sys.executable, "-m", "benchmarks", "--peers", "--smoke", "--events", "30000"]
    done = subprocess.run(
        [*command, "--readme", "--keep", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        env={"PATH": str(tools), "HOME": str(Path.home()), "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"outputs: equal in 1,\d\d\d flights and \d{3,} minutes", done.stderr)
    for rival, tool in (("flink", "mvn"), ("jet", "mvn"), ("java_loop", "mvn"), ("rust_loop", "cargo")):
        assert f"left out: {rival}: no {tool} here" in done.stderr
    assert done.stdout.startswith("Run of 20")
    assert re.search(r"^\| DuckDB \S+: batch, one thread \| \d+\.\d\d \|", done.stdout, re.MULTILINE)


def test_a_stage_is_told_its_own_time_without_stages_within_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter((0.0, 1.0, 4.0, 6.0, 7.0, 10.0))
    monkeypatch.setattr(time, "thread_time", lambda: next(clock))

    class Step:
        def outer(self) -> int:
            return self.inner(1) + self.inner(2)

        def inner(self, value: int) -> int:
            return value

    took, thread = Counter[str](), threading.local()
    meter(took, thread, "outer", Step, "outer")
    meter(took, thread, "inner", Step, "inner")
    assert Step().outer() == 3
    assert took == {"outer": 6.0, "inner": 4.0}


def test_every_stage_is_entered_by_a_method_of_the_flow() -> None:
    assert [one for one in STAGES if not callable(getattr(one[1], one[2], None))] == []
