"""Ids that somebody chose to be obeyed instead of shown, through every command that shows any."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from click.testing import Result
from erasure_support import confirming
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import connect
from flows import logs
from flows.cli.commands import app
from flows.model.decisions import Body
from flows.settings import load
from flows.shown import MAX_CELLS, cell, shown
from flows.state.hyperloglog import REGISTERS, compressed
from flows.viewers.explain import show

IDS = {
    "title": "a\x1b]0;owned\x07b",
    "screen": "a\x1b[2J\x9b2Jb",
    "markup": "a[/b]",
    "bold": "[bold]x[/bold] y",
    "link": "[link=https://evil.example]breakfast-uk[/link]",
    "emoji": "a:smile:b",
    "colons": "host:100:b",
    "braces": "a}{b{0}%s",
    "lines": "x\r\ny\u2028z\n",
    "bidi": "a\u202etxt.exe\u2066b",
    "null": "\0x\x7f",
    "formula": '=cmd|"/c calc"!A1',
    "option": "--help-me",
    "tag": "<script>alert(1)</script>",
    "path": "../../etc/passwd",
    "unseen": "a\u3164b\u115fc\uffa0d\u2800e\ufe0ff\U000e0100g\u034fh",
    "astral": "\U0001d518" * 128,
    "wide": "広" * 128,
}
AS_SHOWN = {
    **IDS,
    "title": "a�]0;owned�b",
    "screen": "a�[2J�2Jb",
    "lines": "x��y�z�",
    "bidi": "a�txt.exe�b",
    "null": "�x�",
    "wide": "広" * 63 + "…",
    "unseen": "a�b�c�d�e�f�g�h",
}
T0 = 1_790_000_040_000
SKETCHED = 100
"""Listeners from which on `overlap` knows a placement without a plan."""


def orders(text: str) -> list[str]:
    """The control characters of a text."""
    return [letter for line in text.split("\n") for letter in line if not letter.isprintable()]


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each id as a placement and all else that a pixel names, with a conversion of its own."""
    events = []
    for at, name in enumerate(IDS.values()):
        labels = dict.fromkeys(("campaign_id", "platform", "station", "podcast", "program"), name)
        pixel = {"ts": T0 + at, "listener_id": name, "consent": True, **labels}
        heard = {**pixel, "event": "impression", "placement_id": name}
        bought = {"type": "purchase", "order_id": name, "value": 1, "currency": "GBP"}
        events += [
            {**heard, "event_id": f"e{at}", "play_id": name},
            *({**heard, "event_id": f"e{at}-{n}", "listener_id": f"{n}"} for n in range(SKETCHED)),
            {**pixel, "event_id": f"c{at}", "event": "conversion", "ts": T0 + 60_000, "conversion": bought},
        ]
    path = tmp_path_factory.mktemp("hostile") / "log.ndjson"
    path.write_text("".join(json.dumps(one) + "\n" for one in events))
    return path


@pytest.fixture(scope="module")
def settings(valkey: EmbeddedValkey, log: Path) -> dict[str, str]:
    told = {
        "AUDIOPIXEL_REDIS_URL": valkey.url,
        "AUDIOPIXEL_LISTENER_KEY": "sixteen bytes ok",
        "AUDIOPIXEL_METRICS_PORT": "0",
        "COLUMNS": "1000",
    }
    done = CliRunner().invoke(app, ["replay", str(log), "--out", str(log.parent / "out")], env=told)
    assert done.exit_code == 0, done.output
    return told


@pytest.fixture
def run(settings: dict[str, str]) -> Callable[..., Result]:
    def command(*arguments: str, code: int = 0, **more: str) -> Result:
        done = CliRunner().invoke(app, list(arguments), env={**settings, **more})
        assert done.exit_code == code, done.output
        assert orders(done.output) == []
        return done

    return command


@pytest.mark.parametrize("name", IDS)
def test_an_id_is_shown_and_never_obeyed(run: Callable[..., Result], name: str) -> None:
    hostile, seen = IDS[name], AS_SHOWN[name]
    explained = run("explain", "--", hostile).output
    assert f"purchase {seen} at " in explained
    assert f"of campaign {seen}" in explained
    assert f"\n{seen} " in explained
    other = IDS["null"] if name != "null" else IDS["wide"]
    assert f"reached by {seen} " in run("overlap", "--", hostile, other).output
    assert repr(shown(hostile + "x")) in run("explain", "--", hostile + "x", code=1).output
    assert repr(shown(hostile + "x")) in run("overlap", "--", hostile, hostile + "x", code=1).output
    assert repr(seen) in run("overlap", "--", hostile, hostile, code=2).output


def test_all_of_them_at_once(run: Callable[..., Result], log: Path, tmp_path: Path) -> None:
    assert all(shown(one, 28) in run("top", "--once").output for one in IDS.values())
    out = log.parent / "out"
    assert "0 differences" in run("reconcile", str(log), "--minutes", str(out / "minutes.ndjson")).output
    plans = [{"placement_id": one, "booked": "many", "start": one, "end": one} for one in IDS.values()]
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    assert len(run("plans", str(tmp_path / "plans.json"), code=1).output.splitlines()) >= len(IDS)
    (tmp_path / "plans.csv").write_text(
        f"{IDS['title']},booked,start,end,placement_id,{IDS['markup']}\n,,,,,\nx,1,1,1,1,1\n"
    )
    assert shown(IDS["title"]) in run("plans", str(tmp_path / "plans.csv"), code=1).output


BREAKFAST = ("breakfast-show-london-north-west-morning", "breakfast-show-london-north-west-evening")


def bought_after(run_of: dict[str, str], *placements: str) -> str:
    """Put a decision on an order that is credited to these placements; its id."""
    body = {"conversion": "o", "order_id": "o", "event_id": "o", "type": "purchase", "ts": T0 + 59_000}
    body |= {"campaign_id": "spring", "value_micros": None, "currency": None, "rule": "linear"}
    credits = [
        {
            "placement_id": name,
            "campaign_id": "spring",
            "way": "listen",
            "millionths": 500_000,
            "touched_at": T0,
        }
        for name in placements
    ]
    with Redis.from_url(run_of["AUDIOPIXEL_REDIS_URL"]) as client:
        body |= {"eligible": 2, "capped": False, "credits": credits, "methodology": "5e1f0a"}
        client.hset("audiopixel:v1:conversion:{two}", "o", json.dumps(body))
    return "two"


def test_explain_in_a_pipe_has_one_line_per_touch_with_whole_ids(
    run: Callable[..., Result], settings: dict[str, str]
) -> None:
    told = run("explain", bought_after(settings, *BREAKFAST), COLUMNS="80").output.splitlines()
    assert told[-1].split() == ["methodology", "5e1f0a"]
    assert [line.split() for line in told[3:-1]] == [
        [name, "spring", "listen", "0.5", "2026-09-21", "15:14:00+01:00", "0:00:59"] for name in BREAKFAST
    ]


def test_forty_columns_cut_no_number_and_no_id_of_a_touch(settings: dict[str, str]) -> None:
    name = bought_after(settings, *BREAKFAST)
    with Redis.from_url(settings["AUDIOPIXEL_REDIS_URL"], decode_responses=True) as client:
        held = client.hget(f"audiopixel:v1:conversion:{{{name}}}", "o")
    out = Console(width=40, file=StringIO(), color_system=None)
    out.print(show(msgspec.json.decode(held, type=Body), ZoneInfo("Europe/London")))
    said = out.file.getvalue()  # type: ignore[attr-defined]  # StringIO
    assert "…" not in said
    assert max(map(cell_len, said.splitlines())) <= 40


def test_overlap_in_a_pipe_has_one_line_per_number_with_whole_ids(run: Callable[..., Result]) -> None:
    long = IDS["astral"]
    told = run("overlap", IDS["braces"], long, COLUMNS="80").output.splitlines()
    assert [line.split("  ")[0] for line in told[1:6]] == [
        f"reached by {IDS['braces']}",
        f"reached by {long}",
        "reached by both",
        f"of {IDS['braces']}, also by {long}",
        f"of {long}, also by {IDS['braces']}",
    ]


def test_listeners_of_such_ids_are_forgotten_and_not_shown(
    run: Callable[..., Result], valkey: EmbeddedValkey
) -> None:
    with confirming(load(redis_url=valkey.url, namespace="forgetting"), "sixteen bytes ok"):
        told = run("forget", "--", *IDS.values(), AUDIOPIXEL_NAMESPACE="forgetting").stdout
    assert told.startswith(f"done: {len(IDS)} listeners forgotten; the flow held ")


@pytest.mark.parametrize("name", [name for name in IDS if name not in ("null", "astral", "wide", "path")])
def test_a_file_is_named_and_not_obeyed(run: Callable[..., Result], name: str, tmp_path: Path) -> None:
    path = tmp_path / IDS[name].replace("/", "∕")
    for command in ("replay", "reconcile", "plans"):
        told = run(command, str(path), code=2 if command == "plans" else 1).output
        assert shown(" ".join(str(path).split())) in told
    path.write_text("")
    # Another log than the one that Redis has: its names are in the message.
    run("replay", str(path), code=2)


def test_a_log_line_has_no_orders_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    import structlog

    logs.configure()
    for one in IDS.values():
        structlog.get_logger("test").warning("plan not taken", problem=one, path=Path(one), number=1)
    written = capsys.readouterr().err
    assert len(written.splitlines()) == len(IDS)
    assert orders(written) == []


@given(st.text(max_size=400))
def test_any_text_is_one_line_of_letters_within_its_bound(text: str) -> None:
    told = shown(text)
    assert told.isprintable()
    assert cell_len(told) <= MAX_CELLS
    assert len(told) <= 2 * MAX_CELLS + 1
    assert told == shown(told)
    if text.isprintable() and len(text) <= MAX_CELLS // 2:
        assert len(told) == len(text)
        assert all(one in (letter, "�") for one, letter in zip(told, text, strict=True))
    out = StringIO()
    Console(file=out, width=1000, color_system=None).print(cell(text))
    assert out.getvalue() == f"{told}\n"


@pytest.mark.parametrize("name", IDS)
def test_reconcile_shows_an_unexpected_id_in_redis(
    run: Callable[..., Result], valkey: EmbeddedValkey, log: Path, name: str
) -> None:
    with connect(valkey.url) as client:
        key = f"audiopixel:v1:placement:{{{IDS[name]}}}"
        before = client.hget(key, "flight.impressions")
        client.hset(key, "flight.impressions", "99")
        try:
            assert shown(IDS[name]) in run("reconcile", str(log), code=1).output
        finally:
            client.hset(key, "flight.impressions", str(before))


@pytest.mark.parametrize(
    ("conversion", "held"),
    [
        ("text", "{"),
        ("number", "7"),
        ("other", '{"conversion":"x"}'),
        ("moment", '"ts":1e18'),
        ("late", f'"ts":{10**18}'),
        ("value", '"value_micros":"much"'),
        ("way", '"rule":{}'),
        ("deep", '{"x":' + "[" * 100_000),
    ],
)
def test_an_invalid_decision_is_an_error_of_one_line(
    run: Callable[..., Result], settings: dict[str, str], conversion: str, held: str
) -> None:
    body = {
        "conversion": "x",
        "order_id": None,
        "event_id": "x",
        "type": "purchase",
        "ts": T0,
        "campaign_id": None,
        "value_micros": None,
        "currency": None,
        "rule": "none",
        "eligible": 0,
        "capped": False,
        "credits": [],
    }
    with Redis.from_url(settings["AUDIOPIXEL_REDIS_URL"]) as client:
        key = f"audiopixel:v1:conversion:{{damaged-{conversion}}}"
        client.hset(key, "good", json.dumps(body))
        assert "unattributed" in run("explain", f"damaged-{conversion}").output
        damaged = json.dumps(body | json.loads(f"{{{held}}}")) if held.startswith('"') else held
        client.hset(key, "bad", damaged)
    told = run("explain", f"damaged-{conversion}", code=1).output
    assert "no readable decision" in told
    assert len(told.splitlines()) == 1


def test_a_non_text_decision_is_an_error_of_one_line(
    run: Callable[..., Result], settings: dict[str, str]
) -> None:
    with Redis.from_url(settings["AUDIOPIXEL_REDIS_URL"]) as client:
        client.hset("audiopixel:v1:conversion:{bytes}", "bad", b"\xff\xfe")
    told = run("explain", "bytes", code=1).output
    assert told.startswith("audiopixel: Redis holds text that is not UTF-8")
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("held", ["", "%", "AAAA", b64encode(compressed(np.full(REGISTERS, 200, np.uint8)))])
def test_an_invalid_sketch_is_an_error_of_one_line(
    run: Callable[..., Result], settings: dict[str, str], held: str
) -> None:
    with Redis.from_url(settings["AUDIOPIXEL_REDIS_URL"]) as client:
        client.hset("audiopixel:v1:sketch:{damaged}", "registers", held)
    told = run("overlap", IDS["bold"], "damaged", code=1).output
    assert "the sketch of placement 'damaged' in Redis is damaged" in told
    assert len(told.splitlines()) == 1
