"""`forget` and `explain` know somebody by what the caller knew: an id of a device, an address."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from collector_support import call, understanding, usual
from erasure_support import confirming
from typer.testing import CliRunner

from connectors.redis import Client
from flows.cli.commands import app
from flows.collector.pseudonyms import Pseudonyms
from flows.model.redis_keys import collector_keys_key, deny_key
from flows.settings import Settings
from flows.state.people import People

LISTENER_KEY, EDGE, BEFORE = (
    "a key of sixteen bytes or more",
    "the key of today, 16 b",
    "the key of before, 16 b",
)
AGENT = "Mozilla/5.0 (iPhone)"


@pytest.fixture
def settings(settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    settings = settings_of(listener_key=LISTENER_KEY)
    for name, value in {
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "NAMESPACE": settings.namespace,
        "LISTENER_KEY": LISTENER_KEY,
        "COLLECT_KEY": EDGE,
        "COLLECT_PREVIOUS_KEYS": f'["{BEFORE}"]',
    }.items():
        monkeypatch.setenv(f"AUDIOPIXEL_{name}", value)
    with confirming(settings, LISTENER_KEY):
        yield settings


def run(*arguments: str, lines: str | None = None) -> Any:
    return CliRunner().invoke(app, arguments, input=lines)


def test_an_address_is_forgotten_by_all_keys_and_explain_says_so(settings: Settings, client: Client) -> None:
    told = run("explain", "--listener", "81.2.69.142", "--user-agent", AGENT).stdout.splitlines()
    fields = [line.split()[0] for line in told]
    assert fields == [*["listener_id"] * 2, *["household_id"] * 2, *["client_id"] * 2]
    assert all(line.endswith(" not forgotten") for line in told)
    assert run("forget", "81.2.69.142", "--user-agent", AGENT).exit_code == 0
    again = run("explain", "--listener", "81.2.69.142", "--user-agent", AGENT).stdout.splitlines()
    assert again == [line.replace(" not forgotten", " forgotten") for line in told]
    hashed = People(LISTENER_KEY.encode())
    key_of = dict.fromkeys(fields, hashed.listener) | {"household_id": hashed.household}
    wanted = {f"{key_of[field](made.encode()):016x}" for field, made, *_ in map(str.split, told)}
    assert wanted < set(client.hkeys(deny_key(settings.namespace)))


@pytest.mark.parametrize("known", ["81.2.69.142", "81.2.69.142:ab12", "0", "00-0"])
def test_forget_reads_ids_like_the_door(settings: Settings, client: Client, known: str) -> None:
    pixel = understanding(placements="any", pseudonyms=Pseudonyms(EDGE.encode())).pixel(call(usual(l=known)))
    made = pixel.event["listener_id"]
    assert f"listener_id {made} not forgotten" in run("explain", "--listener", known).stdout
    assert run("forget", known).exit_code == 0
    key = f"{People(LISTENER_KEY.encode()).listener(made.encode()):016x}"
    assert key in client.hkeys(deny_key(settings.namespace))
    assert f"listener_id {made} forgotten" in run("explain", "--listener", known).stdout


def test_an_id_beginning_like_an_address_forgets_no_household(settings: Settings) -> None:
    assert run("forget", "81.2.69.142:ab12").exit_code == 0
    home = [
        line for line in run("explain", "--listener", "81.2.69.142").stdout.splitlines() if "house" in line
    ]
    assert len(home) == 2
    assert all(line.endswith(" not forgotten") for line in home)
    assert "household_id" in run("explain", "--listener", "81.2.69.142:4431").stdout  # a port


def test_without_the_edges_key_an_address_is_refused(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUDIOPIXEL_COLLECT_KEY")
    monkeypatch.delenv("AUDIOPIXEL_COLLECT_PREVIOUS_KEYS")
    refused = run("forget", "listener-1", "81.2.69.142:443")
    assert refused.exit_code == 2
    assert "'81.2.69.142:443' is an address, and AUDIOPIXEL_COLLECT_KEY is not set" in refused.stderr
    assert client.hkeys(deny_key(settings.namespace)) == []
    assert run("forget", "listener-1").exit_code == 0, "no collector has a key here"
    (key_id, *_) = Pseudonyms(EDGE.encode()).key_ids
    client.hset(collector_keys_key(settings.namespace), key_id, int(time.time() * 1000))
    told = run("forget", "listener-1")
    assert told.exit_code == 1
    assert f"by 1 key unknown here ({key_id}): set AUDIOPIXEL_COLLECT_KEY" in told.stderr
    assert run("forget", "--household", "7f.home").exit_code == 0
    for known in ("listener-1", "81.2.69.142"):
        asked = run("explain", "--listener", known)
        assert (asked.exit_code, "AUDIOPIXEL_COLLECT_KEY is not set" in asked.stderr) == (2, True)


def test_explain_reports_values_refused_as_ids_by_the_door(settings: Settings) -> None:
    asked = run("explain", "--listener", "00000000-0000-0000-0000-000000000000")
    assert asked.exit_code == 1
    assert "the collector accepts no such id" in asked.stderr


def test_a_device_is_known_by_its_id_by_every_key(settings: Settings) -> None:
    told = run("explain", "--listener", "7f3c9a52-0000-4000-8000-000000000001").stdout.splitlines()
    assert [line.split()[0] for line in told] == ["listener_id"] * 2
    assert len({line.split()[1].partition(".")[0] for line in told}) == 2  # the keys' own ids


def test_a_conversion_or_a_listener_is_named_and_not_both(settings: Settings) -> None:
    for arguments in ((), ("order-1", "--listener", "x")):
        refused = run("explain", *arguments)
        assert refused.exit_code != 0
