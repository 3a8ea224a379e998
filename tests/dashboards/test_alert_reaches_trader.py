"""Prometheus, Alertmanager and the exporter as they run: an alert goes all the way, or is silenced."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_support import HOST, Site, alertmanager, eventually, exporter, prometheus, scrape
from redis import Redis

from connectors.embedded import EmbeddedValkey
from dashboards.routing import alertmanager as routing
from dashboards.rules import FLOW_JOB, PLACEMENTS_JOB
from dashboards.site import Site as Choices
from flows.instruments import instruments

pytestmark = pytest.mark.debian

STARVED = {
    "campaign_id": "spring",
    "platform": "web",
    "station": "st-1",
    "flight.impressions": "6100",
    "delivery.delivered": "6000",
    "delivery.state": "under",
    "delivery.judged": "1",
    "delivery.booked": "40000",
    "delivery.expected": "9000",
    "delivery.indicator": "0.666667",
    "delivery.projected": "26000",
    "delivery.required_rate": "340",
    "delivery.short_by": "3000",
    "delivery.since_ms": "1764079320000",
    "delivery.end_ms": "1764288000000",
    "delivery.cpm": "12.5",
    "delivery.at_stake": "37.5",
    "delivery.at_stake_end": "175",
    "delivery.currency": "GBP",
}
FINE = {**STARVED, "delivery.state": "on_track", "delivery.indicator": "1.01"}


@contextmanager
def fresh(valkey: EmbeddedValkey) -> Iterator[None]:
    """Stand in for the flow's flushes: `meta` says every half second that the numbers are of now."""
    done = threading.Event()

    def flush() -> None:
        with Redis.from_url(valkey.url) as redis:
            while not done.wait(0.5):
                now_ms = int(time.time() * 1000)
                redis.hset(
                    "audiopixel:v1:meta",
                    mapping={"flushed_ms": now_ms, "watermark_ms": now_ms - 10_000, "judged": 1},
                )

    thread = threading.Thread(target=flush)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_under_delivery_arrives_at_a_webhook_with_campaign_and_placement(tmp_path: Path) -> None:
    second = timedelta(seconds=1)
    flow = Site(lambda method, path: (200, generate_latest(instruments().registry)))
    hook = Site(lambda method, path: (200, b"{}"))
    with ExitStack() as stack:
        valkey = stack.enter_context(EmbeddedValkey())
        with Redis.from_url(valkey.url) as redis:
            for name, row in {"starved": STARVED, "fine": FINE}.items():
                redis.hset(f"audiopixel:v1:placement:{{{name}}}", mapping=row)
                redis.zadd("audiopixel:v1:index:placement", {name: 1})
        stack.enter_context(fresh(valkey))
        port = stack.enter_context(exporter(valkey.url, tmp_path))
        for site in (flow, hook):
            stack.enter_context(site)
        config = routing(f"{hook.url}/hook", group_wait=timedelta(0), group_interval=second)
        manager = stack.enter_context(alertmanager(tmp_path, config))
        (tmp_path / "rules.yml").write_text(Choices(sustained=timedelta(0)).rules)
        stack.enter_context(
            prometheus(
                tmp_path,
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(tmp_path / "rules.yml")],
                    "scrape_configs": [
                        scrape(FLOW_JOB, flow.port),
                        scrape(PLACEMENTS_JOB, port, "/metrics/placements"),
                    ],
                    "alerting": {
                        "alertmanagers": [
                            {"static_configs": [{"targets": [f"{HOST}:{manager.base_url.port}"]}]}
                        ]
                    },
                },
            )
        )
        path, message = eventually(lambda: hook.posted[0] if hook.posted else None, seconds=60) or ("", {})
    assert path == "/hook"
    assert message["receiver"] == "traders"
    assert message["status"] == "firing"
    (alert,) = message["alerts"]
    assert alert["labels"] == {
        "alertname": "AudiopixelUnderDelivery",
        "area": "delivery",
        "severity": "warning",
        "campaign": "spring",
        "placement": "starved",
    }
    assert alert["annotations"]["summary"] == (
        "starved of campaign spring has delivered 66.7 % of what is due, 3k impressions short"
    )
    assert alert["annotations"]["description"] == (
        "Delivered: 6k of 9k impressions due by now, of 40k booked. Short by 3k impressions, worth "
        "37.50 GBP. Since Tue 25 Nov 14:02 UTC. The flight ends Fri 28 Nov 00:00 UTC. At the last hour's "
        "rate it ends with 26k impressions, 175.00 GBP at stake. It now needs 340 impressions an hour. "
        "Latest platform: web. Latest station: st-1."
    )
    assert {body["groupLabels"]["alertname"] for _, body in hook.posted} == {"AudiopixelUnderDelivery"}


def new_alert(name: str, area: str, **labels: str) -> dict[str, Any]:
    return {
        "labels": {"alertname": name, "area": area, **labels},
        "startsAt": datetime.now(UTC).isoformat(),
    }


@pytest.mark.parametrize(
    ("blinding", "area"),
    [("AudiopixelPipelineStalled", "pipeline"), ("AudiopixelDeliveryNotJudged", "delivery")],
)
def test_unjudged_delivery_is_silenced_and_brand_safety_never(
    tmp_path: Path, blinding: str, area: str
) -> None:
    with alertmanager(tmp_path, routing()) as manager:
        posted = [
            new_alert("AudiopixelUnderDelivery", "delivery", placement="a"),
            new_alert("AudiopixelUnderDelivery", "delivery", placement="b"),
            new_alert("AudiopixelNotDelivering", "delivery", placement="a"),
            new_alert("AudiopixelBrandSafetyBreach", "safety", placement="a"),
        ]

        def silenced() -> dict[tuple[str, str], bool]:
            found = manager.get("/api/v2/alerts").raise_for_status().json()
            return {
                (alert["labels"]["alertname"], alert["labels"].get("placement", "")): bool(
                    alert["status"]["inhibitedBy"]
                )
                for alert in found
            }

        manager.post("/api/v2/alerts", json=posted).raise_for_status()
        assert eventually(lambda: len(silenced()) == 4)
        assert {name for name, is_silent in silenced().items() if is_silent} == {
            ("AudiopixelUnderDelivery", "a")
        }, "nothing delivered says all that under-delivery would"
        why = [new_alert(blinding, area), new_alert("AudiopixelDeliveryNotJudged", "delivery")]
        manager.post("/api/v2/alerts", json=why).raise_for_status()
        assert eventually(lambda: silenced().get(("AudiopixelUnderDelivery", "b")))
        assert {name for name, is_silent in silenced().items() if not is_silent} == {
            ("AudiopixelBrandSafetyBreach", "a"),
            ("AudiopixelDeliveryNotJudged", ""),
            (blinding, ""),
        }
