"""The oracle and rows without delivered impressions, whose plans came too late for the flow to count."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.model.messages import Delivered
from flows.reconcile import compare, recompute, summary
from flows.reconcile.fields import DELIVERY, MONEY, WINDOWS
from flows.reconcile.truth import Recomputation
from flows.replay import replay
from flows.rows.flights import Flights
from flows.settings.fields import Settings

T0, KEY = 1_764_000_000_000, b"a key of sixteen bytes or more"  # a full minute
PLANS = [
    {
        "placement_id": name,
        "booked": 200,
        "campaign_id": campaign,
        "currency": "GBP",
        "start": "2025-11-24T15:50Z",
        "end": end,
        "timezone": "UTC",
        "cpm": 12.5,
        "target_completion_rate": 0.9,
    }
    for name, campaign, end in (
        ("late", "c", "2025-11-28T00:00Z"),
        ("known", "c", "2025-11-28T00:00Z"),
        ("over", "over", "2025-11-24T16:35Z"),
    )
]
PAUSED = {"placement_id": "paused", "campaign_id": "paused", "pauses": "2025-11-24T16:30Z/2025-11-25T12:00Z"}
LATE = ("late", "over", "paused")


@pytest.fixture
def late(
    settings_of: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Settings, Recomputation]:
    """A replay in which the plans of `LATE` came too late: what its rows then say, and the truth."""
    known = Flights.delivered

    def delivered(flights: Flights, row: int) -> Delivered:
        found = known(flights, row)
        return found if int(flights.columns.flight[row, 0]) == 5 else found._replace(impressions=None)

    monkeypatch.setattr(Flights, "delivered", delivered)
    log, plans = tmp_path / "log.ndjson", tmp_path / "plans.json"
    heard = [(name, n * 60_000) for n in range(40) for name in LATE]
    heard += [("known", n * 60_000) for n in range(5)]
    pixel, heard = {"event": "impression"}, sorted(heard, key=lambda one: one[1])
    lines = [pixel | {"event_id": f"{at}{ms}", "placement_id": at, "ts": T0 + ms} for at, ms in heard]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plans.write_text(json.dumps([*PLANS, PLANS[0] | PAUSED]))
    settings = settings_of(plans=plans)
    replay([str(log)], settings, KEY)
    return settings, recompute([log], rules(settings))


def test_a_late_plans_row_is_counted_without_a_difference(
    late: tuple[Settings, Recomputation], client: Client
) -> None:
    settings, truth = late
    found = compare(truth, client, settings.namespace)
    assert found.differences == []
    assert found.unknown_deliveries == len(LATE)
    assert "; 3 rows of late plans have no delivered impressions" in summary(found, truth)
    states = [client.hget(f"{settings.namespace}:placement:{{{name}}}", "delivery.state") for name in LATE]
    assert states == ["unknown_before", "ended_unknown", "paused"]


@pytest.mark.parametrize("row", ["placement:{late}", "campaign:{c}"])
def test_each_delivery_field_of_a_late_plans_row_is_compared(
    late: tuple[Settings, Recomputation], client: Client, row: str
) -> None:
    settings, truth = late
    key = f"{settings.namespace}:{row}"
    right = client.hgetall(key)
    assert "delivery.booked" in right
    assert "delivery.delivered" not in right
    for field in (*DELIVERY, *(f"{window}.{name}" for window in WINDOWS for name in MONEY)):
        if field in ("delivery.delivered", "delivery.alerted_state"):
            continue
        client.hset(key, field, "77")
        told = {one.metric for one in compare(truth, client, settings.namespace).differences}
        assert field in told, field
        client.hset(key, mapping=right) if field in right else client.hdel(key, field)
    assert compare(truth, client, settings.namespace).differences == []


def test_a_row_without_its_delivered_count_is_a_difference(
    late: tuple[Settings, Recomputation], client: Client
) -> None:
    settings, truth = late
    key = f"{settings.namespace}:placement:{{known}}"
    client.hdel(key, "delivery.delivered")
    found = compare(truth, client, settings.namespace).differences
    assert [(one.id, one.metric) for one in found] == [("known", "delivery.delivered")]
    client.hset(key, "delivery.unknown_reason", "late_plan")
    told = {(one.id, one.metric) for one in compare(truth, client, settings.namespace).differences}
    wrong = ("state", "indicator", "short_by", "required_rate")
    assert told >= {*(("known", f"delivery.{name}") for name in wrong), ("known", "flight.cost")}
