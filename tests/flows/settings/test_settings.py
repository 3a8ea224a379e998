"""Settings: what is refused, in which words, and what `audiopixel config` shows of the rest."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from command_support import run_command

from flows.engine import lay_foundation
from flows.errors import SettingsError
from flows.settings.fields import INTERNAL, SETTABLE, Settings
from flows.settings.loading import load, source
from flows.settings.show import NEEDED, TUNING, groups, written
from flows.settings.takes import takes

DOCS = Path(__file__).parents[3] / "docs"
SECRET = "sEcReT"
DURATION = "takes a duration: PT10M, 00:10:00, or seconds"
PYDANTIC = re.compile(r"Value error|Extra inputs|valid timedelta|String should|Input should|pydantic")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.upper().startswith("AUDIOPIXEL_"):
            monkeypatch.delenv(name)


def shown(**environment: str) -> subprocess.CompletedProcess[str]:
    known = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return run_command(
        "config", "--all", directory=Path.cwd(), environment={**known, **environment}, into=Path.cwd()
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SAVE_INTERVAL", "-1", "takes at least 1 ms"),
        ("FLUSH_INTERVAL", "0", "takes at least 1 ms"),
        ("FLUSH_INTERVAL", "-1", "takes at least 1 ms"),
        ("REDIS_TIMEOUT", "0", "takes at least 1 ms"),
        ("HALF_LIFE", "0", "takes at least 1 second"),
        ("ROW_TTL", "0", "takes at least 1 minute"),
        ("DECISIONS_TTL", "0", "takes at least 1 minute"),
        ("MATURE_AFTER", "-60", "takes at least 0 seconds"),
        ("MINUTES_INTERVAL", "-1", "takes at least 0 seconds"),
        ("ALLOWED_LATENESS", "-60", "takes at least 0 seconds"),
        ("QUIET", "PT-1S", DURATION),
        ("MINUTES_INTERVAL", "soon", DURATION),
        ("CLICK_WINDOW", "P99D", "takes at most 60 days"),
        ("CONVERSION_HORIZON", "PT1M", "AUDIOPIXEL_CONVERSION_HORIZON must be at least"),
        ("HORIZON", "PT1M", "AUDIOPIXEL_HORIZON must be at least AUDIOPIXEL_ALLOWED_LATENESS and a minute"),
        ("UNDER", "1.2", "AUDIOPIXEL_UNDER must be below AUDIOPIXEL_OVER"),
        ("LABELS", "some", "takes any or planned"),
        ("UNDER", "x", "takes a ratio, such as 0.95"),
        ("SHARDS", "many", "takes a whole number"),
        ("SHARDS", "0", "takes at least 1"),
        ("METRICS_PORT", "99999", "takes at most 65535"),
        ("KAFKA_TOPIC", "", "is empty: give it a value"),
        ("KAFKA_TOPIC", "a b", "takes the name of a topic"),
        ("KAFKA_ALERTS_TOPIC", "a/b", "takes the name of a topic"),
        ("RECOVERY_DIR", "", "is empty: give it a value"),
        ("NAMESPACE", "x{y}", "takes letters, digits, colons, _ and -"),
        ("CONSENT", "maybe", "takes required or assumed"),
        ("TIMEZONE", "Mars", "no such time zone: 'Mars'; takes a name like Europe/London"),
        ("TIMEZONE", "Europe/Londn", "no such time zone: 'Europe/Londn' (did you mean Europe/London?)"),
        ("LISTENER_KEY", SECRET, "takes 16 to 64 bytes"),
        ("KAFKA_OPTIONS", f"not json {SECRET}", "takes names and texts: as JSON"),
        (
            "KAFKA_OPTIONS",
            f'{{"debug": "{SECRET}", "linger.ms": 5}}',
            "(from the environment): linger.ms: takes a text",
        ),
        ("PLATFORM_BASIS", '{"our-host": "heard"}', "our-host: takes vast_impression"),
        ("UTM_PLACEMENTS", "x", "takes names and texts: as JSON"),
        ("UTM_PLACEMENTS", "[1]", "takes names and texts: as JSON"),
        ("COLLECT_PURPOSES", "[1, 25]", "takes at most 24"),
        ("COLLECT_PURPOSES", "[0]", "takes at least 1"),
        ("COLLECT_INTEREST_PURPOSES", "[25]", "takes at most 24"),
        *(
            ("COLLECT_HOST", host, "takes an IP address: 127.0.0.1, 0.0.0.0 or ::1")
            for host in ("localhost", "[::1]", "fe80::1%eth0", "127.0.0.1:9580")
        ),
        *(
            ("COLLECT_CLICK_HOSTS", f'["{host}"]', "takes hosts as shop.example: no scheme, port, path or *")
            for host in (
                "https://shop.example",
                "shop.example:8080",
                "shop.example/",
                "*.example",
                "münchen.de",
            )
        ),
        (
            "COLLECT_TOKENS",
            f'{{"ad.server": {{"sha256": "{"0" * 64}"}}}}',
            "a token's name has 1 to 64 letters",
        ),
        ("COLLECT_CONSENT_FREE", '["USA"]', "takes countries by two letters: US"),
        ("NOSUCH", "1", "no such setting: AUDIOPIXEL_NOSUCH; without it `audiopixel config --all` lists all"),
        ("FLUSH_INTRVAL", "1", "AUDIOPIXEL_FLUSH_INTRVAL (did you mean AUDIOPIXEL_FLUSH_INTERVAL?); without"),
        ("CONFIG", "nofile.toml", "nofile.toml: No such file or directory: create the file, or correct"),
    ],
)
def test_nonsense_is_refused_by_its_name_in_our_words(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AUDIOPIXEL_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load()
    line = str(caught.value)
    assert said in line
    assert name == "CONFIG" or f"AUDIOPIXEL_{name}" in line
    assert "\n" not in line
    assert SECRET not in line
    assert PYDANTIC.search(line) is None


@pytest.mark.parametrize("name", sorted(INTERNAL))
def test_a_removed_setting_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "audiopixel.toml").write_text(f"{name} = 1\n")
    with pytest.raises(SettingsError, match=rf"^audiopixel.toml:1: {name}: no such setting"):
        load()
    (tmp_path / "audiopixel.toml").unlink()
    monkeypatch.setenv(f"AUDIOPIXEL_{name.upper()}", "1")
    with pytest.raises(SettingsError, match=rf"^no such setting: AUDIOPIXEL_{name.upper()}"):
        load()


def test_the_operators_page_lists_everyday_settings() -> None:
    listed = (DOCS / "operations.md").read_text().partition("### The everyday ones")[2].partition("\n## ")[0]
    names = re.findall(r"^\| `AUDIOPIXEL_(\w+)`", listed, re.M)
    everyday = {name.lower() for name in names}
    assert len(names) == len(everyday) > 20
    assert everyday | {*TUNING} <= {*SETTABLE}
    assert {*NEEDED} <= everyday
    assert not everyday & {*TUNING}


def test_config_shows_its_groups_on_a_terminal() -> None:
    headings = [group.heading for group in groups()]
    assert len(headings) == len({*headings})
    assert headings[0] == "Needed"
    assert {name for group in groups() for name in group.names} == {*SETTABLE}


def test_a_host_of_clicks_is_found_however_it_is_written() -> None:
    assert load(collect_click_hosts=("Shop.Example",)).collect_click_hosts == ("shop.example",)


def test_an_unknown_name_in_a_file_is_reported_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "audiopixel.toml").write_text("nosuch = 1\n")
    with pytest.raises(SettingsError, match=r"^audiopixel.toml:1: nosuch: no such setting; without it"):
        load()
    (tmp_path / "audiopixel.toml").write_text("flush_intrval = 1\n")
    with pytest.raises(
        SettingsError, match=r"^audiopixel.toml:1: flush_intrval: .* \(did you mean flush_interval\?\)"
    ):
        load()


@pytest.mark.parametrize("name", ["AUDIOPIXEL_UTM_PLACEMENTS", "audiopixel_utm_placements"])
def test_a_table_of_the_environment_replaces_the_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = '[collect_signing_keys]\nold = "sixteen bytes or more"\n[utm_placements]\na = "A"\nb = "B"\n'
    (tmp_path / "audiopixel.toml").write_text(tables)
    monkeypatch.setenv("AUDIOPIXEL_COLLECT_SIGNING_KEYS", '{"new": "sixteen bytes or more"}')
    monkeypatch.setenv(name, '{"b": "C"}')
    settings = load()
    assert list(settings.collect_signing_keys) == ["new"]
    assert settings.utm_placements == {"b": "C"}


def test_no_refusal_is_left_in_the_words_of_pydantic(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []
    for name in Settings.model_fields:
        with monkeypatch.context() as patched:
            patched.setenv(f"AUDIOPIXEL_{name.upper()}", "-nonsense, all of it-")
            try:
                load()
            except SettingsError as error:
                refused.append(str(error))
    assert len(refused) > 30
    assert [line for line in refused if PYDANTIC.search(line)] == []


def test_a_variable_in_lower_case_counts_and_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("audiopixel_kafka_topic", "other")
    assert load().kafka_topic == "other"
    assert source("kafka_topic") == "the environment"
    monkeypatch.setenv("audiopixel_nosuch", "other")
    with pytest.raises(SettingsError, match="no such setting: audiopixel_nosuch"):
        load()


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}/{SECRET}@host",
        f"redis:user:{SECRET}@host",
        f"redis://:{SECRET}#{SECRET}@host",
        f"redis://user:{SECRET}?{SECRET}@host:6379",
        f"user:{SECRET}",
        f"http://user:{SECRET}@host",
        "",
    ],
)
def test_a_malformed_url_is_not_shown(url: str) -> None:
    done = shown(AUDIOPIXEL_REDIS_URL=url)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert re.search(r"^AUDIOPIXEL_REDIS_URL +\(malformed, not shown\) ", done.stdout, re.M)


def test_config_shows_only_that_secrets_are_set() -> None:
    done = shown(
        AUDIOPIXEL_REDIS_URL=f"rediss://user:{SECRET}@host:6380/2",
        AUDIOPIXEL_LISTENER_KEY=f"redis://{SECRET * 3}",
        AUDIOPIXEL_KAFKA_OPTIONS=f'{{"sasl.password": "{SECRET}"}}',
    )
    assert SECRET not in done.stdout + done.stderr
    for name, value in (
        ("REDIS_URL", "rediss://host:6380/2"),
        ("LISTENER_KEY", "(set, not shown)"),
        ("KAFKA_OPTIONS", "sasl.password=…"),
    ):
        assert re.search(rf"^AUDIOPIXEL_{name} +{re.escape(value)} +the environment ", done.stdout, re.M)


def test_config_prints_one_greppable_line_per_setting() -> None:
    done = shown(COLUMNS="80")
    names = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert names == [f"AUDIOPIXEL_{name.upper()}" for group in groups() for name in group.names]
    assert sorted(names) == sorted(f"AUDIOPIXEL_{name.upper()}" for name in SETTABLE)


def config(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {**os.environ, **environment}
    return run_command("config", *arguments, directory=Path.cwd(), environment=known, into=Path.cwd())


def test_config_shows_required_and_changed_settings() -> None:
    head, *rows, empty, rest = config(AUDIOPIXEL_FLUSH_INTERVAL="2").stdout.splitlines()
    assert head.split() == ["setting", "value", "from", "takes", "meaning"]
    assert [row.split()[0].removeprefix("AUDIOPIXEL_") for row in rows] == [
        *("KAFKA_BROKERS", "REDIS_URL", "LISTENER_KEY"),
        "FLUSH_INTERVAL",
    ]
    assert empty == ""
    assert rest.startswith(f"{len(SETTABLE) - 4} more settings have their default: ")


def test_config_shows_the_settings_with_a_part_of_their_name() -> None:
    rows = config("collect_tokens").stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["AUDIOPIXEL_COLLECT_TOKENS"]
    unknown = config("KAFKA_BORKERS")
    assert unknown.returncode == 2
    assert "no setting has KAFKA_BORKERS in its name (did you mean KAFKA_BROKERS?)" in unknown.stderr


def test_the_example_of_config_sets_every_default_once_uncommented(tmp_path: Path) -> None:
    text = config("--example").stdout
    settings = [line[2:] for line in text.splitlines() if re.match(r"# [a-z_0-9]+ = ", line)]
    assert sorted(line.split(" = ")[0] for line in settings) == sorted(SETTABLE)
    (tmp_path / "audiopixel.toml").write_text("\n".join(line for line in settings if "…" not in line))
    assert load() == Settings()


def test_every_value_shown_by_config_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load(utm_placements={"spring": "breakfast"}, plans="kafka:plans", redis_timeout=0.25)
    for name in SETTABLE:
        value = written(name, getattr(before, name))
        if value != "–":
            monkeypatch.setenv(f"AUDIOPIXEL_{name.upper()}", value)
    assert load() == before
    assert written("allowed_lateness", before.allowed_lateness) == "PT10M"


def test_the_example_of_the_docs_is_a_file_of_settings(tmp_path: Path) -> None:
    text = (DOCS / "operations.md").read_text().partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "audiopixel.toml").write_text(text)
    settings = load()
    assert set(tomllib.loads(text)) <= settings.model_fields_set
    assert str(settings.plans) == "kafka:audio-plans"


def choices(name: str) -> list[str]:
    """The words among the values that a setting takes: alternatives that are the value itself."""
    said = takes(Settings.model_fields[name])
    described = {"epoch ms", "path", "kafka:TOPIC, or unset", "archive:DIR or archive:URL"}
    listed = [] if said[0] in "{[" or " | " not in said else said.split(" | ")
    return [one for one in listed if one not in described]


CHOICES = [(name, value) for name in SETTABLE for value in choices(name)]


@pytest.mark.parametrize(("name", "value"), CHOICES)
def test_every_choice_that_config_shows_is_accepted(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AUDIOPIXEL_{name.upper()}", value)
    assert str(getattr(load(), name)).lower() == value


def test_settings_with_a_choice_are_among_them() -> None:
    assert {name for name, _ in CHOICES} >= {"kafka_on_lost", "kafka_start", "consent", "attribution"}
    assert ("kafka_on_lost", "skip") not in CHOICES


def test_every_value_named_by_a_description_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"consent", "1d"}  # of a pixel, of a row
    named = [
        (name, value)
        for name, field in Settings.model_fields.items()
        for value in re.findall("`([^`]+)`", field.description or "")
        if value not in fields
    ]
    assert len(named) > 5
    for name, value in named:
        with monkeypatch.context() as patched:
            patched.setenv(f"AUDIOPIXEL_{name.upper()}", value)
            load()


def test_a_meaning_names_values_in_backquotes_alone() -> None:
    for name, field in Settings.model_fields.items():
        bare = re.sub("`[^`]+`", "", field.description or "")
        assert not [value for value in choices(name) if re.search(rf"\b{re.escape(value)}\b", bare)], name


SAID = [
    (path.relative_to(DOCS.parent), name, value.strip("'.,;:"))
    for folder in (
        "README.md",
        "CONTRIBUTING.md",
        "docs",
        "flows",
        "connectors",
        "docker-compose.yml",
        "Dockerfile",
    )
    for path in sorted([DOCS.parent / folder, *(DOCS.parent / folder).rglob("*")])
    if path.suffix in (".md", ".py", ".yml") or path.name == "Dockerfile"
    for name, value in re.findall(r"AUDIOPIXEL_([A-Z_]+)=([^\s`)\"…]+)", path.read_text())
]


def test_every_setting_in_the_documents_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {name for _, name, _ in SAID} >= {"CONSENT", "PLANS", "COLLECT_PLACEMENTS"}
    for _, name, value in SAID:
        if "{" in value:
            continue
        with monkeypatch.context() as patched:
            patched.setenv(f"AUDIOPIXEL_{name}", value)
            load()


def test_config_shows_each_settings_type_and_bounds() -> None:
    said = {name: takes(field) for name, field in Settings.model_fields.items()}
    assert said["kafka_on_lost"] == "stop | earliest | latest"
    assert said["consent"] == "required | assumed"
    assert said["click_window"] == "duration, at least P1D, at most P60D"
    assert said["metrics_port"] == "whole number, at least 0, at most 65535"
    assert said["under"] == "number, above 0"
    assert said["utm_placements"] == "{text: text}"
    assert said["recovery_dir"] == "path, or unset"
    assert re.search(r"^setting +value +from +takes +meaning$", shown().stdout, re.M)


def test_the_number_of_shards_defaults_to_the_recovery_stores(tmp_path: Path) -> None:
    def shown_shards(**environment: str) -> list[str]:
        table = shown(**environment).stdout
        found = re.search(r"^AUDIOPIXEL_SHARDS +(\d+) +(\S+(?: \S+)*) {2,}", table, re.M)
        assert found is not None
        return [*found.groups()]

    store = tmp_path / "recovery"
    lay_foundation(Settings(recovery_dir=store, shards=16), b"a listener key of the test")
    assert shown_shards() == ["16", "the recovery store"]
    assert shown_shards(AUDIOPIXEL_SHARDS="4") == ["4", "the environment"]
    (store / "foundation").write_text("torn")
    assert shown_shards() == ["8", "the default"]
