"""The description of methodology: of every metric, by the settings in force, and found again by its hash."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors.embedded import EmbeddedBroker
from connectors.redis import put_fields
from connectors.redis.client import Client
from flows.cli.commands import app
from flows.engine import tell_methodology
from flows.methodology import STRONGEST, methodology, published
from flows.model.basis import BASES
from flows.model.measures import MEASURES
from flows.settings import Settings, load

CHANGES: dict[str, Any] = {
    "allowed_lateness": timedelta(minutes=20),
    "out_of_orderness": timedelta(seconds=20),
    "horizon": timedelta(hours=1),
    "conversion_horizon": timedelta(days=50),
    "timezone": "Europe/Berlin",
    "consent": "assumed",
    "platform_basis": {"acast": "ad_delivered"},
    "invalid_agents": {"own_list": "curl"},
    "attribution": "linear",
    "click_window": timedelta(days=29),
    "listen_window": timedelta(days=13),
    "touch_listens": 63,
    "touch_clicks": 15,
    "touch_listens_in_all": 999,
    "touch_clicks_in_all": 249,
}
"""Settings that change a number, each with another value than its default."""


def test_each_published_metric_is_defined_exactly_once() -> None:
    names = [measure.name for measure in MEASURES]
    assert len(names) == len(set(names))
    assert set(names) == published()


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_that_changes_a_number_changes_the_words_and_their_hash(name: str) -> None:
    usual, other = methodology(load()), methodology(load(**{name: CHANGES[name]}))
    assert usual.hash != other.hash
    assert (usual.rules, usual.metrics) != (other.rules, other.metrics)


def test_the_order_of_bases_is_of_all_of_them() -> None:
    assert sorted(STRONGEST) == sorted(BASES)


def test_a_setting_that_changes_no_number_changes_no_hash() -> None:
    assert methodology(load()).hash == methodology(load(shards=4, metrics_port=0, namespace="x:v2")).hash


def test_the_half_life_is_told_where_it_counts() -> None:
    half = {"attribution": "time_decay", "half_life": timedelta(days=3)}
    described = methodology(load(**half)).of("1d.conversions")
    assert described is not None
    assert "half-life 3 d" in described["lookback"]


def test_an_expression_of_the_settings_is_named_by_its_hash_and_not_shown() -> None:
    said = methodology(load(invalid_agents={"own_list": "secret-vendor"})).rules["invalid_traffic"]
    assert "own_list: an expression of the settings, hash " in said
    assert "secret-vendor" not in said


def test_a_metric_is_found_with_and_without_its_window() -> None:
    described = methodology(load())
    assert described.of("reach") == described.of("flight.reach") == described.metrics["reach"]
    assert described.of("delivery.booked") is not None
    assert described.of("shoe") is None


def told(monkeypatch: pytest.MonkeyPatch, settings: Settings, *arguments: str) -> str:
    monkeypatch.setenv("AUDIOPIXEL_REDIS_URL", settings.redis_url.get_secret_value())
    monkeypatch.setenv("AUDIOPIXEL_NAMESPACE", settings.namespace)
    monkeypatch.setenv("AUDIOPIXEL_KAFKA_BROKERS", settings.kafka_brokers)
    found = CliRunner().invoke(app, ["methodology", *arguments])
    assert found.exit_code == 0, found.output
    return found.output


def test_the_command_tells_of_a_metric_of_a_placement_and_of_all(
    settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, here = settings_of(), methodology(load())
    row = {"flight.impressions": "7", "flight.reach": "3"}
    fields = {
        f"{settings.namespace}:placement:{{<b>}}": row,
        f"{settings.namespace}:meta": {"methodology": "0123456789abcdef"},
    }
    put_fields(client, fields, timedelta(minutes=5))
    assert "Exact up to 1,000" in told(monkeypatch, settings, "flight.reach")
    of_row = told(monkeypatch, settings, "<b>")
    assert "flight.impressions = 7" in of_row
    assert f"the settings here give {here.hash}" in of_row
    assert json.loads(told(monkeypatch, settings, "--json"))["hash"] == here.hash
    assert f"methodology {here.hash}" in told(monkeypatch, settings)


def test_a_text_is_found_by_its_hash_after_the_settings_have_changed(
    settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedBroker() as broker:
        broker.create_topic("methodology", 1)
        earlier = settings_of(kafka_brokers=broker.bootstrap, attribution="linear")
        for settings in (earlier, settings_of(kafka_brokers=broker.bootstrap)):
            tell_methodology(settings)
        text = told(monkeypatch, earlier, "--hash", methodology(earlier).hash, "--json")
        assert json.loads(text)["hash"] == methodology(earlier).hash
        assert "Credited by linear" in text


def test_a_flow_without_the_topic_says_so_and_goes_on(
    settings_of: Callable[..., Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedBroker() as broker:
        tell_methodology(settings_of(kafka_brokers=broker.bootstrap, kafka_methodology_topic="missing"))
    said = capsys.readouterr()
    assert "the methodology is kept nowhere" in said.out + said.err
