from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from benchmarks import recovery
from benchmarks.__main__ import ALL
from benchmarks.answers import differences
from benchmarks.bars import BARS, LINES, PUBLISHED, ROOT, WRITTEN, Saved, fill, finish, last, verdicts
from benchmarks.bench import Bench, run
from benchmarks.cost import BARS as COST_BARS
from benchmarks.equal import EqualBench
from benchmarks.freshness import Freshness, Mark, Shown, figures
from benchmarks.measure import Answers, Job, Result
from benchmarks.peers import duckdb_job
from benchmarks.peers.bench import PeersBench
from benchmarks.peers.java import build, warm_runs_of
from benchmarks.peers.job import METRICS, Unavailable, answers
from benchmarks.report import Row, table, worse
from benchmarks.second import SecondBench
from benchmarks.stages import STAGES, meter
from connectors.embedded import EmbeddedValkey
from flows.errors import AudiopixelError

TRUTH = Answers(
    {"placement/a": {"starts": 9, "reach": 8}, "placement/b": {"starts": 2000, "reach": 2000}},
    {"a|60000": {"starts": 9}, "a|120000": {"starts": 0}},
)


@pytest.mark.timeout(300)
def test_a_smoke_run_compares_outputs_and_ends_with_the_ratios(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--smoke", "--events", "30000", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
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

    assert not [path for path in tmp_path.glob("*/*") if path.is_dir()], "a run's own stores go with it"
    truth = outcome("duckdb_batch_run_1").answers
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
def test_a_differing_number_is_named(
    flights: dict[str, dict[str, int]], minutes: dict[str, dict[str, int]], found: list[str]
) -> None:
    assert differences(TRUTH, Answers(flights, minutes)) == found


def saved_runs(bench: str = "bench", **figures: float) -> dict[str, Saved]:
    table = [["", "CPU µs an event"], ["**audiopixel**", "**1.50**"]]
    return {bench: Saved("2026-11-26", "a log", table, figures)}


def test_a_line_passes_only_with_all_its_figures() -> None:
    def verdict(line: str, bench: str = "bench", **figures: float) -> str:
        return next(row[4] for row in verdicts(saved_runs(bench, **figures)) if row[1] == f"**{line}**")

    assert verdict("From Kafka", "second", kafka_by_file=0.86) == "not run", "others have no figure"
    assert verdict("From Kafka", "second", kafka_by_file=0.84) == "**miss**"
    assert verdict("The flow never waits for a socket", waiting=0.01) == "pass"
    assert verdict("From Kafka", by_plain=31.0) == "not run"
    assert verdict("File to Redis, everything on", by_plain=31.0) == "not run"
    assert verdict("File to Redis, everything on", by_plain=29.0) == "**miss**"
    assert verdict("File to Redis, everything on", "second", first_by_duckdb=2.0, by_first=0.6) == "**miss**"
    assert verdict("Promises of before", bytes_a_play=65.0) == "**miss**"


def test_a_failed_bar_exits_with_1_and_other_sizes_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.bars.KEPT", tmp_path)
    table = [["", "CPU µs"], ["ours", "1.50"]]
    assert finish("soak", "8 days", table, {"memory": 0.06}, kept=False) == 0
    assert last() == {}
    assert finish("soak", "365 days", table, {"memory": 0.06}) == 1
    assert last()["soak"].about.startswith("365 days; Python 3.")
    assert finish("soak", "365 days", table, {"memory": 0.05}) == 0
    assert re.search(
        r"memory, growth in the last quarter +at most 0.05 +0.060 +miss ", capsys.readouterr().out
    )


def test_a_documents_tables_are_filled_from_the_last_runs() -> None:
    text = "a\n<!-- bench: bench -->\nold\n<!-- end -->\nb\n<!-- bench: soak -->\nkept\n<!-- end -->\n"
    text += "<!-- bench: lines -->\n<!-- end -->\nc\n"
    runs = saved_runs() | saved_runs("second", kafka_by_file=0.5)
    filled = fill(text, runs)
    assert filled.startswith(
        "a\n<!-- bench: bench -->\nRun of 2026-11-26: a log.\n\n|  | CPU µs an event |\n|---|---|\n"
        "| **audiopixel** | **1.50** |\n<!-- end -->\nb\n<!-- bench: soak -->\nkept\n<!-- end -->\n"
    )
    assert "\n| 3 | **From Kafka** |  |  | **miss** |  |\n" in filled
    bar = "the collector's fields, by the file's rate ¹ | at least 0.85 | 0.50 | **miss** | 2026-11-26"
    assert f"\n|  | {bar} |\n" in filled
    assert filled.endswith(f"\n\n- **From Kafka.** {LINES[3].why}\n<!-- end -->\nc\n")
    assert fill(filled, runs) == filled


def test_the_documents_have_the_published_results_and_no_bar_without_one() -> None:
    published = last(PUBLISHED)
    for name in WRITTEN:
        text = (ROOT / name).read_text()
        assert fill(text, published) == text, "python -m benchmarks --readme writes them"
    rows = verdicts(saved_runs("second", kafka_by_file=0.9), run_alone=True)
    assert [row[1] for row in rows[1:]] == ["**From Kafka**", "the collector's fields, by the file's rate ¹"]
    assert rows[1][4] == "pass"


def test_every_bench_is_documented_and_every_bar_has_a_bench() -> None:
    benches = {name or "bench" for name in ALL}
    places = [re.findall(r"<!-- bench: (\w+) -->", (ROOT / name).read_text()) for name in WRITTEN]
    assert {name for names in places for name in names} == {*benches, "lines"}
    assert {bar.bench for bar in BARS} <= benches
    assert all(LINES[bar.line].why for bar in BARS if bar.line)


def test_cost_bars_use_logs_with_starts_under_3_percent() -> None:
    judged = {bench.name: bench.usual for bench in (Bench, SecondBench, PeersBench, EqualBench)}
    for bar in COST_BARS:
        assert judged.get(bar.of.bench, 10_000_000) == 10_000_000, bar.name


def test_contenders_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = list[str]()

    def child(contender: str) -> Callable[[str], Result]:
        def run(variant: str) -> Result:
            order.append(f"{contender} {variant}")
            return took(1.0, 1.0)

        return run

    runs = Bench(1, False, tmp_path)._by_turns({one: child(one) for one in ("ours", "theirs")})
    assert order == [f"{one} run {turn}" for turn in (1, 2, 3) for one in ("ours", "theirs")]
    assert {one: len(of) for one, of in runs.items()} == {"ours": 3, "theirs": 3}


def test_a_bench_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudiopixelError, match=r" MiB free, and needs 8\d\d,\d{3},\d{3}$"):
        SecondBench(10**12, False, tmp_path).run()
    assert not list(tmp_path.iterdir())


def test_a_failing_bench_reports_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(SecondBench, 10**12, False) == 1
    assert re.search(r"^bench: \S+ has [\d,]+ MiB free, and needs ", capsys.readouterr().err)


def test_a_stopped_bench_deletes_its_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(Bench):
        def run(self) -> int:
            (self.directory / "log.ndjson").write_text("a log")
            assert list(tmp_path.rglob("log.ndjson"))
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
            return 0

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match="143"):
            run(Stopped, 1, True)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not list(tmp_path.iterdir())


def test_a_long_log_warms_javas_compiler_in_fewer_runs() -> None:
    assert [warm_runs_of(events) for events in (60_000, 1_000_000, 3_000_000, 10_000_000)] == [4, 4, 2, 1]


def took(seconds: float, cpu_s: float) -> Result:
    return Result(events=1_000_000, seconds=seconds, cpu_s=cpu_s, startup_s=0, peak_mib=1, answers=Answers())


def test_a_ratio_is_the_lesser_of_elapsed_and_processor_time() -> None:
    assert worse(took(2.0, 1.0), took(3.0, 3.0)) == 1.5
    assert worse(took(1.0, 2.0), took(3.0, 3.0)) == 1.5


def test_the_table_lists_every_contender_with_ours() -> None:
    rows = [
        Row("flow_file", "**audiopixel**", took(2.0, 1.5)),
        Row("jet", "Jet 5: snapshots", took(4.0, 6.0)),
    ]
    assert table(rows)[1:] == [
        ["**audiopixel**", "**1.50**", "**2.00**", "", "", "1", "0.0"],
        ["Jet 5: snapshots", "6.00", "4.00", "4.00 ×", "2.00 ×", "1", "0.0"],
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


def test_a_rival_counting_one_more_listener_differs() -> None:
    truth, more = (answers([("p", 1, 1, 1, 0, 0, 0, 0, 2000 + extra)]) for extra in (0, 1))
    assert differences(truth, more) == ["p|60000 listeners: 2000 and 2001"]


def test_a_failed_build_is_reported_with_its_last_output(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="sh could not build it: no repository"):
        build(["/bin/sh", "-c", "echo no repository >&2; exit 1"], tmp_path)


@pytest.mark.timeout(300)
def test_unavailable_rivals_are_named_and_the_others_compared(tmp_path: Path) -> None:
    tools = tmp_path / "bin"  # without Java's
    tools.mkdir()
    tools.joinpath("sh").symlink_to("/bin/sh")
    command = [sys.executable, "-m", "benchmarks", "--peers", "--smoke", "--events", "30000"]
    done = subprocess.run(
        [*command, "--keep", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={"PATH": str(tools), "HOME": str(Path.home()), "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"outputs: equal in 1,\d\d\d flights and \d{3,} minutes", done.stdout)
    for rival in ("flink", "jet"):
        assert f"left out: {rival}: no mvn here" in done.stdout
    assert re.search(r"^DuckDB \S+: batch, one thread +\d+\.\d\d ", done.stdout, re.MULTILINE)


def test_a_stages_time_excludes_nested_stages(
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


def test_a_gap_is_the_longest_time_without_a_new_number() -> None:
    shown = Shown.__new__(Shown)
    shown.seen = [Mark((one,), at_s) for one, at_s in ((0, 0.0), (1, 1.0), (1, 1.8), (2, 2.5), (3, 3.0))]
    assert shown.gap_s(0.5, 3.2) == 1.5
    assert shown.gap_s(0.5, 9.0) == 6.0


def test_freshness_is_the_median_run_with_the_worst_beside_it() -> None:
    runs = [Freshness(1.0, p50, 1.0, 2.0, gap, 0.0, 0.5) for p50, gap in ((0.4, 0.9), (0.5, 0.8), (0.9, 0.7))]
    assert figures(2000, runs) == {"2000.p50": 0.5, "2000.p99": 1.0, "2000.gap": 0.8, "2000.worst": 1.8}


PSEUDONYMS = {"listener_id", "client_id", "household_id"}


@pytest.mark.timeout(300)
def test_the_second_log_gives_answers_equal_to_duckdbs(tmp_path: Path) -> None:
    bench = SecondBench(20_000, True, tmp_path)
    assert bench.run() == 0
    pixels = [msgspec.json.decode(line) for line in (tmp_path / "second.ndjson").open("rb")]
    kinds = [one["event"] for one in pixels]
    assert kinds.count("conversion") == 20
    fields = PSEUDONYMS | {"consent", "received_at", "collector", "low_ms"}
    assert all(one.keys() >= fields for one in pixels)
    assert all(one["previous"].keys() == PSEUDONYMS for one in pixels if "previous" in one)
    flights = bench.truth.flights
    campaigns = sum(key.startswith("campaign/") for key in flights)
    assert sum(key.startswith("creative/") for key in flights) == 4 * campaigns > 100
    platforms = [row for key, row in flights.items() if key.startswith("platform/")]
    total = Counter[str]()
    for row in platforms:
        total.update(row)
    assert 0 < total["flight.impressions_download"] < total["flight.impressions_audible_2s"]
    assert total["flight.impressions_audible_2s"] < total["flight.impressions"]
    assert 0 < total["flight.confirmed_plays"] < total["flight.starts"]


@pytest.mark.timeout(300)
def test_a_recovery_is_measured_and_stopped_before_the_end(tmp_path: Path) -> None:
    log, plays = tmp_path / "log.ndjson", 100_000
    recovery.write(log, plays)
    with EmbeddedValkey() as valkey:
        life = recovery.alone(log, plays, tmp_path / "store", valkey.url)
    assert 0.9 * plays <= life.pixels < plays
    assert life.pixels == life.plays == life.touches
    assert min(life.rate, life.stall_s, life.first_s) > 0


@pytest.mark.timeout(300)
def test_rows_of_all_placements_are_read_while_a_tenth_change(tmp_path: Path) -> None:
    row = re.search(r"^ +1,000 +(\d+) +\d+\.\d\d ", smoke("rows", tmp_path), re.MULTILINE)
    assert row is not None
    assert 80 < int(row[1]) < 130


@pytest.mark.timeout(300)
def test_a_bidders_client_is_measured_with_hiredis_and_without(tmp_path: Path) -> None:
    said = smoke("bidder_client", tmp_path)
    for name in ("with hiredis", "without"):
        row = re.search(rf"^{name} +(\d+\.\d\d) +(\d+\.\d\d) ", said, re.MULTILINE)
        assert row is not None, said
        assert all(float(figure) > 0.01 for figure in row.groups())


def smoke(bench: str, results: Path) -> str:
    command = [sys.executable, "-m", f"benchmarks.{bench}", "--smoke"]
    environment = {**os.environ, "BENCH_RESULTS": str(results)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(results.iterdir())
    return done.stdout
