"""The oracle and flights that had begun before anything was counted, with opening balances and without."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.reconcile import compare, recompute
from flows.reconcile.fields import DELIVERY, OPENING
from flows.reconcile.truth import Recomputation
from flows.replay import replay
from flows.settings.fields import Settings

T0, KEY = 1_764_000_000_000, b"a key of sixteen bytes or more"  # a full minute
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
MINUTES = 150


def iso(ms: float) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


def plan(name: str, until_ms: int | None = None, **more: Any) -> dict[str, Any]:
    """A plan of 28 days, of which 20 are over as the log begins. Four impressions a minute are to come."""
    found = {
        "placement_id": name,
        "booked": 4 * 28 * 1440,
        "campaign_id": f"c-{name}",
        "start": iso(T0 - 20 * DAY_MS),
        "end": iso(T0 + 8 * DAY_MS),
        "cpm": 10,
        "currency": "GBP",
    }
    if until_ms is not None:
        found["delivered_before_until"] = iso(until_ms)
    return found | more


BEFORE = 4 * 20 * 1440
PLANS = {
    "none": ("unknown_before", plan("none")),
    "whole": ("under", plan("whole", start=iso(T0 - 900_000))),
    "too-young": ("unknown_before", plan("too-young", start=iso(T0 - DAY_MS))),
    "balance": ("on_track", plan("balance", T0, delivered_before=BEFORE, delivered_before_source="theirs")),
    "behind": ("on_track", plan("behind", T0 + HOUR_MS, delivered_before=BEFORE + 240)),
    "within": ("unknown_before", plan("within", T0 + HOUR_MS + 1, delivered_before=BEFORE)),
    "gap": ("on_track", plan("gap", T0 - 4 * HOUR_MS, delivered_before=BEFORE)),
    "long-gap": ("unknown_before", plan("long-gap", T0 - 6 * HOUR_MS, delivered_before=BEFORE)),
    "nothing": ("under", plan("nothing", delivered_before=0)),
    "little": ("under", plan("little", T0, delivered_before=BEFORE // 2)),
    "much": ("over", plan("much", T0, delivered_before=BEFORE * 6 // 5)),
    "alone": ("complete", plan("alone", booked=599)),
    "ended": ("ended_unknown", plan("ended", end=iso(T0 + HOUR_MS))),
    "short": ("ended_short", plan("short", T0, end=iso(T0 + HOUR_MS), delivered_before=5)),
    "mixed": ("unknown_before", plan("mixed", campaign_id="c-balance")),
}
"""By placement: the state in the end, and the plan."""


@pytest.fixture
def read(settings_of: Callable[..., Settings], tmp_path: Path) -> tuple[Settings, Recomputation]:
    """A replay of four impressions a minute of each placement, a conversion, and the truth."""
    log, plans = tmp_path / "log.ndjson", tmp_path / "plans.json"
    lines = []
    for minute in range(MINUTES):
        for name in PLANS:
            at = {"placement_id": name, "campaign_id": PLANS[name][1]["campaign_id"]}
            for number in range(4):
                ts = T0 + minute * 60_000 + number * 15_000
                id_ = f"{name}-{minute}-{number}"
                lines.append(at | {"event_id": id_, "event": "impression", "ts": ts, "received_at": ts})
            if minute == 40:
                bought = {"type": "purchase", "order_id": name, "value": "2", "currency": "GBP"}
                pixel = at | {"event_id": f"b-{name}", "event": "conversion", "ts": ts, "received_at": ts}
                lines.append(pixel | {"conversion": bought})
    lines.sort(key=lambda line: line["ts"])
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plans.write_text(json.dumps([of for _, of in PLANS.values()]))
    settings = settings_of(plans=plans)
    replay([str(log)], settings, KEY)
    return settings, recompute([log], rules(settings))


def test_a_replay_of_flights_begun_earlier_reconciles(
    read: tuple[Settings, Recomputation], client: Client
) -> None:
    settings, truth = read
    assert compare(truth, client, settings.namespace).differences == []
    rows = {name: client.hgetall(f"{settings.namespace}:placement:{{{name}}}") for name in PLANS}
    assert {name: row["delivery.state"] for name, row in rows.items()} == {
        name: state for name, (state, _) in PLANS.items()
    }
    known = {name: row.get("delivery.delivered") for name, row in rows.items()}
    counted = 4 * MINUTES
    assert known["balance"] == str(BEFORE + counted)
    assert known["behind"] == str(BEFORE + 240 + counted - 240)
    assert known["gap"] == str(BEFORE + counted)
    assert rows["gap"]["delivery.gap_ms"] == str(4 * HOUR_MS)
    assert rows["balance"]["flight.cost"] == str((BEFORE + counted) / 100).removesuffix(".0")
    assert rows["balance"]["flight.cost_per_acquisition"] == "6"  # 600 impressions at 10 a thousand
    assert rows["none"]["flight.impressions"] == str(counted)
    reasons = {name: row.get("delivery.unknown_reason") for name, row in rows.items()}
    assert {name for name, why in reasons.items() if why == "no_balance"} == {
        *("none", "too-young", "alone", "ended", "mixed")
    }
    assert (reasons["within"], reasons["long-gap"]) == ("until", "gap")
    campaign = client.hgetall(f"{settings.namespace}:campaign:{{c-balance}}")
    assert campaign["delivery.state"] == "unknown_before"
    assert campaign["delivery.delivered_before"] == str(BEFORE)
    assert "delivery.delivered" not in campaign
    assert client.xlen(f"{settings.namespace}:alerts") == sum(
        state not in ("unknown_before", "ended_unknown") for state, _ in PLANS.values()
    )


@pytest.mark.parametrize("name", ["none", "balance", "behind", "long-gap", "ended"])
def test_each_field_of_such_a_row_is_compared(
    read: tuple[Settings, Recomputation], client: Client, name: str
) -> None:
    settings, truth = read
    key = f"{settings.namespace}:placement:{{{name}}}"
    right = client.hgetall(key)
    for field in (*DELIVERY, *OPENING, "flight.cost", "flight.cost_per_acquisition"):
        if field in ("delivery.alerted_state", "delivery.projected"):
            continue
        client.hset(key, field, "77")
        told = {one.metric for one in compare(truth, client, settings.namespace).differences}
        assert field in told, field
        client.hset(key, mapping=right) if field in right else client.hdel(key, field)
    assert compare(truth, client, settings.namespace).differences == []
    client.hset(f"{settings.namespace}:meta", "counted_since_ms", str(T0 + 1))
    assert ("counted_since_ms", str(T0)) in {
        (one.metric, one.expected) for one in compare(truth, client, settings.namespace).differences
    }
