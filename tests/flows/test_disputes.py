"""A thousand disputed days: each part of the waterfall is what the simulator drew for it, to the unit."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from disputes_support import Dispute, Disputes

from connectors.redis import put_fields, read_rows
from connectors.redis.client import Client
from flows.collector.call import Outcome, Understood
from flows.collector.refusals import TTL, Refusals, by_day
from flows.delivery import read_book
from flows.model.redis_keys import door_key, row_key
from flows.replay import replay
from flows.settings import Settings
from flows.waterfall import Difference, compare, read_claims

CASES = 1_000
DAY = date(2026, 10, 25)
"""A day of 25 hours in London."""
ZONE = ZoneInfo("Europe/London")
KEY = "sixteen bytes !!"


def plans(path: Path, cases: list[Dispute]) -> Path:
    moment = lambda ms: datetime.fromtimestamp(ms / 1000, UTC).isoformat()  # noqa: E731  # used twice, here
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["placement_id", "campaign_id", "booked", "start", "end", "tolerance"])
        for case in cases:
            if case.plan is not None:
                writer.writerow([case.placement, "spring", 10, *map(moment, case.plan), 0.5])
    return path


def report_file(path: Path, cases: list[Dispute]) -> Path:
    rows = [
        {
            "placement_id": case.placement,
            "day": DAY.isoformat(),
            case.metric: case.publisher_count,
            "excludes": sorted(case.excludes),
            "basis": case.basis,
            "window": case.window,
        }
        for case in cases
    ]
    path.write_text(json.dumps(rows))
    return path


def publish_refusals(client: Client, settings: Settings, disputes: Disputes) -> None:
    """Publish the refusals that a collector counts."""
    refusals = Refusals(settings.zone)
    for start in range(0, len(disputes.refused), 500):
        for one in disputes.refused[start : start + 500]:
            event = {"event": one.event, "placement_id": one.placement, "ts": one.ts_ms}
            event["received_at"] = one.received_ms
            refusals.count([Understood(Outcome.REJECTED, one.reason, event=event)])
        told = refusals.take()
        names = list(told.without_row)
        rows = read_rows(client, [row_key(settings.namespace, "placement", name) for name in names], ["rev"])
        with_row = {name for name, row in zip(names, rows, strict=True) if row}
        assert with_row == set(names)
        counts = told.with_row | told.without_row
        fields = {
            door_key(settings.namespace, name, day): {
                f"{what}/c1/1": str(count) for what, count in of.items()
            }
            for name, days in counts.items()
            for day, of in by_day(days).items()
        }
        put_fields(client, fields, TTL)
        refusals.written(told, with_row)


@pytest.fixture(scope="module")
def disputes() -> Disputes:
    return Disputes(20261125, CASES, DAY, ZONE)


@pytest.mark.parametrize("workers", [1, 2])
def test_each_part_of_a_thousand_disputes_is_the_known_truth(
    workers: int,
    disputes: Disputes,
    settings_of: Callable[..., Settings],
    client: Client,
    tmp_path: Path,
) -> None:
    settings = settings_of(plans=plans(tmp_path / "plans.csv", disputes.cases), timezone=str(ZONE))
    log = tmp_path / "log.ndjson"
    log.write_bytes(b"\n".join(disputes.lines) + b"\n")
    replay([str(log)], settings, KEY.encode(), workers=workers)
    publish_refusals(client, settings, disputes)
    claims = read_claims(report_file(tmp_path / "theirs.json", disputes.cases))
    rows = compare(client, settings.namespace, ZONE, read_book(settings), claims)
    wrong = [
        (case, row) for case, row in zip(disputes.cases, rows, strict=True) if truth(case) != row_parts(row)
    ]
    assert wrong[:3] == []
    assert sum(not row.unexplained for row in rows) >= CASES // 2
    assert {row.counted for row in rows} == {"impressions", "deliveries", "deliveries_calendar"}
    assert {part.kind for row in rows for part in row.parts if part.impressions} == {
        *("repeated", "invalid_traffic", "too_late", "unsigned", "rejected", "orphans"),
        *("clock_moved", "outside_flight", "other_basis", "unkeyed", "same_client"),
    }


def truth(case: Dispute) -> dict[str, Any]:
    counts = {"ours": case.flow_count, "theirs": case.publisher_count, "unexplained": case.unexplained}
    return counts | {
        name: count for name, count in case.parts.items() if count and not case.is_excluded(name)
    }


def row_parts(row: Difference) -> dict[str, Any]:
    parts = {part.name: part.impressions for part in row.parts if part.impressions}
    return {"ours": row.ours, "theirs": row.theirs, "unexplained": row.unexplained} | parts
