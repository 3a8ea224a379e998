"""`audiopixel check`: what it says of a line is what the flow would do with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.check import TAKES, CheckResult, check
from flows.cli.commands import app
from flows.intake.schema import Conversion, Event, Previous
from flows.model.events import EVENTS
from flows.replay import replay
from flows.settings.fields import Settings
from flows.simulate.feed import run_log
from flows.simulate.traffic import Traffic

RIGHT = {"event_id": "e", "event": "impression", "ts": 1_790_000_040_000, "placement_id": "p"}
BOUGHT = RIGHT | {"event": "conversion", "conversion": {"type": "purchase"}}


def checked(path: Path, *options: str) -> tuple[int, list[str]]:
    done = CliRunner().invoke(app, ["check", str(path), *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output.splitlines()


def test_check_reports_exactly_what_a_replay_rejects(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    log = tmp_path / "log.ndjson.gz"
    run_log(log, Traffic(3, placements=3), 3000)
    replay([str(log)], settings_of(), b"a key of sixteen bytes or more", out=tmp_path / "out")
    letters = [json.loads(line) for line in (tmp_path / "out/rejected.ndjson").read_text().splitlines()]
    refused = [letter for letter in letters if letter["reason"] != "too_late"]
    assert {letter["reason"] for letter in refused} >= {"malformed"}
    code, lines = checked(log)
    assert code == 1
    told = [line.removeprefix(f"{log}:").split(": ")[:2] for line in lines if line.startswith(str(log))]
    assert told == [
        [str(one["offset"]), one["reason"]] for one in sorted(refused, key=lambda one: one["offset"])
    ]
    assert f"received 3,000 = pixels {3000 - len(refused):,} + rejected {len(refused):,}" in lines


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (RIGHT | {"event_id": "x" * 129}, "invalid: event_id: takes a text of 1 to 128 characters"),
        (RIGHT | {"event": "[EVENT]"}, "invalid: event: takes one of impression"),
        (RIGHT | {"event": "impresion"}, f"unknown_event: event: takes one of {' '.join(EVENTS)}"),
        (RIGHT | {"ts": "yesterday"}, "invalid: ts: takes epoch milliseconds"),
        (RIGHT | {"placement_id": "${PLACEMENT}"}, "invalid: placement_id: takes a text of 1 to 128"),
        (RIGHT | {"consent": "yes"}, "invalid: consent: takes true or false"),
        (RIGHT | {"station": "s" * 129}, "invalid: station: takes a text of at most 128"),
        (BOUGHT | {"conversion": {"type": "sale"}}, "invalid: conversion.type: takes one of site_visit"),
        (BOUGHT | {"conversion": None}, "invalid: conversion: takes an object"),
        ("{", "malformed: takes a JSON object in UTF-8, of at most 64 KiB"),
        ("[]", "malformed: takes a JSON object"),
        ("", "malformed: takes a JSON object"),
    ],
)
def test_a_rejected_line_is_reported_with_its_number_and_field(
    tmp_path: Path, event: dict[str, Any] | str, said: str
) -> None:
    wrong = event if isinstance(event, str) else json.dumps(event)
    path = tmp_path / "log.ndjson"
    path.write_text(f"{json.dumps(RIGHT)}\n{wrong}\n{json.dumps(BOUGHT)}\n")
    code, lines = checked(path)
    assert code == 1
    assert lines[0].startswith(f"{path}:2: {said}")
    assert lines[1] == "received 3 = pixels 2 + rejected 1"
    reason, field = [*said.split(": takes")[0].split(": "), "–"][:2]
    assert lines[2].split() == ["reason", "field", "lines", "first", "at"]
    assert lines[3].split() == [reason, field, "1", f"{path}:2"]


def test_marks_are_counted_apart_and_are_no_pixels(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    mark = {"collector": "edge-1", "low_ms": 1_790_000_040_000}
    path.write_text("".join(json.dumps(one) + "\n" for one in (RIGHT, mark, mark | {"bye": True}, BOUGHT)))
    assert checked(path) == (0, ["received 2 = pixels 2 + rejected 0; marks 2"])


def test_right_lines_are_no_more_than_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    path.write_text(f"{json.dumps(RIGHT)}\n{json.dumps(BOUGHT)}\n" * 20_000)
    assert checked(path) == (0, ["received 40,000 = pixels 40,000 + rejected 0"])


def test_check_reports_a_bounded_number_and_counts_all(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    path.write_text("no JSON\n" * 25_000)
    code, lines = checked(path, "--most", "3")
    assert code == 1
    assert [line.split(": ")[0] for line in lines[:3]] == [f"{path}:{n}" for n in (1, 2, 3)]
    assert lines[3:5] == ["… and 24,997 more", "received 25,000 = pixels 0 + rejected 25,000"]
    assert lines[6].split()[:3] == ["malformed", "–", "25,000"]


def test_no_value_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    secret = "somebody-7\x1b]0;owned\x07"
    path.write_text("".join(json.dumps(RIGHT | {name: {secret: secret}}) + "\n" for name in TAKES))
    code, lines = checked(path)
    assert code == 1
    assert "somebody" not in "".join(lines)
    assert all(line.isprintable() for line in lines)


def test_every_field_of_the_canonical_event_says_what_it_takes() -> None:
    objects = (("conversion", Conversion), ("previous", Previous))
    inner = {f"{field}.{name}" for field, form in objects for name in form.__struct_fields__}
    assert TAKES.keys() == {*Event.__struct_fields__, *inner}


def test_near_event_names_and_foreign_file_shapes_are_named(tmp_path: Path) -> None:
    near, foreign = tmp_path / "near.ndjson", tmp_path / "foreign.ndjson"
    near.write_text('{"event_id":"1","event":"Impression","ts":1790000000000,"placement_id":"p"}\n')
    foreign.write_text('{"type":"ad_impression","eventTime":1790000000,"lineItemId":"p"}\n')
    found, lines = CheckResult(), list[str]()
    check([str(near), str(foreign)], found, lines.append)
    assert lines[0].endswith("delivered download (did you mean impression?)")
    assert found.foreign == [str(foreign)]
