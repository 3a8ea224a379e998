"""The time of each stage: which stages a call passes, which calls are timed, and what the metric says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from collector_support import CONSENT, call, understanding, usual
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from store_support import World

from flows.collector.instruments import Instruments
from flows.collector.laps import UNTIMED, Laps
from flows.collector.ledger import Ledger
from flows.collector.stages import EVERY, STAGES, Stages


def test_a_pixel_passes_every_stage_once_in_their_order(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    ticks = count()
    laps = Laps(lambda stage, seconds: told.append((stage, seconds)), lambda: float(next(ticks)))
    understood = understanding().pixel(replace(call(usual()), laps=laps))

    async def keep() -> None:
        world = World(tmp_path)
        assert await world.store.keep([understood], world.lane.clock.now_ms())

    asyncio.run(keep())
    assert told == [(stage, 1.0) for stage in STAGES]


@pytest.mark.parametrize(
    ("parameters", "stages"),
    [("e=nothing&pl=a", STAGES[:6]), (f"e=start&pl=a&gdpr_consent={CONSENT}", STAGES[:6])],
)
def test_a_rejected_call_is_never_encoded(parameters: str, stages: tuple[str, ...]) -> None:
    told: list[str] = []
    laps = Laps(lambda stage, _: told.append(stage))
    understanding(placements="signed").pixel(replace(call(parameters), laps=laps))
    assert tuple(told) == stages


def test_the_events_of_one_call_are_not_timed() -> None:
    told: list[str] = []
    asked = replace(call(method="POST", path="/v1/events"), laps=Laps(lambda stage, _: told.append(stage)))
    raws = [{"event": "start", "placement_id": "a"}] * 3
    assert {one.laps for one in understanding().events(asked, raws)} == {UNTIMED}
    assert told == []


def test_one_call_in_64_is_timed() -> None:
    asked = count()
    stages = Stages(lambda: float(next(asked)))
    laps = [stages.begin() for _ in range(3 * EVERY)]
    for one in laps:
        one.end("parse")
    assert EVERY == 64
    assert sum(one is not UNTIMED for one in laps) == 3
    assert next(asked) == 6


def test_the_metric_has_each_stage_and_its_time() -> None:
    ticks = iter((0.0, 0.002))
    instruments = Instruments(Ledger())
    instruments.stages = Stages(lambda: next(ticks))
    instruments.stages.begin().end("consent")
    registry = CollectorRegistry()
    registry.register(instruments)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    samples = {
        (one.name.rpartition("_")[2], one.labels["stage"], one.labels.get("le", "")): one.value
        for family in families
        if family.name == "audiopixel_collect_stage_seconds"
        for one in family.samples
    }
    assert {stage for _, stage, _ in samples} == set(STAGES)
    assert (samples["count", "consent", ""], samples["sum", "consent", ""]) == (1, 0.002)
    assert (samples["bucket", "consent", "0.001"], samples["bucket", "consent", "0.003"]) == (0, 1)
    assert samples["count", "durable", ""] == 0
