"""The scenario of the first day: traffic and report are what the plans make due, at any time of day."""

from __future__ import annotations

import csv
import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from flows.delivery.plan_files import read_plans
from flows.model.flight import DAY_MS, MINUTE_MS
from flows.simulate import FirstDay, write_plans

MIDNIGHT_MS = round(datetime(2026, 11, 30, tzinfo=UTC).timestamp()) * 1000


@pytest.mark.parametrize("minute", [0, 1, 9 * 60 + 30, 23 * 60 + 59])
def test_every_flight_is_exactly_on_its_plan(minute: int, tmp_path: Path) -> None:
    start_ms = MIDNIGHT_MS + minute * MINUTE_MS
    day = FirstDay(1, start_ms)
    write_plans(tmp_path / "plans.csv", day.plans())
    book, problems = read_plans(tmp_path / "plans.csv")
    assert not problems
    assert len(book) == 5

    before, days = Counter[str](), dict[str, list[date]]()
    for row in day.report():
        before[row["placement_id"]] += row["impressions"]
        days.setdefault(row["placement_id"], []).append(date.fromisoformat(row["day"]))
    first = datetime.fromtimestamp((start_ms - 20 * DAY_MS) / 1000, UTC).date()
    wanted = [first + timedelta(days=number) for number in range(20 + bool(minute))]
    assert all(named == wanted for named in days.values())

    calls = [json.loads(line) for line in day.lines()]
    received = [call["received_at"] for call in calls]
    assert received == sorted(received)
    assert start_ms <= received[0]
    assert received[-1] < start_ms + 120 * MINUTE_MS
    assert len({call["event_id"] for call in calls}) == len(calls)
    delivered = before
    for call in calls:
        if call["event"] == "impression":
            plan = book[call["placement_id"]]
            delivered[plan.placement_id] += 1
            due, of = plan.flight.reached(call["ts"])
            ahead = delivered[plan.placement_id] - plan.booked * due / of
            assert 0 <= ahead <= 1.01, (plan.placement_id, call["ts"], ahead)  # ms are whole
    for name, plan in book.items():
        assert plan.end_ms - plan.start_ms == 28 * DAY_MS
        assert start_ms - plan.start_ms == 20 * DAY_MS
        due, of = plan.flight.reached(start_ms + 120 * MINUTE_MS)
        assert abs(delivered[name] - plan.booked * due / of) <= 1


def test_discrepancy_reads_the_report(tmp_path: Path) -> None:
    write_plans(tmp_path / "theirs.csv", FirstDay(1, MIDNIGHT_MS).report())
    with (tmp_path / "theirs.csv").open() as file:
        assert next(csv.reader(file)) == ["placement_id", "day", "impressions"]


def test_the_same_seed_makes_the_same_log() -> None:
    one, same, other = (list(FirstDay(seed, MIDNIGHT_MS).lines()) for seed in (1, 1, 2))
    assert one == same
    assert one != other
