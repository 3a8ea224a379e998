"""Wrong inputs of a first hour: one line each that says what to write instead, and no box, no traceback."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command_support import errors_in, run_command

from connectors.embedded import EmbeddedValkey

AWAY = "redis://127.0.0.1:1/0"
PIXEL = '{"event_id":"1","event":"%s","ts":1796000000000,"placement_id":"p"}\n'
FOREIGN = '{"type":"ad_impression","eventTime":1,"lineItemId":"x"}\n'
THEIRS = "placement_id,day,impressions\npl-1,2026-11-30,36000\n"
Run = Callable[..., tuple[int, str, str]]
Case = tuple[list[str], dict[str, str], int, str]
"""Arguments, settings, exit code, a part of the one line."""

OPTIONS: list[Case] = [
    (["nosuch"], {}, 2, "no such command 'nosuch'; see audiopixel --help"),
    (["confg"], {}, 2, "no such command 'confg' (did you mean 'config'?); see audiopixel --help"),
    (
        ["top", "--campaing"],
        {},
        2,
        "--campaing (did you mean --campaigns?); see audiopixel top --help",
    ),
    (["top", "extra"], {}, 2, "extra"),
    (["replay"], {}, 2, "missing argument 'files'; see audiopixel replay --help"),
    (["run", "--restarts", "-3"], {}, 2, "--restarts: takes at least 0; see audiopixel run --help"),
    (["run", "--restarts"], {}, 2, "--restarts takes a value"),
    (["run", "--member", "x"], {}, 2, "--member: takes a whole number"),
    (["simulate", "x.ndjson", "--rate", "inf"], {}, 2, "--rate: takes at most 1000000"),
    (["simulate", "x.ndjson", "--rate", "fast"], {}, 2, "--rate: takes a number"),
    (["export"], {}, 2, "export needs a kind; take one of parquet, webhook, slack, adcp, ga4, adobe"),
    (["export", "slak"], {}, 2, "there is no such export (did you mean slack?)"),
    (
        ["tag", "--dialect", "tritton", "--placement", "x"],
        {},
        2,
        "(did you mean triton?); `audiopixel tag --",
    ),
    (
        ["tag", "--placement", "x"],
        {},
        2,
        "--base https://…, or AUDIOPIXEL_COLLECT_URL",
    ),
    (["explain"], {}, 2, "name a conversion, or a listener (--listener)"),
    (["verify", "--since", "soon"], {}, 2, "--since soon: takes a number with s, m, h or d, such as 1h"),
    (["config", "KAFKAA"], {}, 2, "no setting has KAFKAA in its name (did you mean KAFKA?)"),
    (["config", "brokres"], {}, 2, "no setting has brokres in its name (did you mean BROKERS?)"),
    (["config", "--example", "KAFKA"], {}, 2, "--example writes every setting: leave out the name and --all"),
]
SETTINGS: list[Case] = [
    (["config"], {"UNDER": "95%"}, 2, "AUDIOPIXEL_UNDER (from the environment): takes a ratio, such as 0.95"),
    (["config"], {"TIMEZONE": "Berlin"}, 2, "no such time zone: 'Berlin' (did you mean Europe/Berlin?)"),
    (
        ["config"],
        {"FLUSH_INTRVAL": "1"},
        2,
        "INTRVAL (did you mean AUDIOPIXEL_FLUSH_INTERVAL?)",
    ),
    (
        ["config"],
        {"UNDER": "1.2"},
        2,
        "must be below AUDIOPIXEL_OVER, or a placement would be both",
    ),
    (["config"], {"REDIS_TIMEOUT": "soon"}, 2, "takes a duration: PT10M, 00:10:00, or seconds"),
    (
        ["config"],
        {"KAFKA_TOPIC": "a b"},
        2,
        "takes the name of a topic: up to 249 letters",
    ),
    (["config"], {"LISTENER_KEY": "short"}, 2, "takes 16 to 64 bytes"),
    (["config"], {"SHARDS": "many"}, 2, "takes a whole number"),
    (["config"], {"CONFIG": "nofile.toml"}, 2, "create the file, or correct AUDIOPIXEL_CONFIG"),
    (["run"], {"UNDER": "95%"}, 2, "takes a ratio, such as 0.95"),
]
PLACES: list[Case] = [
    (["top", "--once"], {"REDIS_URL": AWAY}, 1, "start it; or set AUDIOPIXEL_REDIS_URL to its address"),
    (["top", "--once"], {"REDIS_URL": "http://x"}, 1, "redis://"),
    (
        ["simulate", "kafka", "--seconds", "1"],
        {"KAFKA_BROKERS": "127.0.0.1:1"},
        1,
        "set AUDIOPIXEL_KAFKA_BROKERS",
    ),
    (["replay", "nofile"], {}, 1, "nofile: no such file"),
    (["check", "nofile"], {}, 1, "nofile: no such file"),
    (["sources", "run", "nosuch"], {}, 2, "sources/nosuch.toml: there is no such source"),
    (["discrepancy", "foreign.ndjson"], {}, 2, "foreign.ndjson: takes a .csv, .json or .parquet file"),
    (
        ["methodology", "reech"],
        {},
        1,
        "set AUDIOPIXEL_REDIS_URL and AUDIOPIXEL_NAMESPACE",
    ),
    (["methodology", "--local", "reech"], {}, 1, "(did you mean reach?)"),
    (["release", "xyz"], {}, 1, "lists no collector 'xyz', and nothing is released"),
    (["forget", "x"], {"LISTENER_KEY": ""}, 2, "is empty"),
    (["state"], {}, 2, "recovery"),
]
CASES = [*OPTIONS, *SETTINGS, *PLACES]


@pytest.fixture(scope="module")
def run(valkey: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory, into = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("said")
    (directory / "foreign.ndjson").write_text(3 * FOREIGN)
    (directory / "capital.ndjson").write_text(PIXEL % "Impression")
    known = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
    usual = {"REDIS_URL": valkey.url, "NAMESPACE": "wrong", "LISTENER_KEY": "sixteen bytes ok"}

    def command(arguments: list[str], settings: dict[str, str]) -> tuple[int, str, str]:
        told = {f"AUDIOPIXEL_{name}": value for name, value in (usual | settings).items()}
        done = run_command(*arguments, directory=directory, environment=known | told, into=into)
        return done.returncode, done.stdout, done.stderr

    return command


@pytest.mark.parametrize(("arguments", "settings", "code", "said"), CASES, ids=lambda one: str(one)[:60])
def test_a_wrong_input_is_one_line_with_the_right_one(
    run: Run,
    arguments: list[str],
    settings: dict[str, str],
    code: int,
    said: str,
) -> None:
    ended, _, err = run(arguments, settings)
    (line,) = errors_in(err)
    assert said in line
    assert (ended, len(line) < 500, "Traceback" in err, "╭" in err) == (code, True, False, False)


def test_a_wrong_file_shape_and_a_capitalised_event_are_named(
    run: Run,
) -> None:
    code, out, err = run(["check", "foreign.ndjson"], {})
    assert (code, "its first line has none of our fields: is it of another shape?" in out + err) == (1, True)
    code, out, err = run(["check", "capital.ndjson"], {})
    assert (code, "(did you mean impression?)" in out + err) == (1, True)


FILES = [
    (
        'kafka_borkers = "x"\n',
        ["audiopixel.toml:1: kafka_borkers: no such setting (did you mean kafka_brokers?)"],
    ),
    ('# notes\nunder = "95%"\n', ["audiopixel.toml:2: under: takes a ratio, such as 0.95"]),
    (
        "[colect_tokens]\na = 1\n",
        ["audiopixel.toml:1: colect_tokens: no", "mean collect_tokens?"],
    ),
    (
        'nosuch = """\nunder = 1\n"""\nunder = "x"\n',
        ["audiopixel.toml:1: nosuch: no", "audiopixel.toml:4: under: takes"],
    ),
    ('[utm_placements]\nunder = "x"\n[[over]]\n', ["audiopixel.toml:3: over: takes"]),
    ('"under" = "x"\n', ["audiopixel.toml:1: under: takes"]),
    ("[read_tokens.desk]\nfoo = 1\n", ["audiopixel.toml:1: read_tokens: desk: foo: no such field"]),
    ("under = \n", ["audiopixel.toml: cannot be read as TOML", "line 1"]),
]


@pytest.mark.parametrize(("text", "said"), FILES)
def test_a_wrong_line_of_a_file_is_named_by_its_number(
    text: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.errors import SettingsError
    from flows.settings import load

    for name in os.environ:
        if name.startswith("AUDIOPIXEL_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    Path("audiopixel.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load()
    line = str(caught.value)
    assert all(part in line for part in said), line
    assert "AUDIOPIXEL_" not in line


def test_a_fatal_error_is_a_log_line_or_plain_terminal_text(
    run: Run,
) -> None:
    for service in ("run", "collect", "exporter"):
        _, _, err = run([service], {"UNDER": "95%"})
        assert re.fullmatch(
            r"timestamp=\d{4}-\d\d-\d\dT\S+Z level=error event=\"AUDIOPIXEL_UNDER .*\"\n", err
        )
    assert run(["config"], {"UNDER": "95%"})[2].startswith("audiopixel: AUDIOPIXEL_UNDER ")
