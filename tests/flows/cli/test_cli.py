"""The command line as scripts see it: one line that says what to do, a code that is not 0, no traceback."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import typer
import zstandard
from command_support import errors_in, run_command
from redis import Redis
from typer.testing import CliRunner

from benchmarks.measure import process_cpu_s
from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.files import unpacked
from connectors.ports import free_run
from flows.cli.commands import app
from flows.cli.help import GUIDE, LINES, PANELS
from flows.errors import AudiopixelError
from flows.simulate.feed import run_log
from flows.simulate.traffic import Traffic

ROOT = Path(__file__).parents[3]
Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(**settings: str) -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
    return {**known, **{f"AUDIOPIXEL_{name}": value for name, value in settings.items()}}


@pytest.fixture
def run(valkey: EmbeddedValkey, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`audiopixel …` in an empty directory."""
    into = tmp_path_factory.mktemp("said")

    def command(*arguments: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        told = {
            "REDIS_URL": valkey.url,
            "NAMESPACE": f"t-{tmp_path.name}",
            "LISTENER_KEY": "sixteen bytes ok",
            **settings,
        }
        return run_command(
            *arguments, directory=tmp_path, environment=environment(**told), into=into, stdin=stdin
        )

    return command


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "pixels.ndjson"
    run_log(path, Traffic(7, placements=3), 3000)
    return path


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as server:
        yield server


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = errors_in(done.stderr)
    return line


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["reconcile", "LOG", "--rejected", "nofile"], 1, "nofile: no such file"),
        (["reconcile", "LOG", "--minutes", "nofile"], 1, "nofile: no such file"),
        (["reconcile", "LOG", "--minutes", "."], 1, ".: is a directory: name a file"),
        (["reconcile", "nofile"], 1, "nofile: no such file"),
        (["reconcile", "LOG", "LOG"], 1, "LOG: the same file as LOG; give each file once"),
        (["reconcile", "fifo"], 1, "fifo: not a regular file: write its data to a regular file"),
        (["replay", "fifo"], 1, "fifo: not a regular file: write its data to a regular file"),
        (["reconcile", "LOG", "--rejected", "fifo"], 1, "fifo: not a regular file"),
        (["reconcile", "LOG", "--rejected", "letters"], 2, "letters: is of another log, other.ndjson"),
        (["replay", "sheet"], 1, "sheet: is a zip archive or an Excel workbook: unpack it"),
        (["replay", "\udcff.ndjson"], 1, "\ufffd.ndjson: its name is not UTF-8: rename it"),
        (["reconcile", "\udcff.ndjson"], 1, "\ufffd.ndjson: its name is not UTF-8: rename it"),
        (["replay", "x" * 300], 1, "cannot be read: File name too long"),
        (["simulate", "x" * 300], 1, "File name too long"),
        (["replay", "LOG", "--out", "words"], 1, "cannot be written: File exists"),
        (["replay", "LOG", "--out", "words/nested"], 1, "cannot be written: Not a directory"),
        (["reconcile", "LOG", "--rejected", "LOG"], 1, "LOG:1: is not a dead letter"),
        (["reconcile", "LOG", "--rejected", "words"], 1, "words:1: is not a dead letter"),
        (["reconcile", "LOG", "--minutes", "words"], 1, "words:1: is not a minute"),
        (["simulate", "nodir/x.ndjson"], 1, "nodir/x.ndjson: there is no directory nodir: make it first"),
        (["simulate", "/dev/full"], 1, "No space left on device"),
        (["simulate", "x.gz", "--events", "9", "--ledger", "/dev/full"], 1, "No space left on device"),
        (["simulate", "."], 1, ".: is a directory: name a file"),
        (["simulate", "x.ndjson", "--events", "1", "--ledger", "nodir/x"], 1, "there is no directory nodir"),
        (["simulate", "x.ndjson", "--seconds", "3"], 2, "--seconds is for traffic to kafka alone"),
        (
            ["simulate", "x.ndjson", "--plans", "plans.csv"],
            2,
            "--plans is for traffic to kafka, or of a scenario, alone",
        ),
        (["simulate", "x.ndjson", "--theirs", "t.csv"], 2, "--theirs is for traffic of a scenario alone"),
        (["simulate", "kafka", "--scenario", "first-day"], 2, "--scenario is for traffic to a file alone"),
        (
            ["simulate", "x.ndjson", "--scenario", "first-day", "--rate", "3"],
            2,
            "--rate is for traffic without a scenario alone",
        ),
        (["simulate", "kafka", "--events", "3"], 2, "--events is for traffic to a file alone"),
        (["forget"], 2, "no listener is named"),
        (["overlap", "a", "a"], 2, "'a' is named twice: name two placements"),
    ],
)
def test_a_users_error_is_one_line(
    run: Run, log: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    (tmp_path / "words").write_text("no JSON\n")
    letter = {"reason": "too_late", "partition": "other.ndjson", "offset": 1}
    (tmp_path / "letters").write_text(json.dumps(letter | {"event": {"event": "start", "ts": 1}}) + "\n")
    (tmp_path / "sheet").write_bytes(b"PK\x03\x04" + bytes(60))
    (tmp_path / os.fsdecode(b"\xff.ndjson")).write_text("{}\n")
    os.mkfifo(tmp_path / "fifo")
    done = run(*[one.replace("LOG", str(log)) for one in arguments])
    assert said.replace("LOG", str(log)) in one_line(done, code)
    assert not (tmp_path / "x.ndjson").exists(), "the work was done first"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--restarts", "-3"],
        ["run", "--member", "-1"],
        ["simulate", "kafka", "--seconds", "-1"],
        ["simulate", "x.ndjson", "--seed", "-5"],
        ["simulate", "x.ndjson", "--events", "2", "--rate", "inf"],
        ["nosuch"],
    ],
)
def test_an_option_out_of_its_range_is_refused(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_missing_settings_file_is_an_error_of_one_line(run: Run) -> None:
    assert "AUDIOPIXEL_CONFIG" in one_line(run("config", CONFIG="nofile.toml"), 2)


def test_a_missing_topic_is_an_error_and_not_created(run: Run, broker: EmbeddedBroker) -> None:
    example = str(ROOT / "docs/plans.example.csv")
    for _ in range(2):
        done = run("plans", example, "--to", "nosuch", KAFKA_BROKERS=broker.bootstrap)
        assert one_line(done, 1).endswith("create the topic nosuch first")
    done = run("simulate", "kafka", "--seconds", "1", KAFKA_BROKERS=broker.bootstrap)
    assert one_line(done, 1).endswith(
        "create the topic audio-pixels, or set AUDIOPIXEL_KAFKA_TOPIC to another"
    )


def test_a_missing_kafka_is_reported_with_its_setting(run: Run) -> None:
    done = run("simulate", "kafka", "--seconds", "1", KAFKA_BROKERS="127.0.0.1:1")
    assert "set AUDIOPIXEL_KAFKA_BROKERS to its host:port" in one_line(done, 1)


@pytest.mark.parametrize("option", ["no.such", "transactional.id"])
@pytest.mark.parametrize("command", [["run"], ["simulate", "kafka", "--seconds", "1"]])
def test_an_option_refused_by_kafkas_client_is_a_wrong_setting(
    run: Run, command: list[str], option: str
) -> None:
    done = run(*command, KAFKA_BROKERS="127.0.0.1:1", KAFKA_OPTIONS=f'{{"{option}": "1"}}')
    said = one_line(done, 2)
    assert option in said
    assert said.endswith("; correct AUDIOPIXEL_KAFKA_OPTIONS")
    assert done.stderr.rstrip('"\n').endswith("; correct AUDIOPIXEL_KAFKA_OPTIONS"), "it is the last word"


# The oracle's reading


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_compressed_log_is_an_error_of_the_oracle(
    run: Run, log: Path, tmp_path: Path, suffix: str
) -> None:
    pack = gzip.compress if suffix == ".gz" else zstandard.ZstdCompressor().compress
    packed = pack(log.read_bytes())
    (tmp_path / f"cut{suffix}").write_bytes(packed[: len(packed) // 2])
    assert f"cut{suffix}: cannot be read: " in one_line(run("reconcile", f"cut{suffix}"), 1)


@pytest.mark.parametrize("cut", [1, 5, 100, 1000])
def test_all_frames_are_read_and_a_truncated_last_one_fails(tmp_path: Path, cut: int) -> None:
    lines = [b'{"n":%d}\n' % n for n in range(3000)]
    frames = [zstandard.compress(b"".join(lines[at : at + 1000])) for at in range(0, 3000, 1000)]
    path = tmp_path / "log.zst"
    path.write_bytes(b"".join(frames))
    with unpacked(str(path)) as file:
        assert list(file) == lines
    path.write_bytes(b"".join(frames)[:-cut])
    with pytest.raises(EOFError, match="in the middle"), unpacked(str(path)) as file:
        list(file)
    path.write_bytes(b"".join(frames[:2]))
    with unpacked(str(path)) as file:
        assert list(file) == lines[:2000]
    path.write_bytes(b"".join(frames) + b"more")
    with pytest.raises(zstandard.ZstdError), unpacked(str(path)) as file:
        list(file)


def test_a_cut_log_is_refused_by_the_name_of_its_file(tmp_path: Path) -> None:
    from flows.reconcile.recomputation import recompute

    path = tmp_path / "log.zst"
    path.write_bytes(zstandard.compress(b'{"n": 1}\n' * 1000)[:-4])
    with pytest.raises(AudiopixelError, match=r"log\.zst: cannot be read: .*middle of its compressed data"):
        recompute([path])


# What long work says


def test_a_replay_ends_with_its_account(run: Run, log: Path) -> None:
    done = run("replay", str(log))
    assert done.returncode == 0, done.stderr
    match = re.fullmatch(
        r"received ([\d,]+) = accepted ([\d,]+) \+ repeated ([\d,]+) \+ rejected ([\d,]+); ([\d,]+) rows, "
        r"final through (20\d\d-\d\d-\d\dT\d\d:\d\d:00Z)\n",
        done.stdout,
    )
    assert match, done.stdout
    received, accepted, repeated, rejected, rows = (int(match[n].replace(",", "")) for n in range(1, 6))
    assert received == accepted + repeated + rejected == 3000
    assert rows > 3


def in_a_terminal(*arguments: str, cwd: Path, typed: bytes = b"", **settings: str) -> tuple[int, str]:
    """The code of `audiopixel …`, and all that it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=cwd,
        env=environment(**settings),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    deadline_s = time.monotonic() + 90
    while time.monotonic() < deadline_s:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # all that wrote to it have ended
                break
            if typed and b"Ctrl-D" in shown:
                os.write(ours, typed)
                typed = b""
    os.close(ours)
    return process.wait(10), shown.decode()


def test_on_a_terminal_log_lines_stand_above_the_progress(
    valkey: EmbeddedValkey, log: Path, tmp_path: Path
) -> None:
    code, shown = in_a_terminal(
        *("replay", str(log)), cwd=tmp_path, REDIS_URL=valkey.url, NAMESPACE=f"t-{tmp_path.name}"
    )
    assert code == 0, shown
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-ln-z]", "\r", re.sub(r"\x1b\[[0-9;]*m", "", shown))
    (line,) = [line for line in re.split(r"[\r\n]+", plain) if "publishing" in line]
    assert "messages" not in line
    assert "replaying" in plain


def test_on_a_terminal_simulate_and_reconcile_show_how_far_they_are(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    code, shown = in_a_terminal("simulate", "x.ndjson", "--events", "10000", cwd=tmp_path)
    assert (code, "of 10,000 events" in shown) == (0, True), shown
    code, shown = in_a_terminal("reconcile", "x.ndjson", cwd=tmp_path, REDIS_URL=valkey.url)
    assert (code, "reading x.ndjson" in shown or "counting" in shown) == (1, True), shown


def test_forget_asks_for_ids_on_a_terminal(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    code, shown = in_a_terminal(
        *("forget",),
        cwd=tmp_path,
        typed=b"L1\nL2\n\x04",
        REDIS_URL=valkey.url,
        NAMESPACE=f"t-{tmp_path.name}",
        LISTENER_KEY="sixteen bytes ok",
    )
    assert code == 1, shown
    assert "Ids of listeners, one a line, then Ctrl-D:" in shown
    assert "refused: 2 listeners not forgotten" in shown, "no flow is there"


def test_forget_without_a_standard_input_names_no_person(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows.cli", "forget"]
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    done = subprocess.run(closed, cwd=ROOT, capture_output=True, text=True, check=False)
    said = "audiopixel: no listener is named: give ids, or one id a line on standard input"
    assert one_line(done, 2) == said


def test_a_released_collector_is_shown_and_not_obeyed(run: Run, broker: EmbeddedBroker) -> None:
    broker.create_topic("released", 2)
    told = {"KAFKA_BROKERS": broker.bootstrap, "KAFKA_TOPIC": "released"}
    done = run("release", "a\x1b]0;owned\x07b", "--anyway", **told)
    assert (done.returncode, done.stdout) == (0, "a\ufffd]0;owned\ufffdb ended in 2 partitions\n")
    refused = one_line(run("release", "a\x1b]0;owned\x07b", **told), 1)
    assert "lists no collector 'a\ufffd]0;owned\ufffdb', and nothing is released: it lists none" in refused


def test_a_silent_unit_of_the_feed_is_released_by_its_key(
    run: Run, broker: EmbeddedBroker, valkey: EmbeddedValkey
) -> None:
    broker.create_topic("silent", 1)
    told = {"KAFKA_BROKERS": broker.bootstrap, "KAFKA_TOPIC": "silent", "NAMESPACE": "released:v1"}
    with Redis.from_url(valkey.url) as client:
        silent = {unit: {"since_ms": 1} for unit in ("platform:acast", "sender:edge-1")}
        client.hset("released:v1:meta", "silent", json.dumps(silent))
    for name, ended in (("platform:acast", "platform:acast"), ("sender:edge-1", "edge-1")):
        done = run("release", name, **told)
        assert (done.returncode, done.stdout) == (0, f"{ended} ended in 1 partitions\n")
    refused = one_line(run("release", "platform:other", **told), 1)
    assert "listed are platform:acast (silent), edge-1 (silent)." in refused


def test_the_exporter_says_where_its_page_is(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    port = free_run(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "exporter", "--port", str(port)],
        env=environment(REDIS_URL=valkey.url),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        (link,) = re.findall(rf'page="?http://127\.0\.0\.1:{port}/login#token=(local\.[\w-]+)', line)
        signed_in = urllib.request.Request(
            f"http://127.0.0.1:{port}/", headers={"authorization": f"Bearer {link}"}
        )
        deadline_s = time.monotonic() + 20
        page = b""
        while not page and time.monotonic() < deadline_s:
            with suppress(OSError):
                page = urllib.request.urlopen(signed_in, timeout=5).read()
        assert b"<html" in page
    finally:
        process.terminate()
        process.wait(20)


# Ctrl-C


@pytest.mark.parametrize("after_s", [0.15, 0.25, 0.4, 0.6, 0.9, 1.3])
def test_ctrl_c_at_any_time_ends_quietly_with_130(tmp_path: Path, after_s: float) -> None:
    """Seconds of its processor, since a busy machine has it no further than the interpreter's start."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "simulate", "x.ndjson", "--events", "100000000"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and (process_cpu_s(process.pid) or 0) < after_s:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (130, "")


@pytest.fixture(scope="module")
def long_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "pixels.ndjson"
    run_log(path, Traffic(1), 60_000)
    return path


@pytest.mark.parametrize("phase", ["reading", "sorting", "removing", "crediting", "comparing"])
def test_ctrl_c_while_the_oracle_computes_ends_with_130(
    phase: str, long_log: Path, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    code = (
        "import os, signal, sys, threading\n"
        "from flows import reconcile as oracle\n"
        "from flows.cli.__main__ import main\n"
        "recompute, compare = oracle.recompute, oracle.compare\n"
        "def tell(doing):\n"
        f"    if doing.startswith({phase!r}):\n"
        "        print(doing, flush=True)\n"
        "        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "def begin(*all): tell('comparing'); return compare(*all)\n"
        "oracle.recompute = lambda *all, **more: recompute(*all, **{**more, 'progress': tell})\n"
        "oracle.compare = begin\n"
        f"sys.argv = ['audiopixel', 'reconcile', {str(long_log)!r}]\n"
        "main()\n"
    )
    told = environment(REDIS_URL=valkey.url, NAMESPACE=f"t-{tmp_path.name}")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=told, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert done.stdout.startswith(phase)


# The rest


def test_version_is_printed(run: Run) -> None:
    assert re.fullmatch(r"audiopixel \d+\.\d+\.\d+\n", run("--version").stdout)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("simulate", ["default: 2000.0", "default: 120", "default: 1", "100,000 by default"]),
        ("run", ["--member", "--addresses", "HOST:PORT"]),
        ("exporter", ["live page"]),
        ("config", ["PT10M", "JSON", "AUDIOPIXEL_CONFIG"]),
    ],
)
def test_help_contains_the_expected_words(run: Run, command: str, words: list[str]) -> None:
    shown = " ".join(re.sub(r"[│\s]+", " ", run(command, "--help", NO_COLOR="1").stdout).split())
    for word in words:
        assert word in shown


def test_every_command_has_help_and_valid_examples() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # of a group
    assert commands.keys() == GUIDE.keys()
    for name, (_, examples) in GUIDE.items():
        assert examples
        for example in examples:
            words = shlex.split(example.partition(" < ")[0])
            assert words[0] == name
            commands[name].make_context(name, words[1:])  # raises for what the command does not take
        (shown,) = {CliRunner().invoke(app, [name, "--help"]).output}
        assert all(f"  audiopixel {example}\n" in shown for example in examples)
        assert shown.index("Examples") < shown.index("Options")
        assert "--no-" not in shown
        assert "range" not in shown
        assert "x>=" not in shown


def test_the_help_groups_the_commands_and_begins_with_examples() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    places = [shown.index(f"\n{panel}\n") for panel in ("Examples", *PANELS, "Options")]
    assert places == sorted(places)
    assert LINES.keys() == GUIDE.keys()
    for name, line in LINES.items():
        assert f"{line}\n" in shown, "in a terminal of 80 columns"
        assert re.search(rf"^  {name}  +\w", shown, re.M)


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    for target in ("install", "demo", "test", "lint", "bench", "chaos", "help"):
        assert re.search(rf"^{target} +\S", done.stdout, re.M), done.stdout


def test_dashboards_create_their_target_directory(tmp_path: Path) -> None:
    new = tmp_path / "new" / "er"
    command = [sys.executable, "-m", "dashboards", "local", str(new)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in new.iterdir()} == {"prometheus.yml", "rules.yml", "alertmanager.yml"}
    (tmp_path / "file").write_text("")
    done = subprocess.run([*command[:-1], str(tmp_path / "file")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_letters_of_a_replay_are_letters_to_the_oracle(tmp_path: Path) -> None:
    from flows.reconcile.replay_files import late_letters

    letters = [
        {"reason": "too_late", "partition": "a", "offset": 3, "event": {"event": "start", "ts": 5}},
        {"reason": "malformed", "partition": "a", "offset": 4},
    ]
    (tmp_path / "rejected.ndjson").write_text("".join(f"{json.dumps(one)}\n" for one in letters))
    assert late_letters(tmp_path / "rejected.ndjson") == [("a", 3, "start", 5)]


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"reason":"too_late","partition":[],"offset":1,"event":{"event":"start","ts":1}}',
        b'{"reason":"too_late","partition":"a","offset":"1","event":{"event":"start","ts":1}}',
        b'{"reason":"too_late","partition":"a","offset":true,"event":{"event":"start","ts":1}}',
        b'{"reason":"too_late","partition":"a","offset":1,"event":{"event":{},"ts":1}}',
        b'{"reason":"too_late","partition":"a","offset":1,"event":{"event":"start","ts":1e400}}',
        b'{"reason":"too_late","partition":"a","offset":1,"event":{"event":"start","ts":9999999999999999999}}',
    ],
)
def test_the_oracle_names_a_line_of_no_replay(tmp_path: Path, line: bytes) -> None:
    from flows.reconcile.replay_files import late_letters

    (tmp_path / "rejected.ndjson").write_bytes(line + b"\n")
    with pytest.raises(AudiopixelError, match=r"rejected\.ndjson:1: is not a dead letter of replay --out"):
        late_letters(tmp_path / "rejected.ndjson")


def test_audiopixel_alone_shows_its_help(run: Run) -> None:
    assert run().stdout == run("--help").stdout != ""
