"""The publisher by itself: the indexes and who leaves them, and rows that are paced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from connectors.redis import Client, RedisUnavailable
from flows import rows
from flows.clock import Cut
from flows.delivery import Thresholds
from flows.numbers import Delivered
from flows.pacing import Pacer, plan_file
from flows.planfiles import parse_plans
from flows.publish import LAYOUTS, TRIM_EVERY_S, Flush, Publisher
from flows.settings import Settings, ms

NOW_S = 1_764_000_000.0
DAY_S = 86_400
PLAN = "placement_id,booked,start,end,campaign_id\nquiet,1000,2025-01-01T00:00Z,2026-01-01T00:00Z,autumn\n"
BOOKED = parse_plans(PLAN.encode(), Path("plans.csv"))[0]["quiet"]


@dataclass
class Desk:
    """A publisher of one execution, whose wall clock is turned by hand."""

    settings: Settings
    client: Client
    now_s: float = NOW_S
    number: int = 0

    def __post_init__(self) -> None:
        file, known = plan_file(self.settings), self.settings
        assert file is not None
        pacer = Pacer(file, Thresholds(known.under, known.over, known.delivery_grace))
        self.publisher = Publisher(known, ["log"], False, pacer=pacer, clock_s=lambda: self.now_s)
        self.publisher.open()

    def flush(
        self, *names: str, scope: str = "placement", last_event_s: float = 0.0, impressions: int = 0
    ) -> None:
        """Some rows, with their last event so long before now."""
        self.number += 1
        latest_ms = int((self.now_s - last_event_s) * 1000)
        values = rows.empty(latest_ms)
        values[rows.FIELDS.index("flight.impressions")] = impressions
        packed = LAYOUTS["row"].pack(values)
        counted = Delivered(*BOOKED.minutes, impressions)
        some = [rows.Row(scope, name, latest_ms, packed, counted) for name in names]
        cut = Cut(self.number, int(self.now_s * 1000), False, (("log", self.number),))
        self.publisher.flush(cut, [Flush(0, cut, some)])

    def index(self, scope: str = "placement") -> set[str]:
        """Who is in the index."""
        key = f"{self.settings.namespace}:index:{scope}"
        return {str(name) for name in self.client.zrange(key, 0, -1)}

    def row(self, scope: str, name: str) -> dict[str, str]:
        """What a reader sees of a row that must not expire."""
        key = f"{self.settings.namespace}:{scope}:{{{name}}}"
        assert self.client.pttl(key) == -1
        found: dict[str, str] = self.client.hgetall(key)
        return found

    def expire(self, name: str) -> None:
        """What its TTL would do to a row, by now."""
        key = f"{self.settings.namespace}:placement:{{{name}}}"
        assert 0 < self.client.pttl(key) <= ms(self.settings.row_ttl)
        self.client.delete(key)


@pytest.fixture
def desk(settings_of: Callable[..., Settings], client: Client, tmp_path: Path) -> Iterator[Desk]:
    plans = tmp_path / "plans.csv"
    plans.write_text(PLAN)
    desk = Desk(settings_of(plans=plans), client)
    yield desk
    desk.publisher.close()


def test_who_has_expired_leaves_the_index_and_what_is_planned_or_there_never_does(desk: Desk) -> None:
    desk.flush("expired", "there", "again")
    assert desk.index() == {"expired", "there", "again", "quiet"}
    desk.now_s += 3 * DAY_S
    desk.expire("expired")
    desk.expire("again")
    desk.flush("again")
    assert desk.index() == {"there", "again", "quiet"}
    assert desk.index("campaign") == {"autumn"}


def test_the_indexes_are_looked_at_once_an_hour(desk: Desk) -> None:
    desk.flush("a", "b", last_event_s=3 * DAY_S)
    for name, before, after in (("a", {"a", "b"}, {"b"}), ("b", {"b"}, set())):
        desk.expire(name)
        desk.now_s += TRIM_EVERY_S - 1
        desk.flush()
        assert desk.index() == {"quiet", *before}
        desk.now_s += 1
        desk.flush()
        assert desk.index() == {"quiet", *after}


def test_an_index_that_cannot_be_trimmed_stops_no_flush(desk: Desk) -> None:
    desk.client.set(f"{desk.settings.namespace}:index:station", "no index")
    desk.now_s += TRIM_EVERY_S
    desk.flush("a")
    desk.flush("b")
    assert desk.index() == {"a", "b", "quiet"}


def test_a_campaign_that_changes_by_a_placement_without_a_plan_stays_paced(desk: Desk) -> None:
    desk.flush()
    before = desk.row("campaign", "autumn")
    desk.flush("autumn", scope="campaign", impressions=7)
    after = desk.row("campaign", "autumn")
    assert (before["flight.impressions"], after["flight.impressions"]) == ("0", "7")
    assert after["delivery.state"] == before["delivery.state"] == "under"


def test_planned_rows_keep_their_numbers_when_redis_fails_at_the_first_flush(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> Any:
        raise RedisUnavailable("connection", "gone for a moment")

    with monkeypatch.context() as patched:
        patched.setattr("flows.publish.read_rows", down)
        desk.flush("quiet", impressions=7)
    desk.now_s += 60
    desk.flush()
    assert desk.row("placement", "quiet")["flight.impressions"] == "7"


def test_planned_rows_keep_their_numbers_while_a_resumed_flow_catches_up(desk: Desk) -> None:
    for _ in range(3):
        desk.flush("quiet", impressions=7)
    again = Desk(desk.settings, desk.client)
    again.flush("quiet", impressions=7)  # every row is given out at the first cut, behind what readers have
    again.flush()
    assert desk.row("placement", "quiet")["fence"] == "1"
    again.flush()
    row = desk.row("placement", "quiet")
    assert (row["fence"], row["flight.impressions"]) == ("2", "7")
    again.publisher.close()
