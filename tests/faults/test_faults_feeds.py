"""A running flow one of whose producers stops: its feed is named, its rows wait, and it comes back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from faults_support import World, eventually

from connectors.embedded import EmbeddedBroker
from connectors.kafka.writer import KafkaWriter


class Producer:
    """A platform's server, which writes to one partition until it is stopped."""

    def __init__(self, world: World, name: str, partition: int) -> None:
        self._world, self._name, self._partition = world, name, partition
        self._sending, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._sending.set()
        self._thread.start()

    def _run(self) -> None:
        writer, number = KafkaWriter(self._world.brokers, self._world.topic), 0
        while not self._closing.wait(0.2):
            if not self._sending.is_set():
                continue
            now_ms = int(time.time() * 1000)
            for _ in range(20):
                number += 1
                pixel = {"event_id": f"{self._name}-{number}", "event": "impression", "ts": now_ms}
                pixel |= {"placement_id": f"pl-{self._name}", "platform": self._name}
                writer.send(self._partition, b"", json.dumps(pixel).encode(), now_ms)
            writer.flush()
        writer.close()

    def stop(self) -> None:
        self._sending.clear()

    def go_on(self) -> None:
        self._sending.set()

    def close(self) -> None:
        self._closing.set()
        self._thread.join(20)


class Market:
    """Two producers of a flow, each with a placement whose flight has just begun, in one campaign."""

    def __init__(self, world: World, plans: Path) -> None:
        self.world, self._plans = world, plans
        self._start = datetime.now(UTC)
        self.plan(a=1_000, b=1_000)
        assert world.create is not None
        world.create(f"{world.topic}-alerts", 1)
        world.settings |= {
            "PLANS": str(plans),
            "KAFKA_ALERTS_TOPIC": f"{world.topic}-alerts",
            "DELIVERY_GRACE": "PT0S",
            "STATE_HOLD": "PT0S",
            "SILENT_AFTER": "PT6S",
            "SILENT_HISTORY": "PT6S",
        }
        self.flow = world.start()
        self.a, self.b = Producer(world, "a", 0), Producer(world, "b", 1)

    def plan(self, **booked_an_hour: int) -> None:
        """Plans that book so much an hour, for a thousand hours."""
        end = self._start + timedelta(hours=1_000)
        times = {"start": self._start.isoformat(), "end": end.isoformat(), "campaign_id": "c"}
        price = {"cpm": "10.00", "currency": "GBP"}
        plans = [
            {"placement_id": f"pl-{name}", "booked": 1_000 * booked, **times, **price}
            for name, booked in booked_an_hour.items()
        ]
        self._plans.write_text(json.dumps(plans))

    @property
    def silent(self) -> dict[str, Any]:
        with self.world.client() as client:
            found: dict[str, Any] = json.loads(client.hget(f"{self.world.topic}:v1:meta", "silent") or "{}")
            return found

    def alerts(self) -> list[dict[str, str]]:
        with self.world.client() as client:
            return [entry for _, entry in client.xrange(f"{self.world.topic}:v1:alerts")]

    def becomes(self, holds: Any, what: str) -> None:
        eventually(holds, 150, lambda: f"{what}: {self.silent} {self.alerts()}\n{self.flow.said()}")

    def close(self) -> None:
        self.a.close()
        self.b.close()


@pytest.fixture
def market(world: World, tmp_path: Path) -> Iterator[Market]:
    market = Market(world, tmp_path / "plans.json")
    yield market
    market.close()


def judged(world: World, name: str) -> dict[str, str]:
    row = world.row(name)
    return {
        of: row[f"delivery.{of}"]
        for of in ("judged", "unjudged_reason", "unjudged_by")
        if f"delivery.{of}" in row
    }


def states(market: Market) -> list[str]:
    """The states of its alerts, of the placement whose producer stops."""
    return [one["to"] for one in market.alerts() if one.get("placement") == "pl-a"]


def test_a_stopped_producer_is_named_until_it_returns(market: Market) -> None:
    world = market.world
    units = {f"partition:{world.topic}/0", "platform:a"}
    market.becomes(lambda: world.row("pl-a").get("delivery.state") == "over", "delivering")
    time.sleep(10)
    assert market.silent == {}
    told = states(market)
    market.a.stop()
    stopped_ms = time.time() * 1000
    market.becomes(lambda: market.silent.keys() == units, "named")
    assert time.time() * 1000 - stopped_ms < 20_000
    for unit in market.silent.values():
        assert abs(unit["since_ms"] - stopped_ms) < 2_000
        assert unit["placements"] == 1
        assert float(unit["money_per_hour"]["GBP"]) > 0
    market.becomes(lambda: judged(world, "pl-a").get("judged") == "0", "the row waits")
    assert judged(world, "pl-a")["unjudged_reason"] == "feed_silent"
    assert judged(world, "pl-a")["unjudged_by"] in units
    assert judged(world, "pl-b") == {"judged": "1"}
    with world.client() as client:
        assert client.hget(f"{world.topic}:v1:campaign:{{c}}", "delivery.judged") == "0"
    assert market.flow.metric("feed_silent_since_seconds", kind="platform", unit="a") > 1e9

    # The bookings grow so much that both placements fall short; the delivery of one is unknown.
    market.plan(a=10_000_000, b=10_000_000)
    market.becomes(lambda: world.row("pl-b").get("delivery.state") == "under", "the other is judged")
    assert world.row("pl-a")["delivery.state"] == "over"
    assert float(world.row("pl-a")["delivery.indicator"]) < 0.9
    market.flow.kill()
    market.flow = world.start()
    market.becomes(lambda: world.row("pl-a")["delivery.booked"] == "10000000000", "behind a crash")
    assert market.silent.keys() == units
    assert judged(world, "pl-a")["judged"] == "0"
    assert states(market) == told

    market.a.go_on()
    market.becomes(lambda: market.silent == {}, "back")
    market.becomes(lambda: world.row("pl-a").get("delivery.state") == "under", "judged again")
    assert judged(world, "pl-a") == {"judged": "1"}
    found = [one for one in market.alerts() if one.get("kind") == "feed"]
    assert len({one["id"] for one in found}) == len(found) == 4
    assert {(one["unit"], one["to"]) for one in found} == {
        (unit, to) for unit in units for to in ("silent", "live")
    }
    assert states(market) == [*told, "under"]


@pytest.mark.parametrize("which", ["the broker", "the flow"])
def test_a_paused_flow_or_broker_names_no_silent_feed(
    market: Market, broker: EmbeddedBroker, which: str
) -> None:
    world = market.world
    market.becomes(lambda: world.row("pl-a").get("delivery.state") == "over", "delivering")
    time.sleep(10)
    still: Any = broker if which == "the broker" else market.flow
    still.pause()
    try:
        time.sleep(12)
    finally:
        still.resume()
    until_s = time.monotonic() + 15
    while time.monotonic() < until_s:
        assert market.silent == {}
        time.sleep(0.2)
    market.becomes(lambda: world.meta("judged") == 1, "it goes on")
