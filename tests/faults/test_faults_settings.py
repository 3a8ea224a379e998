"""A setting that was changed between a stop and the next start: safe, or refused in one line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from faults_support import World, eventually

MINUTE_MS = 60_000
SAFE = [
    {
        "ALLOWED_LATENESS": "PT2M",
        "HORIZON": "PT5M",
        "CONVERSION_HORIZON": "P30D",
        "FLUSH_INTERVAL": "PT2S",
        "SAVE_INTERVAL": "PT2S",
        "OUT_OF_ORDERNESS": "PT40S",
        "QUIET": "PT1S",
        "MATURE_AFTER": "PT0S",
        "MINUTES_INTERVAL": "PT1S",
        "BATCH_MESSAGES": "7",
        "ATTRIBUTION": "linear",
        "CLICK_WINDOW": "P5D",
        "LISTEN_WINDOW": "P5D",
        "TOUCH_LISTENS": "3",
        "CONSENT": "assumed",
    },
    {
        "ALLOWED_LATENESS": "PT20M",
        "HORIZON": "PT2H",
        "CONVERSION_HORIZON": "P20D",
        "FLUSH_INTERVAL": "PT0.1S",
        "OUT_OF_ORDERNESS": "PT0S",
        "QUIET": "PT5M",
        "MATURE_AFTER": "PT10M",
        "INVALID_AGENTS": '{"probe": "prober/"}',
        "ATTRIBUTION": "time_decay",
        "HALF_LIFE": "PT1H",
        "CLICK_WINDOW": "P1D",
        "LISTEN_WINDOW": "P1D",
        "DECISIONS_TTL": "P1D",
        "ROW_TTL": "P3D",
        "KAFKA_START": "latest",
        "REJECT_LEAST": "1000000",
    },
    {
        "ALLOWED_LATENESS": "PT0S",
        "HORIZON": "PT1M",
        "CONVERSION_HORIZON": "P20D",
        "FLUSH_INTERVAL": "PT1S",
        "ATTRIBUTION": "off",
    },
]
"""One after the other on one store, each at its first start with a pixel behind all that is final."""


def test_safe_settings_change_at_restarts_without_loss(world: World) -> None:
    flow = world.start()
    counted = late = 0
    for change in SAFE:
        now_ms = int(time.time() * 1000)
        world.send(20)
        world.shown(flow)
        assert world.row()["flight.impressions"] == str(counted + 20)
        flow.stop()
        flow = world.start(ready=False, REJECT_SHARE="1", **change)
        world.send(4, ts_ms=now_ms - 90 * MINUTE_MS)
        world.send(10)
        world.shown(flow)
        counted, late = counted + 30, late + 4
        eventually(
            lambda counted=counted: world.row()["flight.impressions"] == str(counted),  # type: ignore[misc]  # a default binds it
            60,
            lambda: f"{world.row()}\n{flow.said()}",  # noqa: B023 (called at once)
        )
        assert world.ledger("rejected.too_late") == late
    flow.stop()


def test_a_final_minute_stays_final_under_a_longer_lateness(world: World) -> None:
    flow = world.start(ALLOWED_LATENESS="PT10S", HORIZON="PT5M", REJECT_SHARE="1")
    now_ms = int(time.time() * 1000)
    world.send(50, ts_ms=now_ms)
    world.send(2, ts_ms=now_ms + 59_000)  # both partitions: the minute before is final
    world.shown(flow)
    eventually(lambda: int(world.row()["final_through_ms"]) >= now_ms - MINUTE_MS, 60, flow.said)
    flow.stop()

    again = world.start(ready=False, ALLOWED_LATENESS="PT2M", HORIZON="PT5M", REJECT_SHARE="1")
    world.send(1, ts_ms=now_ms - 60_000)
    world.send(1, ts_ms=now_ms + 59_000)

    world.shown(again)
    assert world.ledger("rejected.too_late") == 1
    assert world.ledger("accepted") == 53
    again.stop()


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        (
            "LISTENER_KEY",
            "another secret by mistake",
            "another listener_key: set AUDIOPIXEL_LISTENER_KEY back",
        ),
        ("TIMEZONE", "Asia/Tokyo", "now timezone=Asia/Tokyo: set AUDIOPIXEL_TIMEZONE back"),
        ("CONVERSION_HORIZON", "P61D", "conversion_horizon was 60 days"),
        ("CLICK_WINDOW", "P31D", "click_window was 30 days"),
        ("LISTEN_WINDOW", "P15D", "listen_window was 14 days"),
    ],
)
def test_a_setting_that_the_state_cannot_follow_stops_with_what_to_do(
    stopped: World, store: Path, setting: str, value: str, told: str
) -> None:
    flow = stopped.start(ready=False, RECOVERY_DIR=str(store), **{setting: value})

    assert flow.ended() == 3
    assert told in flow.last()
    assert "the first secret" not in flow.said()
    assert value not in flow.last() or setting == "TIMEZONE"
