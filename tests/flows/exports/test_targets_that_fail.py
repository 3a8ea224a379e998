"""Every export against a target that is killed away from, hangs, answers 500 or 429, or takes a call late."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
from command_support import Command
from export_support import NOW_MS, Site, Topic, alert_of, fill, letters_of, put_campaign

from connectors.redis.client import Client
from flows.exports import RUNS
from flows.model.catalogue.exports import NAMES
from flows.settings import Settings

SECRET = "0123456789abcdef01234567"
SIGNED = {"AUDIOPIXEL_EXPORT_WEBHOOK_SECRETS": f'["{SECRET}"]'}
ANALYTICS = {"AUDIOPIXEL_LISTENER_KEY": "sixteen bytes ok", "AUDIOPIXEL_EXPORT_CONNECTIONS": "2"}
KILLED_AT = (1, 10)
HUNG_UP, LATE = "hung up", "late"
TROUBLE: dict[int, str | tuple[int, dict[str, str]]] = {
    2: (500, {}),
    4: HUNG_UP,
    6: (429, {"retry-after": "0"}),
    8: LATE,
    9: (302, {"location": "/"}),
}
"""By the number of a call; with `HUNG_UP` and `LATE` the target has taken what it does not acknowledge."""
TIMEOUT_S = 0.5

Call = tuple[Mapping[str, str], bytes]


@dataclass(frozen=True)
class Export:
    """A kind of export.

    Args:
        told: its settings, given the target's address.
        events: of a call: each event's key, and all that a repeat has to repeat.
        count: of the events that are to arrive.
    """

    told: Callable[[str], dict[str, str]]
    events: Callable[[Call], dict[str, Any]]
    count: int


def _google(call: Call) -> dict[str, Any]:
    said = json.loads(call[1])
    return {one["params"]["event_key"]: (said["client_id"], one) for one in said["events"]}


def _adobe(call: Call) -> dict[str, Any]:
    key = ElementTree.fromstring(call[1]).findtext("contextData/audio.key")
    assert key is not None
    return {key: call[1]}


def _slack(call: Call) -> dict[str, Any]:
    return {json.loads(call[1])["blocks"][1]["block_id"]: call[1]}


def _webhook(call: Call) -> dict[str, Any]:
    return {call[0]["webhook-id"]: call[1]}


def _adcp(call: Call) -> dict[str, Any]:
    assert json.loads(call[1])["idempotency_key"] == call[0]["webhook-id"]
    return _webhook(call)


EXPORTS = {
    "ga4": Export(
        lambda url: (
            ANALYTICS
            | {
                "AUDIOPIXEL_EXPORT_GA4_URL": url.partition("?")[0],
                "AUDIOPIXEL_EXPORT_GA4_MEASUREMENT_ID": "G-12345",
                "AUDIOPIXEL_EXPORT_GA4_SECRET": "s3cret",
            }
        ),
        _google,
        12 + 12 + 5,
    ),
    "adobe": Export(
        lambda url: (
            ANALYTICS | {"AUDIOPIXEL_EXPORT_ADOBE_URL": url, "AUDIOPIXEL_EXPORT_ADOBE_SUITE": "suite"}
        ),
        _adobe,
        12 + 12 + 5,
    ),
    "webhook": Export(lambda url: SIGNED | {"AUDIOPIXEL_EXPORT_WEBHOOK": url}, _webhook, 12),
    "slack": Export(lambda url: {"AUDIOPIXEL_EXPORT_SLACK": url}, _slack, 12),
    "adcp": Export(lambda url: SIGNED | {"AUDIOPIXEL_EXPORT_ADCP": url}, _adcp, 8),
}


def test_each_export_of_the_catalogue_is_tested() -> None:
    assert list(RUNS) == list(NAMES)
    assert {*EXPORTS} == {*NAMES} - {"parquet"}


class Failing:
    """The answers of a target that fails in every way; at `KILLED_AT` it answers when the caller is dead."""

    def __init__(self) -> None:
        self.met: set[str] = set()
        self.held = {number: threading.Event() for number in KILLED_AT}
        self.killed = {number: threading.Event() for number in KILLED_AT}

    def __call__(self, number: int) -> tuple[int, dict[str, str]] | None:
        if number in KILLED_AT:
            self.held[number].set()
            self.killed[number].wait(60)
        trouble = TROUBLE.get(number, (200, dict[str, str]()))
        if isinstance(trouble, tuple):
            self.met.add(str(trouble[0]))
            return trouble
        self.met.add(trouble)
        if trouble == HUNG_UP:
            return None
        time.sleep(2 * TIMEOUT_S)
        return 200, {}


@pytest.mark.parametrize("kind", EXPORTS)
def test_each_event_arrives_with_one_key_whatever_fails_or_is_killed(
    kind: str,
    settings: Settings,
    client: Client,
    topic: Topic,
    export: Callable[..., Command],
    site: Callable[..., Site],
    example: ModuleType,
) -> None:
    fill(topic, settings)
    for number in range(12):
        topic.put(settings.kafka_alerts_topic, alert_of(f"placement-{number}", number), partition=number % 2)
    for number in range(8):
        put_campaign(client, settings.namespace, NOW_MS, name=f"campaign-{number}")
    one, failing = EXPORTS[kind], Failing()
    target = site(failing)
    told = one.told(target.url) | {"AUDIOPIXEL_EXPORT_TIMEOUT": str(TIMEOUT_S)}
    for number in KILLED_AT:
        process = export(kind, "--from", "earliest", **told)
        assert failing.held[number].wait(60)
        process.kill()
        process.wait(10)
        failing.killed[number].set()
    assert export(kind, "--from", "earliest", "--once", **told).wait(120) == 0
    assert failing.met == {"200", "500", HUNG_UP, "429", LATE, "302"}
    arrived: dict[str, Any] = {}
    repeats = 0
    for call in target.taken:
        for key, event in one.events(call).items():
            assert arrived.setdefault(key, event) == event, "a repeat is the same event"
            repeats += 1
        if "webhook-id" in call[0]:
            assert example.verified(SECRET.encode(), call[0], call[1], time.time())
    assert len(arrived) == one.count
    assert repeats >= one.count + 3, "what was taken unacknowledged came again: hung up, late, killed"
    assert b"secret" not in b"".join(body for _, body in target.calls), "without consent"
    if one.count == 12:
        texts = [event.decode() for event in arrived.values()]
        order = [next(n for n in reversed(range(12)) if f"placement-{n}" in text) for text in texts]
        assert [n for n in order if n % 2] == [1, 3, 5, 7, 9, 11]
        assert [n for n in order if not n % 2] == [0, 2, 4, 6, 8, 10]
    assert letters_of(settings) == []
