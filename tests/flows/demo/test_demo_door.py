"""The callers of the demo: what they say that their calls must count is what the door makes of them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from typing import cast

import pytest

from flows.collector.call import Call, Outcome, Understood
from flows.collector.dialects import load_dialects
from flows.collector.doors import Doors
from flows.collector.from_settings import signatures_of, understanding_of
from flows.collector.store import Store
from flows.demo.door import STORED
from flows.demo.plays import DIALECTS, HOSTS, Called, Scene
from flows.settings import load

SECRET = "a secret of the ad server"


class Kept:
    """A store that keeps all."""

    async def keep(self, understood: Sequence[Understood], received_ms: int) -> bool:
        return True


@pytest.fixture(scope="module")
def calls() -> list[tuple[Called, list[Understood]]]:
    """Some thousand calls, each with what the door makes of it."""
    token = {"sha256": sha256(SECRET.encode()).hexdigest(), "rights": ["write"]}
    settings = load(
        collect_key="a key of the edge for tests",
        collect_signing_keys={"a1": "a secret that signs tags"},
        collect_tokens={"adserver": token},
        collect_proxies=["127.0.0.0/8"],
        collect_servers=HOSTS,
    )
    understanding = understanding_of(settings)
    scene = Scene(load_dialects(None), signatures_of(settings), f"adserver.{SECRET}", 1)
    found, doors = [], Doors(understanding, cast(Store, Kept()))
    for _ in range(1_500):
        for _, called in scene.play():
            fire = called.fire
            path, _, query = fire.target.partition("?")
            headers = {name.lower(): value for name, value in fire.headers.items()}
            call = Call(fire.method, path, query, headers, fire.body, "127.0.0.1", called.event_ms)
            answer = asyncio.run(doors.answer(call))
            assert answer.status in STORED, called
            if path == "/v1/events":
                understood = understanding.events(call, [json.loads(one) for one in fire.body.splitlines()])
            else:
                understood = [understanding.pixel(call)]
            found.append((called, understood))
    return found


def test_each_call_becomes_its_expected_event(calls: list[tuple[Called, list[Understood]]]) -> None:
    for called, understood in calls:
        outcomes = Counter(one.outcome for one in understood)
        reasons = [one.reason for one in understood if one.outcome is Outcome.REJECTED]
        assert outcomes[Outcome.STORED] == len(called.truths), (called, understood)
        assert reasons == list(called.rejected), called
        assert [one.reason for one in understood if one.outcome is Outcome.NOT_COUNTED] == (
            [called.not_counted] if called.not_counted else []
        )


def test_consent_reach_and_robots_are_as_the_callers_say(
    calls: list[tuple[Called, list[Understood]]],
) -> None:
    checked = Counter[str]()
    for called, understood in calls:
        stored = [one.event for one in understood if one.outcome is Outcome.STORED]
        for truth, event in zip(called.truths, stored, strict=True):
            if truth.second_total == "conversions" or truth.outcome == "repeated":
                continue
            robot = truth.second_total == "invalid_traffic"
            assert ("invalid_traffic" in event) == robot, called
            checked["robots"] += robot
            if not robot:
                assert event["consent"] == (("consented", 1) in truth.counts), (called, event)
                checked["consent" if event["consent"] else "no consent"] += 1
            if truth.listener is not None:
                assert "listener_id" in event, called
                checked["reached"] += 1
            elif event["event"] in ("impression", "start") and not robot:
                assert "listener_id" not in event, (called, event)
    assert min(checked[name] for name in ("robots", "consent", "no consent", "reached")) > 50, checked


def test_the_callers_speak_all_the_dialects_and_every_trouble_happens(
    calls: list[tuple[Called, list[Understood]]],
) -> None:
    placements = Counter(
        one.event.get("placement_id") for _, understood in calls for one in understood if one.event
    )
    assert {f"door-{name}" for name in DIALECTS} <= set(placements)
    assert len(DIALECTS) >= 6
    stored = [one for _, understood in calls for one in understood if one.outcome is Outcome.STORED]
    consents = {one.consent for one in stored}
    assert {"given", "no_string", "purpose", "lmt", "opted_out"} <= consents
    assert any(one.unreplaced for one in stored)
    assert any(one.event.get("device_basis") == "claimed" for one in stored)
    assert "unverified_server" in {one.event.get("invalid_traffic") for one in stored}
    assert any(truth.outcome == "repeated" for called, _ in calls for truth in called.truths)
    rejected = {reason for called, _ in calls for reason in called.rejected}
    assert rejected == {"unsigned", "unknown_event"}
    assert {called.not_counted for called, _ in calls} == {"", "head", "prefetch"}
