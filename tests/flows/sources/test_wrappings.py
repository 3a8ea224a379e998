"""Users' files as they come, through the commands: each wrapping, what is said and counted, the exit code."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import zstandard
from command_support import run_command

from connectors.embedded import EmbeddedValkey

Run = Callable[..., subprocess.CompletedProcess[str]]
AT_MS: Final = 1_795_600_800_000
NAMES: Final = ("event_id", "event", "placement_id", "play_id", "ts")
EVENTS: Final[list[dict[str, Any]]] = [
    dict(
        zip(NAMES, (f"{number}", "start", f"café {number % 3}", f'"p{number}\\', AT_MS + number), strict=True)
    )
    for number in range(40)
]
LINES: Final = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in EVENTS)
ARRAY: Final = json.dumps(EVENTS, ensure_ascii=False, indent=2)
SPREAD: Final = "\n".join(json.dumps(event, ensure_ascii=False, indent=2) for event in EVENTS)
WRAPPED: Final[Mapping[str, bytes]] = {
    "lines": LINES.encode(),
    "CR LF": LINES.replace("\n", "\r\n").encode(),
    "mark": b"\xef\xbb\xbf" + LINES.encode(),
    "gzip": gzip.compress(LINES.encode()),
    "zstd": zstandard.compress(LINES.encode()),
    "bz2": bz2.compress(LINES.encode()),
    "utf-16": LINES.encode("utf-16"),
    "utf-16 big, no mark": LINES.encode("utf-16-be"),
    "utf-32": LINES.encode("utf-32"),
    "array": ARRAY.encode(),
    "array on one line": json.dumps(EVENTS, ensure_ascii=False).encode(),
    "spread": SPREAD.encode(),
    "bz2 in gzip of a marked array": gzip.compress(bz2.compress(b"\xef\xbb\xbf" + ARRAY.encode())),
    "gzip of utf-16": gzip.compress(LINES.encode("utf-16")),
    "a name of another compression": gzip.compress(LINES.encode()),
}
MAPPING: Final = "[names]\n" + "".join(f'{name} = "{name}"\n' for name in NAMES)
ROWS: Final = "e,p,t,d\n" + "".join(f'start,a,{AT_MS + number},"30,5"\n' for number in range(10))
OF_ROWS: Final = '[names]\nevent = "e"\nplacement_id = "p"\nts = "t"\nduration = "d"\n'
CSV: Final = f'format = "csv"\n{OF_ROWS}'


def latin(rows: str) -> bytes:
    return rows.replace("a", "ä").replace("stärt", "start").encode("latin-1")


@pytest.fixture
def run(valkey: EmbeddedValkey, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`audiopixel …` in a directory of its own."""
    into = tmp_path_factory.mktemp("printed")
    known = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
    environment = known | {
        "AUDIOPIXEL_REDIS_URL": valkey.url,
        "AUDIOPIXEL_NAMESPACE": f"t-{tmp_path.name}",
        "AUDIOPIXEL_LISTENER_KEY": "sixteen bytes ok",
        "AUDIOPIXEL_COLLECT_KEY": "sixteen bytes ok",
    }
    return lambda *arguments: run_command(*arguments, directory=tmp_path, environment=environment, into=into)


def source(directory: Path, mapping: str, content: bytes, name: str = "events.txt") -> None:
    """A source `x` of one file."""
    (directory / "sources").mkdir(exist_ok=True)
    (directory / "sources" / "x.toml").write_text(f'files = "{name}"\n{mapping}')
    (directory / name).write_bytes(content)


def pixels(path: Path) -> list[dict[str, Any]]:
    """The pixels of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_a_source_gives_equal_pixels_in_every_wrapping(run: Run, tmp_path: Path, wrapping: str) -> None:
    name = "events.zst" if "another" in wrapping else "events.txt"
    source(tmp_path, MAPPING, WRAPPED[wrapping], name)
    done = run("sources", "run", "x", "--out", "log.ndjson")
    assert (done.returncode, done.stdout) == (0, "read 40 = pixels 40 + not ours 0 + rejected 0\n"), (
        done.stderr
    )
    found = pixels(tmp_path / "log.ndjson")
    assert [{name: one[name] for name in NAMES} for one in found] == EVENTS


@pytest.mark.parametrize("wrapping", ["mark", "gzip", "bz2", "utf-16", "array", "spread"])
def test_check_replay_and_reconcile_read_every_wrapping(run: Run, tmp_path: Path, wrapping: str) -> None:
    (tmp_path / "log").write_bytes(WRAPPED[wrapping])
    checked = run("check", "log")
    assert (checked.returncode, checked.stdout) == (0, "received 40 = pixels 40 + rejected 0\n")
    replayed = run("replay", "log", "--out", "numbers")
    assert replayed.returncode == 0, replayed.stderr
    assert replayed.stdout.startswith("received 40 = accepted 40 + repeated 0 + rejected 0;")
    compared = run("reconcile", "log", "--minutes", "numbers/minutes.ndjson")
    assert compared.returncode == 0, compared.stdout + compared.stderr


@pytest.mark.parametrize(
    ("mapping", "content", "code", "said"),
    [
        (MAPPING, b"", 0, "read 0 = pixels 0 + not ours 0 + rejected 0"),
        (MAPPING, gzip.compress(b""), 0, "read 0 ="),
        (MAPPING, b"[]", 0, "read 0 ="),
        (CSV, b"e,p,t,d\n", 0, "read 0 ="),
        (MAPPING, ARRAY.encode()[:-2], 1, "ends in the middle of its JSON array"),
        (MAPPING, SPREAD.encode()[:-2], 0, "read 40 = pixels 39 + not ours 0 + rejected 1 (malformed 1)"),
        (MAPPING, b"#Version: 1.0\n#Fields: date\tcs-uri\n", 1, "is a W3C log: remove its lines that begin"),
        (MAPPING, b"PK\x03\x04" + bytes(50), 1, "is a zip archive or an Excel workbook: unpack it"),
        (MAPPING, b"\xfd7zXZ\0" + bytes(50), 1, "is compressed by xz: unpack it"),
        (MAPPING, b"PAR1" + bytes(50), 1, 'is a Parquet file: read it as a source with format = "parquet"'),
        (MAPPING, gzip.compress(b"Obj\x01" + bytes(50)), 1, "is an Avro file: write its records as"),
        (MAPPING, b"<!DOCTYPE html><html>", 1, "is XML or HTML"),
        (
            MAPPING,
            LINES.encode("latin-1"),
            3,
            "x: 40 of 40 messages are rejected: the first at events.txt:1: malformed encoding: not UTF-8: "
            'set encoding = "latin-1"',
        ),
        (f'encoding = "latin-1"\n{MAPPING}', LINES.encode("latin-1"), 0, "read 40 = pixels 40"),
        (f'encoding = "latin-1"\n{MAPPING}', gzip.compress(LINES.encode("utf-16")), 0, "read 40 = pixels 40"),
        (f'encoding = "utf-16"\n{CSV}', ROWS.encode(), 1, "events.txt: cannot be read: "),
        (f'encoding = "hex"\n{CSV}', b"", 2, "encoding: is no encoding of text, such as latin-1"),
        (CSV, latin(ROWS), 3, "first at events.txt:2: malformed encoding: not UTF-8"),
        (CSV, latin(ROWS.replace("e,p", "e,a")), 1, 'first row is not UTF-8: encoding = "latin-1"'),
        (
            MAPPING,
            LINES.encode() + b"{\n" * 5,
            3,
            "5 of 45 messages are rejected: the first at events.txt:41:",
        ),
        (MAPPING, LINES.encode() + b"{\n" * 4, 0, "rejected 4 (malformed 4)"),
        (CSV, ROWS.encode(), 0, 'duration: 10 of 10 not readable, first "30,5"'),
        (f'decimal = ","\nplayhead = "s"\n{CSV}', ROWS.encode(), 0, "read 10 = pixels 10"),
        (CSV, b"e|p|t|d\n", 1, 'one column with bars: separator = "|"'),
    ],
    ids=[
        "empty",
        "empty gzip",
        "empty array",
        "header alone",
        "cut array",
        "cut object",
        "W3C",
        "zip",
        "xz",
        "Parquet",
        "Avro",
        "HTML",
        "latin-1",
        "latin-1 by setting",
        "the mark wins",
        "another encoding",
        "no encoding",
        "latin-1 rows",
        "latin-1 header",
        "over a tenth",
        "a tenth",
        "decimal comma",
        "decimal by setting",
        "bars",
    ],
)
def test_a_run_names_what_a_file_is_and_what_it_rejects(
    run: Run, tmp_path: Path, mapping: str, content: bytes, code: int, said: str
) -> None:
    source(tmp_path, mapping, content)
    done = run("sources", "run", "x", "--out", "log.ndjson")
    printed = done.stdout + done.stderr
    assert done.returncode == code, printed
    assert said in " ".join(printed.split()), printed
    assert "Traceback" not in printed
    if "decimal" in mapping:
        assert {one["duration_ms"] for one in pixels(tmp_path / "log.ndjson")} == {30_500}


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [(ROWS, 0, 'duration: 10 of 10 not readable, first "30,5"'), ("e,p,t,d\n", 0, "read 0 = pixels 0")],
)
def test_check_of_a_source_counts_values_that_cannot_be_read(
    run: Run, tmp_path: Path, content: str, code: int, said: str
) -> None:
    source(tmp_path, CSV, content.encode())
    done = run("sources", "check", "x")
    assert (done.returncode, said in done.stdout) == (code, True), done.stdout + done.stderr


def test_a_sources_own_file_may_have_a_mark(run: Run, tmp_path: Path) -> None:
    source(tmp_path, CSV, ROWS.encode())
    file = tmp_path / "sources" / "x.toml"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert run("sources", "check", "x").returncode == 0


def test_no_value_of_a_person_is_shown(run: Run, tmp_path: Path) -> None:
    source(
        tmp_path, CSV + 'currency = "c"\nip = "i"\n', f"e,p,t,d,c,i\nstart,a,{AT_MS},1,x,9.9.9.999\n".encode()
    )
    for step in ("check", "run"):
        done = run("sources", step, "x", *(("--out", "log.ndjson") if step == "run" else ()))
        assert "9.9.9" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "content", "drafted"),
    [
        ("Network.csv", ROWS.replace('"30,5"', "30").replace(",", "|").encode(), 'separator = "|"'),
        ("Network.csv", ROWS.replace('"30,5"', "30").replace(",", ";").encode(), 'separator = ";"'),
        ("Network.csv", latin(ROWS), 'encoding = "latin-1"'),
        ("Network.ndjson", LINES.encode("latin-1"), 'encoding = "latin-1"'),
        ("Network.ndjson", b"\xef\xbb\xbf" + ARRAY.encode(), "[names]"),
    ],
)
def test_a_draft_reads_a_file_as_it_is_and_check_takes_its_name(
    run: Run, tmp_path: Path, name: str, content: bytes, drafted: str
) -> None:
    (tmp_path / name).write_bytes(content)
    done = run("sources", "draft", name, "--out", "sources/NetworkImpressions_(1).toml")
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "sources").iterdir()
    assert drafted in written.read_text()
    assert "audiopixel sources check networkimpressions_-1" in done.stdout
    checked = run("sources", "check", written.stem)
    assert re.search(r"read (?:10|40) = ", checked.stdout), checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty, or has a header alone"),
        (b"no JSON\n", "no message that is an object or a row: n.txt:1 is"),
    ],
)
def test_a_draft_of_nothing_says_why(run: Run, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "n.txt").write_bytes(content)
    done = run("sources", "draft", "n.txt")
    assert (done.returncode, said in " ".join(done.stderr.split())) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (b"", 0, "received 0 = accepted 0"),
        (LINES.encode() + b"no\n" * 5, 3, "5 of 45 messages are rejected: the first at log:41: malformed"),
        (LINES.encode("latin-1"), 3, "40 of 40 messages are rejected: the first at log:1: malformed"),
        (LINES.encode() + b"no\n" * 4, 0, "rejected 4;"),
    ],
)
def test_a_replay_that_rejects_over_a_tenth_ends_with_3(
    run: Run, tmp_path: Path, content: bytes, code: int, said: str
) -> None:
    (tmp_path / "log").write_bytes(content)
    done = run("replay", "log")
    assert (done.returncode, said in " ".join((done.stdout + done.stderr).split())) == (code, True), (
        done.stdout + done.stderr
    )
