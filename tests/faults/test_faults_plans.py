"""A running flow whose plans are a topic: plans that come before and after its start, go, and are wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Producer
from faults_support import Flow, World, eventually


def plan(name: str, **more: Any) -> str:
    """A flight that began a moment before it is counted, and is late already."""
    now = datetime.now(UTC)
    times = {
        "start": (now - timedelta(minutes=10)).isoformat(),
        "end": (now + timedelta(hours=2)).isoformat(),
    }
    return json.dumps({"placement_id": name, "booked": 100_000, **times, **more})


class Planned:
    """A world with a topic of plans."""

    def __init__(self, world: World) -> None:
        self.world, self.topic = world, f"{world.topic}-plans"
        assert world.create is not None
        for topic in (self.topic, f"{world.topic}-alerts"):
            world.create(topic, 1)
        world.settings |= {
            "PLANS": f"kafka:{self.topic}",
            "KAFKA_ALERTS_TOPIC": f"{world.topic}-alerts",
            "DELIVERY_GRACE": "0",
        }

    def put(self, key: str, value: str | None) -> None:
        producer = Producer({"bootstrap.servers": self.world.brokers, "log_level": 0})
        producer.produce(self.topic, value, key)
        assert producer.flush(10) == 0

    def becomes(self, flow: Flow, placement: str, state: str | None) -> None:
        eventually(
            lambda: self.world.row(placement).get("delivery.state") == state,
            20,
            lambda: f"{placement}: {self.world.row(placement).get('delivery.state')}\n{flow.said()}",
        )


@pytest.fixture
def planned(world: World) -> Planned:
    return Planned(world)


@pytest.mark.parametrize("arguments", [(), ("--processes", "2")])
def test_published_pacing_follows_the_topic_of_plans(planned: Planned, arguments: tuple[str, ...]) -> None:
    world = planned.world
    planned.put("p", plan("p", campaign_id="c"))
    flow = world.start(*arguments)
    world.send(200)
    world.shown(flow)
    planned.becomes(flow, "p", "under")
    assert world.row()["delivery.booked"] == "100000"

    planned.put("q", plan("q"))
    planned.put("p", plan("p", campaign_id="c", booked=100))
    planned.becomes(flow, "q", "under")
    planned.becomes(flow, "p", "complete")

    planned.put("p", plan("p", booked="many"))
    eventually(lambda: "plan not taken" in flow.said(), otherwise=flow.said)
    planned.put("q", None)
    planned.becomes(flow, "q", None)
    with world.client() as client:
        assert client.ttl(f"{world.topic}:v1:placement:{{q}}") > 0  # nothing keeps its row any longer
    assert world.row("p")["delivery.state"] == "complete"
    (told,) = [line for line in flow.said().splitlines() if "plan not taken" in line]
    assert f"{planned.topic}/0, offset 3: p: booked: takes impressions" in told

    planned.put("p", None)
    planned.becomes(flow, "p", None)
    assert world.row("p")["flight.impressions"] == "200"
    assert flow.stop() < 10


def test_a_restart_does_not_repeat_an_alert(planned: Planned) -> None:
    world = planned.world
    planned.put("p", plan("p"))
    flow = world.start()
    world.send(100)
    planned.becomes(flow, "p", "under")
    flow.stop()
    again = world.start()
    world.send(100)
    world.shown(again)
    with world.client() as client:
        alerts = client.xrange(f"{world.topic}:v1:alerts")
    assert [(fields["from"], fields["to"]) for _, fields in alerts] == [("not_started", "under")]
    again.stop()


def test_a_missing_topic_of_plans_is_one_line_at_the_start(planned: Planned) -> None:
    flow = planned.world.start(ready=False, PLANS="kafka:no-such-plans")

    assert flow.ended() == 1
    assert f"Kafka at {planned.world.brokers}, no-such-plans: " in flow.last()
    assert flow.last().endswith("or set AUDIOPIXEL_PLANS to another")
