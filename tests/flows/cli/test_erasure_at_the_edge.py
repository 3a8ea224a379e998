"""`forget` and `explain` know somebody by what the caller knew: an id of a device, an address."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors.redis import Client
from flows.cli.commands import app
from flows.model.redis_keys import deny_key
from flows.settings import Settings
from flows.state.people import People

LISTENER_KEY, EDGE, BEFORE = (
    "a key of sixteen bytes or more",
    "the key of today, 16 b",
    "the key of before, 16 b",
)
AGENT = "Mozilla/5.0 (iPhone)"


@pytest.fixture
def settings(settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = settings_of(listener_key=LISTENER_KEY)
    for name, value in {
        "REDIS_URL": settings.redis_url.get_secret_value(),
        "NAMESPACE": settings.namespace,
        "LISTENER_KEY": LISTENER_KEY,
        "COLLECT_KEY": EDGE,
        "COLLECT_PREVIOUS_KEYS": f'["{BEFORE}"]',
    }.items():
        monkeypatch.setenv(f"AUDIOPIXEL_{name}", value)
    return settings


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def test_an_address_is_forgotten_by_all_keys_and_explain_says_so(settings: Settings, client: Client) -> None:
    told = run("explain", "--listener", "81.2.69.142", "--user-agent", AGENT).stdout.splitlines()
    fields = [line.split()[0] for line in told]
    assert fields == ["household_id", "household_id", "client_id", "client_id"]
    assert all(line.endswith(" not forgotten") for line in told)
    assert run("forget", "81.2.69.142", "--user-agent", AGENT).exit_code == 0
    again = run("explain", "--listener", "81.2.69.142", "--user-agent", AGENT).stdout.splitlines()
    assert again == [line.replace(" not forgotten", " forgotten") for line in told]
    hashed = People(LISTENER_KEY.encode())
    key_of = {"household_id": hashed.household, "client_id": hashed.listener}
    wanted = {f"{key_of[field](made.encode()):016x}" for field, made, *_ in map(str.split, told)}
    assert wanted < set(client.hkeys(deny_key(settings.namespace)))


def test_a_device_is_known_by_its_id_by_every_key(settings: Settings) -> None:
    told = run("explain", "--listener", "7f3c9a52-0000-4000-8000-000000000001").stdout.splitlines()
    assert [line.split()[0] for line in told] == ["listener_id"] * 2
    assert len({line.split()[1].partition(".")[0] for line in told}) == 2  # the keys' own ids


def test_a_conversion_or_a_listener_is_named_and_not_both(settings: Settings) -> None:
    for arguments in ((), ("order-1", "--listener", "x")):
        refused = run("explain", *arguments)
        assert refused.exit_code != 0
