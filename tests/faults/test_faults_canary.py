"""Canaries: addresses, user agents, ids and consent strings enter at the door and leave no trace after it."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from command_support import Command
from confluent_kafka import Consumer, TopicPartition
from faults_support import ROOT, World, eventually, in_memory

from connectors.embedded import EmbeddedBroker, EmbeddedValkey
from connectors.ports import free_run

SECRET = "canary-secret-of-a-caller"
CONSENT = "CQtDjkAQtDjkAAfAAAENCWFgAIKAAAAAAAwIAEEkAAAAAAAA.IAEEkAAA.YAAAAAAAAAAA"
"""Purposes 1, 7 and 9; vendors 2, 5 and 8."""
ADDRESS, AGENT, OTHER = "81.2.69.142", "CanaryPlayer/7.3 (kitchen)", "2a02:c7c:c0de:1::77"
DEVICE, LISTENER = "CA9A4141-03EE-455A-B3C4-E57283966239", "canary-listener-5150"
CANARIES = (
    *(ADDRESS, "81.2.69", OTHER, "2a02:c7c:c0de", AGENT, "CanaryPlayer", DEVICE, LISTENER, SECRET, CONSENT),
    *("canary@example.org", "canary-hashed-email", "canary-cookie", "canary-session", "canary-ga"),
)
"""`canary-ga` is Google's id, which may stand in the topic with a consenting conversion, and nowhere else."""
PLACEMENT, CAMPAIGN = "kitchen-radio", "autumn"


class Door:
    """A collector as its own process."""

    def __init__(self, world: World) -> None:
        self.port, self.health = free_run(1), free_run(1)
        self.log, self.spool = world.directory / "collector.log", world.directory / "spool"
        token = {"sha256": sha256(SECRET.encode()).hexdigest(), "rights": ["write", "debug"]}
        told = {
            **{
                name: value
                for name, value in world.settings.items()
                if name.startswith(("KAFKA", "REDIS", "NAMESPACE"))
            },
            "COLLECT_PORT": str(self.port),
            "COLLECT_HEALTH_PORT": str(self.health),
            "COLLECT_SPOOL": str(self.spool),
            "COLLECT_KEY": "a key of the edge for canaries",
            "COLLECT_PLACEMENTS": "any",
            "COLLECT_VENDOR": "5",
            "COLLECT_DRAIN": "PT0S",
            "COLLECT_TOKENS": json.dumps({"host": token}),
        }
        known = {name: value for name, value in os.environ.items() if not name.startswith("AUDIOPIXEL_")}
        self.process = Command(
            "collect",
            directory=ROOT,
            environment={**known, **{f"AUDIOPIXEL_{name}": value for name, value in told.items()}},
            out=self.log,
        )

    def call(self, path: str, parameters: dict[str, str], body: Any = None, **headers: str) -> int:
        url = f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(parameters)}"
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            with _direct.open(urllib.request.Request(url, data, named), timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def id(self) -> str:
        return (self.spool / "0" / "id").read_text().split()[0]

    def page(self, name: str) -> str:
        with suppress(OSError), _direct.open(f"http://127.0.0.1:{self.health}/{name}", timeout=5) as answer:
            return str(answer.read().decode())
        return ""


class _Here(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_direct = urllib.request.build_opener(_Here)


@pytest.fixture
def own_world(tmp_path: Path) -> Iterator[World]:
    """With a broker of its own, since this one is paused."""
    with EmbeddedBroker() as broker, EmbeddedValkey({"dir": str(tmp_path), "save": ""}) as redis:
        world = in_memory(broker, redis, tmp_path)
        world.broker = broker  # type: ignore[attr-defined]
        yield world
        world.close()


def traffic(door: Door, of: str) -> None:
    """Calls of every door and every outcome, each with every personal field."""
    raw = {
        "l": LISTENER, "ifa": DEVICE, "gdpr": "1", "gdpr_consent": CONSENT, "email": "canary@example.org",
        "hashed_email": "canary-hashed-email", "cookie": "canary-cookie", "sid": "canary-session",
    }  # fmt: skip
    usual = {"pl": PLACEMENT, "cm": CAMPAIGN, "p": f"play-{of}", **raw}
    server = {"Authorization": f"Bearer host.{SECRET}", "X-Device-IP": ADDRESS, "X-Device-User-Agent": AGENT}
    stranger = {
        "User-Agent": AGENT,
        "X-Device-IP": OTHER,
        "X-Forwarded-For": ADDRESS,
        "Referer": f"https://x/{OTHER}",
    }
    bought = {"e": "conversion", "ct": "purchase", "o": f"order-{of}", "v": "9.50", "cur": "GBP"}
    landed = {
        "u": f"https://shop.example/?mail=canary@example.org&utm_content={PLACEMENT}&sid=canary-session"
    }
    for headers in (server, stranger):
        for event in ("impression", "start", "midpoint", "complete"):
            assert door.call("/p/triton", usual | {"e": event, "ip": ADDRESS, "ua": AGENT}, **headers) == 200
        assert door.call("/p", usual | bought | landed | {"ga": "canary-ga"}, **headers) == 200
        assert door.call("/b/podscribe", {"action": "view", "device_id": DEVICE} | raw, **headers) == 200
        door.call("/c", usual | landed, **headers)  # leads nowhere: 400
    rejected = [usual | {"e": "creativeView"}, usual | {"e": "start", "pl": "x" * 129}, {"e": "start"} | raw]
    for parameters in rejected:
        assert door.call("/p", parameters, **stranger) == 200
    assert door.call("/p", {}, body=b'{"e": "canary-listener-5150', **stranger) == 200
    event = {"event": "start", "event_id": f"posted-{of}", "placement_id": PLACEMENT, "listener_id": LISTENER}
    event |= {"consent": True, "ip": OTHER, "user_agent": AGENT, "play_id": f"posted-{of}"}
    assert door.call("/v1/events", {}, body=[event], **server) == 200
    assert door.call("/v1/events", {}, body=[event], Authorization="Bearer host.canary-session") == 401
    assert door.call("/debug/p", usual | {"e": "start"}, **server) == 200


def messages(world: World) -> list[bytes]:
    """Everything that stands in the topics: values and keys."""
    consumer = Consumer(
        {"bootstrap.servers": world.brokers, "group.id": "canary", "enable.auto.commit": False}
    )
    found = []
    topics = [world.topic, *(f"{world.topic}-{name}" for name in ("rejected", "minutes", "credits"))]
    for topic in topics:
        for partition in consumer.list_topics(topic).topics[topic].partitions:
            place = TopicPartition(topic, partition, 0)
            _, end = consumer.get_watermark_offsets(place)
            consumer.assign([place])
            while consumer.position([place])[0].offset < end and (message := consumer.poll(5)) is not None:
                found += [message.value() or b"", message.key() or b""]
    consumer.close()
    return found


def rows(world: World) -> str:
    """Everything that stands in Redis."""
    found = []
    with world.client() as client:
        for key in client.scan_iter("*"):
            kind = client.type(key)
            value: Any = {
                "hash": lambda key: client.hgetall(key), "string": lambda key: client.get(key),
                "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
                "stream": lambda key: client.xrange(key), "set": lambda key: client.smembers(key),
            }[kind](key)  # fmt: skip
            found.append(f"{key} {value}")
    return "\n".join(found)


def leaked(what: str | bytes, apart: str = "") -> list[str]:
    """The canaries in something, in any case of letters, also as they stand in a URL."""
    text = (what.decode("latin-1") if isinstance(what, bytes) else what).lower()
    return [
        one
        for one in CANARIES
        if one != apart and (one.lower() in text or urllib.parse.quote(one, safe="").lower() in text)
    ]


def files(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_nothing_raw_is_found_behind_the_door(own_world: World) -> None:
    world = own_world
    door = Door(world)
    try:
        eventually(lambda: door.page("ready") == "ready\n", 30, lambda: door.log.read_text())
        traffic(door, "one")
        world.broker.pause()  # type: ignore[attr-defined]
        try:
            traffic(door, "two")
            resting = files(door.spool)
            assert any(PLACEMENT.encode() in content for content in resting.values())
            assert {
                name: bad for name, content in resting.items() if (bad := leaked(content, "canary-ga"))
            } == {}
        finally:
            world.broker.resume()  # type: ignore[attr-defined]
        eventually(
            lambda: "collect_resting_events 0.0" in door.page("metrics"), 30, lambda: door.log.read_text()
        )
        flow = world.start()
        eventually(lambda: world.row(PLACEMENT).get("flight.impressions") == "2", 30, flow.said)
        time.sleep(2)  # a snapshot, and a flush
        sent = messages(world)
        assert sum(b'"household_id"' in one for one in sent) > 4  # who consented is known, by pseudonyms
        assert [bad for one in sent if (bad := leaked(one, "canary-ga"))] == []
        assert any(b"canary-ga" in one for one in sent)
        shown = rows(world)
        assert PLACEMENT in shown
        assert f":collector:{{{door.id()}}}" in shown
        assert leaked(shown) == []
        with urllib.request.urlopen(f"http://127.0.0.1:{flow.port}/metrics", timeout=5) as answer:
            assert leaked(answer.read()) == []
        assert leaked(door.page("metrics")) == []
        assert flow.stop() < 30
        door.process.terminate()
        assert door.process.wait(30) == 0, door.log.read_text()
        recovered = files(world.directory / "recovery")
        assert any(PLACEMENT.encode() in content for content in recovered.values())
        kept = recovered | files(door.spool)
        assert {name: bad for name, content in kept.items() if (bad := leaked(content, "canary-ga"))} == {}
        assert leaked(door.log.read_text()) == []
        assert leaked(flow.said()) == []
    finally:
        door.process.kill()
        door.process.wait()
